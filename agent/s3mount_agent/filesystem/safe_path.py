"""The way to what root mounts on, writes or reads for a configuration: walked without following a
link, through directories in which nobody but root can put one thing in the place of another.

There is nothing to race then. A way that others can change is refused, however it looks just now.
What may wait for a file system of somebody else's is done by a child that can be left behind; where
it does not answer, it is ``path-silent``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from s3mount_agent.core.directory_rules import (
    PATH_FILES,
    PATH_FOLDERS,
    in_search_path,
    is_below,
    is_searched,
)
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files, mountinfo
from s3mount_agent.filesystem.mountinfo import Entry
from s3mount_agent.system import probe

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Ubuntu's belongs to root:syslog and lets that group, which no user is in, write.
_SYSTEMS_GROUP = frozenset({"/var/log"})
# In here what is missing may be made with its parents: the disk is the node's own.
_ALWAYS_THERE = ("/var/cache", "/var/log")
_MOST_LINKS = 40
_SECONDS = 5.0


@dataclass
class _Place:
    """As far as a way exists: an open directory (O_PATH), its path, and the names that follow."""

    descriptor: int
    path: str
    missing: list[str]

    def step(self, descriptor: int, name: str) -> None:
        """Goes on to a directory that is open; closes the one before."""
        os.close(self.descriptor)
        self.descriptor = descriptor
        self.path = posixpath.normpath(posixpath.join(self.path, name))


def survey(directory: str) -> tuple[list[str], str | None]:
    """The directories that are missing on the way to a future mount, outermost first, and the name
    of something that lies in it.

    Raises ``path-unsafe``, ``directory-invalid`` (a link), ``directory-not-a-directory`` or
    ``file-failed``. Nothing must be mounted on the directory itself.
    """
    missing, inside = asked(_survey, directory)
    return missing, inside


def require(directory: str, *, there: bool = False) -> None:
    """Refuses a directory on which root cannot mount safely, as :func:`survey` does; one that is
    mounted is judged by the way to it. Raises ``directory-reserved``, too.

    ``there``: it is to be mounted on next, and one that is missing is refused (``path-missing``):
    where others may make directories, what turns up under its name may be theirs, or a link.
    """
    _require_not_the_systems(directory)
    for searched in _search_path():
        if searched == directory or is_below(searched, directory) or is_below(directory, searched):
            raise AgentError(
                Problem.DIRECTORY_RESERVED,
                f"the programs of this node search {searched}, which {directory} would hide",
            )
    asked(_require, directory, there)


def make(directory: str, own: Collection[str] = ()) -> None:
    """Makes a directory, and those that are missing on the way to it, for root alone to change.

    ``own`` are those that are ours to close: if the directory is one, nobody can write in it, root
    included, where its file system can do that. All by descriptor: whatever happens to the names
    meanwhile, no mode of anything else changes. Raises as :func:`survey` does, and ``no-space``.
    """
    asked(_make, directory, frozenset(own))


def make_store(directory: str, mode: int) -> None:
    """Makes sure of a directory that mount-s3 writes to, such as its cache: root's, nobody else
    may write in it, and its parent was there before (else it may be that its disk is not).

    Raises as :func:`make` does, and ``directory-reserved``.
    """
    _require_not_the_systems(directory)
    asked(_make_store, directory, mode)


def remove(directories: Sequence[str]) -> list[str]:
    """Removes empty directories, in this order, and returns those that are gone: not where
    something is in it or on it, or the way to it is no longer root's. One child goes to all of
    them, and to none after one that does not answer. Raises ``path-silent``."""
    return list(asked(_remove, *directories)) if directories else []


def require_file(path: str) -> None:
    """Refuses a file that root cannot safely be told to read: it must be a regular file of root's,
    which nobody else can change or exchange. Links of root's are followed.

    Raises ``path-unsafe`` or ``file-failed``.
    """
    asked(_require_file, path)


@contextlib.contextmanager
def parent_of(path: str, *, make: bool = True) -> Iterator[tuple[int, str]]:
    """The open directory (O_PATH) that holds a file of root's, made where it is missing, and the
    file's name in it. Raises as :func:`make` does, and asks no child: for what lies on the node's
    own disk."""
    parent, name = posixpath.split(path)
    with _open(parent, "write there", kept=True) as place:
        if make:
            _make_missing(place, 0o755)
        if place.missing:
            raise AgentError(Problem.FILE_FAILED, f"there is no directory {parent}")
        yield place.descriptor, name


def _search_path() -> list[str]:
    """Where this node's programs and libraries are searched, beyond what is the same everywhere.

    By a child: links may lead anywhere. Where that does not answer, it is our own PATH.
    """
    try:
        return list(probe.ask(_searched, timeout=_SECONDS))
    except probe.SilenceError:
        return os.environ.get("PATH", "").split(":")


def _searched() -> list[str]:
    libraries = [Path("/etc/ld.so.conf"), *Path("/etc/ld.so.conf.d").glob("*.conf")]
    places = [line.strip() for line in files.lines(libraries) if line.startswith("/")]
    sources = [Path(each) for each in PATH_FILES]
    sources += [each for folder in PATH_FOLDERS for each in Path(folder).glob("*")]
    named = {*places, *in_search_path(os.environ.get("PATH", ""), files.lines(sources))}
    return sorted(named | set(map(os.path.realpath, named)))


def asked(function: Callable[..., Any], path: str, *arguments: object) -> Any:
    """What a function finds or does at a path that may lie on somebody else's file system: in a
    child that can be left behind. Raises ``path-silent`` beside what the function raises."""
    try:
        return probe.ask(function, path, *arguments, timeout=_SECONDS)
    except probe.SilenceError as error:
        raise AgentError(
            Problem.PATH_SILENT,
            f"the file system that {path} is to be on does not answer",
            cause=error.strerror,
        ) from None


def _require_not_the_systems(directory: str) -> None:
    for alias in mountinfo.aliases(directory, mountinfo.entries()):
        if is_searched(alias):
            raise AgentError(
                Problem.DIRECTORY_RESERVED,
                f"{directory} is the same place as {alias}, which belongs to the system",
            )


def _survey(directory: str) -> tuple[list[str], str | None]:
    with _open(directory, "mount there") as place:
        if place.missing:
            return _joined(place.path, place.missing), None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        inside = os.open(".", flags, dir_fd=place.descriptor)
        try:
            with os.scandir(inside) as names:
                first = next(names, None)
        finally:
            os.close(inside)
    return [], first.name if first else None


def _require(directory: str, there: bool = False) -> None:  # noqa: FBT001, FBT002  through probe.ask
    table = mountinfo.read()
    mounted = directory in table
    judged = posixpath.dirname(directory) if mounted else directory
    # A user could take his own off again, and beneath it is what he likes.
    _require_touchable(directory, table)
    with _open(judged, "mount there", table, kept=mounted) as place:
        if there and place.missing:
            raise AgentError(Problem.PATH_MISSING, f"there is no directory {directory}")


def _make(directory: str, own: Collection[str]) -> None:
    with _open(directory, "mount there") as place:
        if place.missing and place.path in own:  # there was a mount once, on what is a parent now
            files.make_immutable(".", place.descriptor, immutable=False)
        _make_missing(place, 0o755)
        if directory in own:
            files.make_immutable(".", place.descriptor)


def _make_store(directory: str, mode: int) -> None:
    with _open(directory, "write there") as place:
        own = any(is_below(directory, each) for each in _ALWAYS_THERE)
        if len(place.missing) > 1 and not own:
            raise AgentError(
                Problem.PATH_MISSING,
                f"{directory} cannot be made: there is no directory {posixpath.dirname(directory)}",
            )
        _make_missing(place, mode)
        status = os.fstat(place.descriptor)
        if status.st_mode & _OTHERS:
            raise _unsafe(
                f"others than root may write in it (mode {status.st_mode & 0o7777:04o})",
                directory,
                hint="name a directory of its own below it, which the agent makes, such as "
                f"{directory}/s3",
            )


def _remove(*directories: str) -> list[str]:
    return [each for each in directories if _remove_one(each)]


def _remove_one(directory: str) -> bool:
    parent, name = posixpath.split(directory)
    try:
        with _open(parent, "remove it", kept=True) as place, contextlib.suppress(FileNotFoundError):
            if not place.missing:
                if directory not in mountinfo.read():
                    files.make_immutable(name, place.descriptor, immutable=False)
                os.rmdir(name, dir_fd=place.descriptor)
    except AgentError:  # which _open makes of every other OSError
        return False
    return True


def _require_file(path: str) -> None:
    table = mountinfo.read()
    place, links = _Place(os.open("/", _FLAGS), "/", path.split("/")), 0
    try:
        with files.told_plainly(f"read {path}"):
            while place.missing:
                name = place.missing.pop(0)
                if name in ("", "."):
                    continue
                _require_kept(place, path, "read it")
                _require_touchable(posixpath.join(place.path, name), table)
                status = os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode) and status.st_uid in _trusted():
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    _follow(place, os.readlink(name, dir_fd=place.descriptor))
                elif place.missing:
                    place.step(os.open(name, _FLAGS, dir_fd=place.descriptor), name)
                elif not stat.S_ISREG(status.st_mode):
                    raise _unsafe(f"{posixpath.join(place.path, name)} is no regular file", path)
                elif status.st_uid not in _trusted() or status.st_mode & _OTHERS:
                    raise _unsafe("others than root may change it", path)
    finally:
        os.close(place.descriptor)


def _follow(place: _Place, target: str) -> None:
    place.missing[:0] = target.split("/")
    if target.startswith("/"):
        place.step(os.open("/", _FLAGS), "/")


@contextlib.contextmanager
def _open(
    directory: str,
    purpose: str,
    table: Mapping[str, Entry] | None = None,
    *,
    kept: bool = False,
) -> Iterator[_Place]:
    """Goes as far as there are directories; ``kept``: nobody else may rename what is in the last
    one either."""
    table = mountinfo.read() if table is None else table
    with files.told_plainly(f"look at {directory}"):
        place = _Place(os.open("/", _FLAGS), "/", [each for each in directory.split("/") if each])
        try:
            while place.missing:
                _require_kept(place, directory, purpose)
                name = place.missing[0]
                here = posixpath.join(place.path, name)
                _require_touchable(here, table)
                try:
                    place.step(os.open(name, _FLAGS, dir_fd=place.descriptor), name)
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    raise _no_directory(place, here, directory) from None
                _require_owned(place, directory, purpose)
                place.missing.pop(0)
            if kept and not place.missing:
                _require_kept(place, directory, purpose)
            yield place
        finally:
            os.close(place.descriptor)


def _make_missing(place: _Place, mode: int) -> None:
    full = posixpath.join(place.path, *place.missing)
    while place.missing:
        name = place.missing.pop(0)
        here = posixpath.join(place.path, name)
        with files.told_plainly(f"make the directory {here}"):
            with contextlib.suppress(FileExistsError):  # whose it is, is seen below
                os.mkdir(name, 0o700, dir_fd=place.descriptor)
            made = os.open(
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC,
                dir_fd=place.descriptor,
            )
            place.step(made, name)
            _require_owned(place, full, "mount there")
            os.fchmod(made, 0o755 if place.missing else mode)


def _joined(path: str, names: list[str]) -> list[str]:
    return [posixpath.join(path, *names[: number + 1]) for number in range(len(names))]


def _trusted() -> tuple[int, int]:
    """Root, and whoever we are where tests run as somebody else."""
    return 0, os.geteuid()


def _require_owned(place: _Place, directory: str, purpose: str) -> None:
    owner = os.fstat(place.descriptor).st_uid
    if owner not in _trusted():
        raise _unsafe(
            f"{place.path} belongs to {_name(owner)}, who could put something else in its place "
            f"while root wants to {purpose}",
            directory,
        )


def _require_kept(place: _Place, directory: str, purpose: str) -> None:
    """Nobody but root can rename what is in it."""
    status = os.fstat(place.descriptor)
    others = status.st_mode & _OTHERS
    if place.path in _SYSTEMS_GROUP:
        others &= stat.S_IWOTH
    if status.st_uid not in _trusted() or (others and not status.st_mode & stat.S_ISVTX):
        whose = f"belongs to {_name(status.st_uid)}, mode {status.st_mode & 0o7777:04o}"
        raise _unsafe(
            f"others than root may rename what is in {place.path} ({whose}), while root wants to "
            f"{purpose}",
            directory,
        )


def _require_touchable(here: str, table: Mapping[str, Entry]) -> None:
    """A FUSE mount of a user answers what he likes, or nothing for ever."""
    entry = table.get(here)
    if entry is not None and entry.user not in (None, *_trusted()):
        raise _unsafe(f"{here} is a FUSE mount of {_name(entry.user or 0)}", here)


def _no_directory(place: _Place, here: str, directory: str) -> AgentError:
    name = posixpath.basename(here)
    status = os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return AgentError(
            Problem.DIRECTORY_NOT_A_DIRECTORY, f"{directory} is a file, or lies below one"
        )
    return AgentError(
        Problem.DIRECTORY_INVALID,
        f"{directory} leads through a symbolic link",
        hint=f"give the path itself: {os.path.realpath(directory)}",
    )


def _unsafe(what: str, directory: str, *, hint: str | None = None) -> AgentError:
    return AgentError(Problem.PATH_UNSAFE, f"{directory} is not safe: {what}", hint=hint)


def _name(uid: int) -> str:
    """A user's name, from the node's own file: a directory service may not answer."""
    for line in (files.read(Path("/etc/passwd")) or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return fields[0]
    return f"uid {uid}"
