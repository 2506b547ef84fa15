"""Bringing mount-s3, and the libfuse2 it needs, onto a node that does not have them yet."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

from s3mount_agent.doors import (
    belongings,
    files,
    fuse,
    installation,
    mount_s3,
    node,
    packages,
    release,
)
from s3mount_agent.doors.mount_s3 import Installed
from s3mount_agent.model.configuration import Install
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.flags import Version
from s3mount_agent.work.retry import patiently

_BUDGET_SECONDS = 600.0
_NEWEST: Version = (999,)
_DOWNLOADS = installation.STATE / "downloads"


def ensure_mount_s3(source: Install) -> tuple[Installed, bool]:
    """Returns the node's mount-s3, and whether it had to be installed."""
    interrupted = belongings.load().packages_before is not None
    found = mount_s3.find()
    if found and not interrupted:
        return found, False
    packages.require_apt()
    packages.require_space()
    _write_down_before()
    shutil.rmtree(_DOWNLOADS, ignore_errors=True)
    with files.told_plainly(f"make the directory {_DOWNLOADS}"):
        _DOWNLOADS.mkdir(parents=True)
    try:
        patiently(lambda: _install(source, again=interrupted), budget=_BUDGET_SECONDS)
    finally:
        shutil.rmtree(_DOWNLOADS, ignore_errors=True)
    _write_down_after()
    found = mount_s3.find()
    if found is None:
        raise AgentError(
            Problem.MOUNT_FAILED,
            "mount-s3 was installed but does not run",
            hint="run `mount-s3 --version` on the node to see why",
        )
    return found, True


def version_to_be(source: Install) -> Version:
    """The version of mount-s3 that this node has, or would get."""
    found = mount_s3.find()
    if found:
        return found.version
    named = release.Release.chosen(source).version
    return _NEWEST if named == "latest" else tuple(map(int, named.split(".")))


def ensure_allow_other() -> bool:
    """Puts ``user_allow_other`` in force in fuse.conf; returns whether it was not yet."""
    before = files.read(fuse.CONF)
    after = fuse.allow_other(before)
    if after == before:
        return False
    made = belongings.load()
    if made.fuse_conf_before is None:
        belongings.save(
            dataclasses.replace(made, fuse_conf_before=before or "", fuse_conf_made=before is None)
        )
    return files.write(fuse.CONF, after)


def take_back_allow_other() -> None:
    """Makes fuse.conf what it was, unless somebody else has changed it since."""
    made = belongings.load()
    before = made.fuse_conf_before
    if before is None or files.read(fuse.CONF) != fuse.allow_other(before):
        return
    if made.fuse_conf_made:
        files.remove(fuse.CONF)
    else:
        files.write(fuse.CONF, before)


def take_back_packages() -> None:
    """Removes the packages that were installed for the agent."""
    made = belongings.load()
    names = [name for name in made.packages if packages.is_installed(name)]
    if names:
        packages.remove(names)
    belongings.save(dataclasses.replace(made, packages=(), packages_before=None))


def _install(source: Install, *, again: bool) -> None:
    """One attempt: the lists and the package at the same time, then everything in one go."""
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(
            release.fetch,
            release.Release.chosen(source),
            node.architecture(),
            "deb",
            _DOWNLOADS,
        )
        packages.repair()
        packages.refresh()
        package = fetched.result()
    # Its name on Ubuntu 24.04 and later, and on Debian 13.
    library = "libfuse2t64" if packages.is_known("libfuse2t64") else "libfuse2"
    names = [library, "python3-systemd", "ca-certificates", str(package)]
    if not shutil.which("fusermount3") and not shutil.which("fusermount"):
        names.insert(0, "fuse3")  # provides "fuse", which mount-s3 depends on
    packages.install(names, again=again)


def _write_down_before() -> None:
    made = belongings.load()
    if made.packages_before is None:
        belongings.save(
            dataclasses.replace(made, packages_before=tuple(sorted(packages.installed())))
        )


def _write_down_after() -> None:
    made = belongings.load()
    if made.packages_before is not None:
        brought = packages.installed().difference(made.packages_before)
        belongings.save(
            dataclasses.replace(
                made,
                packages=tuple(sorted({*made.packages, *brought})),
                packages_before=None,
            )
        )
