"""From silence to the verdict that a mount hangs: the table of what confirms it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.decide.hang import CONFIRMATIONS, Condition, Silence, confirm

AFTER = 30.0


@pytest.mark.parametrize(
    ("silences", "hung", "lost"), [(0, False, False), (1, True, False), (2, True, True)]
)
def test_one_confirmation_is_a_suspicion_and_two_are_certain(
    silences: int, hung: bool, lost: bool
) -> None:
    condition = Condition(silences)
    assert (condition.hung, condition.lost) == (hung, lost)


@pytest.mark.parametrize(
    ("now", "processor", "confirmed", "checked"),
    [
        (14.9, 5.0, 0, 0.0),  # too early to look again, whatever it does
        (14.9, 5.5, 0, 0.0),
        (15.0, 5.0, 1, 15.0),
        (15.0, 5.5, 0, 15.0),  # it works
        (119.9, 5.5, 0, 119.9),
        (120.0, 5.5, 1, 120.0),  # it works, but for too long
        (500.0, 5.0, 1, 500.0),  # one look is one confirmation, however late it comes
    ],
)
def test_a_look_at_a_silence(now: float, processor: float, confirmed: int, checked: float) -> None:
    silence = Silence(0.0, 0.0, 5.0)
    confirm(silence, now=now, processor=processor, after=AFTER)
    assert (silence.confirmed, silence.checked) == (confirmed, checked)


def test_one_that_works_while_s3_fails_is_never_lost() -> None:
    silence, processor = Silence(0.0, 0.0, 0.0), 0.0
    for now in range(0, 3600, 5):
        processor += 0.0001
        confirm(silence, now=now, processor=processor, after=AFTER, excused=True)
        assert silence.confirmed == 0
    # But one that does nothing at all hangs, whatever S3 does.
    for now in (3700, 3800):
        confirm(silence, now=now, processor=processor, after=AFTER, excused=True)
    assert silence.confirmed == 1


def test_threads_that_end_are_work_too() -> None:
    silence = Silence(0.0, 0.0, 5.0)
    confirm(silence, now=15.0, processor=4.0, after=AFTER)
    assert silence.confirmed == 0


def test_work_takes_back_an_earlier_confirmation() -> None:
    silence = Silence(0.0, 0.0, 0.0)
    confirm(silence, now=15.0, processor=0.0, after=AFTER)
    assert silence.confirmed == 1
    confirm(silence, now=30.0, processor=0.1, after=AFTER)
    assert silence.confirmed == 0


@given(st.lists(st.tuples(st.floats(0.1, 20), st.booleans()), max_size=60))
def test_nothing_is_certain_before_its_time_and_nothing_that_works_before_four_times_that(
    looks: list[tuple[float, bool]],
) -> None:
    silence, now, processor, last_work = Silence(0.0, 0.0, 0.0), 0.0, 0.0, 0.0
    for pause, works in looks:
        now += pause
        if works:
            processor += 0.01
            last_work = now
        confirm(silence, now=now, processor=processor, after=AFTER)
        if silence.confirmed >= CONFIRMATIONS:
            assert now >= AFTER
            # Both halves were quiet, or it has worked in vain for long enough.
            assert now - last_work >= AFTER / CONFIRMATIONS or now >= 4 * AFTER
            return


@given(st.floats(0.1, 14))
def test_one_that_does_nothing_is_certain_in_time(pause: float) -> None:
    silence, now = Silence(0.0, 0.0, 0.0), 0.0
    while silence.confirmed < CONFIRMATIONS:
        now += pause
        confirm(silence, now=now, processor=0.0, after=AFTER)
        assert now < AFTER + 2 * pause + 0.001
