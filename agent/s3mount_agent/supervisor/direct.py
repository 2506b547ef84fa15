"""mount-s3 without systemd: processes of their own session, remembered in /run by pid and start.

For containers and images where something else is PID 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from s3mount_agent.config import environment
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Placed, Wanted
from s3mount_agent.filesystem import disk, files, json_codec, paths, procfs
from s3mount_agent.mountpoint import messages
from s3mount_agent.supervisor import fuse_connections, hooks
from s3mount_agent.system import process

_HOME = paths.RUN / "mounts"
_GONE_SECONDS = 80.0
_SOON_SECONDS = 1.0
_KILL_SECONDS = 10.0
_MOUNTED = (Presence.OURS, Presence.COVERED)


class Processes:
    """The supervisor of nodes without systemd. A definition is a file ``<id>.json``, its process a
    file ``<id>.pid`` ("pid starttime"), and what mount-s3 said a file ``<id>.log``."""

    def text(self, definition: Definition) -> str:
        """The definition as JSON."""
        return definition.to_json() + "\n"

    def placed(self) -> dict[str, Placed]:
        """Reads the definitions, and whether their processes live and are mounted."""
        found = {}
        for path in disk.matching(_HOME, "*.json"):
            known = json_codec.read(
                path, lambda text: (Definition.from_json(text), text), parse=str
            )
            if known is not None:
                definition, text = known
                pid = _living(path.stem)
                directory = definition.directory
                mounted = fuse_connections.presence(directory, running=pid is not None) in _MOUNTED
                found[path.stem] = Placed(
                    id=path.stem,
                    definition=definition,
                    text=text,
                    active=pid is not None and mounted,
                    starting=pid is not None and not mounted,
                    pid=pid,
                )
        return found

    def foreign(self) -> dict[str, str]:
        """Nobody else writes there."""
        return {}

    def write(self, wanted: Sequence[Wanted]) -> dict[str, AgentError]:
        """Writes the definitions."""
        failures: dict[str, AgentError] = {}
        for want in wanted:
            try:
                files.write(_HOME / f"{want.mount.id}.json", want.text)
            except AgentError as error:
                failures[want.mount.id] = error
        return failures

    def await_start(self, want: Wanted) -> None:
        """Returns when mount-s3 has mounted."""
        if not hooks.ready(want.mount.directory, _living(want.mount.id) or 0):
            raise _explain(want.mount.id, want.definition)

    def start_later(self, want: Wanted) -> None:
        """Runs mount-s3 in a session of its own, with nothing of ours open."""
        mount_id = want.mount.id
        _end(mount_id)
        places = (f"{kind}={path}" for kind, path in want.definition.places)
        hooks.prepare(want.mount.directory, 0, *places)
        pid = process.start(
            want.definition.command,
            errors=_log(mount_id),
            extra_environment=environment.of_mounts(),
        )
        files.write(_HOME / f"{mount_id}.pid", f"{pid} {procfs.started(pid)}\n")

    def failure(self, placed: Placed) -> AgentError | None:
        """What a process that has ended said."""
        if placed.active or placed.starting or not disk.exists(_log(placed.id)):
            return None
        return _explain(placed.id, placed.definition)

    def end(self, placed: Placed) -> None:
        """Aborts the connection and kills the process."""
        hooks.detach(placed.definition.directory, 0)
        _end(placed.id, at_once=True)
        hooks.clean(placed.definition.directory, 0)

    def stop(self, placed: Placed, *, force: bool = False, patient: bool = True) -> None:
        """Unmounts and waits for the process to end; while the mount is used neither happens."""
        directory = placed.definition.directory
        alive = placed.pid is not None
        presence = fuse_connections.presence(directory, running=alive)
        if alive and force:
            hooks.detach(directory, 0)
        elif alive and presence is Presence.OURS:
            hooks.unmount(directory, 0)
            _await_end(directory, placed.pid or 0, patient=patient)
        elif alive and presence is Presence.ABSENT:
            fuse_connections.require_unused(directory)
            if fuse_connections.was_mounted(directory):
                _await_end(directory, placed.pid or 0, patient=patient)
            force = True  # it never was, and is of use to nobody
        _end(placed.id, at_once=force)
        hooks.clean(directory, 0)

    def remove(self, placed: Sequence[Placed]) -> dict[str, AgentError]:
        """Removes the files."""
        failures: dict[str, AgentError] = {}
        for each in placed:
            try:
                for suffix in (".json", ".pid", ".log"):
                    files.remove(_HOME / f"{each.id}{suffix}")
                fuse_connections.forget(each.definition.directory)
            except AgentError as error:
                failures[each.id] = error
        return failures


def _await_end(directory: str, pid: int, *, patient: bool) -> None:
    """Waits for a process whose mount has been taken away: never killed, for somebody may have it
    elsewhere, or it may be uploading still."""
    deadline = time.monotonic() + (_GONE_SECONDS if patient else _SOON_SECONDS)
    while procfs.started(pid) is not None:
        if time.monotonic() > deadline:
            fuse_connections.require_unused(directory)
            if patient:
                raise fuse_connections.still_served(directory, "")
            raise fuse_connections.ending(directory)
        time.sleep(0.05)


def _log(mount_id: str) -> Path:
    return _HOME / f"{mount_id}.log"


def _explain(mount_id: str, definition: Definition) -> AgentError:
    words = files.read(_log(mount_id)) or ""
    return messages.explain(words, bucket=definition.bucket, directory=definition.directory)


def _living(mount_id: str) -> int | None:
    """The pid of a mount's process, or None if it has ended."""
    known = json_codec.read(_HOME / f"{mount_id}.pid", _process, parse=str.split)
    return known[0] if known and procfs.started(known[0]) == known[1] else None


def _process(words: list[str]) -> tuple[int, int]:
    pid, start = words
    if not all(word.isdecimal() and len(word) < 20 for word in words):
        raise ValueError("it is not a process and when that started")
    return int(pid), int(start)


def _end(mount_id: str, *, at_once: bool = False) -> None:
    """Sees to it that a mount's process is gone: asked first, then killed."""
    steps = [("SIGTERM", _GONE_SECONDS), ("SIGKILL", _KILL_SECONDS)]
    for name, patience in steps[1:] if at_once else steps:
        pid = _living(mount_id)
        if pid is None:
            return
        process.send(pid, name)
        deadline = time.monotonic() + patience
        while _living(mount_id) and time.monotonic() < deadline:
            time.sleep(0.05)
    if _living(mount_id):
        raise AgentError(
            Problem.MOUNT_BUSY,
            f"the mount-s3 of {mount_id} cannot be ended: it hangs in the kernel",
        )
