"""Bringing mount-s3, and the libfuse2 it needs, onto a node that does not have them yet."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import Version, version_of
from s3mount_agent.mountpoint import program, releases
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.mountpoint.wanted import Install
from s3mount_agent.state import inventory
from s3mount_agent.system import apt, files, fuse, node, paths
from s3mount_agent.system.retry import patiently

_BUDGET_SECONDS = 600.0
_DOWNLOADS = paths.STATE / "downloads"


def ensure_mount_s3(source: Install) -> tuple[Installed, bool]:
    """Returns the node's mount-s3, and whether it had to be installed."""
    interrupted = inventory.load().packages_before is not None
    found = program.find()
    if found and not interrupted:
        return found, False
    apt.require_apt()
    apt.require_space()
    _write_down_before()
    shutil.rmtree(_DOWNLOADS, ignore_errors=True)
    with files.told_plainly(f"make the directory {_DOWNLOADS}"):
        _DOWNLOADS.mkdir(parents=True)
    try:
        patiently(lambda: _install(source, again=interrupted), budget=_BUDGET_SECONDS)
    finally:
        shutil.rmtree(_DOWNLOADS, ignore_errors=True)
    _write_down_after()
    found = program.find()
    if found is None:
        raise AgentError(
            Problem.MOUNT_FAILED,
            "mount-s3 was installed but does not run",
            hint="run `mount-s3 --version` on the node to see why",
        )
    return found, True


def version_to_be(source: Install) -> Version:
    """The version of mount-s3 that this node has, or would get."""
    found = program.find()
    return found.version if found else version_of(releases.Release.chosen(source).version)


def ensure_allow_other() -> bool:
    """Puts ``user_allow_other`` in force in fuse.conf; returns whether it was not yet."""
    before = files.read(fuse.CONF)
    after = fuse.allow_other(before)
    if after == before:
        return False
    made = inventory.load()
    if made.fuse_conf_before is None:
        inventory.save(
            dataclasses.replace(made, fuse_conf_before=before or "", fuse_conf_made=before is None)
        )
    return files.write(fuse.CONF, after)


def take_back_allow_other() -> None:
    """Makes fuse.conf what it was, unless somebody else has changed it since."""
    made = inventory.load()
    before = made.fuse_conf_before
    if before is None or files.read(fuse.CONF) != fuse.allow_other(before):
        return
    if made.fuse_conf_made:
        files.remove(fuse.CONF)
    else:
        files.write(fuse.CONF, before)


def take_back_packages() -> None:
    """Removes the packages that were installed for the agent."""
    made = inventory.load()
    names = [name for name in made.packages if apt.is_installed(name)]
    if names:
        apt.remove(names)
    inventory.save(dataclasses.replace(made, packages=(), packages_before=None))


def _install(source: Install, *, again: bool) -> None:
    """One attempt: the lists and the package at the same time, then everything in one go."""
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(
            releases.fetch,
            releases.Release.chosen(source),
            node.architecture(),
            "deb",
            _DOWNLOADS,
        )
        apt.repair()
        apt.refresh()
        package = fetched.result()
    # Its name on Ubuntu 24.04 and later, and on Debian 13.
    library = "libfuse2t64" if apt.is_known("libfuse2t64") else "libfuse2"
    names = [library, "python3-systemd", "ca-certificates", str(package)]
    if not shutil.which("fusermount3") and not shutil.which("fusermount"):
        names.insert(0, "fuse3")  # provides "fuse", which mount-s3 depends on
    apt.install(names, again=again)


def _write_down_before() -> None:
    made = inventory.load()
    if made.packages_before is None:
        inventory.save(dataclasses.replace(made, packages_before=tuple(sorted(apt.installed()))))


def _write_down_after() -> None:
    made = inventory.load()
    if made.packages_before is not None:
        brought = apt.installed().difference(made.packages_before)
        inventory.save(
            dataclasses.replace(
                made,
                packages=tuple(sorted({*made.packages, *brought})),
                packages_before=None,
            )
        )
