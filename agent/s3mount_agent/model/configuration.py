"""The desired state of a node: its mounts, and how the agent is to behave where not by default."""

from __future__ import annotations

from dataclasses import dataclass

from s3mount_agent.model.mounts import Mount
from s3mount_agent.model.roles import Mode, OnFailure, Role


@dataclass(frozen=True)
class Configuration:
    """What /etc/s3mount-agent/config.yaml says; None stands for the default of the node's role."""

    mounts: tuple[Mount, ...] = ()
    role: Role | None = None
    mode: Mode | None = None
    on_failure: OnFailure | None = None
