"""The file of figures for Prometheus: root's, in a directory that a configuration chose; written
whole, through no link."""

from __future__ import annotations

import contextlib
import os
import stat

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files, safe_path

_HEAD = b"# HELP s3mount_"


def write(path: str, text: str) -> None:
    """Writes the figures; raises ``path-unsafe``, ``no-space``, ``file-failed`` or
    ``path-silent``."""
    safe_path.asked(_write, path, text)


def take_back(path: str | None) -> None:
    """Removes the file, if it begins as ours do: figures that nobody writes any more would be
    collected for ever. What cannot be removed stays."""
    if path:
        with contextlib.suppress(AgentError, OSError):
            safe_path.asked(_remove, path)


def _write(path: str, text: str) -> None:
    with safe_path.parent_of(path) as (directory, name), files.told_plainly(f"write {path}"):
        _require_ours(path, directory, name)
        files.write_in(directory, name, text)


def _remove(path: str) -> None:
    with safe_path.parent_of(path, make=False) as (directory, name):
        _require_ours(path, directory, name)
        # A FIFO that comes between would not be waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as stream:
            if stream.read(len(_HEAD)) == _HEAD:
                os.unlink(name, dir_fd=directory)


def _require_ours(path: str, directory: int, name: str) -> None:
    """What is there already must be a file of root's: no link, FIFO or device, nobody else's."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise AgentError(
            Problem.PATH_UNSAFE,
            f"{path} is not safe: what is there is no regular file of root's",
            hint="remove it: the agent writes a new one",
        )
