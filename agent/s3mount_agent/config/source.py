"""Where a configuration comes from: a path, https://, s3:// or ssm:/parameter.

boto3 takes the node's own role; asked again with the version that is known, S3 and web servers
answer without sending the file.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3mount_agent.config.yaml_text import LARGEST_BYTES, decode
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.retry_policy import pace_of
from s3mount_agent.filesystem import disk
from s3mount_agent.mountpoint import messages
from s3mount_agent.system import aws, probe

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_WHOLE_SECONDS = 60.0
_FILE_SECONDS = 5.0
# What is mounted as root must not come over a line that others can write on.
_ON_THIS_NODE = ("http://127.0.0.1:", "http://localhost:")


@dataclass(frozen=True)
class Fetched:
    """A configuration's text, and what tells this version from others."""

    text: str
    version: str


def fetch(url: str, known: str = "") -> Fetched | None:
    """The configuration behind ``url``, or None if it is still the version ``known``.

    Raises ``source-failed``; trying again makes sense unless the source does not exist.
    """
    if url.startswith("s3://"):
        return _from_s3(url, known)
    if url.startswith("ssm:"):
        return _from_ssm(url.partition(":")[2], known)
    if url.startswith(("https://", *_ON_THIS_NODE)):
        return _from_web(url, known)
    if url.startswith("/"):
        return _from_file(url, known)
    raise _no_place(url)


def _no_place(url: str) -> AgentError:
    return AgentError(
        Problem.USAGE,
        f"{url!r} is not the place of a configuration",
        hint="give s3://bucket/key, https://…, ssm:/parameter/name or an absolute path",
    )


def _from_s3(url: str, known: str) -> Fetched | None:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = url[len("s3://") :].partition("/")
    if not bucket or not key:
        raise _no_place(url)
    condition = {"IfNoneMatch": known} if known else {}
    try:
        answer = aws.client("s3").get_object(Bucket=bucket, Key=key, **condition)
        data = answer["Body"].read(LARGEST_BYTES + 1)
        _require_whole(data, answer.get("ContentLength", 0))
        return _fetched(url, data, answer["ETag"])
    except ClientError as error:
        status = aws.status(error)
        if status == 304:
            return None
        raise _refused(url, error, missing=status == 404) from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise _failed(url, error) from None


def _from_ssm(name: str, known: str) -> Fetched | None:
    from botocore.exceptions import BotoCoreError, ClientError

    if not name:
        raise _no_place("ssm:")
    try:
        answer = aws.client("ssm").get_parameter(Name=name, WithDecryption=True)
    except ClientError as error:
        missing = error.response.get("Error", {}).get("Code") == "ParameterNotFound"
        raise _refused(f"ssm:{name}", error, missing=missing) from None
    except BotoCoreError as error:
        raise _failed(f"ssm:{name}", error) from None
    parameter = answer["Parameter"]
    version = str(parameter["Version"])
    if version == known:
        return None
    return _fetched(f"ssm:{name}", parameter["Value"].encode(), version)


def _from_web(url: str, known: str) -> Fetched | None:
    from s3mount_agent.system import web  # slow, as boto3 is

    data = bytearray()
    condition = {"If-None-Match": known} if known else {}
    try:
        answer = web.get(
            url, data.extend, limit=LARGEST_BYTES, seconds=_WHOLE_SECONDS, headers=condition
        )
    except web.TooLargeError:
        raise _too_large(url) from None
    except web.WebError as error:
        if error.status == 304:
            return None
        raise _failed(url, error, retry_for=0 if error.final else math.inf) from None
    return _fetched(url, bytes(data), answer.get("ETag") or _digest(data), known)


def _from_file(path: str, known: str) -> Fetched | None:
    """A file may lie where nothing answers, such as on the head node's NFS."""
    try:
        text = probe.ask(disk.head_of_any, path, LARGEST_BYTES + 1, timeout=_FILE_SECONDS)
    except probe.SilenceError as error:
        raise _failed(path, error) from None
    except (OSError, ValueError) as error:
        raise _failed(path, error, retry_for=0) from None
    data = text.encode(errors="surrogateescape")
    return _fetched(path, data, _digest(data), known)


def _require_whole(data: bytes, expected: int) -> None:
    """botocore does not mind an answer that breaks off where a part of it is read; but the first
    half of a configuration may be a good one, without the mounts of the other half."""
    if len(data) < min(expected, LARGEST_BYTES + 1):
        raise OSError(f"it broke off after {len(data)} of {expected} bytes")


def _fetched(url: str, data: bytes, version: str, known: str = "") -> Fetched | None:
    if version == known:
        return None
    if len(data) > LARGEST_BYTES:
        raise _too_large(url)
    return Fetched(decode(data, url), version)


def _too_large(url: str) -> AgentError:
    return AgentError(Problem.CONFIG_INVALID, f"{url} is larger than {LARGEST_BYTES >> 10} KiB")


def _digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _refused(url: str, error: ClientError, *, missing: bool) -> AgentError:
    """A clock, a key or a token that is wrong has its own patience and hint, as with a mount."""
    meant = messages.explain_refusal(f"{error}", aws.status(error), url)
    return _failed(
        url,
        error,
        retry_for=0 if missing else pace_of(meant).quick_for,
        hint=meant.problem.hint if meant.problem in messages.OF_THE_NODE else None,
    )


def _failed(
    url: str, error: Exception, *, retry_for: float = math.inf, hint: str | None = None
) -> AgentError:
    words = " ".join(str(error).split())
    return AgentError(
        Problem.SOURCE_FAILED,
        f"the configuration {url} could not be read: {aws.reason(error) or words[:200]}",
        cause=words,
        hint=hint,
        retry_for=retry_for,
    )
