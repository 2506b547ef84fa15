"""Trying again, and when not to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.daemon.retries import Troubles
from s3mount_agent.system.retry import patiently


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", fake.monotonic)
        patch.setattr(time, "sleep", fake.sleep)
        yield fake


class Attempt:
    """Fails as often as there are errors, each after ``seconds``, and then succeeds."""

    def __init__(self, clock: Clock, *errors: Exception, seconds: float = 0) -> None:
        self.clock = clock
        self.errors = list(errors)
        self.seconds = seconds
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        self.clock.now += self.seconds
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def trouble(patience: float, problem: Problem = Problem.S3_UNREACHABLE) -> AgentError:
    return AgentError(problem, "no", retry_for=patience)


def test_what_succeeds_is_tried_once(clock: Clock) -> None:
    attempt = Attempt(clock)
    assert patiently(attempt, budget=10) == "done"
    assert (attempt.made, clock.naps) == (1, [])


def test_what_may_heal_is_tried_until_it_does(clock: Clock) -> None:
    told: list[AgentError] = []
    errors = [trouble(math.inf) for _ in range(3)]
    attempt = Attempt(clock, *errors)
    assert patiently(attempt, budget=300, on_retry=told.append) == "done"
    assert attempt.made == 4
    assert told == errors


def test_what_is_permanent_is_tried_once(clock: Clock) -> None:
    error = trouble(0, Problem.BUCKET_MISSING)
    attempt = Attempt(clock, error, trouble(math.inf))
    with pytest.raises(AgentError) as caught:
        patiently(attempt, budget=300)
    assert caught.value is error
    assert (attempt.made, clock.naps) == (1, [])


def test_a_permanent_error_ends_it_later_too(clock: Clock) -> None:
    last = trouble(0, Problem.ACCESS_DENIED)
    attempt = Attempt(clock, trouble(math.inf), last, trouble(math.inf))
    with pytest.raises(AgentError) as caught:
        patiently(attempt, budget=300)
    assert caught.value is last
    assert attempt.made == 2


def test_patience_ends_before_the_budget(clock: Clock) -> None:
    attempt = Attempt(clock, *(trouble(20, Problem.ACCESS_DENIED) for _ in range(100)))
    with pytest.raises(AgentError):
        patiently(attempt, budget=300)
    assert 20 <= clock.now - 1000 < 60
    assert attempt.made >= 4


@pytest.mark.parametrize("budget", [5, 60, 300])
@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_no_attempt_begins_after_the_budget(clock: Clock, budget: float, seconds: float) -> None:
    attempt = Attempt(clock, *(trouble(math.inf) for _ in range(1000)), seconds=seconds)
    with pytest.raises(AgentError):
        patiently(attempt, budget=budget)
    assert sum(clock.naps) <= budget
    assert clock.now - 1000 <= budget + seconds
    assert attempt.made > 2


def test_pauses_grow_and_stay_bounded(clock: Clock) -> None:
    attempt = Attempt(clock, *(trouble(math.inf) for _ in range(1000)))
    with pytest.raises(AgentError):
        patiently(attempt, budget=300)
    assert clock.naps[0] <= 1.6
    assert max(clock.naps) <= 16.1
    assert clock.naps[5] > clock.naps[0]


def test_pauses_are_not_the_same_on_every_node(clock: Clock) -> None:
    for _ in range(5):
        with pytest.raises(AgentError):
            patiently(Attempt(clock, *(trouble(math.inf) for _ in range(9))), budget=1.5)
    assert len(set(clock.naps)) == len(clock.naps)


def test_a_fault_of_ours_is_not_tried_again(clock: Clock) -> None:
    attempt = Attempt(clock, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        patiently(attempt, budget=300)
    assert attempt.made == 1


def troubles(clock: Clock) -> Troubles:
    return Troubles(clock.monotonic)


def test_a_mount_without_trouble_may_be_tried() -> None:
    of = troubles(Clock())
    assert of.may_try("a")
    assert of.is_news("a")
    assert not of.over("a")
    assert of.failures() == {}
    assert of.seconds_until_due() is None


def test_the_first_failure_is_answered_at_once_and_the_next_with_a_pause() -> None:
    clock = Clock()
    of = troubles(clock)
    assert of.note("a", trouble(math.inf))
    assert of.may_try("a")
    of.note("a", trouble(math.inf))
    assert not of.may_try("a")
    assert of.may_try("b")
    due = of.seconds_until_due()
    assert due is not None
    assert 1 <= due <= 2
    clock.now += due
    assert of.may_try("a")
    assert of.failures()["a"].problem is Problem.S3_UNREACHABLE


def test_pauses_of_a_mount_grow_to_half_a_minute() -> None:
    clock = Clock()
    of = troubles(clock)
    dues = []
    for _ in range(12):
        of.note("a", trouble(math.inf))
        due = of.seconds_until_due()
        assert due is not None
        dues.append(due)
        clock.now += due
        assert of.may_try("a")
    assert all(15 <= due <= 30 for due in dues[6:])
    assert dues[1] < dues[3] < dues[6]


def test_days_of_trouble_are_endured() -> None:
    clock = Clock()
    of = troubles(clock)
    for _ in range(1500):
        of.note("a", trouble(math.inf))
        clock.now += 60
    assert of.may_try("a")


def test_only_a_new_problem_is_news() -> None:
    of = troubles(Clock())
    assert of.note("a", trouble(math.inf))
    assert not of.note("a", trouble(math.inf))
    assert of.note("a", trouble(math.inf, Problem.CREDENTIALS_MISSING))
    assert of.note("b", trouble(math.inf))


def test_patience_runs_from_the_first_failure() -> None:
    clock = Clock()
    of = troubles(clock)
    for _ in range(3):
        of.note("a", trouble(20, Problem.ACCESS_DENIED))
        clock.now += 9
        assert of.may_try("a")
    of.note("a", trouble(20, Problem.ACCESS_DENIED))
    assert of.failures()["a"].retry_for == 0


def test_what_is_down_is_news_only_after_an_attempt() -> None:
    clock = Clock()
    of = troubles(clock)
    of.note("a", trouble(math.inf))
    assert not of.is_news("a")
    of.trying("a")
    assert of.is_news("a")
    of.note("a", trouble(math.inf))
    assert not of.is_news("a")


def test_trouble_ends_when_the_mount_is_up() -> None:
    of = troubles(Clock())
    of.note("a", trouble(0))
    assert of.over("a")
    assert of.may_try("a")
    assert not of.over("a")


def test_forgotten_trouble_is_gone() -> None:
    of = troubles(Clock())
    for name in "abc":
        of.note(name, trouble(0))
    of.keep_only({"b"})
    assert of.failures().keys() == {"b"}
    of.clear()
    assert of.may_try("b")


def busy(patience: float = 3600) -> AgentError:
    return AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use", retry_for=patience)


def test_a_mount_in_use_is_busy_until_it_is_over() -> None:
    of = troubles(Clock())
    assert not of.is_busy("a")
    of.note("a", trouble(math.inf))
    assert not of.is_busy("a")
    assert of.note("a", busy())
    assert of.is_busy("a")
    assert not of.note("a", busy())
    assert of.over("a")
    assert not of.is_busy("a")


def test_a_mount_in_use_is_asked_now_and_then_until_the_deadline() -> None:
    clock = Clock()
    of = troubles(clock)
    asked = 0
    while clock.now < 1000 + 7200:
        if of.may_try("a"):
            asked += 1
            of.note("a", busy(3600))
        clock.now += 1
    # Each second is looked at: a pause may be longer than agreed by up to one.
    assert 3600 / 31 <= asked <= 3600 / 15 + 6
    assert of.is_busy("a")
    assert of.failures()["a"].retry_for == 0
    assert of.seconds_until_due() is None


@pytest.mark.parametrize("patience", [0, math.inf])
def test_a_deadline_may_be_at_once_or_never(patience: float) -> None:
    clock = Clock()
    of = troubles(clock)
    of.note("a", busy(patience))
    clock.now += 10**6
    assert of.may_try("a") is (patience > 0)


def test_the_longest_pause_is_the_configurations() -> None:
    clock = Clock()
    of = troubles(clock)
    of.longest_pause = 5.0
    for _ in range(30):
        of.note("a", trouble(math.inf))
        due = of.seconds_until_due()
        assert due is not None
        assert due <= 5
        clock.now += due
