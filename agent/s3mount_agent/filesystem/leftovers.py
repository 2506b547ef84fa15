"""What is left behind: files that were being written when the power went, and builds of the agent
that nothing runs any more."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
from pathlib import Path

from s3mount_agent.filesystem import files, fuse, paths
from s3mount_agent.system import systemd

_PLACES = (
    fuse.CONF.parent,
    systemd.ETC,
    systemd.RUN,
    paths.CONFIGURATION,
    paths.STATE,
    paths.RUN,
    paths.RUN / "mounts",
    paths.RUN / "connections",
    paths.STATE / "definitions",
    paths.RUN / "definitions",
)


def sweep_files() -> None:
    """Removes files that are only half there, wherever the agent writes."""
    for place in _PLACES:
        files.sweep(place)


def sweep_builds() -> None:
    """Removes builds of the agent that nothing runs any more, if this one is in force."""
    root = paths.ROOT
    if (root / "current").resolve() != paths.HOME:
        return
    with contextlib.suppress(OSError):
        lock = os.open(root / ".lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            # Held by s3mount-bootstrap while it puts another one there.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for build in root.iterdir():
                if build != paths.HOME and not build.is_symlink() and build.name[0] != ".":
                    _remove(build)
        finally:
            os.close(lock)


@functools.cache
def keep_build() -> None:
    """Keeps the build that runs this where it is for as long as this process lives: what it has not
    imported yet it still may need."""
    with contextlib.suppress(OSError):
        build = os.open(paths.HOME, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(build, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _remove(build: Path) -> None:
    """Removes a build, unless a command of it is still at work."""
    with contextlib.suppress(OSError):
        descriptor = os.open(build, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(build, ignore_errors=True)
        finally:
            os.close(descriptor)
