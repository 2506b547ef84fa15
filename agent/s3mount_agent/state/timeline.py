"""The steps of a bootstrap: one line on stdout each, and a record of where the time went."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

from s3mount_agent.system import files, journal, paths

TIMELINE = paths.STATE / "timeline.json"


class Step:
    """A step under way; ``result`` is what its line will say."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.result = ""


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
    def step(self, name: str) -> Iterator[Step]:
        """Times what happens within; a step that raises is printed as failed."""
        step, start, mark = Step(name), self.elapsed, "failed"
        try:
            yield step
            mark = "ok"
        finally:
            seconds = self.elapsed - start
            journal.say(f"[{mark:^6}] {name:<9} {seconds:6.2f} s  {step.result}".rstrip())
            self._rows.append({"step": name, "start": start, "seconds": seconds, "result": mark})

    def save(self) -> None:
        """Writes the timeline, if anything was changed in its time or there is none yet."""
        if not self.changed and TIMELINE.exists():
            return
        record = {"schema": 1, "began_at": self._began_at, "steps": self._rows}
        files.write(TIMELINE, json.dumps(record) + "\n")
