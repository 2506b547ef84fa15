"""The life of one mount as the agent remembers it: what happens to it changes its record, and is
told. Nothing else is remembered of a mount between two looks at the node; docs/architecture.md has
the drawing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Union

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence, State
from s3mount_agent.decide import retry_policy
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import DOWN, STEADY_SECONDS, Event, Said
from s3mount_agent.decide.plan import Kind, Placed, Standing
from s3mount_agent.decide.retry_policy import Wake, is_lasting, pace_of

# While an attempt is under way, its end is looked for.
_TRYING_SECONDS = 0.5
_SOON_SECONDS = 0.1
# A change waits: somebody uses the mount, or its process takes its time to end.
_BUSY = (Problem.MOUNT_BUSY, Problem.MOUNT_ENDING)


@dataclass(frozen=True)
class Trouble:
    """Why a mount failed, since when for this reason, after how many attempts in a row, and when
    the next one is due; ``trying`` while one is under way. Times are monotonic seconds."""

    error: AgentError
    began: float
    attempts: int
    due: float
    trying: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether the process of the mount serves on, and so is in the way of a change."""
        return self.error.problem in _BUSY


@dataclass(frozen=True)
class Story:
    """What its figures tell. ``down_since`` is None also while it is down because that was asked
    for, or has never been up; ``recovery`` is how many seconds the last one took."""

    was_up: bool = False
    pid: int | None = None
    restarts: int = 0
    down_since: float | None = None
    recovery: float | None = None


@dataclass(frozen=True)
class Record:
    """All that is remembered of one mount.

    ``up``: how it stood when it was last seen up, if nothing has changed it since; ``trouble``: of
    its last attempt, if that failed; ``past``: the last trouble that is over, and since when;
    ``mends``: the commands for its dead bind mounts, which were told.
    """

    up: Placed | None = None
    trouble: Trouble | None = None
    past: tuple[Trouble, float] | None = None
    said: Said = field(default_factory=Said)
    mends: tuple[str, ...] = ()
    story: Story = field(default_factory=Story)

    @property
    def error(self) -> AgentError | None:
        """Why it failed, if it did."""
        return self.trouble.error if self.trouble else None

    def is_due(self, now: float) -> bool:
        """Whether it may be tried now."""
        return self.trouble is None or now >= self.trouble.due

    def wants_reason(self, placed: Placed) -> bool:
        """Whether a mount that is down has failed anew, not just stayed down: then somebody has to
        find out why."""
        down = not placed.serves and not placed.starting
        return down and (self.trouble is None or self.trouble.is_busy or self.trouble.trying)

    def free(self) -> Record:
        """The same once nothing is in the way of a change any more."""
        return replace(self, trouble=None, said=self.said.without(Event.STOP_FAILED))

    def settled(self) -> Record:
        """The same once a change that waited has come about without us: nothing is left to do."""
        return self.free() if self.trouble is not None and self.trouble.is_busy else self

    def at_rest(self) -> Record:
        """The same once it is meant to be down: what befell it is over."""
        return replace(self, up=None, trouble=None, past=None, said=self.said.without(*DOWN))

    def pause(self, now: float) -> float:
        """Seconds until it should be looked at for the sake of its next attempt."""
        if self.trouble is None:
            return math.inf
        return (
            _TRYING_SECONDS if self.trouble.trying else max(_SOON_SECONDS, self.trouble.due - now)
        )


def standing(record: Record, condition: Condition | None, now: float) -> Standing:
    """What the plan has to know of a mount that cannot be seen on the node."""
    trouble = record.trouble
    return Standing(
        hung=condition is not None and condition.lost,
        waits=trouble.error.message if trouble and not record.is_due(now) else None,
        busy=trouble is not None and trouble.is_busy,
    )


@dataclass(frozen=True)
class Looked:
    """It was looked at: how it is placed, what lies on its directory, what its probes say, and why
    it failed where the record asks for that (:meth:`Record.wants_reason`)."""

    placed: Placed
    presence: Presence
    condition: Condition = field(default_factory=Condition)
    failure: AgentError | None = None


@dataclass(frozen=True)
class Tried:
    """An action was carried out, with what came of it; ``repair``: it is to be as it was before.
    Who carried it out has told how it went."""

    kind: Kind
    error: AgentError | None = None
    repair: bool = False


@dataclass(frozen=True)
class Judged:
    """The state of the mount on a directory was found, with the reason, the problem behind it if
    there is one, and its process; ``held``: it is down because an administrator wants it to be;
    ``mends``: the commands that mend bind mounts of it that are dead."""

    state: State
    directory: str
    reason: str = ""
    problem: Problem | None = None
    pid: int | None = None
    held: bool = False
    mends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recalled:
    """A service before this one knew why it was down, and has told."""

    error: AgentError | None
    state: State


Happening = Union[Looked, Tried, Judged, Recalled, Wake]


@dataclass(frozen=True)
class Told:
    """One thing to be told of a mount."""

    event: Event
    message: str
    error: AgentError | None = None


@dataclass(frozen=True)
class Chance:
    """What is given to an attempt: the configuration's longest pause in seconds, and how much of a
    pause is left to chance this time, from 0 to 1."""

    longest_pause: float = 30.0
    jitter: float = 0.5


Step = tuple[Record, tuple[Told, ...]]


def step(record: Record, seen: Happening, now: float, chance: Chance = Chance()) -> Step:
    """What a happening makes of a record, and what is to be told of it."""
    if isinstance(seen, Looked):
        return _look(record, seen, now, chance)
    if isinstance(seen, Tried):
        return _tried(record, seen, now, chance)
    if isinstance(seen, Judged):
        return _judge(replace(record, story=_retell(record.story, seen, now)), seen, now)
    if isinstance(seen, Recalled):
        return _recall(record, seen, now, chance), ()
    return _wake(record, seen, now), ()


def _look(record: Record, seen: Looked, now: float, chance: Chance) -> Step:
    placed = seen.placed
    if record.trouble is not None and record.trouble.is_busy:
        if placed.serves:
            # The mount is up, or somebody keeps it up: it is the change to it that failed.
            hangs = seen.condition.lost and not seen.presence.is_in_the_way
            return _hang(record, placed, now, ()) if hangs else (replace(record, up=placed), ())
        record = record.free()
    record, told = _ended(record, placed, now, chance)
    if placed.starting:
        # Whoever began it: how it ends is news.
        trouble = replace(record.trouble, trying=True) if record.trouble else None
        return replace(record, trouble=trouble), told
    if placed.active:
        record = replace(record, up=placed)
        if seen.presence is not Presence.OURS:
            return record, told  # its process lives, but nobody can use it
        if seen.condition.lost:
            return _hang(record, placed, now, told)
        return _up(record, placed, now, told)
    if seen.failure is not None and record.wants_reason(placed):
        record = _note(record, seen.failure, now, chance)
        return _tell(record, Event.START_FAILED, seen.failure.message, now, told, of_trouble=True)
    return record, told


def _ended(record: Record, placed: Placed, now: float, chance: Chance) -> Step:
    """Learns that the process of a mount has ended, though nobody changed the mount; by now systemd
    may have started another."""
    up = record.up
    if up is None or up.pid == placed.pid or up.text != placed.text:
        return replace(record, up=None), ()
    error = placed.ended()
    record = _note(replace(record, up=None), error, now, chance)
    return _tell(record, Event.ENDED, error.message, now, of_trouble=True)


def _hang(record: Record, placed: Placed, now: float, told: tuple[Told, ...]) -> Step:
    message = f"{placed.definition.directory} does not answer: mount-s3 is ended"
    error = AgentError(Problem.MOUNT_SILENT, message)
    # Its end, which is ours, is no news.
    return _tell(replace(record, up=None), Event.HUNG, message, now, told, error=error)


def _up(record: Record, placed: Placed, now: float, told: tuple[Told, ...]) -> Step:
    past = (record.trouble, now) if record.trouble else record.past
    record = replace(record, trouble=None, past=past)
    return _tell(
        record, Event.RECOVERED, f"{placed.definition.directory} is mounted again", now, told
    )


def _tried(record: Record, seen: Tried, now: float, chance: Chance) -> Step:
    error = seen.error
    if seen.kind is Kind.KILL:
        if error is None:
            return replace(record, up=None), ()
        return _tell(record, Event.STOP_FAILED, error.message, now, error=error)
    if error is not None:
        event = Event.STOP_FAILED if seen.kind is Kind.STOP else Event.START_FAILED
        record = _note(record, error, now, chance)
        if error.problem is Problem.MOUNT_ENDING:
            return record, ()  # it goes as it should, and takes its time
        return replace(record, said=record.said.known(event, error.problem, now)), ()
    if seen.kind is Kind.STOP:
        past = (record.trouble, now) if record.trouble else record.past
        record = replace(record.free(), up=None, past=past)
        if seen.repair:
            record = replace(record, said=record.said.known(Event.STOPPED, None, now))
    elif seen.kind is Kind.START and record.trouble is not None:
        # What was in its way has gone.
        trying = replace(record.trouble, trying=True)
        record = record.free() if trying.is_busy else replace(record, trouble=trying)
    return record, ()


def _judge(record: Record, seen: Judged, now: float) -> Step:
    told: tuple[Told, ...] = ()
    another = [mend for mend in seen.mends if mend not in record.mends]
    if record.said.is_open(Event.BIND_DEAD) and (another or not seen.mends):
        record = replace(record, said=record.said.without(Event.BIND_DEAD))
    record = replace(record, mends=seen.mends)
    if seen.mends:
        mends = " ".join(another or seen.mends)
        message = f"a bind mount of {seen.directory} is dead, until somebody does: {mends}"
        record, told = _tell(record, Event.BIND_DEAD, message, now)
    if seen.state is State.OK:
        return _tell(record, Event.HEALED, f"{seen.directory} can be used again", now, told)
    event = {State.DEGRADED: Event.DEGRADED, State.FOREIGN: Event.FOREIGN}.get(seen.state)
    if event is None:
        return record, told
    error = AgentError(seen.problem, seen.reason) if seen.problem else None
    return _tell(record, event, f"{seen.directory}: {seen.reason}", now, told, error=error)


def _recall(record: Record, seen: Recalled, now: float, chance: Chance) -> Record:
    said = record.said
    if seen.error is not None:
        record = _note(record, seen.error, now, chance)
        for lasts in {False, is_lasting(seen.error)}:
            said, _ = said.tell(Event.START_FAILED, seen.error.problem, now, lasting=lasts)
    event = {State.DEGRADED: Event.DEGRADED, State.FOREIGN: Event.FOREIGN}.get(seen.state)
    if event is not None:
        said = said.known(event, None, now)
    return _wake(replace(record, said=said), Wake.ASKED, now)


def _wake(record: Record, wake: Wake, now: float) -> Record:
    """Makes its next attempt due, with pauses that begin anew; it is told no earlier. With a new
    configuration what is over belongs to another story, and a change that waits is another one, or
    none."""
    if wake is Wake.CONFIGURATION:
        record = replace(record, past=None, said=Said(record.said.open))
    trouble = record.trouble
    if trouble is not None and trouble.is_busy and wake is Wake.CONFIGURATION:
        return record.free()
    if trouble is None or wake not in pace_of(trouble.error).wakes:
        return record
    return replace(record, trouble=replace(trouble, began=now, due=now, attempts=1))


def _note(record: Record, error: AgentError, now: float, chance: Chance) -> Record:
    """Writes a failed attempt down. Patience is with this problem, not with what came before."""
    known = record.trouble or _relapse(record, now)
    attempts = known.attempts + 1 if known else 1
    same = known is not None and known.error.problem is error.problem
    began = known.began if known and same else now
    pace = retry_policy.pace_of(error)
    quick = now - began < pace.quick_for
    if not quick:
        error = error.retried_for(0)
    pause = pace.pause(attempts, quick=quick, longest=chance.longest_pause, jitter=chance.jitter)
    return replace(record, trouble=Trouble(error, began, attempts, now + pause), past=None)


def _relapse(record: Record, now: float) -> Trouble | None:
    """The last trouble of a mount that has not been up for long since."""
    if record.past is None or now - record.past[1] >= STEADY_SECONDS:
        return None
    return record.past[0]


def _tell(
    record: Record,
    event: Event,
    message: str,
    now: float,
    before: tuple[Told, ...] = (),
    *,
    error: AgentError | None = None,
    of_trouble: bool = False,
) -> Step:
    if of_trouble:
        error = record.error
    lasting = of_trouble and error is not None and is_lasting(error)
    problem = error.problem if error else None
    said, news = record.said.tell(event, problem, now, lasting=lasting)
    told = (*before, Told(event, message, error)) if news else before
    return replace(record, said=said), told


def _retell(story: Story, seen: Judged, now: float) -> Story:
    if seen.pid and story.pid and seen.pid != story.pid:
        story = replace(story, restarts=story.restarts + 1)
    story = replace(story, pid=seen.pid or story.pid)
    if seen.state is State.OK:
        took = story.recovery if story.down_since is None else now - story.down_since
        return replace(story, was_up=True, down_since=None, recovery=took)
    if seen.held:
        return replace(story, down_since=None)
    if story.was_up and story.down_since is None:
        return replace(story, down_since=now)
    return story
