"""What a node is: its type in ParallelCluster's files, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from s3mount_agent.core.errors import AgentError, Problem


class Role(str, Enum):
    """What a node is to its cluster."""

    HEAD = "head"
    COMPUTE = "compute"
    LOGIN = "login"
    STANDALONE = "standalone"

    @property
    def runs_jobs(self) -> bool:
        """Whether a scheduler may start jobs on it. A node that belongs to no ParallelCluster may
        be one of AWS PCS."""
        return self in (Role.COMPUTE, Role.STANDALONE)


class Mode(str, Enum):
    """Who starts mount-s3: systemd at every boot, or the agent itself."""

    SYSTEMD = "systemd"
    DIRECT = "direct"


class OnFailure(str, Enum):
    """What a bootstrap does about a mount that cannot be made."""

    FAIL = "fail"
    CONTINUE = "continue"


_BY_NODE_TYPE = {"HeadNode": Role.HEAD, "ComputeFleet": Role.COMPUTE, "LoginNode": Role.LOGIN}

# A failing head rolls the whole stack back and a failing login node is relaunched for ever, while
# ParallelCluster replaces a failing compute node: only there does failing help.
_DEFAULTS = {
    Role.HEAD: (Mode.SYSTEMD, OnFailure.CONTINUE),
    Role.COMPUTE: (Mode.DIRECT, OnFailure.FAIL),
    Role.LOGIN: (Mode.SYSTEMD, OnFailure.CONTINUE),
    Role.STANDALONE: (Mode.SYSTEMD, OnFailure.FAIL),
}


@dataclass(frozen=True)
class NodeType:
    """A ``node_type`` as a file of ParallelCluster gives it."""

    value: str
    file: str


@dataclass(frozen=True)
class Conduct:
    """A node's role and how the agent behaves on it."""

    role: Role
    mode: Mode
    on_failure: OnFailure


def role_of(found: list[NodeType]) -> Role:
    """The role that the node's files tell; raises ``node-type`` if unknown or contradictory."""
    for node_type in found:
        if node_type.value not in _BY_NODE_TYPE:
            known = ", ".join(_BY_NODE_TYPE)
            raise AgentError(
                Problem.NODE_TYPE,
                f"{node_type.file} has the unknown node type {node_type.value!r} (known: {known})",
            )
    if len({node_type.value for node_type in found}) > 1:
        sentence = " but ".join(f"{node_type.file} says {node_type.value}" for node_type in found)
        raise AgentError(Problem.NODE_TYPE, f"the node's type is contradictory: {sentence}")
    return _BY_NODE_TYPE[found[0].value] if found else Role.STANDALONE


def conduct(
    role: Role,
    *,
    systemd_runs: bool,
    mode: Mode | None = None,
    on_failure: OnFailure | None = None,
) -> Conduct:
    """How to behave in a role; ``mode`` and ``on_failure`` override. Raises ``mode``."""
    default_mode, default_on_failure = _DEFAULTS[role]
    if mode is Mode.SYSTEMD and not systemd_runs:
        raise AgentError(Problem.MODE, "mode systemd was asked for, but systemd does not run here")
    if mode is None:
        mode = default_mode if systemd_runs else Mode.DIRECT
    return Conduct(role, mode, on_failure or default_on_failure)
