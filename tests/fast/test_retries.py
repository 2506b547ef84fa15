"""When a mount that failed is tried again: soon, then more and more rarely, never in a flurry."""

from __future__ import annotations

import math

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.retry_policy import Wake
from s3mount_agent.daemon.retries import Troubles


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def troubles(clock: Clock) -> Troubles:
    return Troubles(clock)


def ended(patience: float = math.inf) -> AgentError:
    return AgentError(Problem.MOUNT_ENDED, "mount-s3 has ended", retry_for=patience)


def pause(troubles: Troubles) -> float:
    seconds = troubles.seconds_until_due()
    assert seconds is not None
    return seconds


def test_the_first_failure_is_tried_again_at_once(troubles: Troubles) -> None:
    assert troubles.may_try("a")
    assert troubles.note("a", ended())
    assert troubles.may_try("a")
    assert troubles.may_try("b")


def test_pauses_grow_up_to_the_longest_and_differ(troubles: Troubles, clock: Clock) -> None:
    pauses = []
    for _ in range(40):
        troubles.note("a", ended())
        pauses.append(pause(troubles))
        clock.now += pauses[-1]
        assert troubles.may_try("a")
    assert max(pauses[:3]) <= 4
    assert all(15 <= each <= 30 for each in pauses[6:])
    assert len({round(each, 3) for each in pauses[6:]}) > 20, "mounts must not try in step"


def test_before_its_time_nothing_is_tried(troubles: Troubles, clock: Clock) -> None:
    for _ in range(5):
        troubles.note("a", ended())
    assert not troubles.may_try("a")
    clock.now += 30
    assert troubles.may_try("a")


def test_what_is_refused_is_not_tried_again(troubles: Troubles, clock: Clock) -> None:
    troubles.note("a", AgentError(Problem.MOUNT_REFUSED, "mount-s3 refuses its arguments"))
    clock.now += 1e9
    assert not troubles.may_try("a")
    assert troubles.seconds_until_due() is None
    troubles.wake(Wake.ASKED)
    assert not troubles.may_try("a")


def test_where_somebody_has_to_act_it_is_tried_slowly_for_ever(
    troubles: Troubles, clock: Clock
) -> None:
    tries = []
    while clock.now < 1000 + 86400:
        troubles.note("a", AgentError(Problem.BUCKET_MISSING, "there is no such bucket"))
        tries.append(pause(troubles))
        clock.now += tries[-1]
        assert troubles.may_try("a")
    assert sum(tries[:6]) < 64, "quickly at first"
    assert all(150 <= each <= 300 for each in tries[10:])
    assert len({round(each, 3) for each in tries[10:]}) > 100, "a fleet must not try in step"
    troubles.note("a", AgentError(Problem.BUCKET_MISSING, "there is no such bucket"))
    assert not troubles.may_try("a")
    troubles.wake(Wake.ASKED)
    assert troubles.may_try("a")


def test_patience_ends(troubles: Troubles, clock: Clock) -> None:
    troubles.note("a", ended(patience=20))
    clock.now += 19
    troubles.note("a", ended(patience=20))
    assert pause(troubles) <= 30
    clock.now += 1
    troubles.note("a", ended(patience=20))
    assert troubles.failures()["a"].retry_for == 0


def test_a_relapse_counts_on_and_a_long_good_run_does_not(troubles: Troubles, clock: Clock) -> None:
    told = []
    for _ in range(6):
        told.append((troubles.note("a", ended()), troubles.over("a")))
        clock.now += 1
    assert told == [(True, True), *[(False, False)] * 5], "told once, and so is its end"
    troubles.note("a", ended())
    assert not troubles.may_try("a"), "seven times within seconds"
    assert pause(troubles) >= 15
    troubles.over("a")
    clock.now += 60
    troubles.note("a", ended())
    assert troubles.may_try("a")


def test_a_new_configuration_is_a_new_chance(troubles: Troubles) -> None:
    for _ in range(6):
        troubles.note("a", ended(patience=0))
        troubles.over("a")
    troubles.note("a", ended(patience=0))
    troubles.clear()
    assert troubles.failures() == {}
    troubles.note("a", ended())
    assert troubles.may_try("a")


def test_the_same_trouble_is_told_at_most_hourly(troubles: Troubles, clock: Clock) -> None:
    told = []
    for _ in range(2 * 60 + 2):
        told.append(troubles.note("a", ended()))
        clock.now += 60
    assert told.count(True) == 3
    other = AgentError(Problem.S3_UNREACHABLE, "S3 cannot be reached", retry_for=math.inf)
    assert troubles.note("a", other)
    assert not troubles.note("a", other)


def test_what_is_no_longer_wanted_is_forgotten(troubles: Troubles) -> None:
    troubles.note("a", ended())
    troubles.note("b", ended())
    troubles.keep_only({"b"})
    assert troubles.failures().keys() == {"b"}
    assert not troubles.over("a")


def test_while_an_attempt_is_under_way_its_end_is_news(troubles: Troubles) -> None:
    assert troubles.is_news("a")
    troubles.note("a", ended())
    assert not troubles.is_news("a")
    troubles.trying("a")
    assert troubles.is_news("a")
    assert pause(troubles) == 0.5
