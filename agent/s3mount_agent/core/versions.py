"""Versions of mount-s3, and since which it can do what the agent asks of it."""

from __future__ import annotations

from collections.abc import Iterable

Version = tuple[int, ...]

MEMORY_TARGET: Version = (1, 24)
"""It can be told what memory to aim at, and limits the files that are open for writing."""


def version_of(parts: str | Iterable[str]) -> Version:
    """A version from its text such as "1.24.0", or from its parts; raises ValueError."""
    return tuple(map(int, parts.split(".") if isinstance(parts, str) else parts))


def told(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))
