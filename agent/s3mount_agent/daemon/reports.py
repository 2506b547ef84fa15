"""Telling of mounts that change without an attempt at anything: it is told once, when it begins and
when it is over."""

from __future__ import annotations

from collections.abc import Iterable

from s3mount_agent.core.events import Event
from s3mount_agent.core.states import State
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.state.status_file import Row
from s3mount_agent.system import journal

_TOLD = {State.DEGRADED: Event.DEGRADED, State.FOREIGN: Event.FOREIGN}


class Changes:
    """Remembers which states were told of which mount."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def recall(self, rows: Iterable[Row]) -> None:
        """What was told before: a daemon that is restarted does not begin anew."""
        self._states = {row.id: row.state for row in rows}

    def tell(self, sights: Iterable[Sight]) -> None:
        """Tells what has changed since the last time."""
        before, self._states = self._states, {}
        for sight in sights:
            state, old = sight.judgement.state, before.get(sight.row.id)
            self._states[sight.row.id] = state
            if state is old:
                continue
            if state in _TOLD:
                _tell(sight, _TOLD[state], f"{sight.row.path}: {sight.judgement.reason}")
            elif state is State.OK and old in _TOLD:
                _tell(sight, Event.HEALED, f"{sight.row.path} can be used again")


def _tell(sight: Sight, event: Event, message: str) -> None:
    row = sight.row
    s3 = row.s3 if event is Event.DEGRADED else None
    code = s3.code if s3 else ""
    journal.event(event, message, mount=row.path, bucket=row.bucket, error_code=code)
