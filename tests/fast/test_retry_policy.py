"""How often what failed is tried again: nothing is given up but refused arguments."""

from __future__ import annotations

import itertools
import math

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.retry_policy import (
    PACES,
    SLOWEST_SECONDS,
    Pace,
    Wake,
    is_lasting,
    pace_of,
)

# "Only refused arguments wait for a new configuration"; a mount in use is up all the same.
WAITING = {Problem.MOUNT_REFUSED, Problem.OPTION_UNKNOWN, Problem.MOUNT_BUSY}


@pytest.mark.parametrize("problem", [each for each in Problem if each not in WAITING])
def test_nothing_waits_longer_than_five_minutes(problem: Problem) -> None:
    pace = pace_of(AgentError(problem, "no"))
    for attempts, quick, jitter in itertools.product(range(1, 2000), (True, False), (0.0, 1.0)):
        assert pace.pause(attempts, quick=quick, longest=30, jitter=jitter) <= SLOWEST_SECONDS
    assert pace.wakes == set(Wake)


@pytest.mark.parametrize("problem", sorted(WAITING, key=str))
def test_what_is_refused_waits_for_a_new_configuration(problem: Problem) -> None:
    pace = PACES[problem]
    assert pace.pause(1, quick=False, longest=30, jitter=0.5) == math.inf
    assert pace.wakes == {Wake.CONFIGURATION}


def test_pauses_grow_and_the_jitter_takes_at_most_half() -> None:
    pace = Pace(quick_for=math.inf)
    wholes = [pace.pause(n, quick=True, longest=30, jitter=1.0) for n in range(1, 9)]
    assert wholes == [0, 2, 4, 8, 16, 30, 30, 30]
    halves = [pace.pause(n, quick=True, longest=30, jitter=0.0) for n in range(1, 9)]
    assert halves == [each / 2 for each in wholes]


def test_an_error_may_know_better_for_how_long_it_is_worth_trying() -> None:
    error = AgentError(Problem.DOWNLOAD_FAILED, "no")
    assert is_lasting(error)
    assert not is_lasting(error.retried_for(20))
    assert pace_of(error.retried_for(20)).quick_for == 20
    assert is_lasting(AgentError(Problem.S3_UNREACHABLE, "no").retried_for(0))


def test_an_error_is_a_value() -> None:
    error = AgentError(Problem.S3_UNREACHABLE, "no", cause="why", hint="do")
    for name in ("problem", "message", "cause", "hint", "retry_for"):
        with pytest.raises(AttributeError):
            setattr(error, name, None)
    other = error.retried_for(5).caused_by("else")
    assert (other.cause, other.hint, other.retry_for) == ("else", "do", 5)
    assert (error.cause, error.retry_for) == ("why", None)
