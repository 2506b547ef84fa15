"""Versions of mount-s3: since which it can do what, and which one a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

Version = tuple[int, ...]

MEMORY_TARGET: Version = (1, 24)
"""It can be told what memory to aim at, and limits the files that are open for writing."""


PINNED = "1.24.0"
"""What is installed where there is none. Named, not "latest": all nodes of a cluster run the same
mount-s3, today and next year."""
_LATEST: Version = (999,)


def version_of(parts: str | Iterable[str]) -> Version:
    """A version from its text such as "1.24.0", from its parts, or from "latest"; raises
    ValueError."""
    if parts == "latest":
        return _LATEST
    return tuple(map(int, parts.split(".") if isinstance(parts, str) else parts))


def shown(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


class FuseConf(str, Enum):
    """What becomes of /etc/fuse.conf: it gets ``user_allow_other``, or stays as the site has it."""

    ADD = "add"
    LEAVE = "leave"


@dataclass(frozen=True)
class Install:
    """Where mount-s3 comes from; None stands for AWS's own release. ``family`` is what a system
    that the agent does not know is taken for: "deb"."""

    url: str | None = None
    version: str | None = None
    fuse_conf: FuseConf = FuseConf.ADD
    family: str | None = None
