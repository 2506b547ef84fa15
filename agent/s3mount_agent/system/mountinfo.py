"""The kernel's mount table. Nothing here ever touches a mounted file system."""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.core.directory import is_below
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_USER = re.compile(r"\buser_id=(\d+)")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Entry:
    """One line of /proc/self/mountinfo: proc_pid_mountinfo(5)."""

    directory: str
    source: str
    fstype: str
    read_only: bool
    minor: int
    """Of the device: names a FUSE connection in /sys/fs/fuse/connections."""
    device: str = ""
    """``major:minor``."""
    root: str = "/"
    """Which directory of its file system is seen here: another one than ``/`` for a bind mount."""
    user: int | None = None
    """Who made a FUSE mount: None for other file systems."""

    @property
    def presence(self) -> Presence:
        """Whether mount-s3 made it: its source has been the same since its first release."""
        if self.fstype == "fuse" and self.source == "mountpoint-s3":
            return Presence.MOUNTPOINT_S3
        return Presence.OTHER


def read(path: Path = Path("/proc/self/mountinfo")) -> dict[str, Entry]:
    """What is mounted on each directory, the uppermost where several lie on each other."""
    return {entry.directory: entry for entry in entries(path)}  # later lines lie above earlier ones


def entries(path: Path = Path("/proc/self/mountinfo")) -> list[Entry]:
    """All that is mounted, also what lies beneath something else."""
    # A line ends with "\n" and nothing else: "\r", U+0085 and their like may stand in a path.
    found = map(_parse, os.fsdecode(path.read_bytes()).split("\n")[:-1])
    # autofs is the trigger below an automount, not a mount.
    return [entry for entry in found if entry.fstype != "autofs"]


def aliases(directory: str, mounted: Sequence[Entry]) -> list[str]:
    """The other names under which the same place of a file system can be seen, as through a bind
    mount, by the mount table alone. What is mounted on the directory itself does not count."""
    holder = Entry("/", "", "", read_only=False, minor=0)
    for entry in mounted:
        if is_below(directory, entry.directory) and len(entry.directory) >= len(holder.directory):
            holder = entry
    place = posixpath.join(holder.root, posixpath.relpath(directory, holder.directory))
    return [
        posixpath.normpath(posixpath.join(each.directory, posixpath.relpath(place, each.root)))
        for each in mounted
        if each.device == holder.device
        and each is not holder
        and (place == each.root or is_below(place, each.root))
    ]


def _parse(line: str) -> Entry:
    fields = line.split(" ")
    separator = fields.index("-", 6)
    fstype, source, super_options = fields[separator + 1 : separator + 4]
    user = _USER.search(super_options) if fstype.startswith("fuse") else None
    return Entry(
        directory=_unescape(fields[4]),
        source=_unescape(source),
        fstype=fstype,
        read_only="ro" in fields[5].split(",") or "ro" in super_options.split(","),
        minor=int(fields[2].partition(":")[2]),
        device=fields[2],
        root=_unescape(fields[3]),
        user=int(user[1]) if user else None,
    )


def _unescape(text: str) -> str:
    """Undoes the kernel's octal escapes (space, tab, newline, backslash and '#')."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def unmount(directory: str, *, lazy: bool = False) -> None:
    """Takes the uppermost mount off a directory; ``lazy`` hides it at once and lets open files be.

    The system call, not umount(8), which looks at the directory and hangs with it. Raises
    ``mount-busy`` or ``program-failed``; what is not mounted is no error.
    """
    import ctypes  # which costs those who only read the table 5 ms

    libc = ctypes.CDLL(None, use_errno=True)
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    if libc.umount2(os.fsencode(directory), flags) == 0:
        return
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    if isinstance(error, FileNotFoundError) or number == errno.EINVAL:  # not a mount
        return
    if number == errno.EBUSY:
        raise AgentError(Problem.MOUNT_BUSY, f"{directory} is in use")
    raise AgentError(
        Problem.PROGRAM_FAILED, f"{directory} could not be unmounted", cause=error.strerror
    )


def presence(directory: str) -> Presence:
    """What lies uppermost on a directory."""
    entry = read().get(directory)
    return entry.presence if entry else Presence.ABSENT
