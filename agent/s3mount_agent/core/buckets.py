"""What may stand for a bucket: a name, an alias, an ARN, or an s3:// URI with a prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import require_plain

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
# Aliases of access points and directory buckets (--x-s3) have the same form.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_IP_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
# Access points, Object Lambda, Outposts and multi-region access points; a bucket's own ARN
# (arn:aws:s3:::name) has no account and is no target for mount-s3.
_ARN = re.compile(r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d{12}:[A-Za-z0-9][A-Za-z0-9:/._-]*")
_BUCKET_ARN = re.compile(r"arn:aws[a-z-]*:s3:::(?P<name>[^/]+)/?")


@dataclass(frozen=True)
class Bucket:
    """A bucket as mount-s3 is told of it.

    ``name`` is a bucket name, an alias or an ARN; ``prefix`` is empty or ends with ``/``.
    """

    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.prefix}" if self.prefix else self.name


def parse_bucket(text: str) -> Bucket:
    """Reads a bucket argument; raises ``bucket-invalid`` (or ``argument-not-text``)."""
    require_plain("bucket", text)
    if text.startswith("s3://"):
        name, _, prefix = text[len("s3://") :].partition("/")
        if prefix and not prefix.endswith("/"):
            raise AgentError(
                Problem.BUCKET_INVALID,
                f"the prefix in {text!r} does not end with '/'",
                hint=f"write {text}/ to mount what is under that prefix",
            )
        _require_name(name, text)
        return Bucket(name, prefix)
    own_arn = _BUCKET_ARN.fullmatch(text)
    if own_arn:
        raise AgentError(
            Problem.BUCKET_INVALID,
            f"{text!r} is the ARN of a bucket, which mount-s3 does not take",
            hint=f"write the bucket's name: {own_arn['name']}",
        )
    if not _ARN.fullmatch(text):
        _require_name(text, text)
    return Bucket(text)


def _require_name(name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name or _IP_ADDRESS.fullmatch(name):
        raise AgentError(Problem.BUCKET_INVALID, f"{text!r} is not a bucket")
