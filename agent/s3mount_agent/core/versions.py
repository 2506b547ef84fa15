"""Versions of mount-s3: since which it can do what, and which one a configuration asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

Version = tuple[int, ...]

MEMORY_TARGET: Version = (1, 24)
"""It can be told what memory to aim at, and limits the files that are open for writing."""


PINNED = "1.24.0"
"""What is installed where there is none, and none is asked for, but for systems that have one of
their own. Named, not "latest": nodes run the same mount-s3, today and next year."""
_LATEST: Version = (999,)
LATEST = "latest"
PRESENT = "present"
"""In the place of a version: what is there, and nothing is ever installed."""
VERSION_PATTERN = rf"\d+\.\d+\.\d+|{LATEST}|{PRESENT}"
OFFICIAL = "official"
"""In the place of a source: AWS's own release bucket."""
# A URL without a name and a password, which would not be sent, and without a query, since the names
# of files are put behind it.
SOURCE_PATTERN = (
    rf"{OFFICIAL}|https?://(?![^/]*@)(?!.*[?#])[!-~]+"
    r"|s3://[0-9a-z][0-9a-z.-]{2,62}(?:/[!-~]*)?|/[!-~]+"
)


def version_of(parts: str | Iterable[str]) -> Version:
    """A version from its text such as "1.24.0", from its parts, or from "latest"; raises
    ValueError.

    What a distribution or a builder adds ("1.23.0+1.amzn2023", "1.21.0-unofficial+hash") is no
    other version: mount-s3 knows the same options.
    """
    if parts == LATEST:
        return _LATEST
    if isinstance(parts, str):
        number = re.match(r"\d+(\.\d+)*(?=$|[-+~])", parts, re.ASCII)
        if number is None:
            raise ValueError(f"{parts!r} is no version")
        parts = number[0].split(".")
    return tuple(map(int, parts))


def shown(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


class FuseConf(str, Enum):
    """What becomes of /etc/fuse.conf: it gets ``user_allow_other``, or stays as the site has it."""

    ADD = "add"
    LEAVE = "leave"


@dataclass(frozen=True)
class Install:
    """Which mount-s3 a node gets, and where from; None stands for what is there, or else the pinned
    one, and for AWS's own releases. ``family`` is what a system that the agent does not know is
    taken for: "deb" or "rpm"."""

    source: str | None = None
    version: str | None = None
    fuse_conf: FuseConf = FuseConf.ADD
    family: str | None = None
    spread: int = 0
    """Over how many seconds nodes that boot together begin to download."""

    @property
    def version_to_be(self) -> Version:
        """The version to reckon with where there is no node that has another."""
        return version_of(PINNED if self.version in (None, PRESENT) else self.version)
