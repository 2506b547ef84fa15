"""Each mount's part of a node's memory and bandwidth, so that together they do not overcommit it.

By itself every mount-s3 plans with 95 % of the memory and the whole network for itself. From 1.24
on it can be told what to aim at (--memory-target); before that nothing tells it, and a limit of its
cgroup, which it does not see, kills it under the first reader of a large object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.options import LEAST_MIB
from s3mount_agent.core.versions import MEMORY_TARGET, Version

# Where nobody says more, mounts get half of the memory, or what Slurm leaves; if that is too little
# for a file to write for each core, up to half of it all the same.
_DEFAULT_PERCENT = 50
# What mount-s3 itself would plan with.
_WHOLE_PERCENT = 95


@dataclass(frozen=True)
class Machine:
    """What there is to divide: memory in MiB, Slurm's RealMemory of the node in MiB if known; and
    the number of its CPUs."""

    memory: int
    slurm_memory: int | None = None
    cpus: int = 1


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
    targets = _targets(mounts, machine, version, percent)
    total = sum(mount.weight for mount in mounts)
    shares = {}
    for mount in mounts:
        arguments, limit = _limits(mount, targets[mount.id], version)
        if gbps is not None and "maximum-throughput-gbps" not in mount.options:
            # Whole numbers only: a slow network is the same for all.
            part = max(1, gbps * mount.weight // total)
            arguments = (*arguments, f"--maximum-throughput-gbps={part}")
        shares[mount.id] = Share(arguments, limit)
    return shares


def net(target: int) -> int:
    """The limit of a cgroup in MiB that only a process gone astray will ever reach, whose target is
    so many MiB.

    A target is what mount-s3 aims at with its buffers, not what it takes: what it knows of files
    comes on top. With 512 MiB, 16 readers or 16 writers of large objects were seen to take 420.
    """
    return target + max(512, target // 2)


def _limits(mount: Mount, target: int, version: Version) -> tuple[tuple[str, ...], int | None]:
    if version < MEMORY_TARGET or "memory-target" in mount.options:
        return (), None
    return (f"--memory-target={target}",), net(target)


def _targets(
    mounts: Sequence[Mount], machine: Machine, version: Version, percent: int | None
) -> dict[str, int]:
    """The MiB of each mount by its id: by weight, but for nobody less than it can work with."""
    least = {mount.id: mount.options.buffers.target(files=1) for mount in mounts}
    if version >= MEMORY_TARGET:
        _require_room(mounts, machine, least)
    if percent is not None:
        budget = machine.memory * percent // 100
        if sum(least.values()) > budget:
            raise _impossible(least, budget, f"{percent} % of {machine.memory} MiB")
        return _by_weight(mounts, budget, least)
    half = budget = machine.memory * _DEFAULT_PERCENT // 100
    if machine.slurm_memory is not None:
        budget = min(budget, machine.memory - machine.slurm_memory)
    # Nobody asked for a limit, so nobody is refused: the least is what mount-s3 aims at, and on a
    # small node gentler than what it would aim at without being told.
    full = {mount.id: mount.options.buffers.target(files=machine.cpus) for mount in mounts}
    floors = full if sum(full.values()) <= half else least
    return _by_weight(mounts, max(budget, sum(floors.values())), floors)


def _require_room(mounts: Sequence[Mount], machine: Machine, least: Mapping[str, int]) -> None:
    """Refuses a part so large that this node's memory does not hold it."""
    whole = machine.memory * _WHOLE_PERCENT // 100
    for mount in mounts:
        need = least[mount.id]
        if need > max(LEAST_MIB, whole) and "memory-target" not in mount.options:
            what = "a file could be read" if mount.read_only else "a file could be written"
            raise AgentError(
                Problem.SHARES_IMPOSSIBLE,
                f"the part sizes of {mount.directory} need {need} MiB before {what}, "
                f"but this node has {machine.memory} MiB",
                hint="choose smaller parts, or take a larger instance",
            )


def _impossible(least: Mapping[str, int], budget: int, source: str) -> AgentError:
    need = sum(least.values())
    sizes = sorted(set(least.values()))
    if len(sizes) == 1:
        total = f"{len(least)} x {sizes[0]} = {need} MiB"
    else:
        total = f"{' + '.join(map(str, least.values()))} = {need} MiB"
    return AgentError(
        Problem.SHARES_IMPOSSIBLE,
        f"{len(least)} mounts need {total}, but may have {budget} MiB ({source})",
    )


def _by_weight(mounts: Sequence[Mount], budget: int, floors: Mapping[str, int]) -> dict[str, int]:
    """Divides MiB that are enough for all floors. Equal weights with equal floors have equal
    shares, whoever else is there: the few MiB that remain are nobody's."""
    shares: dict[str, int] = {}
    open_ones, left = list(mounts), budget
    while open_ones:
        total = sum(mount.weight for mount in open_ones)
        by_weight = {mount.id: left * mount.weight // total for mount in open_ones}
        # Those that get too little take what they miss from the others.
        short = [mount for mount in open_ones if by_weight[mount.id] < floors[mount.id]]
        if not short:
            return {**shares, **by_weight}
        for mount in short:
            shares[mount.id] = floors[mount.id]
            left -= floors[mount.id]
            open_ones.remove(mount)
    return shares
