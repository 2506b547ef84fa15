"""What is there on the node's own disk, and what goes: the agent's own directories and files.

For what a configuration or a user named there is safe_path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import IO

from s3mount_agent.filesystem import files


def exists(path: Path) -> bool:
    """Whether there is something; a link that leads nowhere is nothing."""
    return path.exists()


def is_link(path: Path) -> bool:
    """Whether this is a symbolic link."""
    return path.is_symlink()


def matching(directory: Path, pattern: str) -> list[Path]:
    """What is in a directory by names such as ``*.json``, in their order."""
    return sorted(directory.glob(pattern))


def identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is changed or replaced. Not when it was modified, which a package
    may say as it likes. Raises ``file-failed``."""
    with files.told_plainly(f"look at {path}"):
        status = path.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


def head(path: Path, most: int) -> bytes:
    """The first bytes of a file; raises OSError."""
    with path.open("rb") as file:
        return file.read(most)


def head_of_any(path: str, most: int) -> str:
    """The first bytes of a regular file that anybody may have named, as :func:`files.read` makes
    them a text: for a child that can be left behind. Raises OSError."""
    with _open_any(path) as file:
        return file.read(most).decode(errors="surrogateescape")


def copy_any(path: str, target: str, most: int) -> None:
    """Copies such a file, for such a child. Raises OSError, of which EFBIG is for more than so many
    bytes, and ``no-space`` or ``file-failed`` for what goes wrong on the way."""
    with _open_any(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        with files.told_plainly(f"copy {path} to {target}"), create(Path(target)) as copy:
            shutil.copyfileobj(file, copy)


def _open_any(path: str) -> IO[bytes]:
    """A regular file, without waiting for anybody who is to write to a FIFO."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return file


def create(path: Path) -> IO[bytes]:
    """Opens a new or empty file for writing; raises ``no-space`` or ``file-failed``."""
    with files.told_plainly(f"write {path}"):
        return path.open("wb")


def move(path: Path, target: Path) -> None:
    """Gives a file another name; raises ``no-space`` or ``file-failed``."""
    with files.told_plainly(f"move {path}"):
        path.replace(target)


def empty_directory(path: Path, mode: int = 0o755) -> None:
    """Makes a directory in which there is nothing; raises ``no-space`` or ``file-failed``."""
    remove_tree(path)
    with files.told_plainly(f"make the directory {path}"):
        path.mkdir(mode, parents=True)


def remove_tree(path: Path) -> None:
    """Removes a directory with all that is in it, as far as that can be."""
    shutil.rmtree(path, ignore_errors=True)


def remove_if_empty(path: Path) -> None:
    """Removes a directory, unless there is something in it."""
    with contextlib.suppress(OSError):
        path.rmdir()


def program(name: str, places: str) -> str | None:
    """Where a program is in some directories (``/usr/bin:/bin``)."""
    return shutil.which(name, path=places)
