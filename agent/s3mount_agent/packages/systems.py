"""The Linux systems onto which the agent can bring mount-s3: a row for each.

A new one takes a row here; one with another package manager also a module beside apt.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files
from s3mount_agent.packages import apt, dnf
from s3mount_agent.packages.interface import PackageManager
from s3mount_agent.system import process


class Family(NamedTuple):
    """Systems with one package manager: ``kind`` is what AWS's packages for them end with,
    ``runs`` the program by which a node is known to have it, ``caches`` where that keeps what it
    has downloaded."""

    kind: str
    runs: str
    manager: PackageManager
    caches: tuple[Path, ...] = ()


class System(NamedTuple):
    """A release of a distribution: ``id`` and ``version`` are those of os-release(5), of the
    version perhaps the beginning; ``name`` is ParallelCluster's word, where it has one.

    ``fuse`` brings fusermount where there is none (mount-s3 depends on "fuse", which it provides),
    ``libraries`` are the names of FUSE 2's library, the newest first. ``suite`` is where the
    repositories of Debian and Ubuntu have them. ``own``: its repositories have a mount-s3, which is
    taken before AWS's release.
    """

    name: str
    id: str
    version: str
    family: Family
    fuse: str
    libraries: tuple[str, ...]
    suite: str = ""
    own: bool = False

    @property
    def manager(self) -> PackageManager:
        """Its package manager."""
        return self.family.manager

    @property
    def named(self) -> tuple[str, ...]:
        """What is named when something is installed; all else comes with it, by the package
        manager's own choice."""
        return ("mount-s3", self.fuse)


DEB = Family("deb", "apt-get", apt, (Path("/var/lib/apt/lists"), Path("/var/cache/apt")))
RPM = Family("rpm", "dnf", dnf, (Path("/var/cache/dnf"),))
FAMILIES = (DEB, RPM)
SYSTEMS = (
    System("ubuntu2204", "ubuntu", "22.04", DEB, "fuse3", ("libfuse2",), "jammy"),
    System("ubuntu2404", "ubuntu", "24.04", DEB, "fuse3", ("libfuse2t64",), "noble"),
    System("debian12", "debian", "12", DEB, "fuse3", ("libfuse2",), "bookworm"),
    System("debian13", "debian", "13", DEB, "fuse3", ("libfuse2t64",), "trixie"),
    System("al2023", "amzn", "2023", RPM, "fuse", ("fuse-libs",), own=True),
    System("rhel8", "rhel", "8", RPM, "fuse", ("fuse-libs",)),
    System("rhel9", "rhel", "9", RPM, "fuse", ("fuse-libs",)),
    System("rocky8", "rocky", "8", RPM, "fuse", ("fuse-libs",)),
    System("rocky9", "rocky", "9", RPM, "fuse", ("fuse-libs",)),
)
# What is taken for a system that nobody has heard of, by the kind of its packages.
ASSUMED = (
    System("", "", "", DEB, "fuse3", ("libfuse2t64", "libfuse2")),
    System("", "", "", RPM, "fuse", ("fuse-libs",)),
)
# What is named when something is installed, on any system.
NAMED = frozenset(name for system in SYSTEMS for name in system.named)
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))


def of_this_node(assumed: str | None = None) -> System:
    """The system of this node; one that is not in the table is taken for one of the ``assumed``
    kind of packages ("deb" or "rpm"). Raises ``node-unsupported``."""
    named = _os_release()
    for system in SYSTEMS:
        if _is(system, named):
            return system
    for system in ASSUMED:
        if system.family.kind == assumed:
            return system
    what = named.get("PRETTY_NAME") or "a system without /etc/os-release"
    known = ", ".join(system.name for system in SYSTEMS)
    raise AgentError(
        Problem.NODE_UNSUPPORTED,
        f"mount-s3 is missing, and this node is {what}, of which the agent does not know how to "
        f"install it; it knows {known}",
        hint="; ".join([*map(_taken_for, ASSUMED), Problem.NODE_UNSUPPORTED.hint]),
    )


def _taken_for(system: System) -> str:
    """What is done on a system that nobody has heard of, once somebody says what it is like."""
    kind, program, library = system.family.kind, system.family.runs, " or ".join(system.libraries)
    needs = f"mount-s3, fusermount (or {system.fuse}) and {library}"
    return f"`--assume-family {kind}` has {program} install it there: it takes {needs}"


def family_of_this_node() -> Family | None:
    """The family of this node by its package manager, whatever the system is called."""
    found = (each for each in SYSTEMS if _is(each, _os_release()))
    known = next(found, None)
    if known is not None:
        return known.family
    return next((family for family in FAMILIES if process.has(family.runs)), None)


def _is(system: System, named: dict[str, str]) -> bool:
    version = named.get("VERSION_ID", "")
    here = version == system.version or version.startswith(f"{system.version}.")
    return named.get("ID") == system.id and here


def _os_release() -> dict[str, str]:
    """The settings of os-release(5): the first file that is there counts."""
    for path in _OS_RELEASE:
        text = files.read(path)
        if text is not None:
            words = (shlex.split(line, comments=True) for line in text.splitlines())
            settings = (word[0].partition("=") for word in words if word)
            return {name: value for name, _, value in settings}
    return {}
