"""What is told in the journal: one row by kind of event, with a MESSAGE_ID that never changes; and
of a mount, when: once when it begins, and once when it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from s3mount_agent.core.errors import Problem


class Event(Enum):
    """A row per kind: S3MOUNT_ACTION=, S3MOUNT_RESULT=, MESSAGE_ID=, and what it means."""

    STARTED = (
        "start",
        "done",
        "89f9b6c0ae9024e15e722e3a4537358c",
        "a mount was made, or is being made",
    )
    START_FAILED = (
        "start",
        "failed",
        "0ce98e63976fc971bd76a952793f715c",
        "a mount could not be made",
    )
    ENDED = (
        "health",
        "ended",
        "47693c92196e4b6db70786b400922440",
        "mount-s3 of a mount that was up has ended",
    )
    RECOVERED = (
        "start",
        "recovered",
        "7d5ee7bbf9b002d193e0fd2c2789a640",
        "a mount that had failed is up again",
    )
    HUNG = (
        "health",
        "hung",
        "ac8486b7504994e304887866895698c0",
        "mount-s3 did not answer and was ended",
    )
    DEGRADED = (
        "health",
        "degraded",
        "7132066120f026d062bf9e845561d9dc",
        "a mount is up, but S3 cannot be used through it",
    )
    FOREIGN = (
        "health",
        "foreign",
        "6f0a94fb530e4163ae002f78cdc4d3a1",
        "something else was mounted on a mount's directory",
    )
    HEALED = (
        "health",
        "recovered",
        "3c7455e4f1400d79f3cd537e6607db4f",
        "a mount that was degraded or foreign can be used again",
    )
    BIND_DEAD = (
        "health",
        "dead",
        "234f1e9506a3485c82633a3c83e29207",
        "a bind mount of a mount that came back is dead, and stays so until somebody mends it",
    )
    STOPPED = ("stop", "done", "f224cfedb4459fc10247ff45137ea399", "a mount was taken down")
    STOP_FAILED = (
        "stop",
        "failed",
        "cfd1442f89c0c92a3fb809304794baeb",
        "a mount could not be taken down, for example because it is in use",
    )
    WRITE_FAILED = (
        "write",
        "failed",
        "6ccbf7984f2e1468acd18591bd8511f5",
        "a unit, or the file of metrics, could not be written",
    )
    REWRITTEN = (
        "write",
        "done",
        "bc3cf6fac6724a8c8d62342749d5956a",
        "the unit of a mount that runs had been deleted, and was written again",
    )
    CYCLE_FAILED = (
        "cycle",
        "failed",
        "3ccf0bf2463e89201325cb2b17b7d4f5",
        "the service could not look after the mounts at all",
    )
    BOOT_LATE = (
        "boot",
        "late",
        "d39654bf37a84230a021935719e61bac",
        "a boot goes on, and slurmd starts, though not all mounts are up",
    )
    BOOTSTRAP_FAILED = (
        "bootstrap",
        "failed",
        "8269c49b526e4d438bf5a5205d1d8744",
        "a bootstrap was refused, or could not be carried out",
    )
    REFRESHED = (
        "refresh",
        "done",
        "8e69b8a7df5306efb3ecf5bcb2cb999b",
        "a new version of the configuration is in force",
    )
    REFUSED = (
        "refresh",
        "refused",
        "bfadaed27ab11b3f93a9193cffcf8138",
        "a new version of the configuration is wrong and was refused",
    )
    UNREACHABLE = (
        "refresh",
        "failed",
        "b0dcfbfd9313f17d373becfae454c3a9",
        "the configuration's source is out of reach",
    )
    EDITED = (
        "configuration",
        "edited",
        "e618a1862b4b4eb7a2b393fa94dbc7ea",
        "config.yaml is not what is in force: it was edited, damaged or removed",
    )
    DAMAGED = (
        "state",
        "damaged",
        "6f92fb1d47314b3088e406c42a523709",
        "a file of the agent's own was damaged and is made anew",
    )
    ENTRIES_LOST = (
        "journal",
        "lost",
        "5a38df30788e418f992e5828af6cc154",
        "journald did not take some entries: it was stopped, or had too much to do",
    )

    def __init__(self, action: str, result: str, message_id: str, about: str) -> None:
        self.action = action
        self.result = result
        self.message_id = message_id
        self.about = about

    @property
    def is_bad(self) -> bool:
        """Whether somebody should know."""
        return self.result not in ("done", "recovered")


# The same trouble is told again, but not with every attempt.
REMIND_SECONDS = 3600.0
# A mount that was up for less has not recovered: what befalls it then is the same story.
STEADY_SECONDS = 60.0


@dataclass(frozen=True)
class Telling:
    """When an event of a mount is told.

    ``when`` says in words when it becomes visible. ``hidden_by`` are events of which it is only a
    part, and for which problem (None: any): while one of them is told and not over, this one is
    not. ``by_problem``: another problem is another story. ``again``: after how many seconds the
    same is told once more while it lasts; ``quiet``: within how many seconds of its end it is not
    told anew. ``ends``: what it is the end of; it is told only if one of these was.
    """

    when: str
    hidden_by: tuple[tuple[Event, Problem | None], ...] = ()
    by_problem: bool = False
    again: float = math.inf
    quiet: float = 0.0
    ends: frozenset[Event] = frozenset()


DOWN = frozenset({Event.ENDED, Event.START_FAILED, Event.HUNG, Event.STOP_FAILED, Event.STOPPED})
_UNWELL = frozenset({Event.DEGRADED, Event.FOREIGN})

TELLINGS: Mapping[Event, Telling] = {
    Event.ENDED: Telling(
        "the process of a mount that was up is another one or none, and nobody changed the mount",
        hidden_by=((Event.HUNG, None),),
        by_problem=True,
        again=REMIND_SECONDS,
        quiet=STEADY_SECONDS,
    ),
    Event.START_FAILED: Telling(
        "an attempt to start is over, and the mount is not up",
        # That we have ended one that hung is told by then.
        hidden_by=((Event.HUNG, Problem.MOUNT_ENDED),),
        by_problem=True,
        again=REMIND_SECONDS,
        quiet=STEADY_SECONDS,
    ),
    Event.HUNG: Telling("its silence was confirmed twice, and its process is about to be ended"),
    Event.STOPPED: Telling("it was taken down to be made anew, because its mount had vanished"),
    Event.STOP_FAILED: Telling(
        "it cannot be taken down, or its process not be ended",
        by_problem=True,
        again=REMIND_SECONDS,
    ),
    Event.DEGRADED: Telling("it is mounted, but a look finds that S3 cannot be used through it"),
    Event.FOREIGN: Telling("something that is not the agent's lies on its directory, or over it"),
    Event.BIND_DEAD: Telling(
        "what had been mounted before it came back is still mounted elsewhere, and dead"
    ),
    Event.RECOVERED: Telling(
        "its process is past its start, and what the directory shows is the agent's own mount",
        ends=DOWN,
    ),
    Event.HEALED: Telling("it is mounted, and nothing is wrong with it", ends=_UNWELL),
}


@dataclass(frozen=True)
class Said:
    """What was told of a mount, by event and problem.

    ``open`` is what is so now: when it was told, and whether that was at this time; ``over`` is
    what was: when it was told, and until when it was so.
    """

    open: Mapping[tuple[Event, str], tuple[float, bool]] = field(default_factory=dict)
    over: Mapping[tuple[Event, str], tuple[float, float]] = field(default_factory=dict)

    def is_open(self, event: Event) -> bool:
        """Whether it is so."""
        return any(known is event for known, _ in self.open)

    def tell(
        self, event: Event, problem: Problem | None, now: float, *, lasting: bool = False
    ) -> tuple[Said, bool]:
        """Takes note of an event, and says whether it is to be told now.

        ``lasting``: somebody has to act by now, which is news once.
        """
        telling = TELLINGS[event]
        if telling.ends:
            return self._end(telling.ends, now)
        if any(
            self.is_open(other) and only in (None, problem) for other, only in telling.hidden_by
        ):
            return self, False
        code = problem.code if problem and telling.by_problem else ""
        key = event, f"{code} lasts" if lasting else code
        told, _ = self.open.get(key, (-math.inf, False))
        if now - told < telling.again and key in self.open:
            return self, False
        before, ended = self.over.get(key, (-math.inf, -math.inf))
        if key not in self.open and now - ended < telling.quiet and now - before < telling.again:
            return Said({**self.open, key: (before, False)}, self.over), False
        return Said({**self.open, key: (now, True)}, self.over), True

    def known(self, event: Event, problem: Problem | None, now: float) -> Said:
        """Takes note of what somebody else has told."""
        return self.tell(event, problem, now)[0]

    def without(self, *events: Event) -> Said:
        """The same as if these had never been told."""
        return Said({key: told for key, told in self.open.items() if key[0] not in events})

    def _end(self, ends: frozenset[Event], now: float) -> tuple[Said, bool]:
        ended = {key: told for key, told in self.open.items() if key[0] in ends}
        over = {key: (at, now) for key, (at, _) in ended.items()}
        left = {key: told for key, told in self.open.items() if key not in ended}
        return Said(left, {**self.over, **over}), any(told for _, told in ended.values())
