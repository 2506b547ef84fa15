"""When the configuration's source is asked for news (reconcile/refresh.py asks): now and then, in a
process of its own.

boto3 alone is more than all the rest of the daemon; in a child it costs nothing but for the
second in which it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3mount_agent.daemon.surroundings import Surroundings

if TYPE_CHECKING:
    from s3mount_agent.system.process import Child

_LONGEST_SECONDS = 120.0
# Within which part of the interval, and how many seconds, a source is asked for the first time.
_SOON, _SOON_SECONDS = 0.1, 30.0


class Refresher:
    """The daemon's clock for ``s3mount-agent refresh``; at most one runs."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._child: Child | None = None
        self._asked = False
        self._every = 0.0
        self._due = 0.0
        self._killed_at = 0.0

    @property
    def descriptors(self) -> list[int]:
        """The pipe that ends with the process, if one runs. Its end alone is no event: nearly
        always there is no news."""
        return [self._child.descriptor] if self._child else []

    def work(self, *, every: float, now: bool) -> bool:
        """Starts a refresh if it is time, or ``now``, and sees to the end of one that runs; returns
        whether one has ended."""
        clock = self._around.now()
        # Kept while one runs: that one may have looked before there was something new.
        self._asked |= now
        ended = False
        if self._child is not None:
            if not self._child.has_ended():
                if clock > self._killed_at:
                    self._child.kill()
                return False
            self._child = None
            ended = True
        if every != self._every:
            # After a boot nobody has asked yet; but a thousand nodes may have booted together.
            soon = min(_SOON * every, _SOON_SECONDS) * self._around.luck()
            wait = self._jittered(every) if self._every else soon
            self._every, self._due = every, clock + wait
        if not self._asked and clock < self._due:
            return ended
        self._asked = False
        self._due = clock + self._jittered(every)
        if self._around.follows_a_source():
            self._killed_at = clock + _LONGEST_SECONDS
            self._child = self._around.refresh()
        return ended

    def pause(self) -> float:
        """Seconds until there is something to do."""
        until = self._killed_at if self._child else self._due
        return max(0.1, until - self._around.now())

    def _jittered(self, every: float) -> float:
        """A thousand nodes that booted together must not ask together."""
        return every * (0.8 + 0.4 * self._around.luck())
