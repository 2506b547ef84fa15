"""Each mount's part of a node's memory and bandwidth, so that together they do not overcommit it.

By itself every mount-s3 plans with 95 % of the memory and the whole network for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.versions import Version

# The least that mount-s3 works with, in MiB.
LEAST_MIB = 512
# Where nobody says more, mounts get half of the memory, or what Slurm leaves; if that is too little
# for the least that they need, up to this part of it.
_DEFAULT_PERCENT = 50
_MOST_PERCENT = 90
_TARGET_SINCE: Version = (1, 24)
_CGROUP_SINCE: Version = (1, 23)


@dataclass(frozen=True)
class Machine:
    """What there is to divide: memory in MiB, Slurm's RealMemory of the node in MiB if known."""

    memory: int
    slurm_memory: int | None = None


@dataclass(frozen=True)
class Share:
    """A mount's part: extra options for mount-s3, and the limit of its cgroup in MiB."""

    arguments: tuple[str, ...] = ()
    memory_max: int | None = None


def divide(
    mounts: Sequence[Mount],
    machine: Machine,
    version: Version,
    *,
    percent: int | None = None,
    gbps: int | None = None,
) -> dict[str, Share]:
    """The shares by mount id; options that a mount has itself win. Raises ``shares-impossible``."""
    if not mounts:
        return {}
    memory = _memory(mounts, machine, percent)
    total = sum(mount.weight for mount in mounts)
    shares = {}
    for mount in mounts:
        arguments, limit = _limits(mount, memory[mount.id], version)
        if gbps is not None and "maximum-throughput-gbps" not in mount.options:
            # Whole numbers only: a slow network is the same for all.
            part = max(1, gbps * mount.weight // total)
            arguments = (*arguments, f"--maximum-throughput-gbps={part}")
        shares[mount.id] = Share(arguments, limit)
    return shares


def _limits(mount: Mount, mib: int, version: Version) -> tuple[tuple[str, ...], int | None]:
    if "memory-target" in mount.options:
        return (), None
    if version >= _TARGET_SINCE:
        return (f"--memory-target={mib}",), mib * 5 // 4
    # 1.23 takes 95 % of its cgroup's limit for its target; older ones do not look at it.
    return (), (mib * 20 // 19 if version >= _CGROUP_SINCE else None)


def _budget(mounts: Sequence[Mount], machine: Machine, percent: int | None) -> int:
    """The MiB for all mounts together."""
    need = LEAST_MIB * len(mounts)
    if percent is not None:
        budget = machine.memory * percent // 100
        source = f"{percent} % of {machine.memory} MiB"
    else:
        budget = machine.memory * _DEFAULT_PERCENT // 100
        if machine.slurm_memory is not None:
            budget = min(budget, machine.memory - machine.slurm_memory)
        # Nobody asked for a limit: what fits into the machine at all is not refused.
        budget = max(budget, min(need, machine.memory * _MOST_PERCENT // 100))
        source = f"{_MOST_PERCENT} % of {machine.memory} MiB"
    if need > budget:
        raise AgentError(
            Problem.SHARES_IMPOSSIBLE,
            f"{len(mounts)} mounts need {len(mounts)} x {LEAST_MIB} = {need} MiB, "
            f"but may have {budget} MiB ({source})",
        )
    return budget


def _memory(mounts: Sequence[Mount], machine: Machine, percent: int | None) -> dict[str, int]:
    """MiB by mount id: by weight, but for nobody less than the least. Equal weights have equal
    shares, whoever else is there: the few MiB that remain are nobody's."""
    left = _budget(mounts, machine, percent)
    total = sum(mount.weight for mount in mounts)
    by_weight: dict[int, int] = {}
    # The light ones first: what they get too much, the others miss.
    for weight, count in sorted(Counter(mount.weight for mount in mounts).items()):
        by_weight[weight] = max(LEAST_MIB, left * weight // total)
        left -= by_weight[weight] * count
        total -= weight * count
    return {mount.id: by_weight[mount.weight] for mount in mounts}
