"""Files: each is written whole or not at all, also when the power goes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem

# What a file is called until it is whole: .NAME.PID.THREAD and this.
_SUFFIX = ".s3mount-new"
# linux/fs.h: the same numbers on x86_64 and arm64.
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


@contextlib.contextmanager
def told_plainly(what: str) -> Iterator[None]:
    """Turns an OSError into ``no-space`` or ``file-failed``; ``what`` completes "could not …"."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = Problem.NO_SPACE if full else Problem.FILE_FAILED
        raise AgentError(problem, f"could not {what}", cause=str(error)) from error


def read(path: Path) -> str | None:
    """The text of a file, or None where there is no file. Raises ``file-failed``."""
    with told_plainly(f"read {path}"):
        try:
            return path.read_bytes().decode("utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return None


def lines(paths: Iterable[Path]) -> Iterator[str]:
    """The lines of those files that are there and may be read."""
    for path in paths:
        with contextlib.suppress(AgentError):
            yield from (read(path) or "").splitlines()


def modified(path: Path) -> int:
    """When a file was changed (nanoseconds), or 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is changed or replaced. Not when it was modified, which a package
    may say as it likes. Raises ``file-failed``."""
    with told_plainly(f"look at {path}"):
        status = path.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


def permissions(path: Path) -> int:
    """The permission bits of a file, or 0 where there is none."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0


def write(path: Path, text: str, *, mode: int = 0o644, exactly: int | None = None) -> bool:
    """Makes a file hold ``text``; returns whether anything had to change.

    Readers see the old text or the new one, never a part; an existing file keeps its mode and
    owner, unless ``exactly`` says which mode it has to have. Raises ``no-space`` or
    ``file-failed``.
    """
    if read(path) == text and (exactly is None or permissions(path) == exactly):
        return False
    import threading  # of which who only reads needs nothing

    with told_plainly(f"write {path}"):
        target = path.resolve()  # /etc/fuse.conf may be a link: the link must stay
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = f"{os.getpid()}.{threading.get_ident()}"
        name = target.with_name(f".{target.name}.{writer}{_SUFFIX}")
        name.unlink(missing_ok=True)  # whatever that is: it must not be written through
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # somebody is at work on it
                stream.write(text.encode("utf-8", errors="surrogateescape"))
                stream.flush()
                _copy_ownership(target, descriptor, mode)
                if exactly is not None:
                    os.fchmod(descriptor, exactly)
                os.fsync(descriptor)
            name.replace(target)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)
    return True


def write_in(directory: int, name: str, text: str) -> None:
    """Makes a file (0644) in an open directory hold ``text``, and follows no link. Readers see the
    old text or the new one. For one writer: what an earlier one left is removed. Raises OSError."""
    new = f".{name}{_SUFFIX}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode("utf-8", errors="surrogateescape"))
            stream.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(new, dir_fd=directory)
        raise


def sweep(directory: Path) -> None:
    """Removes what is left of files that were being written when the power went."""
    for path in directory.glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def require_writable(directory: Path) -> None:
    """Refuses a directory in which nothing can be changed, as on a file system that is read-only;
    one that is missing has nothing to be changed. Raises ``file-failed``."""
    if directory.exists() and not os.access(directory, os.W_OK):
        raise AgentError(
            Problem.FILE_FAILED,
            f"{directory} cannot be changed, so that nothing was begun",
            cause="its file system is read-only, or the directory is immutable",
            hint="see `findmnt -T DIRECTORY` and `lsattr -d DIRECTORY`, then run again",
        )


def make_immutable(name: str, parent: int, *, immutable: bool = True) -> None:
    """Has nobody make anything in a directory of an open one, root included, or lets them again:
    `chattr +i`, FS_IOC_SETFLAGS(2const). Where the file system cannot do that, or we may not,
    nothing happens. Raises OSError where there is no such directory."""
    way = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(name, way, dir_fd=parent)
    try:
        with contextlib.suppress(OSError):
            before = bytearray(8)
            fcntl.ioctl(directory, _GET_FLAGS, before)
            flags = int.from_bytes(before[:4], sys.byteorder)
            wanted = flags | _IMMUTABLE if immutable else flags & ~_IMMUTABLE
            if wanted != flags:
                fcntl.ioctl(directory, _SET_FLAGS, wanted.to_bytes(8, sys.byteorder))
    finally:
        os.close(directory)


def remove(path: Path) -> bool:
    """Removes a file; returns whether there was one. Raises ``file-failed``."""
    with told_plainly(f"remove {path}"):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        _sync_directory(path.parent)
        return True


def _copy_ownership(target: Path, descriptor: int, mode: int) -> None:
    try:
        before = target.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, mode)
        return
    os.fchmod(descriptor, before.st_mode & 0o7777)
    os.fchown(descriptor, before.st_uid, before.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
