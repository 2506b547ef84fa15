"""The distribution's packages: apt, on Debian and Ubuntu."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.system import process

# Other programs hold apt's lock while a node boots (unattended-upgrades, the SSM agent).
_LOCK_SECONDS = 300
_INSTALL_SECONDS = 900.0
_NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
_OPTIONS = (
    f"--option=DPkg::Lock::Timeout={_LOCK_SECONDS}",
    "--option=Acquire::Retries=3",
    "--option=Dpkg::Options::=--force-confold",
    "--quiet=2",
    "--yes",
)
# mount-s3, libfuse2, python3-systemd and what they need take less than half of it.
_SPACE_BYTES = 200 * 2**20


def require_apt() -> None:
    """Raises ``node-unsupported`` where there is no apt."""
    if shutil.which("apt-get") is None:
        raise AgentError(
            Problem.NODE_UNSUPPORTED, "mount-s3 is missing, and this node has no apt-get"
        )


def require_space() -> None:
    """Raises ``no-space`` if the packages would not fit."""
    for path in (Path("/usr"), Path("/var/cache/apt")):
        if path.exists() and shutil.disk_usage(path).free < _SPACE_BYTES:
            raise AgentError(
                Problem.NO_SPACE,
                f"{path} has less than {_SPACE_BYTES >> 20} MB free, which the packages need",
            )


def refresh() -> None:
    """Reads the repositories' lists anew; without that a fresh image may not know libfuse2."""
    _apt("update", timeout=_INSTALL_SECONDS)


def is_installed(package: str) -> bool:
    """Whether a package is installed, configuration done."""
    answer = process.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        timeout=30,
        check=False,
    )
    return answer.code == 0 and answer.stdout.strip() == "installed"


def is_known(package: str) -> bool:
    """Whether the repositories have a package."""
    answer = process.run(["apt-cache", "show", "--", package], timeout=60, check=False)
    return answer.code == 0 and bool(answer.stdout.strip())


def installed() -> frozenset[str]:
    """The names of all installed packages."""
    answer = process.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${binary:Package}\n"], timeout=60
    )
    rows = (line.partition(" ") for line in answer.stdout.splitlines())
    return frozenset(name for status, _, name in rows if status == "installed")


def repair() -> None:
    """Ends what an interrupted installation left half-done; does nothing otherwise."""
    process.run(
        ["dpkg", "--configure", "-a", "--force-confold"],
        timeout=_INSTALL_SECONDS,
        extra_environment=_NONINTERACTIVE,
        check=False,
    )


def install(names: Sequence[str], *, again: bool = False) -> None:
    """Installs packages (names, or paths of .deb files) in one transaction.

    ``again`` after an installation that was interrupted: what dpkg was unpacking then, it can only
    unpack anew.

    Removes nothing: on Ubuntu the package ``fuse`` would otherwise push out fuse3 and all that
    needs it. Raises ``packages-failed`` or ``no-space``.
    """
    _apt(
        "install",
        *(["--reinstall"] if again else []),
        "--no-install-recommends",
        "--no-remove",
        "--",
        *names,
    )


def remove(names: Sequence[str]) -> None:
    """Removes packages and their configuration, and nothing that others brought."""
    _apt("purge", "--", *names)


def _apt(*arguments: str, timeout: float = _INSTALL_SECONDS) -> None:
    answer = process.run(
        ["apt-get", *_OPTIONS, *arguments],
        timeout=timeout,
        extra_environment=_NONINTERACTIVE,
        check=False,
    )
    if answer.code == 0:
        return
    words = answer.last_words()
    full = "No space left" in words or "enough free space" in words
    raise AgentError(
        Problem.NO_SPACE if full else Problem.PACKAGES_FAILED,
        f"`apt-get {arguments[0]}` ended with {answer.code}",
        cause=words or None,
        retry_for=0 if full else math.inf,
    )
