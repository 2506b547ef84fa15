"""Which mount is ours: the FUSE connection of our own process, remembered in /run by directory.

A mount is known by the number of its device, which is the number of its connection, and by who
mounted it. Neither can be had by another while ours is there: the kernel gives a number to one file
system at a time, and fusermount(1) writes the owner of whoever is not root into the table. Name and
type of a mount say nothing; any user can have the same.

Before mount-s3 starts, the unit's hook writes down what lies on the directory already. Once it has
mounted, the hook finds what is new, if the kernel can say so with the proof that it is the very
connection that the process has open (``fuse_connection`` in /proc/PID/fdinfo, since Linux 6.17),
and writes its number down.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence
from s3mount_agent.filesystem import files, fuse, json_codec, paths, procfs
from s3mount_agent.filesystem.mountinfo import Entry, Table

_HOME = paths.RUN / "connections"
_DEVICE = re.compile(r"[0-9]{1,9}:[0-9]{1,9}")


class Connection(NamedTuple):
    """What is known of the mount on a directory.

    ``before``: devices that lay there before mount-s3 was started; ``device`` and ``mount``: ours,
    once it is mounted; ``pid`` and ``start``: its process; ``binds``: bind mounts of connections of
    ours that have ended, as [device, directory, root]; ``waiting``: for whom a stop
    waits; ``program``: what tells the file of its mount-s3 from any other.
    """

    directory: str
    device: str = ""
    mount: int = 0
    pid: int = 0
    start: int = 0
    before: tuple[str, ...] = ()
    binds: tuple[tuple[str, str, str], ...] = ()
    waiting: str = ""
    program: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether the process that made it lives."""
        return self.pid > 0 and procfs.started(self.pid) == self.start

    def dead_binds(self, table: Table) -> tuple[Entry, ...]:
        """The bind mounts of earlier connections that are still there."""
        # Not by the numbers of mounts, which are others in each namespace.
        return tuple(
            entry
            for entry in table.entries
            if (entry.device, entry.directory, entry.root) in self.binds
            and entry.device != self.device
        )


def load(directory: str) -> Connection | None:
    """What is known, or None: nothing was started there since the boot by an agent that remembers.
    Something else than what we wrote is nothing."""
    known = json_codec.read(_path(directory), _build)
    return known if known is not None and known.directory == directory else None


def _build(fields: Any) -> Connection:
    device = json_codec.field(fields, "device", str)
    if device and not _DEVICE.fullmatch(device):
        raise ValueError(f"{device!r} is no device")
    binds = (json_codec.texts(each) for each in json_codec.field(fields, "binds", list))
    return Connection(
        directory=json_codec.field(fields, "directory", str),
        device=device,
        mount=json_codec.field(fields, "mount", int),
        pid=json_codec.field(fields, "pid", int),
        start=json_codec.field(fields, "start", int),
        before=json_codec.texts(fields["before"]),
        binds=tuple((device, directory, root) for device, directory, root in binds),
        waiting=json_codec.field(fields, "waiting", str),
        # An agent before this one did not write it down.
        program=json_codec.field(fields, "program", str, default=""),
    )


def save(connection: Connection) -> None:
    """Writes it down for everybody to read; raises ``no-space`` or ``file-failed``."""
    json_codec.write(_path(connection.directory), connection._asdict())


def forget(directory: str) -> None:
    """Removes what is known, but for bind mounts that stay dead."""
    known = load(directory)
    if known is not None and known.dead_binds(Table.read()):
        save(Connection(directory, binds=known.binds))
    else:
        files.remove(_path(directory))


def ours(
    table: Table, directory: str, connection: Connection | None, *, running: bool
) -> Entry | None:
    """Our mount on a directory, also where another covers it; ``running``: our process lives."""
    layers = [entry for entry in table.layers(directory) if entry.fstype == "fuse"]
    if connection is not None and connection.device:
        return next((e for e in layers if e.device == connection.device and not e.user), None)
    candidates = [entry for entry in layers if entry.is_mount_s3]
    if connection is not None:
        new = [entry for entry in candidates if entry.device not in connection.before]
        return new[0] if running and new else None
    # Mounted by an agent that wrote nothing down, before it was upgraded: then there is but one. A
    # dead one that nobody serves any more is what such an agent's process left.
    if len(candidates) != 1:
        return None
    from s3mount_agent.filesystem import holders  # nearly never, and slow

    alone = running or not holders.is_served(directory, "mount-s3")
    return candidates[0] if alone else None


def lies_there(table: Table, directory: str, own: Entry | None) -> tuple[Presence, Entry | None]:
    """What a path to a directory finds, ``own`` being our mount there, and the mount that is in the
    way if one is."""
    on = table.on(directory)
    if own is None:
        return (Presence.ABSENT, None) if on is None else (Presence.FOREIGN, on)
    if on == own:
        return Presence.OURS, None
    return Presence.COVERED, on or table.at(directory)


def presence(directory: str, *, running: bool) -> Presence:
    """What a path to a directory finds now."""
    table = Table.read()
    own = ours(table, directory, load(directory), running=running)
    return lies_there(table, directory, own)[0]


def gone(connection: Connection) -> Entry:
    """The entry of a mount that is in the table no more: who has it open still has its numbers."""
    return Entry(
        connection.directory,
        "mountpoint-s3",
        "fuse",
        read_only=False,
        minor=int(connection.device.partition(":")[2] or 0),
        device=connection.device,
        id=connection.mount,
    )


def whose(directory: str) -> tuple[str, int, int] | None:
    """What tells our mount there from one that was there before, or comes after it: its device
    alone may be given again."""
    known = load(directory)
    return (known.device, known.pid, known.start) if known is not None else None


def is_idle(directory: str) -> bool:
    """Whether it is certain that nobody waits for an answer of our connection."""
    known = load(directory)
    if known is None or not known.device:
        return False
    return fuse.waiting(int(known.device.partition(":")[2] or 0)) == 0


def is_awaited(directory: str) -> bool:
    """Whether it is certain that somebody waits for an answer of our connection."""
    known = load(directory)
    if known is None or not known.device:
        return False
    return bool(fuse.waiting(int(known.device.partition(":")[2] or 0)))


def was_mounted(directory: str) -> bool:
    """Whether our process is known to have mounted, whatever has become of that."""
    known = load(directory)
    return known is not None and bool(known.device)


def users(directory: str) -> str:
    """Who still has our mount though it is gone from its directory: with it files open that were
    opened before, or a copy of it elsewhere. Empty for nobody, as far as it is known which mount
    that was."""
    from s3mount_agent.filesystem import holders

    known = load(directory)
    return holders.of(gone(known)) if known is not None and known.device else ""


def require_unused(directory: str) -> None:
    """Makes sure that nobody has our mount, which is gone from its directory; raises
    ``mount-busy`` with who has."""
    who = users(directory)
    if who:
        raise still_served(directory, who)


def still_served(directory: str, who: str) -> AgentError:
    """What there is to say of a mount-s3 that lives on for others."""
    return AgentError(
        Problem.MOUNT_BUSY,
        f"{directory} is unmounted, but its mount-s3 has not ended yet",
        cause=who or "it may be emptying its cache",
    )


def ending(directory: str) -> AgentError:
    """What there is to say of a mount-s3 that nobody has any more, and that was not waited for."""
    return AgentError(Problem.MOUNT_ENDING, f"the mount-s3 of {directory} is about to end")


def file_of(program: str) -> str:
    """What tells the file of a program from any other that may come in its place."""
    return ".".join(map(str, files.identity(Path(program))))


def adopt(directory: str, pid: int) -> None:
    """Writes down what runs already, where an agent before this one did not."""
    start = procfs.started(pid) if pid else None
    if start is None or load(directory) is not None:
        return
    table = Table.read()
    own = ours(table, directory, None, running=True)
    if own is not None and fuse.serves(pid, own.minor) is not False:
        known = Connection(directory, own.device, own.id, pid, start)
        with contextlib.suppress(AgentError):  # without it, it is known as it was before
            save(known)


def find_new(table: Table, connection: Connection, pid: int) -> Entry | None:
    """What mount-s3 has mounted since ``connection`` was written, if it has."""
    for entry in table.layers(connection.directory):
        # The lowest, where nothing proves more: what came later lies above it.
        if (
            entry.is_mount_s3
            and entry.device not in connection.before
            and fuse.serves(pid, entry.minor) is not False
        ):
            return entry
    return None


def _path(directory: str) -> Path:
    # Not hashlib, which `status` would have to load for it; a record says whose it is.
    raw = os.fsencode(directory)
    readable = "".join(c if c.isalnum() and c.isascii() else "-" for c in directory[-80:])
    return _HOME / f"{zlib.crc32(raw):08x}{zlib.adler32(raw):08x}{readable}.json"
