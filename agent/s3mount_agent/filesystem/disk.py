"""What is there on the node's own disk, and what goes: the agent's own directories and files.

For what a configuration or a user named there is safe_path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from s3mount_agent.core.errors import AgentError, Problem
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


def make_directory(path: Path) -> None:
    """Makes a directory, with those above it, where there is none; raises ``no-space`` or
    ``file-failed``."""
    with files.told_plainly(f"make the directory {path}"):
        path.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a directory with all that is in it, as far as that can be."""
    shutil.rmtree(path, ignore_errors=True)


def empty_but(directory: Path, kept: Path) -> None:
    """Removes all that is in a directory but one file, as far as that can be."""
    for path in matching(directory, "*"):
        if path != kept:
            remove_tree(path)
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def kept_as_found(directories: Iterable[Path]) -> Iterator[None]:
    """Has directories be afterwards as they were before, whatever programs put there meanwhile, and
    those that were not there be gone. Raises ``no-space`` or ``file-failed``."""
    import tempfile  # which `status` does without

    with contextlib.ExitStack() as undo:
        for directory in directories:
            if not directory.is_dir():
                undo.callback(remove_tree, directory)
                continue
            with files.told_plainly(f"keep {directory} as it is"):
                copy = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
                undo.callback(remove_tree, copy)
                shutil.copytree(
                    directory, copy, symlinks=True, copy_function=_copied, dirs_exist_ok=True
                )
            undo.callback(_put_back, copy, directory)
        yield


def _copied(source: str, target: str) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
    status = Path(source).lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)


def _put_back(copy: Path, directory: Path) -> None:
    with files.told_plainly(f"give {directory} back what was there"):
        for path in sorted(directory.rglob("*"), reverse=True):  # what is within comes first
            if not os.path.lexists(copy / path.relative_to(directory)):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
        for found in sorted(copy.rglob("*")):
            path = directory / found.relative_to(copy)
            if found.is_dir() and not found.is_symlink():
                path.mkdir(exist_ok=True)
            elif not _is_same(found, path):
                found.replace(path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether a file and its copy are as they were when it was made."""
    try:
        here, there = one.lstat(), other.lstat()
    except FileNotFoundError:
        return False
    return (here.st_mode, here.st_size, here.st_mtime_ns) == (
        there.st_mode,
        there.st_size,
        there.st_mtime_ns,
    )


def remove_if_empty(path: Path) -> None:
    """Removes a directory, unless there is something in it."""
    with contextlib.suppress(OSError):
        path.rmdir()


def require_free(paths: Iterable[Path], needed: int, purpose: str) -> None:
    """Raises ``no-space`` where the file system of one of some paths has less than ``needed`` bytes
    free; what is not there is not asked."""
    for path in paths:
        if path.exists() and shutil.disk_usage(path).free < needed:
            raise AgentError(
                Problem.NO_SPACE,
                f"{path} has less than {needed >> 20} MB free, which {purpose} need",
            )


def program(name: str, places: str) -> str | None:
    """Where a program is in some directories (``/usr/bin:/bin``)."""
    return shutil.which(name, path=places)
