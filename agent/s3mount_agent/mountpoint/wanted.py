"""Which mount-s3 a configuration asks for. No I/O: `validate` needs it, too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FuseConf(str, Enum):
    """What becomes of /etc/fuse.conf: it gets ``user_allow_other``, or stays as the site has it."""

    ADD = "add"
    LEAVE = "leave"


@dataclass(frozen=True)
class Install:
    """Where mount-s3 comes from; None stands for AWS's own release."""

    url: str | None = None
    version: str | None = None
    fuse_conf: FuseConf = FuseConf.ADD
