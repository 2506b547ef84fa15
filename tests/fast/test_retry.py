"""Trying again, and when not to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.system import retry
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


def test_nodes_that_boot_together_begin_apart_where_that_is_asked_for(clock: Clock) -> None:
    for _ in range(50):
        began = clock.now
        attempt = Attempt(clock, trouble(math.inf))
        assert patiently(attempt, budget=10, spread=60) == "done"
        assert clock.now - began < 61
    begins = clock.naps[::2]
    assert min(begins) < 20 < 40 < max(begins)
    assert len(set(begins)) == 50


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
    assert attempt.made >= 2


def test_pauses_grow_and_stay_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "random", SimpleNamespace(random=lambda: 1.0))
    attempt = Attempt(clock, *(trouble(math.inf) for _ in range(1000)))
    with pytest.raises(AgentError):
        patiently(attempt, budget=300)
    assert clock.naps[:5] == [2, 4, 8, 15, 15]
    assert max(clock.naps) == 15


def test_pauses_are_not_the_same_on_every_node(clock: Clock) -> None:
    for _ in range(5):
        with pytest.raises(AgentError):
            patiently(Attempt(clock, *(trouble(math.inf) for _ in range(9))), budget=5)
    assert len(set(clock.naps)) == len(clock.naps) > 5


def test_a_fault_of_ours_is_not_tried_again(clock: Clock) -> None:
    attempt = Attempt(clock, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        patiently(attempt, budget=300)
    assert attempt.made == 1
