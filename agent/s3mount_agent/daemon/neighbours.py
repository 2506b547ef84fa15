"""Who else has to know of the mounts: services that wait for them, and programs that walk all."""

from __future__ import annotations

from s3mount_agent.core.states import State
from s3mount_agent.decide.status import MountStatus
from s3mount_agent.reconcile.context import Context
from s3mount_agent.supervisor import crawlers, service
from s3mount_agent.supervisor.target import Target


class Neighbours:
    """Tells them when mounts come, go or are up."""

    def __init__(self) -> None:
        self._target = Target()
        self._directories: set[str] = set()

    def see(self, context: Context, mounts: tuple[MountStatus, ...]) -> None:
        """Takes note of the mounts after a cycle; waits for nothing."""
        known, self._directories = self._directories, {mount.directory for mount in context.mounts}
        if known != self._directories and not crawlers.are_kept_out(self._directories):
            service.keep_crawlers_out_later()
        states = {mount.path: mount.state for mount in mounts}
        self._target.see(all_up={states.get(path) for path in context.required} <= {State.OK})
