"""The steps of a bootstrap: one line on stdout each, and a record of where the time went."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

from s3mount_agent.core.errors import AgentError
from s3mount_agent.filesystem import disk, files, paths
from s3mount_agent.system import journal
from s3mount_agent.system.threads import if_it_lasts

# How long the same reason is not told again, at first.
_FIRST_PAUSE_SECONDS = 60.0
# When a download is first told of, and how often from then on.
_FIRST_PROGRESS_SECONDS = 5.0
_PROGRESS_SECONDS = 15.0
LEAVES = "Ctrl-C leaves it to the agent"
# What is said after it where that has come true.
LEFT = "interrupted: the agent's service goes on with it; `s3mount-agent status` tells how far"
TIMELINE = paths.STATE / "timeline.json"


class Step:
    """A step under way; ``result`` is what its line will say behind ``mark``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.result = ""
        self.mark = "ok"

    def skip(self, why: str) -> None:
        """It did not happen, and need not."""
        self.mark, self.result = "skip", why

    def warn(self, what: str) -> None:
        """It did not happen, which somebody should know, and which hinders nothing."""
        self.mark, self.result = "warn", what

    def fail(self, what: str) -> None:
        """It did not happen, or not all of it, and the bootstrap goes on all the same."""
        self.mark, self.result = "failed", what

    def wait(self, what: str) -> None:
        """It happens later: something is in the way."""
        self.mark, self.result = "wait", what


def clock_after(seconds: float) -> str:
    """The time of day in so many seconds, as it is told to who waits."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + seconds))


@contextlib.contextmanager
def waiting_for(
    what: str,
    seconds: float,
    *,
    attempt: str = "attempt 1, ",
    leaves: str = LEAVES,
    say: Callable[[str], object] = journal.say,
) -> Iterator[None]:
    """Says once what is waited for, which attempt it is (nothing, where there is but one), until
    when, and how to leave, if what is within lasts."""
    until = clock_after(seconds)
    line = f"[ wait ] {what} ({attempt}until {until} at most; {leaves})"
    with if_it_lasts(lambda: say(line)):
        yield


class Waiting:
    """Says that something is tried again: at once, where the reason is another one, and then ever
    more rarely. For who waits: what for, the how-manieth time, until when, and how to leave."""

    def __init__(
        self,
        what: str,
        budget: float,
        *,
        leaves: str = LEAVES,
        say: Callable[[str], object] = journal.say,
    ) -> None:
        self._what = what
        self._leaves = leaves
        self._say = say
        self._until = clock_after(budget)
        self._attempts = 0
        self._told = ""
        self._due = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    def __call__(self, error: AgentError) -> None:
        """Called after each attempt that failed and is not the last one."""
        self._attempts += 1
        now = time.monotonic()
        if error.message == self._told and now < self._due:
            return
        if error.message != self._told:
            self._pause = _FIRST_PAUSE_SECONDS
        self._told, self._due = error.message, now + self._pause
        self._pause *= 2
        until = f"attempt {self._attempts}, until {self._until}; {self._leaves}"
        self._say(f"[ wait ] {self._what}: {error.message} ({until})")


class Downloading:
    """Says how far a download is that takes its time: how much has come, and how fast. For who
    waits: until when, and how to leave."""

    def __init__(
        self,
        budget: float,
        *,
        leaves: str = LEAVES,
        say: Callable[[str], object] = journal.say,
    ) -> None:
        self._leaves = leaves
        self._say = say
        self._until = clock_after(budget)
        self._told_at: float | None = None
        self._told = 0
        self._pause = _FIRST_PROGRESS_SECONDS

    def __call__(self, name: str, here: int, whole: int) -> None:
        """Called for each piece, with the bytes that are there, and of the whole (0: unknown)."""
        if self._told_at is None:
            self._told_at = time.monotonic()
        seconds = time.monotonic() - self._told_at
        if seconds < self._pause:
            return
        rate = size(max(0, here - self._told) / seconds)
        self._told_at, self._told, self._pause = time.monotonic(), here, _PROGRESS_SECONDS
        of = f" of {size(whole)}" if whole else ""
        until = f"until {self._until} at most; {self._leaves}"
        self._say(f"[ wait ] {name}: {size(here)}{of}, {rate}/s ({until})")


def size(number: float) -> str:
    """Bytes as people write them."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"


class Timeline:
    """Prints each step as it ends and keeps its start and length, both in seconds.

    ``changed`` is for the steps to set: a run that changed nothing keeps the record of one that
    did.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._began_at = time.time()
        self._rows: list[dict[str, object]] = []
        self.changed = False

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def step(self, name: str, *, since: float | None = None) -> Iterator[Step]:
        """Times what happens within, and since it began (:attr:`elapsed` then), where that was
        before; a step that raises is printed as failed."""
        step, start = Step(name), self.elapsed if since is None else since
        try:
            yield step
        except BaseException:
            step.mark = "failed"
            raise
        finally:
            seconds = self.elapsed - start
            journal.say(f"[{step.mark:^6}] {name:<9} {seconds:6.2f} s  {step.result}".rstrip())
            row = {"step": name, "start": start, "seconds": seconds, "result": step.mark}
            self._rows.append(row)

    def save(self) -> None:
        """Writes the timeline, if anything was changed in its time or there is none yet.

        A record that cannot be written is told: the bootstrap is as good, or as bad, without it.
        """
        if not self.changed and disk.exists(TIMELINE):
            return
        record = {"schema": 1, "began_at": self._began_at, "steps": self._rows}
        try:
            files.write(TIMELINE, json.dumps(record) + "\n")
        except AgentError as error:
            journal.say(f"warning: there is no record of these times: {error.message}")
