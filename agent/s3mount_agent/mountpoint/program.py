"""The installed mount-s3: where it is, and which version."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import Version, shown, version_of
from s3mount_agent.filesystem import disk, files, safe_path
from s3mount_agent.system import probe, process

# Not PATH, which differs between cloud-init, SSM and systemd: the same node must always find the
# same program, or its mounts would seem to have changed.
_PLACES = "/usr/bin:/opt/aws/mountpoint-s3/bin"
# Where an image may have one that was not packaged: taken only where it is root's alone.
_LOCAL = "/usr/local/bin/mount-s3"
_LOCAL_SECONDS = 10.0
_VERSION = re.compile(r"mount-s3 (\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Installed:
    """A mount-s3 that runs on this node."""

    program: str
    version: Version

    def __str__(self) -> str:
        return shown(self.version)


def find() -> Installed | None:
    """The installed mount-s3, or None if there is none that runs."""
    program = disk.program("mount-s3", _PLACES)
    try:
        if program is None:
            return _find_local()
        return _ask(program, files.identity(Path(program)))
    except AgentError:
        return None  # for example without libfuse2, which comes in the same transaction


def _find_local() -> Installed | None:
    """/usr/local may be a file system of the head node's, so that a child asks there; where nothing
    answers, what is known stays so."""
    global _local
    known = [list(_local[0]), list(_local[1].version)] if _local else None
    try:
        found = probe.ask(_look_at_local, _LOCAL, known, timeout=_LOCAL_SECONDS, place=_LOCAL)
    except probe.SilenceError:
        return _local[1] if _local else None
    _local = (tuple(found[0]), Installed(_LOCAL, tuple(found[1]))) if found else None
    return _local[1] if _local else None


# The last mount-s3 that was found there, and what tells its file from another.
_local: tuple[tuple[int, ...], Installed] | None = None


def _look_at_local(path: str, known: list[list[int]] | None) -> list[list[int]] | None:
    """What tells the file from another, and its version, which is asked only where it is not the
    one that is known; None where there is none. Raises what is wrong with it."""
    if not disk.exists(Path(path)):
        return None
    safe_path.require_file(path)
    file = list(files.identity(Path(path)))
    if known is not None and known[0] == file:
        return known
    return [file, list(_ask(path, tuple(file)).version)]


@functools.lru_cache(maxsize=1)
def _ask(program: str, file: tuple[int, ...]) -> Installed:
    """Asks a program for its version, once for as long as it stays the same file and answers."""
    answer = process.run([program, "--version"], timeout=30, check=False)
    match = _VERSION.search(answer.stdout)
    if answer.code != 0 or match is None:
        raise AgentError(Problem.MOUNT_FAILED, f"{program} does not run")
    return Installed(program, version_of(match.groups()))
