"""The kernel's mount table. Nothing here but ``unmount`` ever touches a mounted file system."""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from s3mount_agent.core.directory_rules import is_below
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence

SELF = Path("/proc/self/mountinfo")
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_USER = re.compile(r"\buser_id=(\d+)")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_NOWHERE = 0
_MOST_LINKS = 40


class Entry(NamedTuple):
    """One line of /proc/PID/mountinfo: proc_pid_mountinfo(5).

    ``id`` and ``parent`` name mounts, on the whole machine. ``minor`` is of the device, and names a
    FUSE connection in /sys/fs/fuse/connections. ``root`` is which directory of the file system is
    mounted. ``user`` is who mounted it, for FUSE (None: another file system): fusermount(1) writes
    it for others than root. ``peers`` and ``master`` are the groups that mounts and unmounts below
    it are passed on to, and come from: mount_namespaces(7).
    """

    directory: str
    source: str
    fstype: str
    read_only: bool
    minor: int
    device: str = ""
    root: str = "/"
    user: int | None = None
    id: int = 0
    parent: int = _NOWHERE
    peers: int | None = None
    master: int | None = None

    @property
    def is_mount_s3(self) -> bool:
        """Whether root mounted it by mount-s3, whose source has been the same since its first
        release. Any user can give a mount of his own this source, but not this owner."""
        return self.fstype == "fuse" and self.source == "mountpoint-s3" and not self.user

    @property
    def presence(self) -> Presence:
        """What it is as far as the table alone can tell: *a* mount-s3, not necessarily ours."""
        return Presence.OURS if self.is_mount_s3 else Presence.FOREIGN


class Table:
    """The mounts of one mount namespace, as one process there sees them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self._by_id = {entry.id: entry for entry in self.entries}
        self._below: dict[tuple[int, str], Entry] = {}
        for entry in self.entries:
            parent = entry.parent if entry.parent in self._by_id else _NOWHERE
            self._below[parent, entry.directory] = entry

    @staticmethod
    def read(path: Path = SELF) -> Table:
        """The table of a process; raises OSError where it has gone, or is not ours to look at."""
        # A line ends with "\n" and nothing else: "\r", U+0085 and their like may stand in a path.
        return Table(map(_parse, os.fsdecode(path.read_bytes()).split("\n")[:-1]))

    def parent_of(self, entry: Entry) -> Entry | None:
        """The mount that another is mounted upon, if this process sees it."""
        return self._by_id.get(entry.parent)

    def layers(self, directory: str) -> tuple[Entry, ...]:
        """All that is mounted on a directory, whether a path leads there or not."""
        return tuple(entry for entry in self.entries if entry.directory == directory)

    def at(self, path: str) -> Entry | None:
        """The mount that a path leads into: found by going from mount to mount as the kernel would,
        without asking any file system. The path must have no symbolic links."""
        here = self._up(None, "/")
        walked = ""
        for name in filter(None, path.split("/")):
            walked += f"/{name}"
            here = self._up(here, walked)
        return here

    def on(self, directory: str) -> Entry | None:
        """What a path to a directory finds mounted on it: the uppermost, unless a mount over one of
        its parents hides it."""
        entry = self.at(directory)
        # The trigger below an automount is no mount.
        reached = entry is not None and entry.directory == directory and entry.fstype != "autofs"
        return entry if reached else None

    def _up(self, here: Entry | None, directory: str) -> Entry | None:
        """The uppermost mount on a directory of the mount ``here``, or that itself."""
        for _ in self.entries:
            above = self._below.get((here.id if here else _NOWHERE, directory))
            if above is None:
                break
            here = above
        return here


def read(path: Path = SELF) -> dict[str, Entry]:
    """What a path to each directory finds mounted on it."""
    return reached(Table.read(path))


def reached(table: Table) -> dict[str, Entry]:
    """The same of a table."""
    found = {entry.directory: table.on(entry.directory) for entry in table.entries}
    return {directory: entry for directory, entry in found.items() if entry is not None}


def first_on_the_way(path: str, directories: Collection[str]) -> str | None:
    """Which of some directories a path leads to or through, links followed; None if through none.

    Neither it nor anything in it is looked at, so that what is mounted there may hang.
    """
    rest = posixpath.join(_here(), path).split("/")[::-1]
    walked, links = "", 0
    while rest and links < _MOST_LINKS:
        name = rest.pop()
        if name in ("", "."):
            continue
        walked = posixpath.dirname(walked).rstrip("/") if name == ".." else f"{walked}/{name}"
        if walked in directories:
            return walked
        try:
            target = str(Path(walked).readlink())
        except OSError:  # no link, or nothing
            continue
        links += 1
        rest += target.split("/")[::-1]
        walked = "" if target.startswith("/") else posixpath.dirname(walked).rstrip("/")
    return None


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return "/"


def entries(path: Path = SELF) -> list[Entry]:
    """All that is mounted, also what lies beneath something else."""
    # autofs is the trigger below an automount, not a mount.
    return [entry for entry in Table.read(path).entries if entry.fstype != "autofs"]


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


def fstab() -> frozenset[str]:
    """The directories that /etc/fstab has mounts for: fstab(5)."""
    try:
        lines = Path("/etc/fstab").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return frozenset()
    rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    # Spaces are written as in the kernel's own table.
    places = (row[1].replace("\\040", " ") for row in rows if len(row) > 1)
    return frozenset(place.rstrip("/") or "/" for place in places)


def _parse(line: str) -> Entry:
    fields = line.split(" ")
    separator = fields.index("-", 6)
    fstype, source, super_options = fields[separator + 1 : separator + 4]
    tags = dict(tag.partition(":")[::2] for tag in fields[6:separator])
    settings = super_options.split(",")
    user = _USER.search(super_options) if fstype.startswith("fuse") else None
    return Entry(
        directory=_unescape(fields[4]),
        source=_unescape(source),
        fstype=fstype,
        read_only="ro" in fields[5].split(",") or "ro" in settings,
        minor=int(fields[2].partition(":")[2]),
        device=fields[2],
        root=_unescape(fields[3]),
        user=int(user[1]) if user else None,
        id=int(fields[0]),
        parent=int(fields[1]),
        peers=_number(tags.get("shared")),
        master=_number(tags.get("master")),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _unescape(text: str) -> str:
    """Undoes the kernel's octal escapes (space, tab, newline, backslash and '#')."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def unmount(directory: str, *, lazy: bool = False) -> None:
    """Takes the uppermost mount off a directory; ``lazy`` hides it at once and lets open files be.

    The system call, not umount(8), which looks at the directory and hangs with it. It still goes
    the way there, and may hang in a directory above. Raises ``mount-busy`` or ``program-failed``;
    what is not mounted is no error.
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
    """What a path to a directory finds there, as far as the table alone can tell."""
    entry = Table.read().on(directory)
    return entry.presence if entry else Presence.ABSENT
