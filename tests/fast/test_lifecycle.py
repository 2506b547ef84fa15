"""The life of one mount: what happens to it, what is remembered, and what is told."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from fast.daemon_world import NEW, OLD
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence, State
from s3mount_agent.decide import lifecycle
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import TELLINGS, Event
from s3mount_agent.decide.lifecycle import (
    Chance,
    Happening,
    Judged,
    Looked,
    Recalled,
    Record,
    Tried,
    standing,
)
from s3mount_agent.decide.plan import Kind, Placed
from s3mount_agent.decide.retry_policy import Wake

OURS, ABSENT, OTHER = Presence.OURS, Presence.ABSENT, Presence.FOREIGN
UP = Placed(OLD.mount.id, OLD.definition, OLD.text, active=True, pid=7)
DOWN = dataclasses.replace(UP, active=False, pid=None)
RISING = dataclasses.replace(DOWN, starting=True)
KILLED = dataclasses.replace(DOWN, ending="killed by SIGKILL")
AWAY = AgentError(Problem.S3_UNREACHABLE, "S3 cannot be reached")
MISSING = AgentError(Problem.BUCKET_MISSING, "there is no such bucket")
DENIED = AgentError(Problem.ACCESS_DENIED, "S3 denies access")
REFUSED = AgentError(Problem.MOUNT_REFUSED, "mount-s3 refuses its arguments")
BUSY = AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use", retry_for=3600)
LOST = Condition(silences=2)


class Life:
    """One mount, a clock, and what was told of it."""

    def __init__(self, longest: float = 30.0) -> None:
        self.now = 1000.0
        self.longest = longest
        self.record = Record()
        self.told: list[Event] = []
        self._luck = random.Random(1)  # noqa: S311

    def happens(self, *seen: Happening) -> list[Event]:
        """Lives through this; returns what is told of it."""
        before = len(self.told)
        for each in seen:
            chance = Chance(self.longest, self._luck.random())
            self.record, told = lifecycle.step(self.record, each, self.now, chance)
            self.told += [one.event for one in told]
        return self.told[before:]

    def fails(self, error: AgentError) -> list[Event]:
        """An attempt fails as it does with systemd: later."""
        return self.happens(Tried(Kind.START), Looked(DOWN, ABSENT, failure=error))

    @property
    def may_try(self) -> bool:
        return self.record.is_due(self.now)

    @property
    def error(self) -> AgentError:
        assert self.record.error is not None
        return self.record.error


@pytest.fixture
def life() -> Life:
    return Life()


def test_a_mount_without_trouble_may_be_tried(life: Life) -> None:
    assert life.may_try
    assert life.record.wants_reason(DOWN)
    assert life.happens(Looked(UP, OURS)) == []
    assert life.record.pause(life.now) == math.inf


def test_the_first_failure_is_answered_at_once_and_the_next_with_a_pause(life: Life) -> None:
    assert life.fails(AWAY) == [Event.START_FAILED]
    assert life.may_try
    assert life.fails(AWAY) == []
    assert not life.may_try
    life.now += 2
    assert life.may_try


def test_pauses_grow_up_to_the_longest_and_differ(life: Life) -> None:
    pauses = []
    for _ in range(40):
        life.fails(AWAY)
        pauses.append(life.record.pause(life.now))
        life.now += pauses[-1]
        assert life.may_try
    assert max(pauses[:3]) <= 4
    assert all(15 <= each <= 30 for each in pauses[6:])
    assert len({round(each, 3) for each in pauses[6:]}) > 20, "mounts must not try in step"


def test_the_longest_pause_is_the_configurations() -> None:
    life = Life(longest=5)
    for _ in range(30):
        life.fails(AWAY)
        assert life.record.pause(life.now) <= 5
        life.now += 5


def test_where_somebody_has_to_act_it_is_tried_slowly_for_ever(life: Life) -> None:
    pauses = []
    while life.now < 1000 + 86400:
        life.fails(MISSING)
        pauses.append(life.record.pause(life.now))
        life.now += pauses[-1]
        assert life.may_try
    assert sum(pauses[:6]) < 64, "quickly at first"
    assert all(150 <= each <= 300 for each in pauses[10:])
    assert len({round(each, 3) for each in pauses[10:]}) > 100, "a fleet must not try in step"
    life.fails(MISSING)
    assert not life.may_try
    assert life.happens(Wake.ASKED) == []
    assert life.may_try
    assert life.error.problem is Problem.BUCKET_MISSING, "it is known until it has gone well"


def test_what_is_refused_waits_for_a_new_configuration(life: Life) -> None:
    life.fails(REFUSED)
    life.now += 1e9
    assert not life.may_try
    life.happens(Wake.ASKED)
    assert not life.may_try
    assert life.record.pause(life.now) == math.inf
    life.happens(Wake.CONFIGURATION)
    assert life.may_try


def test_patience_is_with_one_problem_and_its_end_is_told(life: Life) -> None:
    for _ in range(3):
        life.fails(DENIED)
        life.now += 9
    assert life.error.retry_for is None
    assert life.fails(DENIED) == [Event.START_FAILED]
    assert life.error.retry_for == 0
    assert life.fails(AWAY) == [Event.START_FAILED]
    assert life.error.retry_for is None


def test_a_relapse_counts_on_and_a_long_good_run_does_not(life: Life) -> None:
    life.happens(Looked(UP, OURS))
    told = []
    for number in range(6):
        up = dataclasses.replace(UP, pid=10 + number)
        told.append([*life.happens(Looked(KILLED, OURS)), *life.happens(Looked(up, OURS))])
        life.now += 1
    assert told == [[Event.ENDED, Event.RECOVERED], *[[]] * 5], "told once, and so is its end"
    life.happens(Looked(KILLED, OURS))
    assert not life.may_try, "seven times within seconds"
    assert life.record.pause(life.now) >= 15
    life.happens(Looked(UP, OURS))
    life.now += 60
    assert life.happens(Looked(KILLED, OURS)) == [Event.ENDED]
    assert life.may_try


def test_a_new_configuration_is_a_new_story(life: Life) -> None:
    life.happens(Looked(UP, OURS), Looked(KILLED, OURS), Looked(UP, OURS))
    life.happens(Wake.CONFIGURATION)
    assert life.happens(Looked(KILLED, OURS)) == [Event.ENDED]
    assert life.may_try


def test_the_same_trouble_is_told_at_most_hourly(life: Life) -> None:
    told = []
    for _ in range(2 * 60 + 2):
        told += life.fails(AWAY)
        life.now += 60
    assert told == [Event.START_FAILED] * 3


def test_what_is_down_is_news_only_after_an_attempt(life: Life) -> None:
    life.fails(AWAY)
    assert not life.record.wants_reason(DOWN)
    life.happens(Tried(Kind.START))
    assert life.record.wants_reason(DOWN)
    assert life.record.pause(life.now) == 0.5
    life.fails(AWAY)
    life.happens(Looked(RISING, ABSENT))
    assert life.record.wants_reason(DOWN), "whoever began it"


def test_where_systemd_was_quicker_both_are_told(life: Life) -> None:
    life.happens(Looked(UP, OURS))
    other = dataclasses.replace(UP, pid=8)
    assert life.happens(Looked(other, OURS)) == [Event.ENDED, Event.RECOVERED]


def test_a_changed_mount_has_another_process_and_nothing_is_told(life: Life) -> None:
    life.happens(Looked(UP, OURS), Tried(Kind.STOP), Tried(Kind.START))
    changed = Placed(NEW.mount.id, NEW.definition, NEW.text, active=True, pid=8)
    assert life.happens(Looked(changed, OURS)) == []


@pytest.mark.parametrize("presence", [ABSENT, OTHER])
def test_is_mounted_again_is_never_said_of_a_mount_that_is_not(
    life: Life, presence: Presence
) -> None:
    life.fails(AWAY)
    assert life.happens(Looked(UP, presence)) == []
    assert life.record.trouble is not None
    assert life.happens(Looked(UP, OURS)) == [Event.RECOVERED]
    assert life.record.trouble is None


def test_that_we_end_one_that_hangs_is_its_whole_story(life: Life) -> None:
    life.happens(Looked(UP, OURS))
    assert life.happens(Looked(UP, OURS, Condition(silences=1))) == []
    assert life.happens(Looked(UP, OURS, LOST), Tried(Kind.KILL)) == [Event.HUNG]
    assert life.happens(Looked(KILLED, OURS, failure=KILLED.ended())) == []
    assert life.happens(Looked(dataclasses.replace(UP, pid=8), OURS)) == [Event.RECOVERED]


def test_one_that_cannot_be_ended_is_told_once(life: Life) -> None:
    slow = AgentError(Problem.PROGRAM_FAILED, "systemd-run takes too long")
    for _ in range(3):
        life.happens(Looked(UP, OURS, LOST), Tried(Kind.KILL, slow))
    assert life.told == [Event.HUNG, Event.STOP_FAILED]


def test_what_hinders_its_new_start_is_told_all_the_same(life: Life) -> None:
    life.happens(Looked(UP, OURS), Looked(UP, OURS, LOST), Tried(Kind.KILL))
    assert life.fails(AWAY) == [Event.START_FAILED]


def test_one_that_had_vanished_is_mounted_again(life: Life) -> None:
    life.happens(Looked(UP, ABSENT), Tried(Kind.STOP, repair=True), Tried(Kind.START))
    assert life.told == []  # who took it down has told it
    assert life.happens(Looked(dataclasses.replace(UP, pid=8), OURS)) == [Event.RECOVERED]


def test_a_mount_in_use_waits_and_a_new_configuration_is_another_change(life: Life) -> None:
    life.happens(Looked(UP, OURS), Tried(Kind.STOP, BUSY), Tried(Kind.STOP, BUSY))
    assert standing(life.record, None, life.now).busy
    assert standing(life.record, None, life.now).waits == BUSY.message
    assert life.happens(Looked(UP, OURS)) == []
    assert life.record.trouble is not None
    life.happens(Wake.CONFIGURATION)
    assert life.record.trouble is None
    assert life.happens(Looked(UP, OURS)) == []


def test_it_waits_no_longer_than_its_deadline_and_is_not_torn_away_then(life: Life) -> None:
    asked = 0
    while life.now < 1000 + 7200:
        if life.may_try:
            asked += 1
            life.happens(Tried(Kind.STOP, BUSY))
        life.now += 1
    assert 3600 / 31 <= asked <= 3600 / 15 + 6
    assert life.error.retry_for == 0
    assert life.record.pause(life.now) == math.inf


def test_one_whose_process_ends_while_a_change_waits_is_free(life: Life) -> None:
    life.happens(Looked(UP, OURS), Tried(Kind.STOP, BUSY), Tried(Kind.STOP, BUSY))
    assert life.happens(Looked(UP, OURS), Looked(KILLED, OURS)) == [Event.ENDED]
    assert life.may_try


def test_a_hang_is_seen_also_while_a_change_waits(life: Life) -> None:
    life.happens(Looked(UP, OURS), Tried(Kind.STOP, BUSY))
    assert life.happens(Looked(UP, OURS, LOST)) == [Event.HUNG]


@pytest.mark.parametrize("error", [MISSING, AWAY])
def test_what_was_told_before_a_restart_is_tried_at_once_and_not_told_again(
    life: Life, error: AgentError
) -> None:
    assert life.happens(Recalled(error, State.FAILED)) == []
    assert life.may_try
    assert life.fails(error) == []
    assert life.happens(Looked(UP, OURS)) == [Event.RECOVERED]


@pytest.mark.parametrize(
    ("state", "event"), [(State.DEGRADED, Event.DEGRADED), (State.FOREIGN, Event.FOREIGN)]
)
def test_a_state_is_told_once_and_so_is_its_end(life: Life, state: State, event: Event) -> None:
    bad = Judged(state, "/mnt/s3", "it is bad", Problem.S3_UNREACHABLE)
    well = Judged(State.OK, "/mnt/s3")
    assert life.happens(bad, bad, well, well, bad) == [event, Event.HEALED, event]
    again = Life()
    assert again.happens(Recalled(None, state), bad, well) == [Event.HEALED]


def test_its_figures_tell_of_restarts_and_recoveries(life: Life) -> None:
    life.happens(Judged(State.OK, "/mnt/s3", pid=1))
    life.happens(Judged(State.STALE, "/mnt/s3"))
    life.now += 3
    life.happens(Judged(State.OK, "/mnt/s3", pid=2))
    story = life.record.story
    assert (story.restarts, story.recovery, story.down_since) == (1, 3, None)
    life.happens(Judged(State.MISSING, "/mnt/s3", held=True))
    life.now += 60
    life.happens(Judged(State.OK, "/mnt/s3", pid=3))
    assert life.record.story.recovery == 3, "it was taken down on purpose"


def test_all_that_befalls_a_mount_is_in_the_table() -> None:
    of_mounts = {each for each in Event if each.action in ("start", "stop", "health")}
    assert of_mounts - {Event.STARTED} == TELLINGS.keys()
    ended = set().union(*(each.ends for each in TELLINGS.values()))
    begun = {event for event, each in TELLINGS.items() if not each.ends}
    # Who mends a bind mount does it himself, and knows.
    assert ended == begun - {Event.BIND_DEAD}, "what begins has an end that is told"


def test_a_dead_bind_mount_is_told_once_with_its_mend_and_again_when_there_is_another() -> None:
    mend = "umount /data && mount --bind /mnt/s3 /data"
    dead = Judged(State.OK, "/mnt/s3", mends=(mend,))
    record, told = lifecycle.step(lifecycle.Record(), dead, 0)
    assert [each.event for each in told] == [Event.BIND_DEAD]
    assert mend in told[0].message
    record, told = lifecycle.step(record, dead, 10)
    assert told == ()
    other = "umount /home/data && mount --bind /mnt/s3 /home/data"
    both = Judged(State.OK, "/mnt/s3", mends=(mend, other))
    record, told = lifecycle.step(record, both, 12)
    assert [each.event for each in told] == [Event.BIND_DEAD]
    assert told[0].message.endswith(f": {other}")
    for seen in (both, dead, Judged(State.OK, "/mnt/s3")):
        record, told = lifecycle.step(record, seen, 20)
        assert told == ()
    record, told = lifecycle.step(record, dead, 30)
    assert [each.event for each in told] == [Event.BIND_DEAD]
