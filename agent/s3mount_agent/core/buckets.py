"""What may stand for a bucket: a name, an alias, an ARN, or an s3:// URI with a prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.text import require_plain

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
# Aliases of access points and directory buckets (--x-s3) have the same form.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
# Buckets of before March 2018 in us-east-1 may have capitals, underscores and up to 255 characters,
# and mount-s3 takes them: 3 to 255 of [0-9a-zA-Z.\-_].
_SHORTEST, _LONGEST = 3, 255
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

    @property
    def is_old(self) -> bool:
        """Whether only a bucket of before 2018 can have this name."""
        return not self.name.startswith("arn:") and not _NAME.fullmatch(self.name)

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
    if text.startswith("arn:"):
        if not _ARN.fullmatch(text) or len(text) > _LONGEST:
            raise AgentError(
                Problem.BUCKET_INVALID, f"{text[:300]!r} is not the ARN of an access point"
            )
    else:
        _require_name(text, text)
    return Bucket(text)


def _require_name(name: str, text: str) -> None:
    """Refuses what can be no bucket's name, with the rule that it breaks."""
    broken = _broken_rule(name)
    if broken:
        shown = repr(text) if len(text) <= 300 else f"{text[:300]!r}…"
        raise AgentError(Problem.BUCKET_INVALID, f"{shown} is not a bucket: {broken}")


def _broken_rule(name: str) -> str:
    if name.startswith("/"):
        return "it is a path"
    if "://" in name or name in ("http:", "https:"):
        return "it is a URL; only s3:// may stand here"
    if name.startswith("arn:"):
        return "an ARN stands alone, without s3://"
    stranger = next((c for c in name if not (c.isascii() and (c.isalnum() or c in ".-_"))), None)
    if stranger:
        return f"the character {stranger!r} is in no bucket's name"
    if not _SHORTEST <= len(name) <= _LONGEST:
        count = f"{len(name)} character{'s' if len(name) != 1 else ''}"
        return f"its name has {count}, not {_SHORTEST} to {_LONGEST}"
    if name[0] in ".-_":
        return f"its name begins with {name[0]!r}, not with a letter or a digit"
    if ".." in name:
        return "its name has two dots in a row"
    if _IP_ADDRESS.fullmatch(name):
        return "its name is an IP address"
    return ""
