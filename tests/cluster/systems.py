"""The Linux systems that a simulated node can be, and what their images are made of.

Those of the rpm family are Debian 12 with Debian's own dnf and rpm, which are as old as theirs, and
with the os-release, the user and the repositories of the system that they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

COMMON = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "ca-certificates",
    "python3",
    "gpgv",
    "procps",
    "dos2unix",
)


@dataclass(frozen=True)
class Recipe:
    """What an image is made of: ``suite`` and ``packages`` of Debian.

    later: what mount-s3, the agent and tests want and the system's ParallelCluster image lacks; it
    is fetched, not installed. rpm: whether later packages are offered as rpms, to dnf.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    later: tuple[str, ...]
    rpm: bool = False


@dataclass(frozen=True)
class System:
    """A system: ParallelCluster's name for it in dna.json, its first user, and its image.

    os_release: the settings of os-release(5) that nodes get instead of Debian's own.
    """

    base_os: str
    user: str
    recipe: Recipe
    os_release: tuple[tuple[str, str], ...] = ()

    @property
    def told(self) -> str:
        """What such a node is, in a few words."""
        if not self.os_release:
            return f"Debian ({self.recipe.suite})"
        name = dict(self.os_release)["PRETTY_NAME"]
        return f"Debian's files with dnf and rpm, which say that they are {name}"


# fuse3 is on ParallelCluster's Ubuntu images, too. It provides `fuse`; installing `fuse` removes
# it. libfaketime is for the tests that move a program's clock.
_DEBIAN12 = Recipe(
    "debian12", "bookworm", (*COMMON, "fuse3"), ("libfuse2", "python3-systemd", "libfaketime")
)
# Slurm is in the image, as ParallelCluster's have it: cluster/slurm.py.
_SLURM = replace(
    _DEBIAN12,
    name="slurm",
    packages=(*_DEBIAN12.packages, "slurmctld", "slurmd", "slurm-client", "munge"),
)
_DEBIAN13 = Recipe(
    "debian13", "trixie", (*COMMON, "fuse3"), ("libfuse2t64", "python3-systemd", "libfaketime")
)
# dnf asks for gpg; gpgv is there in any case, for apt.
_RPM = Recipe("rpm", "bookworm", (*COMMON, "dnf", "rpm", "gpg"), ("fuse", "libfuse2"), rpm=True)


def _like(base_os: str, user: str, id: str, version: str, pretty: str) -> System:
    settings = {"ID": id, "VERSION_ID": version, "PRETTY_NAME": pretty}
    return System(base_os, user, _RPM, tuple(settings.items()))


SYSTEMS = {
    "debian12": System("ubuntu2204", "ubuntu", _DEBIAN12),
    "slurm": System("ubuntu2204", "ubuntu", _SLURM),
    "debian13": System("ubuntu2404", "ubuntu", _DEBIAN13),
    "al2023": _like("alinux2023", "ec2-user", "amzn", "2023", "Amazon Linux 2023.9.20251110"),
    "rhel8": _like("rhel8", "ec2-user", "rhel", "8.10", "Red Hat Enterprise Linux 8.10 (Ootpa)"),
    "rhel9": _like("rhel9", "ec2-user", "rhel", "9.6", "Red Hat Enterprise Linux 9.6 (Plow)"),
    "rocky8": _like("rocky8", "rocky", "rocky", "8.10", "Rocky Linux 8.10 (Green Obsidian)"),
    "rocky9": _like("rocky9", "rocky", "rocky", "9.6", "Rocky Linux 9.6 (Blue Onyx)"),
}
DEFAULT = "debian12"
