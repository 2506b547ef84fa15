"""What a mount's unit has done at its start and end, beside mount-s3 itself.

Run by systemd as ExecStartPre, ExecStartPost, ExecStop and ExecStopPost: they work while the
agent's daemon does not, and none of them can hang on a mount.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import fuse, mountinfo, procfs, safe_path
from s3mount_agent.filesystem.mountinfo import Entry, Table
from s3mount_agent.state import machine
from s3mount_agent.supervisor import fuse_connections
from s3mount_agent.supervisor.fuse_connections import Connection
from s3mount_agent.system import probe
from s3mount_agent.system.probe import Answer, SilenceError

# The unit's TimeoutStartSec= is a little longer.
_READY_SECONDS = 140.0
_PROBE_SECONDS = 5.0
_UNMOUNT_SECONDS = 20.0
_POLL_SECONDS = 0.02
# How long a stop lasts before it is asked who is in its way, and then how often.
_QUIET_SECONDS = 0.5
_LOOK_SECONDS = 2.0
# By how much the unit's TimeoutStopSec= is put off each time, and how much a shutdown is given.
_EXTENSION_SECONDS = 60.0
_SHUTDOWN_SECONDS = 20.0
# How long mount-s3 may do nothing at all when nobody has its mount any more.
_STUCK_SECONDS = 80.0
_NOBODY = "mount-s3 itself, which has not ended yet"
_MOST_LAYERS = 16
# What mount-s3 writes to, with the modes it gives them itself.
STORES = {"cache": 0o700, "log-directory": 0o750}


def clean(directory: str, pid: int) -> bool:
    """Takes away what our dead mount-s3 left on a directory, and remembers what lies there;
    anything else stays."""
    connection = fuse_connections.load(directory)
    table = Table.read()
    if connection is not None and connection.is_alive:
        return True
    if connection is None:
        _clear_unknown(directory)
        connection = Connection(directory)
    elif connection.device:
        dead = fuse_connections.ours(table, directory, connection, running=False)
        if dead is not None and dead == table.on(directory):
            _unmount(directory, lazy=True)
        connection = _with_binds(connection, table)
    else:
        # Its process ended between its mount and the moment in which that was written down.
        _clear_unknown(directory, ignoring=connection.before)
    after = Table.read()
    left = fuse_connections.ours(after, directory, connection, running=False)
    _remember(
        connection._replace(
            # One that is covered is still there, and gone only when it is seen to be.
            device=left.device if left is not None else "",
            pid=0,
            start=0,
            waiting="",
            before=tuple(entry.device for entry in after.layers(directory)),
        )
    )
    return True


def _clear_unknown(directory: str, ignoring: Collection[str] = ()) -> None:
    """A dead mount of root's mount-s3 that nothing is known of was left by an agent that wrote
    nothing down, or not yet; nobody can use it any more. ``ignoring`` are devices of others."""
    for _ in range(_MOST_LAYERS):
        entry = Table.read().on(directory)
        if entry is None or not entry.is_mount_s3 or entry.device in ignoring:
            break
        if probe.look(directory, timeout=_PROBE_SECONDS).answer is not Answer.DISCONNECTED:
            break
        _unmount(directory, lazy=True)


def _with_binds(connection: Connection, table: Table) -> Connection:
    """What else was mounted of a connection that has ended: it stays dead, whatever we mount."""
    found = [
        entry
        for entry in table.entries
        if entry.device == connection.device and entry.directory != connection.directory
    ]
    binds = [(e.device, e.directory, e.root) for e in (*connection.dead_binds(table), *found)]
    return connection._replace(binds=tuple(dict.fromkeys(binds)))


def prepare(directory: str, pid: int, *places: str) -> bool:
    """Before each start: cleans, and refuses what root cannot safely mount on, write to or read.

    ``places`` are ``cache=PATH`` and their like. Not only when the configuration comes: whoever can
    rename on the way has all the time of the world until the next start. A directory that is
    missing, as in /tmp after a boot, is made by who can write that down. Raises ``path-unsafe``
    and the other problems of :mod:`filesystem.safe_path`, and ``foreign-machine`` where the unit
    came with an image of another machine.
    """
    from s3mount_agent.config import environment  # of which the others need nothing

    machine.require_own()
    clean(directory, pid)
    with contextlib.suppress(AgentError):  # then it starts with what was there before
        environment.settle_node()  # a restart by hand is to find what was just written there
    safe_path.require(directory, there=True)
    require_places((kind, path) for kind, _, path in (each.partition("=") for each in places))
    return True


def require_places(places: Iterable[tuple[str, str]]) -> None:
    """Sees to it that what mount-s3 writes to is there, as on a disk that is blank at every boot,
    and that what it writes to and reads is root's alone."""
    for kind, path in places:
        if kind in STORES:
            safe_path.make_store(path, STORES[kind])
        else:
            safe_path.require_file(path)


def ready(directory: str, pid: int) -> bool:
    """Waits until mount-s3 has mounted: False if it ends before that, having said why itself.

    Raises ``mount-not-ready`` if it takes too long.
    """
    deadline = time.monotonic() + _READY_SECONDS
    connection = fuse_connections.load(directory) or Connection(directory)
    connection = connection._replace(program=_program(pid))
    while True:
        found = fuse_connections.find_new(Table.read(), connection, pid)
        start = procfs.started(pid)
        if found is not None and start is not None:
            _remember(
                connection._replace(device=found.device, mount=found.id, pid=pid, start=start)
            )
            return True
        if start is None:
            return False
        if time.monotonic() > deadline:
            raise AgentError(
                Problem.MOUNT_NOT_READY,
                f"{directory} was not up after {_READY_SECONDS:.0f} seconds",
            )
        time.sleep(_POLL_SECONDS)


def _program(pid: int) -> str:
    """The file of a mount-s3 that has just been started; nothing where it is not known."""
    words = (word for word in procfs.arguments(pid) if word.endswith("/mount-s3"))
    with contextlib.suppress(AgentError):
        return next(map(fuse_connections.file_of, words), "")
    return ""


def _remember(connection: Connection) -> None:
    """Where there is no space for it, the mount is known as one of an older agent would be."""
    try:
        fuse_connections.save(connection)
    except AgentError:
        fuse_connections.forget(connection.directory)


def stop(directory: str, pid: int) -> bool:
    """Unmounts once nobody uses the mount any more, and waits until mount-s3 has ended by itself,
    however long that takes: asked to end by a signal it would go on serving, and killed it would
    lose what is being written.

    The wait matters: on its way out mount-s3 unmounts the directory once more, whatever lies on it
    by then. At a shutdown there is not much time. A node that has no process or file left to look
    with is waited for, too: once this ends, systemd kills mount-s3.
    """
    wait = _Wait(directory, pid)
    while True:
        try:
            if procfs.started(pid) is None:
                return True
            unmount(directory, pid)
            held = ""
        except AgentError as error:
            held = error.cause or error.message
        except OSError as error:
            held = f"somebody unknown, as nobody can look ({error})"
        if not wait.goes_on(held):
            detach(directory, pid)
            return False


def tear(directory: str, pid: int) -> bool:
    """The stop of a mount whose policy is ``lazy``: nobody is waited for."""
    detach(directory, pid)
    return True


class _Wait:
    """The patience of a stop: it says that it goes on, and for whom."""

    def __init__(self, directory: str, pid: int) -> None:
        self._directory = directory
        self._pid = pid
        self._began = self._worked = time.monotonic()
        self._spent = 0.0
        self._looked = -math.inf

    def goes_on(self, held: str) -> bool:
        """Waits a moment; returns whether there is time for another."""
        waited = time.monotonic() - self._began
        time.sleep(min(_LOOK_SECONDS, max(_POLL_SECONDS, waited / 10)))
        if waited < _QUIET_SECONDS or time.monotonic() - self._looked < _LOOK_SECONDS:
            return True
        self._looked = time.monotonic()
        try:
            return self._has_time(held, waited)
        except (AgentError, OSError):
            return True  # who cannot look knows of no reason to end

    def _has_time(self, held: str, waited: float) -> bool:
        from s3mount_agent.system import systemd  # of which a start needs nothing

        systemd.notify(f"EXTEND_TIMEOUT_USEC={_EXTENSION_SECONDS * 1e6:.0f}")
        connection = fuse_connections.load(self._directory)
        if connection is not None:
            held = held or fuse_connections.users(self._directory) or _NOBODY
            if connection.waiting != held:
                _remember(connection._replace(waiting=held))
            if self._is_stuck(alone=bool(connection.device) and held == _NOBODY):
                return False
        return waited < _SHUTDOWN_SECONDS or not systemd.is_stopping()

    def _is_stuck(self, *, alone: bool) -> bool:
        """Whether nothing can come of waiting: nobody has the mount, and its process does not
        work. One that empties its cache does."""
        spent = procfs.processor_seconds(self._pid)
        if not alone or spent != self._spent:
            self._worked, self._spent = self._looked, spent
        return self._looked - self._worked > _STUCK_SECONDS


def unmount(directory: str, pid: int) -> bool:
    """Unmounts our mount, if nothing is in use by anybody, here or in another mount namespace;
    raises ``mount-busy`` with who it is, or ``directory-in-use`` where something covers it."""
    own, table = _own(directory)
    if own is None:
        return True
    if own != table.on(directory):
        raise AgentError(
            Problem.DIRECTORY_IN_USE,
            f"something else is mounted on {directory}, over the agent's mount",
        )
    from s3mount_agent.filesystem import holders  # of which a start needs nothing

    left = holders.left_by_unmount(own)
    if left:
        raise AgentError(Problem.MOUNT_BUSY, f"{directory} is in use", cause=", ".join(left))
    try:
        _unmount(directory, lazy=False)
    except AgentError as error:
        if error.problem is Problem.MOUNT_BUSY:
            raise error.caused_by(holders.of(own) or None) from None
        raise
    return True


def detach(directory: str, pid: int) -> bool:
    """Takes a mount away from everybody at once, also one that hangs, and goes no path for it.

    Aborting its connection sets free whoever waits for an answer:
    https://docs.kernel.org/filesystems/fuse.html (section "Aborting a filesystem connection")
    What is left is at most one dead mount, which ``clean`` takes away.
    """
    own, _ = _own(directory)
    if own is not None:
        fuse.abort(own.minor)
    else:
        connection = fuse_connections.load(directory)
        # It lives on for others although it has been unmounted here.
        if connection is not None and connection.device and connection.is_alive:
            fuse.abort(fuse_connections.gone(connection).minor)
    return True


def _own(directory: str) -> tuple[Entry | None, Table]:
    table = Table.read()
    connection = fuse_connections.load(directory)
    return fuse_connections.ours(table, directory, connection, running=True), table


def _unmount(directory: str, *, lazy: bool) -> None:
    """The way to the directory may hang: then one child is left there, and no more than one."""
    try:
        probe.ask(
            _umount2,
            directory,
            lazy,
            timeout=_UNMOUNT_SECONDS,
            place=f"unmount {directory}",
        )
    except SilenceError as error:
        raise AgentError(
            Problem.PROGRAM_TIMEOUT,
            f"{directory} could not be unmounted: the way there does not answer",
            cause=str(error),
        ) from None


def _umount2(directory: str, lazy: bool) -> None:  # noqa: FBT001  called through probe.ask
    mountinfo.unmount(directory, lazy=lazy)


HOOKS: dict[str, Callable[..., bool]] = {
    "prepare": prepare,
    "clean": clean,
    "ready": ready,
    "stop": stop,
    "tear": tear,
    "unmount": unmount,
    "detach": detach,
}
BUSY = 75
"""How a hook ends that found the mount in use, with who uses it on stdout: EX_TEMPFAIL of
sysexits.h, which nothing else here ends with."""
