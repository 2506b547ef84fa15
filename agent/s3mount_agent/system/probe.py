"""What may never answer is asked by a child that can be left behind: a mounted directory, a path
that a user or a configuration chose, a directory service.

A program that touches a hung file system cannot be killed before the file system answers, so
whoever looks must not be anybody we need. ask() is for one question, Probe for many that are
followed, Listing for many at the same time.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import gc
import json
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import mountinfo
from s3mount_agent.system.threads import together


class Answer(enum.Enum):
    """How a directory answers."""

    ANSWERS = "answers"
    DISCONNECTED = "disconnected"
    ERROR = "error"
    SILENT = "silent"


_MORE_THAN_WE_OPEN = 1024
# Who asks at each place; only where the agent is at home, and for nobody but root to hold.
_ASKED = Path("/run/s3mount-agent/asked")
_POLL_SECONDS = 0.02


class SilenceError(TimeoutError):
    """Nothing was said in time, or the child ended without a word."""


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
    it is looking at, since ``since`` (by ``clock``, in seconds), and None when it has ended.
    """

    def __init__(
        self,
        directories: Sequence[str],
        *,
        deep: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.directories = self._order = tuple(directories)
        self.deep = deep
        self.findings: dict[str, Finding] = {}
        self.at: str | None = self.directories[0]
        self.since = clock()
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
            self.at, self.since = self._order[following], self._clock()
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


def ask(
    function: Callable[..., Any], *arguments: object, timeout: float, place: str | None = None
) -> Any:
    """What ``function`` returns, as far as JSON can say it (a tuple comes back as a list).

    Raises its OSError and AgentError as they are, and ``SilenceError`` past ``timeout`` seconds. On
    the whole node one child at most asks at a ``place`` (by default: this function with these
    arguments): while one of an earlier question hangs there, it is SilenceError at once.
    """
    deadline = time.monotonic() + timeout
    name = place or f"{function.__module__}.{function.__qualname__}{arguments!r}"
    with _turn(name, timeout) as turn:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _answer(function, arguments, writer, turn)
        os.close(writer)
        said, ended = _hear(reader, pid, deadline)
    if not ended:
        raise SilenceError(errno.ETIMEDOUT, f"no answer within {timeout:.0f} seconds")
    if not said:
        raise SilenceError(errno.ETIMEDOUT, "whoever asked was killed")
    return _result(json.loads(said))


def look(directory: str, *, timeout: float, deep: bool = False) -> Finding:
    """What one look at one directory finds within ``timeout`` seconds."""
    began = time.monotonic()
    # A child that hangs in what was mounted there before says nothing of what is there now.
    place = f"look {deep} {directory} {mountinfo.read().get(directory)}"
    try:
        code = ask(lambda: _errno_of(directory, deep=deep), timeout=timeout, place=place)
    except SilenceError:
        return Finding(Answer.SILENT, seconds=timeout)
    return _finding(code, time.monotonic() - began)


class Listing:
    """One child that lists directories, all at the same time, while we do something else: that
    takes S3 and the permission to list. It has to be waited for, once. ``whose`` says of a
    directory who answers there."""

    def __init__(
        self, directories: Sequence[str], whose: Callable[[str], object] = lambda _: None
    ) -> None:
        self._directories = tuple(directories)
        self._whose = whose
        self._before = {directory: whose(directory) for directory in self._directories}
        self._began = time.monotonic()
        self._pid = 0
        if not directories:
            return
        self._reader, writer = os.pipe()
        # With a thread for each directory: a child for each would take as long as most looks do.
        self._pid = os.fork()
        if self._pid == 0:
            _list(self._directories, writer)
        os.close(writer)

    def wait(self, timeout: float) -> dict[str, Finding]:
        """What is found of each directory within ``timeout`` seconds from now on; who has not come
        to an end by then is left behind. Nothing where it is another by then: the bare directory
        may have answered in between."""
        if not self._pid:
            return {}
        pid, self._pid = self._pid, 0
        said, _ = _hear(self._reader, pid, time.monotonic() + timeout)
        # Killed while it speaks, it may not have come to the end of a line.
        words = [line.split() for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
        found = {
            self._directories[int(number)]: _finding(int(code), float(seconds))
            for number, code, seconds in words
        }
        silence = Finding(Answer.SILENT, seconds=time.monotonic() - self._began)
        return {
            directory: found.get(directory, silence)
            for directory, whose in self._before.items()
            if self._whose(directory) == whose
        }


@contextlib.contextmanager
def _turn(name: str, timeout: float) -> Iterator[int | None]:
    """The right to ask at a place: an open file with a lock, which the child keeps for as long as
    it lives. None where there is no place for such files."""
    import hashlib

    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    try:
        with contextlib.suppress(FileExistsError):
            _ASKED.mkdir(mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        turn = os.open(_ASKED / digest[:32], flags, 0o600)
    except OSError:
        yield None
        return
    try:
        _take(turn, timeout)
        with contextlib.suppress(OSError):  # no space: who comes next waits a little longer
            os.pwrite(turn, b"%020.3f" % time.monotonic(), 0)
        yield turn
    finally:
        os.close(turn)


def _take(turn: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    before = None
    while True:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            since = now
            with contextlib.suppress(ValueError):
                since = float(os.pread(turn, 20, 0))
            # Seen twice: who has just taken the turn may not have written yet since when.
            if now >= deadline or (now >= since + timeout and since == before):
                message = f"whoever asked {now - since:.0f} seconds ago still waits"
                raise SilenceError(errno.ETIMEDOUT, message) from None
            before = since
            time.sleep(_POLL_SECONDS)
        else:
            return


def _hear(reader: int, pid: int, deadline: float) -> tuple[bytes, bool]:
    """All that a child says before it ends, and whether it ends in time; if not, it is killed."""
    heard = b""
    try:
        while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            said = os.read(reader, 65536)
            if not said:
                return heard, True
            heard += said
        os.kill(pid, signal.SIGKILL)
        return heard, False
    finally:
        os.close(reader)
        _reap(pid)


def _answer(
    function: Callable[..., Any], arguments: Sequence[object], writer: int, turn: int | None
) -> None:
    """The life of a child that asks."""
    try:
        _let_go(writer, turn)
        try:
            said: dict[str, Any] = {"result": function(*arguments)}
        except AgentError as error:
            words = [error.message, error.cause, error.hint, error.retry_for]
            said = {"problem": error.problem.name, "words": words}
        except OSError as error:
            said = {"errno": error.errno, "words": [error.strerror, error.filename]}
        left = json.dumps(said).encode()
        while left:
            left = left[os.write(0, left) :]
    finally:
        os._exit(0)


def _result(said: dict[str, Any]) -> Any:
    if "problem" in said:
        message, cause, hint, retry_for = said["words"]
        problem = Problem[said["problem"]]
        raise AgentError(problem, message, cause=cause, hint=hint, retry_for=retry_for)
    if "errno" in said:
        raise OSError(said["errno"], *said["words"])
    return said["result"]


def _let_go(writer: int, turn: int | None = None) -> None:
    """Keeps nothing of the parent's but who is told (0) and the right to ask (1): a lock that is
    open here would be held for as long as this child hangs."""
    # Closed below, and not to be closed again by who collects the parent's garbage in here: what
    # this child opens has the same numbers.
    gc.freeze()
    sys.stdout = sys.stderr = None  # as where they were closed before
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    if turn is not None:
        turn = fcntl.fcntl(turn, fcntl.F_DUPFD, 3)
    os.dup2(writer, 0)
    if turn is not None:
        os.dup2(turn, 1)
    os.closerange(1 if turn is None else 2, _MORE_THAN_WE_OPEN)


def _look(directories: Sequence[str], writer: int, enough: mmap.mmap, *, deep: bool) -> None:
    """The life of a Probe's child."""
    try:
        _let_go(writer)
        for number, directory in enumerate(directories):
            _tell(number, directory, deep=deep)
            if enough[0]:
                break
    finally:
        os._exit(0)


def _list(directories: Sequence[str], writer: int) -> None:
    """The life of a Listing's child."""
    try:
        _let_go(writer)
        looks = [partial(_tell, *each, deep=True) for each in enumerate(directories)]
        together(looks, at_once=len(looks))
    finally:
        os._exit(0)


def _tell(number: int, directory: str, *, deep: bool) -> None:
    began = time.monotonic()
    code = _errno_of(directory, deep=deep)
    os.write(0, b"%d %d %.6f\n" % (number, code, time.monotonic() - began))


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
