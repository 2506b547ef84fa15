"""Looking after mounts that are up: who is looked at when, and what silence and errors come to.

The children that look are real, and so is the file system that hangs; only the clock is the tests'.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fast.small_fuse import MAY_MOUNT, SmallFuse, small_fuse
from fast.ward import HUNG_AFTER, LIST, LOOK, RARELY, Ward, let_it_work, placed
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.states import Failure
from s3mount_agent.decide.hang import Condition

may_mount = pytest.mark.skipif(not MAY_MOUNT, reason="only root with /dev/fuse may mount")


def test_nothing_is_looked_at_before_its_time_and_then_all_by_one_child(
    ward: Ward, tmp_path: Path
) -> None:
    names = [str(tmp_path / name) for name in "abc"]
    for name in names:
        Path(name).mkdir()
    ward.follow(**{name: (name, 1) for name in names})
    assert not ward.work(LOOK - 1)
    assert ward.begun == []
    assert ward.health.pause() == pytest.approx(1)
    ward.work(1)
    assert [(each.deep, list(each.directories)) for each in ward.begun] == [(False, names)]
    ward.settle()
    assert all(ward.condition(name).seconds is not None for name in names)
    assert not any(ward.condition(name).hung for name in names)


def test_s3_is_asked_through_all_mounts_by_one_child_and_not_at_once(
    ward: Ward, tmp_path: Path
) -> None:
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    names = [str(tmp_path / name) for name in "ab"]
    for name in names:
        Path(name).mkdir()
    ward.follow(first=(names[0], 1))
    ward.now += LIST / 10
    ward.follow(first=(names[0], 1), second=(names[1], 2))
    assert not ward.work(LIST * 9 / 10 - 1)
    assert ward.begun == []
    # The second one is not due yet, but soon: it need not wake anybody for itself.
    ward.work(1)
    assert [(each.deep, list(each.directories)) for each in ward.begun] == [(True, names)]
    ward.settle()
    assert [ward.condition(each).s3 for each in ("first", "second")] == [None, None]
    ward.work(LIST - 1)
    assert len(ward.begun) == 1
    ward.work(1)
    assert len(ward.begun) == 2


@may_mount
def test_a_hang_is_confirmed_twice_before_it_is_certain(ward: Ward, fuse: SmallFuse) -> None:
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK)
    assert not ward.work(5)  # it is silent, but that may mean nothing
    assert not ward.condition("it").hung
    assert ward.work(HUNG_AFTER / 2)
    assert (ward.condition("it").hung, ward.condition("it").lost) == (True, False)
    assert not ward.work(HUNG_AFTER / 4)
    assert ward.work(HUNG_AFTER / 4)
    assert ward.condition("it").lost


@may_mount
@pytest.mark.parametrize("idle", [True, False])
def test_a_child_that_hangs_in_somebody_elses_mount_says_nothing_of_ours(
    ward: Ward, fuse: SmallFuse, idle: bool
) -> None:
    """A user's FUSE lay over ours for a moment, and holds the answer of the child that came by."""
    ward.senses.idle = idle
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK)
    for _ in range(6):
        ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").lost is not idle


@may_mount
@pytest.mark.parametrize("awaited", [False, True])
def test_one_that_was_unmounted_hangs_if_somebody_certainly_waits_for_it_for_long(
    ward: Ward, fuse: SmallFuse, *, awaited: bool
) -> None:
    """Nobody can look at it any more; and it may be S3 for which it is waited."""
    ward.senses.awaited = awaited
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK)
    ward.detach(it=(fuse.directory, fuse.pid))
    for _ in range(4):
        ward.work(HUNG_AFTER / 2)
        ward.detach(it=(fuse.directory, fuse.pid))
    assert not ward.condition("it").lost
    for _ in range(6):
        ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").lost is awaited
    assert ward.health.pause() > 0.1
    ward.follow(it=(fuse.directory, fuse.pid))
    assert not ward.condition("it").lost


@may_mount
def test_who_answers_after_all_does_not_hang(ward: Ward, fuse: SmallFuse) -> None:
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK)
    ward.work(5)
    assert ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").hung
    fuse.go_on()
    ward.settle()
    assert not ward.condition("it").hung
    # What there was of its silence counts for nothing the next time.
    fuse.hang()
    ward.work(LOOK)
    ward.work(5)
    assert ward.work(HUNG_AFTER / 2)
    assert not ward.condition("it").lost


@may_mount
def test_who_works_without_answering_is_slow_for_four_times_as_long(
    ward: Ward, fuse: SmallFuse, busy: int
) -> None:
    ward.follow(it=(fuse.directory, busy))
    fuse.hang()
    ward.work(LOOK)
    began = ward.now
    ward.work(5)
    while ward.now - began < 4 * HUNG_AFTER - HUNG_AFTER / 2:
        let_it_work(busy)
        ward.work(HUNG_AFTER / 2)
        assert not ward.condition("it").hung
    for certain in (False, True):
        let_it_work(busy)
        assert ward.work(HUNG_AFTER / 2)
        assert ward.condition("it").lost is certain


@may_mount
def test_who_works_without_answering_and_complains_of_s3_is_degraded_and_stays(
    ward: Ward, fuse: SmallFuse, busy: int
) -> None:
    ward.senses.words = "read failed: Client error: socket operation timed out\n"
    ward.follow(it=(fuse.directory, busy))
    fuse.hang()
    ward.work(LOOK)
    ward.work(5)
    for _ in range(16):
        let_it_work(busy)
        ward.work(HUNG_AFTER / 2)
        assert not ward.condition("it").hung
    failure = ward.condition("it").s3
    assert failure is not None
    assert failure.code == "s3-unreachable"


@may_mount
def test_who_hangs_is_ended_whatever_s3_did_before(ward: Ward, fuse: SmallFuse) -> None:
    away = Failure("access-denied", "S3 denies access", "allow it", permanent=False)
    ward.health.recall({fuse.pid: away})
    ward.follow(it=(fuse.directory, fuse.pid))
    assert ward.condition("it").s3 == away
    fuse.hang()
    ward.work(LOOK)
    for _ in range(4):
        ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").lost


@may_mount
def test_a_mount_whose_connection_is_gone_while_its_process_lives_is_lost(
    ward: Ward, fuse: SmallFuse, busy: int
) -> None:
    ward.follow(it=(fuse.directory, busy))
    fuse.die()
    ward.work(LOOK)
    ward.settle()
    assert ward.condition("it").silences == 1
    ward.work(HUNG_AFTER / 2)
    ward.settle()
    assert ward.condition("it").lost


@may_mount
def test_only_one_look_of_each_kind_is_under_way_at_a_mount(ward: Ward, fuse: SmallFuse) -> None:
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    for _ in range(20):
        ward.work(LIST / 5)
        deep = ward.running(deep=True)
        assert len(deep) <= 1
        assert len(ward.running(deep=False)) == 1
    # Nobody is sent after one who cannot come back.
    assert sum(each.deep for each in ward.begun) <= 1
    assert sum(not each.deep for each in ward.begun) == 1


@may_mount
def test_a_look_at_s3_that_waits_does_not_hide_a_hang(ward: Ward, fuse: SmallFuse) -> None:
    ward.configuration = Configuration(
        look_every=LOOK, check_s3_every=LOOK // 2, hung_after=HUNG_AFTER
    )
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK / 2)
    assert ward.running() == ward.running(deep=True) == [fuse.directory]
    ward.work(LOOK / 2)
    assert ward.running(deep=False) == [fuse.directory]
    ward.work(5)
    for _ in range(2):
        assert not ward.condition("it").lost
        ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").lost


@may_mount
def test_a_mount_that_only_s3_keeps_waiting_does_not_hang(ward: Ward, tmp_path: Path) -> None:
    with small_fuse(tmp_path / "slow", listable=False) as slow:
        ward.configuration = Configuration(look_every=LOOK, check_s3_every=LOOK // 2)
        ward.follow(it=(slow.directory, slow.pid))
        ward.work(LOOK / 2)
        for _ in range(2):
            ward.work(LOOK)
            ward.settle(running=1)
            assert ward.running() == ward.running(deep=True) == [slow.directory]
            assert ward.condition("it") == Condition(seconds=ward.condition("it").seconds)
        assert ward.work(LOOK)  # 150 seconds are enough
        assert ward.condition("it").s3 is not None
        assert "no answer within 150 seconds" in str(ward.condition("it").s3)
        assert not ward.condition("it").hung


@may_mount
def test_one_that_hangs_does_not_keep_the_others_from_being_looked_at(
    ward: Ward, fuse: SmallFuse, tmp_path: Path
) -> None:
    others = [str(tmp_path / name) for name in "ab"]
    for other in others:
        Path(other).mkdir()
    ward.follow(hung=(fuse.directory, fuse.pid), **{name: (name, 1) for name in others})
    fuse.hang()
    ward.work(LOOK)
    assert list(ward.begun[0].directories) == [fuse.directory, *others]
    ward.work(2)
    assert list(ward.begun[0].directories) == [fuse.directory]
    ward.settle(running=1)
    assert list(ward.begun[1].directories) == others
    assert all(ward.condition(name).seconds is not None for name in others)
    ward.now += HUNG_AFTER / 2
    ward.settle(running=1)
    assert ward.condition("hung").hung
    assert not any(ward.condition(name).hung for name in others)


@may_mount
def test_no_more_than_four_looks_wait_for_s3_at_once(ward: Ward, tmp_path: Path) -> None:
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    with small_fuse(tmp_path / "slow", listable=False) as slow:
        # One directory by six names.
        names = [slow.directory + "/." * number for number in range(6)]
        good = str(tmp_path)
        ward.follow(**{name: (name, 1) for name in [*names, good]})
        ward.work(LIST)
        for _ in range(8):
            ward.work(2)
        assert ward.running() == names[:4]
        ward.work(150)  # the four wait on, and what has waited for them has its turn
        for _ in range(8):
            ward.work(2)
        ward.settle(running=6)
        assert ward.running() == names
        assert ward.condition(good).s3 is None
        assert [ward.condition(name).s3 is None for name in names] == [False] * 4 + [True] * 2


@may_mount
def test_a_finding_belongs_to_the_process_for_which_it_was_made(
    ward: Ward, fuse: SmallFuse
) -> None:
    ward.follow(it=(fuse.directory, fuse.pid))
    fuse.hang()
    ward.work(LOOK)
    ward.work(5)
    ward.work(HUNG_AFTER / 2)
    assert ward.condition("it").hung
    old = ward.running()
    assert old == [fuse.directory]
    # The same directory, another process: it has not been silent yet.
    ward.follow(it=(fuse.directory, fuse.pid + 1))
    assert ward.condition("it") == Condition()
    ward.work(1)
    assert ward.begun[0].at is None
    for _ in range(3):
        ward.work(HUNG_AFTER / 2)
        assert not ward.condition("it").lost


def test_what_a_look_found_of_an_earlier_process_says_nothing_of_the_next(
    ward: Ward, tmp_path: Path
) -> None:
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    file = tmp_path / "file"
    file.write_text("")
    ward.follow(it=(str(file), 1))
    ward.work(LIST)
    ward.follow(it=(str(file), 2))
    ward.settle()
    assert ward.condition("it") == Condition()


def test_an_error_is_a_degraded_mount_that_is_asked_more_often_until_it_is_well(
    ward: Ward, tmp_path: Path
) -> None:
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    directory = tmp_path / "it"
    directory.write_text("")
    ward.follow(it=(str(directory), 1))
    ward.work(LIST)
    ward.settle()
    failure = ward.condition("it").s3
    assert failure is not None
    assert (failure.code, failure.permanent) == ("s3-errors", False)
    assert "ENOTDIR" in failure.reason
    directory.unlink()
    directory.mkdir()
    ward.work(LIST / 4 - 1)
    assert len(ward.begun) == 1
    ward.work(1)
    ward.settle()
    assert ward.condition("it").s3 is None
    ward.work(LIST / 4)
    assert len(ward.begun) == 2


def test_who_is_not_up_any_more_is_forgotten(ward: Ward, tmp_path: Path) -> None:
    ward.follow(it=(str(tmp_path), 1))
    ward.follow()
    assert ward.health.conditions() == {}
    ward.work(LIST)
    assert ward.begun == []
    assert ward.health.pause() > LIST


def test_the_journal_tells_why_s3_cannot_be_used(ward: Ward, tmp_path: Path) -> None:
    ward.senses.words = (
        "list failed: Service error: Access Denied\nlookup failed: something unheard of\n"
    )
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    file = tmp_path / "file"
    file.write_text("")
    ward.follow(it=(str(file), 77))
    ward.work(LIST)
    ward.settle()
    failure = ward.condition("it").s3
    assert failure is not None
    assert failure.code == "access-denied"
    assert ward.senses.asked == [("mount-s3", 77)]


ENOMEM = "open failed with errno 12: write handle limit reached (max 47)"


def test_a_mount_that_refuses_writers_is_told_until_it_no_longer_does(
    ward: Ward, tmp_path: Path
) -> None:
    ward.senses.complaints = [(77, ENOMEM), (77, "open failed with errno 1: something else")]
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    names = {name: tmp_path / name for name in ("limited", "quiet", "unlimited", "read")}
    for path in names.values():
        path.mkdir()
    target = "--memory-target=512"
    up = [
        placed("limited", str(names["limited"]), 77, target),
        placed("quiet", str(names["quiet"]), 78, target),
        placed("unlimited", str(names["unlimited"]), 79),
        placed("read", str(names["read"]), 80, target, "--read-only"),
    ]
    ward.health.follow(up, ward.configuration)
    ward.work(LIST)
    ward.settle()
    assert ward.senses.asked == [([77, 78], LIST)]  # one question for all
    failures = {name: ward.condition(name).s3 for name in names}
    limited = failures.pop("limited")
    assert set(failures.values()) == {None}
    assert limited is not None
    assert limited.code == "write-limit"
    assert str(names["limited"]) in limited.reason
    assert "memory_target" in limited.hint
    ward.senses.complaints = []
    ward.work(LIST / 4)
    ward.settle()
    assert ward.condition("limited").s3 is None


def test_a_limit_of_writers_excuses_no_silence_and_explains_no_error_of_s3(
    ward: Ward, tmp_path: Path
) -> None:
    ward.senses.words = f"list failed: Service error: Access Denied\n{ENOMEM}\n"
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    file = tmp_path / "file"
    file.write_text("")
    ward.follow(it=(str(file), 77))
    ward.work(LIST)
    ward.settle()
    failure = ward.condition("it").s3
    assert failure is not None
    assert failure.code == "access-denied"


@may_mount
def test_who_refuses_to_write_is_known_to_the_look_that_found_it_out(
    ward: Ward, fuse: SmallFuse, tmp_path: Path
) -> None:
    """Another look that begins before this one has ended takes nothing of it back."""
    ward.senses.complaints = [(fuse.pid, "open failed with errno 12")]
    ward.configuration = Configuration(look_every=RARELY, check_s3_every=LIST)
    slow = (fuse.directory, fuse.pid, "--memory-target=512")
    ward.follow(slow=slow)
    fuse.hang()
    ward.work(LIST)
    assert ward.running(deep=True) == [fuse.directory]
    ward.senses.complaints = []
    (tmp_path / "quick").mkdir()
    ward.follow(slow=slow, quick=(str(tmp_path / "quick"), 1, "--memory-target=512"))
    ward.work(LIST)
    ward.settle(running=1)
    fuse.go_on()
    ward.settle()
    found = ward.condition("slow").s3
    assert found is not None
    assert found.code == "write-limit"
    assert ward.condition("quick").s3 is None
