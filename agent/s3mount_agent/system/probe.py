"""A mounted directory: every look at one is made by a child that can be left behind.

A program that touches a hung FUSE file system cannot be killed before the file system answers, so
whoever looks must not be anybody we need.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import mmap
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass


class Answer(enum.Enum):
    """How a directory answers."""

    ANSWERS = "answers"
    DISCONNECTED = "disconnected"
    ERROR = "error"
    SILENT = "silent"


_MORE_THAN_WE_OPEN = 1024


@dataclass(frozen=True)
class Finding:
    """An answer, the error's name (``EIO``) where it is one, and the seconds it took."""

    answer: Answer
    error: str | None = None
    seconds: float = 0.0


class Probe:
    """One child that looks at several directories, one after the other, and says how each answers.

    ``directories`` are those that it looks at, without what stop_here() has taken off its list.
    ``deep`` lists the directory, which takes S3 and the permission to list; else mount-s3 answers
    by itself, without asking S3. ``findings`` fill as the child goes; ``at`` is the directory that
    it is looking at, since ``since`` (monotonic seconds), and None when it has ended.
    """

    def __init__(self, directories: Sequence[str], *, deep: bool = False) -> None:
        self.directories = self._order = tuple(directories)
        self.deep = deep
        self.findings: dict[str, Finding] = {}
        self.at: str | None = self.directories[0]
        self.since = time.monotonic()
        self._heard = b""
        # The one thing that the child still learns of us.
        self._enough = mmap.mmap(-1, 1)
        self.descriptor, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Not a new program: that would take 20 ms, not 1.
        self._pid = os.fork()
        if self._pid == 0:
            _look(self.directories, writer, self._enough, deep=deep)
        os.close(writer)

    def collect(self) -> None:
        """Takes in what the child has said since the last time; never waits."""
        while self.at is not None:
            try:
                heard = os.read(self.descriptor, 4096)
            except BlockingIOError:
                return
            if not heard:
                self._end()
                return
            *lines, self._heard = (self._heard + heard).split(b"\n")
            for line in lines:
                if self.at is not None:
                    self._note(line)

    def wait(self, timeout: float) -> None:
        """Collects until the child has ended, for at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        self.collect()
        while self.at is not None and (left := deadline - time.monotonic()) > 0:
            select.select([self.descriptor], [], [], left)
            self.collect()

    def stop_here(self) -> None:
        """Has the child look at nothing after the directory that it is looking at."""
        if self.at is not None:
            self._enough[0] = 1
            self.directories = (self.at,)

    def abandon(self) -> None:
        """Kills the child, and leaves it behind if it cannot die yet."""
        if self.at is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._end()

    def _note(self, line: bytes) -> None:
        number, code, seconds = line.split()
        directory, following = self._order[int(number)], int(number) + 1
        self.findings[directory] = _finding(int(code), float(seconds))
        if following < len(self._order) and not self._enough[0]:
            self.at, self.since = self._order[following], time.monotonic()
        else:
            # It need not be waited for: taken for one that still looks, it would look like silence.
            self.abandon()

    def _end(self) -> None:
        self.at = None
        self._enough.close()
        os.close(self.descriptor)
        _reap(self._pid)


# Children that were still alive when nobody wanted to wait for them any more.
_left_behind: set[int] = set()


def _reap(pid: int) -> None:
    _left_behind.add(pid)
    for each in tuple(_left_behind):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(each, os.WNOHANG)[0] == 0:
                continue
        _left_behind.discard(each)


def look(directory: str, *, timeout: float, deep: bool = False) -> Finding:
    """What one look at one directory finds within ``timeout`` seconds."""
    probe = Probe([directory], deep=deep)
    probe.wait(timeout)
    probe.abandon()
    return probe.findings.get(directory, Finding(Answer.SILENT, seconds=timeout))


def _look(directories: Sequence[str], writer: int, enough: mmap.mmap, *, deep: bool) -> None:
    """The child's life. It keeps nothing of its parent's: a lock that is open here would be held
    for as long as this child hangs."""
    try:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        os.dup2(writer, 0)
        os.closerange(1, _MORE_THAN_WE_OPEN)
        for number, directory in enumerate(directories):
            began = time.monotonic()
            code = _errno_of(directory, deep=deep)
            os.write(0, b"%d %d %.6f\n" % (number, code, time.monotonic() - began))
            if enough[0]:
                break
    finally:
        os._exit(0)


def _errno_of(directory: str, *, deep: bool) -> int:
    try:
        os.statvfs(directory)
        if deep:
            with os.scandir(directory) as names:
                next(names, None)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _finding(code: int, seconds: float) -> Finding:
    if code == 0:
        return Finding(Answer.ANSWERS, seconds=seconds)
    name = errno.errorcode.get(code, str(code))
    if code in (errno.ENOTCONN, errno.ECONNABORTED):
        return Finding(Answer.DISCONNECTED, name, seconds)
    return Finding(Answer.ERROR, name, seconds)
