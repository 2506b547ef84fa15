"""The installed mount-s3: where it is, and which version."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import Version, told, version_of
from s3mount_agent.filesystem import disk, safe_path
from s3mount_agent.system import process

# Not PATH, which differs between cloud-init, SSM and systemd: the same node must always find the
# same program, or its mounts would seem to have changed.
_PLACES = "/usr/bin:/opt/aws/mountpoint-s3/bin"
# Where an image may have one that was not packaged: taken only where it is root's alone.
_LOCAL = "/usr/local/bin/mount-s3"
_VERSION = re.compile(r"mount-s3 (\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Installed:
    """A mount-s3 that runs on this node."""

    program: str
    version: Version

    def __str__(self) -> str:
        return told(self.version)


def find() -> Installed | None:
    """The installed mount-s3, or None if there is none that runs."""
    program = disk.program("mount-s3", _PLACES)
    try:
        if program is None and disk.exists(Path(_LOCAL)):
            safe_path.require_file(_LOCAL)
            program = _LOCAL
        if program is None:
            return None
        return _ask(program, disk.identity(Path(program)))
    except AgentError:
        return None  # for example without libfuse2, which comes in the same transaction


@functools.lru_cache(maxsize=1)
def _ask(program: str, file: tuple[int, ...]) -> Installed:
    """Asks a program for its version, once for as long as it stays the same file and answers."""
    answer = process.run([program, "--version"], timeout=30, check=False)
    match = _VERSION.search(answer.stdout)
    if answer.code != 0 or match is None:
        raise AgentError(Problem.MOUNT_FAILED, f"{program} does not run")
    return Installed(program, version_of(match.groups()))
