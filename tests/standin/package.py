"""Builds the stand-in as a Debian package that looks like AWS's: same name, paths, dependencies."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from standin.mount_s3 import VERSION

__all__ = ["RELEASES", "VERSION", "build_package"]

RELEASES = ("1.23.0", VERSION)
"""Those that are imitated."""

HOME = "opt/aws/mountpoint-s3"
LINKS = ("usr/bin/mount-s3", "usr/sbin/mount.mount-s3")
EPOCH = 1_700_000_000
"""The time of every file, so that the same sources give the same package."""

PROGRAM = f"""\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/{HOME}/lib")
from mount_s3.main import main

sys.exit(main(sys.argv))
"""

CONTROL = """\
Package: mount-s3
Version: {version}
Architecture: {architecture}
Maintainer: s3mount-agent tests <nobody@example.invalid>
Depends: ca-certificates, fuse, libfuse2, libc6 (>= 2.26), python3
Section: utils
Priority: optional
Description: stand-in for Mountpoint for Amazon S3, for tests only
"""

# Compiled at installation, like every Python package of Debian: a mount takes half the time.
POSTINST = f"""\
#!/bin/sh
set -e
python3 -m compileall -q /{HOME}/lib
"""

PRERM = f"""\
#!/bin/sh
set -e
rm -rf /{HOME}/lib/mount_s3/__pycache__
"""


def build_package(directory: Path, version: str = VERSION, addition: str = "") -> Path:
    """Build the package of one of RELEASES in that directory and give back its path.

    What a distribution adds to the version, the program has, and the package has not.
    """
    if version not in RELEASES:
        raise ValueError(f"there is no stand-in for {version}, only for {', '.join(RELEASES)}")
    architecture = _run("dpkg", "--print-architecture").strip()
    package = directory / f"mount-s3-{version}-{architecture}.deb"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        _lay_out(root, architecture, version, addition)
        _make_uniform(root)
        _run("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", str(root), str(package))
    return package


def _lay_out(root: Path, architecture: str, version: str, addition: str) -> None:
    library = root / HOME / "lib" / "mount_s3"
    library.mkdir(parents=True)
    for source in sorted((Path(__file__).parent / "mount_s3").glob("*.py")):
        text = source.read_text(encoding="utf-8")
        (library / source.name).write_text(
            text.replace(f'VERSION = "{VERSION}"', f'VERSION = "{version}{addition}"'),
            encoding="utf-8",
        )
    _write(root / HOME / "bin" / "mount-s3", PROGRAM, mode=0o755)
    for link in LINKS:
        path = root / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(f"/{HOME}/bin/mount-s3")
    control = CONTROL.format(architecture=architecture, version=version)
    _write(root / "DEBIAN" / "control", control)
    _write(root / "DEBIAN" / "postinst", POSTINST, mode=0o755)
    _write(root / "DEBIAN" / "prerm", PRERM, mode=0o755)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _make_uniform(root: Path) -> None:
    """Give everything the same time, and permissions that no umask has touched."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _run(*command: str) -> str:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
