"""The directories that mounts go on: which can be used, and which the agent made itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

from s3mount_agent.core.directory_rules import is_below, normal
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.states import Presence
from s3mount_agent.core.text import shown
from s3mount_agent.filesystem import mountinfo, safe_path
from s3mount_agent.filesystem.mountinfo import Entry
from s3mount_agent.state import inventory
from s3mount_agent.supervisor import hooks

_RECORD = threading.Lock()


def require_usable(directory: str, table: Mapping[str, Entry], *, own: bool) -> None:
    """Refuses a directory that nothing can be mounted on; ``own``: the agent has a mount there.

    Raises ``directory-in-use``, ``directory-not-empty``, ``directory-not-a-directory`` or
    ``directory-invalid``. Never looks into anything that is mounted on it.
    """
    entry = table.get(directory)
    if entry is not None:
        if not own or entry.presence is not Presence.OURS:
            raise AgentError(
                Problem.DIRECTORY_IN_USE,
                f"{directory} is already a mount of {shown(entry.source)} ({shown(entry.fstype)})",
            )
        return
    hidden = next((other for other in table if is_below(other, directory)), None)
    if hidden:
        raise AgentError(
            Problem.DIRECTORY_IN_USE,
            f"a mount on {directory} would hide the mount on {shown(hidden)}",
        )
    _require_free(directory)


def _require_free(directory: str) -> list[str]:
    """Refuses what cannot be used; returns what is missing on the way to it, outermost first."""
    safe_path.require(directory)
    missing, inside = safe_path.survey(directory)
    if inside is not None:
        raise AgentError(
            Problem.DIRECTORY_NOT_EMPTY, f"{directory} is not empty: it holds {inside!r}"
        )
    return missing


def make(directory: str) -> None:
    """Makes a directory and its parents where they are missing, and writes down which were.

    They belong to root, and the one that is to be mounted on is closed to root, too, if the agent
    has made it: while nothing is mounted, nobody fills the node's disk by mistake.
    """
    if mountinfo.presence(directory) is not Presence.ABSENT:
        return  # to look at what is mounted might hang, and a dead mount seems not to exist
    # It may have changed since the configuration was accepted.
    _write_down(_require_free(directory))
    safe_path.make(directory, own=inventory.load().directories)


def make_stores(definition: Definition) -> None:
    """Makes the directories that mount-s3 is to write to, writes down which, and refuses what it
    cannot safely be told to write or read: each start looks again (supervisor.hooks).

    What is on a disk that comes with the start (RequiresMountsFor=) is made by that alone: the disk
    would cover it."""
    to_come = mountinfo.fstab().difference(mountinfo.read(), [""])
    here = []
    for kind, path in definition.places:
        if kind in hooks.STORES:
            _write_down(safe_path.survey(path)[0])
        if not any(path == disk or is_below(path, disk) for disk in to_come):
            here.append((kind, path))
    hooks.require_places(here)


def _write_down(made: Iterable[str]) -> None:
    """Several mounts may be at it: one whose file system hangs must not keep the others waiting."""
    with _RECORD:
        belongings = before = inventory.load()
        for each in made:
            belongings = belongings.with_directory(each)
        if belongings != before:
            inventory.save(belongings)


def tidy(wanted: Iterable[Mount]) -> bool:
    """Removes those that the agent made for mounts that are no longer wanted, to be mounted on or
    to be stored in.

    They are still there where the power went before they could be removed with their mount. Returns
    whether all places answered.
    """
    kept: set[str] = set()
    for mount in wanted:
        stores = filter(None, map(mount.options.value, hooks.STORES))
        kept.update([mount.directory, *map(normal, stores)])
    left = [
        made
        for made in inventory.load().directories
        if made not in kept and not any(is_below(directory, made) for directory in kept)
    ]
    return remove(sorted(left, key=len, reverse=True))


def remove(directories: Iterable[str]) -> bool:
    """Removes those that the agent made, with the parents it made for them, as far as they are
    empty and nothing is mounted on them. Returns whether all places answered."""
    made = before = inventory.load()
    ways = [
        str(each)
        for directory in directories
        for each in takewhile(lambda path: str(path) in made.directories, _upwards(directory))
    ]
    try:
        for gone in safe_path.remove(ways):
            made = made.without_directory(gone)
    except AgentError:
        return False
    if made != before:
        inventory.save(made)
    return True


def _upwards(directory: str) -> tuple[Path, ...]:
    return Path(directory), *Path(directory).parents
