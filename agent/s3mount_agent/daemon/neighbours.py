"""Who else has to know of the mounts: services that wait for them, and programs that walk all, or
restart all."""

from __future__ import annotations

from typing import Callable

from s3mount_agent.core.states import State
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.reconcile.context import Context
from s3mount_agent.supervisor import agent_service, crawlers, needrestart
from s3mount_agent.supervisor.target import Target

# They may be installed later, and their files may not be written yet.
_AGAIN_SECONDS = 300.0
_LONGEST_SECONDS = 86_400.0


class Neighbours:
    """Tells them when mounts come, go or are up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._target = Target()
        self._directories: set[str] = set()
        self._due = 0.0
        self._pause = _AGAIN_SECONDS

    def see(self, context: Context, mounts: tuple[MountStatus, ...]) -> None:
        """Takes note of the mounts after a cycle; waits for nothing."""
        self._keep_out({mount.directory for mount in context.mounts})
        states = {mount.path: mount.state for mount in mounts}
        self._target.see(all_up={states.get(path) for path in context.required} <= {State.OK})

    def _keep_out(self, directories: set[str]) -> None:
        """Has those told who are to keep out, until they know."""
        now = self._clock()
        if directories != self._directories:
            self._directories, self._due, self._pause = directories, now, _AGAIN_SECONDS
        if now < self._due:
            return
        if crawlers.are_kept_out(directories) and needrestart.is_told():
            self._pause = _AGAIN_SECONDS
        else:
            agent_service.keep_crawlers_out_later()
            self._pause = min(2 * self._pause, _LONGEST_SECONDS)
        self._due = now + self._pause
