"""What went wrong with mounts, and when each may be tried again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.retry_policy import Wake, is_lasting, pace_of
from s3mount_agent.reconcile.execute import Failures

# The same trouble is told again, but not with every attempt.
_REMIND_SECONDS = 3600.0
# A mount that was up for less has not recovered: its next attempt counts on.
_STEADY_SECONDS = 60.0


@dataclass
class Trouble:
    """One mount's: why it failed, since when, how often in a row, and when it is due again.

    ``trying`` while an attempt is under way; ``announced``: somebody was told of it, and is to be
    told of its end. Times are monotonic seconds.
    """

    error: AgentError
    began: float
    attempts: int
    due: float
    told: float
    announced: bool
    trying: bool = False

    def may_try(self, now: float) -> bool:
        """Whether it is time for another attempt."""
        return now >= self.due


class Troubles:
    """The troubles of a node by mount id, with growing, jittered pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.longest_pause = 30.0
        self._clock = clock
        self._by_id: dict[str, Trouble] = {}
        self._past: dict[str, tuple[Trouble, float]] = {}

    def note(self, mount_id: str, error: AgentError) -> bool:
        """Writes a failed attempt down; returns whether it is news."""
        now = self._clock()
        current = self._by_id.get(mount_id)
        known = current or self._relapse(mount_id, now)
        attempts = known.attempts + 1 if known else 1
        # Patience is with this problem, not with what came before it.
        same = known is not None and known.error.problem is error.problem
        began = known.began if known and same else now
        pace = pace_of(error)
        quick = now - began < pace.quick_for
        if not quick:
            error = error.retried_for(0)
        jitter = random.random()  # noqa: S311
        pause = pace.pause(attempts, quick=quick, longest=self.longest_pause, jitter=jitter)
        due = now + pause
        slows = not quick and known is not None and not is_lasting(known.error)
        news = known is None or not same or slows or now - known.told >= _REMIND_SECONDS
        told = now if news or known is None else known.told
        announced = news or (current is not None and current.announced)
        self._by_id[mount_id] = Trouble(error, began, attempts, due, told, announced)
        return news

    def is_news(self, mount_id: str) -> bool:
        """Whether a mount that is down now has failed anew, not just stayed down."""
        known = self._by_id.get(mount_id)
        return known is None or known.trying

    def may_try(self, mount_id: str) -> bool:
        """Whether a mount may be started now."""
        known = self._by_id.get(mount_id)
        return known is None or known.may_try(self._clock())

    def trying(self, mount_id: str) -> None:
        """An attempt begins."""
        if mount_id in self._by_id:
            self._by_id[mount_id].trying = True

    def over(self, mount_id: str) -> bool:
        """A mount is up; returns whether it was in a trouble that somebody was told of."""
        trouble = self._by_id.pop(mount_id, None)
        if trouble is None:
            return False
        self._past[mount_id] = trouble, self._clock()
        return trouble.announced

    def _relapse(self, mount_id: str, now: float) -> Trouble | None:
        """The last trouble of a mount that has not been up for long since."""
        trouble, ended = self._past.pop(mount_id, (None, now))
        return trouble if now - ended < _STEADY_SECONDS else None

    def is_busy(self, mount_id: str) -> bool:
        """Whether a mount is up, but in use and so in the way of a change."""
        known = self._by_id.get(mount_id)
        return known is not None and known.error.problem is Problem.MOUNT_BUSY

    def keep_only(self, ids: Collection[str]) -> None:
        """Forgets mounts that are no longer wanted."""
        self._by_id = {key: value for key, value in self._by_id.items() if key in ids}
        self._past = {key: value for key, value in self._past.items() if key in ids}

    def wake(self, wake: Wake) -> None:
        """Makes due at once what this wakes; its pauses begin anew, but it is told no earlier."""
        now = self._clock()
        for trouble in self._by_id.values():
            if wake in pace_of(trouble.error).wakes:
                trouble.due, trouble.attempts = now, 1

    def clear(self) -> None:
        """A change of circumstances: everything gets a new chance."""
        self._by_id.clear()
        self._past.clear()

    def failures(self) -> Failures:
        """The reasons, by mount id."""
        return {key: trouble.error for key, trouble in self._by_id.items()}

    def seconds_until_due(self) -> float | None:
        """When to look again: the next attempt, or soon while one is under way."""
        now = self._clock()
        waits = [
            0.5 if trouble.trying else max(0.1, trouble.due - now)
            for trouble in self._by_id.values()
            if trouble.trying or trouble.due < math.inf
        ]
        return min(waits, default=None)
