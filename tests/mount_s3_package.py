"""Which mount-s3 the demo and the node tests use, and the sentence that says so."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.mountpoint.releases import Release, fetch
from standin.package import VERSION, build_package

VARIABLE = "MOUNT_S3_PACKAGE"
RELEASE_VARIABLE = "MOUNT_S3_STANDIN"
AWS = "aws"


@dataclass(frozen=True)
class Chosen:
    """A .deb package of mount-s3, and what it is in one sentence."""

    path: Path
    sentence: str


def choose(directory: Path) -> Chosen:
    """``MOUNT_S3_PACKAGE`` names a file, or ``aws`` to download AWS's release; else the stand-in,
    for the release that ``MOUNT_S3_STANDIN`` names.

    Nothing is downloaded unasked: tests and demo send no packet off this machine.
    """
    named = os.environ.get(VARIABLE, "")
    if named == AWS:
        path = fetch(Release(), _architecture(), "deb", directory)
        return Chosen(path, f"mount-s3: AWS's release {Release().version}, downloaded and verified")
    if named:
        path = Path(named).resolve(strict=True)
        return Chosen(path, f"mount-s3: the package {path.name}, named in {VARIABLE}")
    version = os.environ.get(RELEASE_VARIABLE) or VERSION
    path = build_package(directory, version)
    return Chosen(
        path,
        f"mount-s3: a stand-in for {version} made by these tests (set {VARIABLE} to the path of "
        f"a mount-s3.deb, or to {AWS!r}, to use the real one)",
    )


def _architecture() -> str:
    return {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
