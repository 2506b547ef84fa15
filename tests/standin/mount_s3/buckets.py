"""The BUCKET argument: a name, an alias, an ARN or an s3:// URI (upstream s3/path.rs)."""

from __future__ import annotations

import re
from typing import NamedTuple


class Location(NamedTuple):
    """A bucket and the prefix in it that becomes the root directory."""

    bucket: str
    prefix: str
    is_uri: bool

    def __str__(self) -> str:
        name = f"bucket {self.bucket}"
        return f"prefix {self.prefix} of {name}" if self.prefix else name


def parse_location(text: str) -> Location:
    if not text.startswith("s3://"):
        return Location(_bucket(text), "", is_uri=False)
    bucket, _, prefix = text[len("s3://") :].partition("/")
    if _bucket(bucket).startswith("arn:"):
        raise ValueError(
            "the bucket must have a valid name (only letters, numbers, . and -). "
            "ARNs are not supported in s3:// URIs"
        )
    try:
        return Location(bucket, parse_prefix(prefix), is_uri=True)
    except ValueError as error:
        raise ValueError(f"invalid bucket prefix: {error}") from error


def parse_prefix(text: str) -> str:
    if text and not text.endswith("/"):
        raise ValueError("prefix must end in '/'")
    return text


def _bucket(name: str) -> str:
    if not 3 <= len(name) <= 255:
        raise ValueError("bucket names must be 3-255 characters long")
    if not (re.fullmatch(r"[0-9a-zA-Z.\-_]+", name) or name.startswith("arn:")):
        raise ValueError(
            "the bucket must have a valid name (only letters, numbers, . and -) or a valid ARN"
        )
    return name
