"""mount-s3 as rpms, made of the files of its Debian package: AWS's own, and Amazon Linux's."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cluster import rpms
from cluster.host import run

HOME = "opt/aws/mountpoint-s3"
REQUIRES = ("ca-certificates", "fuse", "fuse-libs")
# Maintainer scripts of a .deb, and what rpm calls them.
SCRIPTS = {"postinst": "%post", "prerm": "%preun"}


def like_aws(deb: Path, directory: Path, *, first: str = "") -> Path:
    """The rpm as AWS releases it: all beneath /opt/aws, with links; it has no signature inside.

    first: shell commands that its installation runs once its files are there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _pack(deb, _unpack(deb, Path(scratch)), directory, REQUIRES, first=first)


def like_amazon_linux(deb: Path, directory: Path) -> Path:
    """The rpm as in Amazon Linux 2023's own repository: the program itself in /usr/bin."""
    with tempfile.TemporaryDirectory() as scratch:
        root = _unpack(deb, Path(scratch))
        program = root / "usr/bin/mount-s3"
        program.unlink()
        (root / HOME / "bin/mount-s3").rename(program)
        (root / HOME / "bin").rmdir()
        mount = root / "usr/sbin/mount.mount-s3"
        mount.unlink()
        mount.symlink_to("/usr/bin/mount-s3")
        requires = ("fuse >= 2.9.0", "fuse-libs >= 2.9.0")
        return _pack(deb, root, directory, requires, release="1.amzn2023")


def _unpack(deb: Path, scratch: Path) -> Path:
    root = scratch / "root"
    run("dpkg-deb", "--extract", str(deb), str(root))
    shutil.rmtree(root / "usr/share", ignore_errors=True)
    return root


def _pack(
    deb: Path,
    root: Path,
    directory: Path,
    requires: tuple[str, ...],
    release: str = "1",
    first: str = "",
) -> Path:
    version = run("dpkg-deb", "--field", str(deb), "Version").strip()
    with tempfile.TemporaryDirectory() as control:
        run("dpkg-deb", "--control", str(deb), control)
        said = {
            section: Path(control, name).read_text(encoding="utf-8")
            for name, section in SCRIPTS.items()
            if Path(control, name).exists()
        }
    if first:
        said["%post"] = f"{first}\n{said.get('%post', '')}"
    return rpms.pack(
        "mount-s3",
        version,
        directory,
        root,
        release=release,
        requires=requires,
        scripts="\n".join(f"{section}\n{text}" for section, text in said.items()),
    )
