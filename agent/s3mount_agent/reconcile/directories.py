"""The directories that mounts go on: which can be used, and which the agent made itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from s3mount_agent.core.directory import is_below
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence
from s3mount_agent.state import inventory
from s3mount_agent.system import files, mountinfo
from s3mount_agent.system.mountinfo import Entry


def require_usable(directory: str, table: Mapping[str, Entry], *, own: bool) -> None:
    """Refuses a directory that nothing can be mounted on; ``own``: the agent has a mount there.

    Raises ``directory-in-use``, ``directory-not-empty``, ``directory-not-a-directory`` or
    ``directory-invalid``. Never looks into anything that is mounted on it.
    """
    entry = table.get(directory)
    if entry is not None:
        if not own or entry.presence is not Presence.MOUNTPOINT_S3:
            raise AgentError(
                Problem.DIRECTORY_IN_USE,
                f"{directory} is already a mount of {entry.source} ({entry.fstype})",
            )
        return
    hidden = next((other for other in table if is_below(other, directory)), None)
    if hidden:
        raise AgentError(
            Problem.DIRECTORY_IN_USE, f"a mount on {directory} would hide the mount on {hidden}"
        )
    _require_free(directory)


def _require_free(directory: str) -> None:
    parent, name = os.path.split(directory)
    real = str(Path(os.path.realpath(parent), name))
    if real != directory or Path(real).is_symlink():
        raise AgentError(
            Problem.DIRECTORY_INVALID,
            f"{directory} leads through a symbolic link",
            hint=f"give the path itself: {os.path.realpath(directory)}",
        )
    try:
        if not stat.S_ISDIR(Path(directory).stat().st_mode):
            raise NotADirectoryError
        with os.scandir(directory) as names:
            first = next(names, None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise AgentError(
            Problem.DIRECTORY_NOT_A_DIRECTORY, f"{directory} is a file, or lies below one"
        ) from None
    if first is not None:
        raise AgentError(
            Problem.DIRECTORY_NOT_EMPTY, f"{directory} is not empty: it holds {first.name!r}"
        )


def make(directory: str) -> None:
    """Makes a directory and its parents where they are missing, and writes down which were.

    They belong to root: while nothing is mounted, nobody fills the node's disk by mistake.
    """
    if mountinfo.presence(directory) is not Presence.ABSENT:
        return  # to look at what is mounted might hang, and a dead mount seems not to exist
    _require_free(directory)  # it may have changed since the configuration was accepted
    missing: list[Path] = []
    path = Path(directory)
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = path.parent
    for each in missing:
        inventory.save(inventory.load().with_directory(str(each)))
        with files.told_plainly(f"make the directory {each}"):
            each.mkdir(mode=0o755, exist_ok=True)
            each.chmod(0o755)


def tidy(wanted: Iterable[str]) -> None:
    """Removes those that the agent made for mounts that are no longer wanted.

    They are still there where the power went before they could be removed with their mount.
    """
    kept = set(wanted)
    left = [
        made
        for made in inventory.load().directories
        if made not in kept and not any(is_below(directory, made) for directory in kept)
    ]
    if left:
        remove(sorted(left, key=len, reverse=True))


def remove(directories: Iterable[str]) -> None:
    """Removes those that the agent made, with the parents it made for them, as far as they are
    empty and nothing is mounted on them."""
    made = inventory.load()
    for directory in directories:
        path = Path(directory)
        while str(path) in made.directories:
            try:
                path.rmdir()  # fails, as it should, on what is not empty or is a mount
            except FileNotFoundError:
                pass
            except OSError:
                break
            made = made.without_directory(str(path))
            path = path.parent
    inventory.save(made)
