"""Who installs or removes packages now, by the locks of package managers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from s3mount_agent.filesystem import procfs

# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"
# By how much the clocks of a file system and of the kernel may differ.
_CLOCK_SECONDS = 2.0


def of_file(path: Path) -> str | None:
    """The program, with its pid, that holds a POSIX lock on a file; None if none does."""
    try:
        with path.open("rb+") as stream:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, asked))
            return None if kind == fcntl.F_UNLCK else _program(pid)
    except OSError:
        return None


def of_pid_files(paths: Iterable[Path]) -> str | None:
    """The program, with its pid, that one of some files names; None where it has ended, also if
    another one has its pid by now."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            start = procfs.started(pid)
            written = path.stat().st_mtime + _CLOCK_SECONDS
            if start is not None and procfs.moment(start) <= written:
                return _program(pid)
    return None


def _program(pid: int) -> str:
    return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
