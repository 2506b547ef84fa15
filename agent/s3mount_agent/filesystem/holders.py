"""Who uses a file system, anywhere on the node: found by what /proc says of each process and each
mount namespace, never by asking the file system.

An unmount is refused by the kernel only while somebody uses the mount itself, or a copy of it that
the unmount is passed on to. Copies that it is not passed on to, in a container or under another
directory, are mounts of their own: they keep the file system, and whoever uses it there, alive.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from s3mount_agent.core.states import Stranger
from s3mount_agent.core.text import shown
from s3mount_agent.filesystem import fuse, mountinfo
from s3mount_agent.filesystem.mountinfo import SELF, Entry, Table
from s3mount_agent.system import probe

_MOST = 5
# Whose mount namespace is the node's.
_NODE = 1
_SECONDS = 3.0
_UNKNOWN = "a program that cannot be looked into"


@dataclass(frozen=True)
class _Namespace:
    """A mount namespace: its processes, and its table as the first of them sees it."""

    pids: tuple[int, ...]
    table: Table


def _asked(function: Callable[..., Any], *arguments: object, unknown: Any) -> Any:
    """What a child finds in /proc that can be left behind: to read the arguments or the maps of a
    process is to wait for it, for as long as it waits for a FUSE of its owner's."""
    try:
        return probe.ask(function, *arguments, timeout=_SECONDS, place="processes")
    except probe.SilenceError:
        return unknown


def of(entry: Entry) -> str:
    """The programs that have a file, a mapping or their working directory in the file system of a
    mount, and the copies of it that an unmount would leave, as one line; empty where that is
    certain to be nobody."""
    return str(_asked(_of, entry, unknown=_UNKNOWN))


def _of(entry: Entry) -> str:
    spaces = _namespaces()
    ids = {each.id for space in spaces for each in space.table.entries if _same(each, entry)}
    found = [_named(pid) for pid in _pids() if _uses(pid, ids | {entry.id}, entry)]
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    names = ", ".join(found[:_MOST]) + more
    # Whoever uses a copy is named by then; one that nobody uses keeps it all the same.
    return names or "; ".join(_copies(entry, spaces))


def left_by_unmount(entry: Entry) -> tuple[str, ...]:
    """The copies of a mount of this namespace that would stay when it is unmounted, and with them
    mount-s3, each with who has it. Empty where its end would be the file system's."""
    return tuple(_asked(_left, entry, unknown=(_UNKNOWN,)))


def _left(entry: Entry) -> tuple[str, ...]:
    return _copies(entry, _namespaces())


def _copies(entry: Entry, spaces: list[_Namespace]) -> tuple[str, ...]:
    node = next((space for space in spaces if _NODE in space.pids), None)
    table = node.table if node else Table.read(SELF)
    # Where unmounts are passed on to: of ours, and then of each bind mount that has to go first.
    going = [_Unmount.of(entry, table, spaces)]
    names = []
    for bind in table.entries:
        if _same(bind, entry) and bind.id != entry.id and not _goes(bind, table, going):
            names.append(f"the bind mount on {shown(bind.directory)}")
            going.append(_Unmount.of(bind, table, spaces))
    for space in spaces:
        for copy in space.table.entries if space is not node else ():
            if _same(copy, entry) and copy.id != entry.id and not _goes(copy, space.table, going):
                user = next((p for p in space.pids if _uses(p, {copy.id}, copy)), space.pids[0])
                names.append(f"{_named(user)}, in a mount namespace of its own")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class _Unmount:
    """Where an unmount happens: at a directory of a file system, wherever that is mounted in one of
    these groups."""

    place: tuple[str, str]
    groups: frozenset[int]

    @staticmethod
    def of(entry: Entry, table: Table, spaces: list[_Namespace]) -> _Unmount:
        above = table.parent_of(entry)
        if above is None:
            return _Unmount(("", ""), frozenset())
        return _Unmount(_place(entry, above), frozenset(_reached(above, spaces)))


def _goes(copy: Entry, table: Table, going: list[_Unmount]) -> bool:
    """Whether a mount goes with one of these unmounts."""
    above = table.parent_of(copy)
    if above is None:
        return False
    place, groups = _place(copy, above), {above.peers, above.master}
    return any(place == each.place and groups & each.groups for each in going)


def _place(entry: Entry, above: Entry) -> tuple[str, str]:
    """The directory that is mounted upon, as the file system of the mount above knows it."""
    below = entry.directory[len(above.directory.rstrip("/")) :]
    return above.device, f"{above.root.rstrip('/')}{below}"


def _reached(above: Entry, spaces: list[_Namespace]) -> set[int]:
    """The groups of mounts to which an unmount of what lies upon one is passed on: its peers, their
    slaves, and so on."""
    reached = {above.peers} - {None}
    while True:
        further = {
            each.peers
            for space in spaces
            for each in space.table.entries
            if each.master in reached and each.peers is not None
        } - reached
        if not further:
            return {group for group in reached if group is not None}
        reached |= further


def _same(one: Entry, other: Entry) -> bool:
    return one.device == other.device and one.fstype == other.fstype


def _namespaces() -> list[_Namespace]:
    """Every mount namespace that has a process; each table is read once."""
    members: dict[str, list[int]] = {}
    for pid in _pids():
        space = _space_of(str(pid))
        if space:
            members.setdefault(space, []).append(pid)
    found = []
    for pids in members.values():
        for pid in pids:
            try:
                found.append(_Namespace(tuple(pids), Table.read(Path(f"/proc/{pid}/mountinfo"))))
            except (OSError, ValueError):
                continue  # it has ended: the next one there
            break
    return found


def _space_of(pid: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    # By their order of start, as far as numbers tell: who is named first was there first.
    yield from sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208


def _uses(pid: int, ids: Collection[int], entry: Entry) -> bool:
    """Whether a process has something open in one of these mounts."""
    home = f"/proc/{pid}"
    for link in ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            # With O_PATH nothing is asked of the file system; fdinfo says which mount it is.
            descriptor = os.open(f"{home}/{link}", os.O_PATH | os.O_CLOEXEC)
            try:
                if _mount_id(f"/proc/self/fdinfo/{descriptor}") in ids:
                    return True
            finally:
                os.close(descriptor)
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{home}/fdinfo"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if _mount_id(f"{home}/fdinfo/{name}") in ids:
                    return True
    with contextlib.suppress(OSError):
        major, _, minor = entry.device.partition(":")
        device = f" {int(major):02x}:{int(minor):02x} "
        return device in Path(f"{home}/maps").read_text(errors="replace")
    return False


def _mount_id(path: str) -> int:
    for line in Path(path).read_text(errors="replace").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return 0


def _named(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        name = "a program"
    return f"{shown(name)} (pid {pid})"


def stranger(entry: Entry) -> Stranger:
    """What is known of a mount that is not the agent's: who serves it where it is a FUSE, and
    whether /etc/fstab names it."""
    served = entry.fstype.startswith("fuse")
    pid, command = _asked(_serving, entry, unknown=(None, "")) if served else (None, "")
    return Stranger(
        directory=entry.directory,
        source=shown(entry.source),
        fstype=shown(entry.fstype),
        uid=entry.user,
        pid=pid,
        command=command,
        in_fstab=entry.directory in mountinfo.fstab(),
    )


def _serving(entry: Entry) -> tuple[int | None, str]:
    pid = _server_of(entry)
    return pid, _command(pid) if pid else ""


def is_served(directory: str, name: str) -> bool:
    """Whether there is a process of this name that was given a directory as an argument; where that
    cannot be found out, there may be."""
    return bool(_asked(_is_served, directory, name, unknown=True))


def _is_served(directory: str, name: str) -> bool:
    word = os.fsencode(directory)
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() != name:
                continue
            if word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return True
    return False


def _server_of(entry: Entry) -> int | None:
    """The process that serves a FUSE mount: one with the directory among its arguments, as all have
    that are run as mount.fuse(8) says, and the device open."""
    word = os.fsencode(entry.directory)
    for pid in _pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if word in words and fuse.serves(pid, entry.minor) is not False:
                return pid
    return None


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return shown(" ".join(word.decode(errors="replace") for word in words))
