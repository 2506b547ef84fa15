"""The Linux distributions onto which the agent can bring mount-s3: one row for each family.

A new one takes a row here, and a module of its package manager beside system/apt.py.
"""

from __future__ import annotations

from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.system import process


class Family(NamedTuple):
    """Distributions of one kind: ``manager`` is the program by which a node is known to be one,
    ``package`` the kind of package that AWS has for it, ``fuse`` what brings fusermount where there
    is none (mount-s3 depends on "fuse", which it provides), and ``libraries`` what the library of
    FUSE 2 is called there, the newest name first."""

    systems: str
    manager: str
    package: str
    fuse: str
    libraries: tuple[str, ...]

    @property
    def named(self) -> tuple[str, ...]:
        """What is named when something is installed; all else comes with it, by the package
        manager's own choice."""
        return ("mount-s3", self.fuse)


DEBIAN = Family("Debian, Ubuntu", "apt-get", "deb", "fuse3", ("libfuse2t64", "libfuse2"))
FAMILIES = (DEBIAN,)


def of_this_node() -> Family:
    """The family of this node; raises ``node-unsupported``."""
    for family in FAMILIES:
        if process.has(family.manager):
            return family
    managers = " or ".join(family.manager for family in FAMILIES)
    raise AgentError(
        Problem.NODE_UNSUPPORTED, f"mount-s3 is missing, and this node has no {managers}"
    )
