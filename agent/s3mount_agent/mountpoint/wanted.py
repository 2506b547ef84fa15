"""Which mount-s3 a configuration asks for. No I/O: `validate` needs it, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Install:
    """Where mount-s3 comes from; None stands for AWS's own release."""

    url: str | None = None
    version: str | None = None
    fingerprints: tuple[str, ...] = ()
