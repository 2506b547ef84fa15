"""s3mount.target: what services of the site wait for that need the mounts."""

from __future__ import annotations

import contextlib

from s3mount_agent.core.errors import AgentError
from s3mount_agent.filesystem import files, paths
from s3mount_agent.system import systemd

TARGET = "s3mount.target"
UNITS = (TARGET, "s3mount-wait.service")


def write() -> bool:
    """Puts the target in place; returns whether systemd has to read its units again."""
    written = [files.write(systemd.ETC / unit, paths.template(unit)) for unit in UNITS]
    return any(written)


def remove() -> bool:
    """Takes the target away; returns whether systemd has to read its units again."""
    systemd.stop(TARGET)
    removed = [files.remove(systemd.ETC / unit) for unit in UNITS]
    systemd.reset_failed(UNITS[1])
    return any(removed)


class Target:
    """Reaches the target each time that all mounts have come up; it is not left when one goes down
    again: who wants to follow one mount binds itself to its unit."""

    def __init__(self) -> None:
        self._reached = False

    def see(self, *, all_up: bool) -> None:
        """Takes note of how the mounts are; waits for nothing."""
        if all_up and not self._reached and systemd.runs():
            # An older installation has no target; and who stops the service meanwhile, which the
            # target wants, is not to hear that his job was cancelled.
            with contextlib.suppress(AgentError):
                systemd.start_later(TARGET, yielding=True)
        self._reached = all_up
