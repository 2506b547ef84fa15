"""FUSE: the device, and /etc/fuse.conf."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem

DEVICE = Path("/dev/fuse")
CONF = Path("/etc/fuse.conf")
_SETTING = "user_allow_other"


def require_device() -> None:
    """Makes sure that /dev/fuse is there; raises ``fuse-missing``."""
    if DEVICE.is_char_device():
        return
    from s3mount_agent.system import process  # of which who only looks needs nothing

    try:
        words = process.run(["modprobe", "fuse"], timeout=30, check=False).last_words()
    except AgentError as error:  # a container has no modprobe
        words = error.cause or error.message
    if not DEVICE.is_char_device():
        raise AgentError(
            Problem.FUSE_MISSING,
            "this node has no /dev/fuse, so that nothing can be mounted",
            cause=words or None,
        )


def serves(pid: int, minor: int) -> bool | None:
    """Whether a process has the connection of a FUSE mount open: None where it has one, or may
    have, and the kernel does not say which (it does since Linux 6.17).

    Whose descriptors we may not see serves nothing that we could prove.
    """
    unsaid = False
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208  names are what is needed
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/fd/{name}").readlink() != DEVICE:
                continue
            number = _connection(Path(f"/proc/{pid}/fdinfo/{name}").read_text())
            if number == minor:
                return True
            unsaid |= number is None
    return None if unsaid else False


def _connection(fdinfo: str) -> int | None:
    for line in fdinfo.splitlines():
        if line.startswith("fuse_connection:"):
            return int(line.split()[1])
    return None


def waiting(minor: int) -> int | None:
    """How many requests wait for an answer of a FUSE connection, or None where that is not told.

    https://docs.kernel.org/filesystems/fuse.html (section "Control filesystem")
    """
    try:
        return int(Path(f"/sys/fs/fuse/connections/{minor}/waiting").read_text())
    except (OSError, ValueError):
        return None


def abort(minor: int) -> None:
    """Ends a FUSE connection by force: every call that waits for it fails. One that is gone already
    is no error."""
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")


def allow_other(text: str | None) -> str:
    """fuse.conf with ``user_allow_other`` in force, all else as it was (None: no such file)."""
    lines = (text or "").splitlines()
    # fusermount takes the word alone on its line: mount.fuse(8).
    if any(line.strip() == _SETTING for line in lines):
        return text or ""
    commented = [
        number
        for number, line in enumerate(lines)
        if line.lstrip().startswith("#") and line.strip("# \t") == _SETTING
    ]
    if commented:
        lines[commented[0]] = _SETTING
    else:
        lines.append(_SETTING)
    return "\n".join(lines) + "\n"
