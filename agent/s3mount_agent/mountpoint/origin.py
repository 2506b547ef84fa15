"""The one door to where mount-s3 comes from: a folder in the layout of AWS's release bucket, on the
web, in S3 or on this node's own disks.

What comes through it is as untrusted as its way: trust.py proves it.
"""

from __future__ import annotations

import errno
import itertools
import math
import random
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.retry_policy import is_lasting, pace_of, pause_of_bootstrap
from s3mount_agent.filesystem import disk, files
from s3mount_agent.mountpoint import messages
from s3mount_agent.system import aws, probe

WHOLE_SECONDS = 300.0
_PIECE_BYTES = 1 << 20
# What an attempt has to bring at least for another one to go on with it.
_PROGRESS_BYTES = 1 << 16
_WEB = ("https://", "http://")

Tell = Callable[[str, int, int], None]
"""Is told how far a download is: the file's name, the bytes that are there, and those of the whole
(0 where nobody says how many)."""


def nobody(name: str, here: int, whole: int) -> None:
    """Is told nothing."""


class MissingError(AgentError):
    """The folder can be asked, and has no such file."""


class DeniedError(AgentError):
    """It may be there or not: S3 says 403 for what is missing to who may not list a bucket."""


# By HTTP's status.
_KINDS: Mapping[int | None, type[AgentError]] = {
    403: DeniedError,
    404: MissingError,
    410: MissingError,
}


def fetch(
    origin: str,
    name: str,
    target: Path,
    *,
    limit: int,
    seconds: float = WHOLE_SECONDS,
    tell: Tell = nobody,
) -> None:
    """Brings the file ``name`` (``latest/arm64/mount-s3.deb``) of a folder into ``target``.

    ``origin`` is https://…, http://…, s3://bucket/prefix or an absolute path. What breaks off is
    gone on with where it did, as long as each attempt brings something. Raises ``download-failed``
    (a MissingError or DeniedError where that is why), ``package-broken`` beyond ``limit`` bytes,
    ``no-space`` or ``file-failed``; then ``target`` is not there.
    """
    if origin.startswith(_WEB):
        name = urllib.parse.quote(name)  # in S3's URLs a plus is a blank
    place = f"{origin.rstrip('/')}/{name}"
    try:
        if place.startswith("/"):
            _copy(place, target, limit, seconds)
        else:
            with files.told_plainly(f"write {target}"), disk.create(target) as file:
                _download(place, _Part(file, place, limit, time.monotonic() + seconds, tell))
    except BaseException:
        files.remove(target)
        raise


class _Part:
    """A file as far as it has come; ``tag`` tells which version of it that is a part of."""

    def __init__(
        self, file: IO[bytes], place: str, limit: int, deadline: float, tell: Tell
    ) -> None:
        self.received = 0
        self.tag = ""
        self._file = file
        self._place = place
        self.limit = limit
        self._deadline = deadline
        self._tell = tell
        self._whole = 0

    @property
    def seconds(self) -> float:
        """How many are left."""
        return self._deadline - time.monotonic()

    @property
    def range(self) -> str:
        """What is still missing, as HTTP says it; empty where all of it is to come anew."""
        return f"bytes={self.received}-" if self.received and self.tag else ""

    def begin(self, length: int, tag: str, *, resumed: bool) -> None:
        """So many bytes are about to come: the rest where ``resumed``, else the whole."""
        if self.received and not resumed:
            self.received = 0
            with files.told_plainly(f"write {self._file.name}"):
                self._file.seek(0)
                self._file.truncate()
        self.tag, self._whole = tag, self.received + length if length else 0

    def take(self, piece: bytes) -> None:
        """A piece has come."""
        self.received += len(piece)
        if self.received > self.limit:
            raise _too_large(self._place)
        if self.seconds < 0:
            raise _failed(self._place, "it takes too long")
        with files.told_plainly(f"write {self._file.name}"):  # no trouble of the network's
            self._file.write(piece)
        self._tell(self._place.rpartition("/")[2], self.received, self._whole)


def _download(place: str, part: _Part) -> None:
    if place.startswith("s3://"):
        read = _from_s3
    elif place.startswith(_WEB):
        read = _from_web
    else:
        raise _failed(place, "it is no https:// or s3:// URL and no absolute path", retry_for=0)
    for attempts in itertools.count(1):
        before = part.received
        try:
            read(place, part)
        except AgentError as error:
            if part.received < before + _PROGRESS_BYTES or is_lasting(error):
                raise
            # Others may have been cut off in the same second.
            pause = pause_of_bootstrap(attempts, random.random())  # noqa: S311
            if part.seconds <= pause:
                raise
            time.sleep(pause)
        else:
            return


def _from_web(place: str, part: _Part) -> None:
    from s3mount_agent.system import web  # slow, and rarely needed

    def begin(status: int, headers: Mapping[str, str]) -> None:
        resumed = status == 206
        if resumed and not headers.get("Content-Range", "").startswith(f"bytes {part.received}-"):
            raise web.WebError("it sent another part than was asked for")
        tag = headers.get("ETag") or headers.get("Last-Modified") or ""
        part.begin(int(headers.get("Content-Length") or 0), tag, resumed=resumed)

    rest = {"Range": part.range, "If-Range": part.tag} if part.range else {}
    try:
        limit, seconds = part.limit, part.seconds
        web.get(place, part.take, limit=limit, seconds=seconds, headers=rest, on_answer=begin)
    except web.TooLargeError:
        raise _too_large(place) from None
    except web.WebError as error:
        retry_for = 0 if error.final else math.inf
        raise _failed(place, str(error), retry_for, status=error.status) from None


def _from_s3(place: str, part: _Part) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = place[len("s3://") :].partition("/")
    rest = {"Range": part.range, "IfMatch": part.tag} if part.range else {}
    try:
        answer = aws.client("s3").get_object(Bucket=bucket, Key=key, **rest)
        part.begin(answer["ContentLength"], answer["ETag"], resumed=bool(rest))
        # Read to its end, botocore minds an answer that breaks off.
        while piece := answer["Body"].read(_PIECE_BYTES):
            part.take(piece)
    except ClientError as error:
        words, status = " ".join(str(error).split()), aws.status(error)
        meant = messages.explain_refusal(words, status, place)
        hint = meant.problem.hint if meant.problem in messages.OF_THE_NODE else None
        quick = 0 if status == 404 else pace_of(meant).quick_for
        raise _failed(place, words, quick, status=status, hint=hint) from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise _failed(place, " ".join(str(error).split())) from None


def _copy(place: str, target: Path, limit: int, seconds: float) -> None:
    """A path may lead to where nothing answers, such as the head node's NFS."""
    try:
        probe.ask(disk.copy_any, place, str(target), limit, timeout=seconds)
    except probe.SilenceError as error:
        raise _failed(place, str(error)) from None
    except FileNotFoundError as error:
        raise _failed(place, str(error), 0, status=404) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _too_large(place) from None
        raise _failed(place, str(error), 0) from None


def _too_large(place: str) -> AgentError:
    return AgentError(Problem.PACKAGE_BROKEN, f"{place} is larger than it can be")


def _failed(
    place: str,
    cause: str,
    retry_for: float = math.inf,
    *,
    status: int | None = None,
    hint: str | None = None,
) -> AgentError:
    kind = _KINDS.get(status, AgentError)
    message = f"{place} could not be downloaded"
    return kind(Problem.DOWNLOAD_FAILED, message, cause=cause, hint=hint, retry_for=retry_for)
