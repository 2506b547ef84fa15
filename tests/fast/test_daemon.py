"""The daemon and its mounts: one in use is waited for, without restlessness and not for ever; one
that cannot be had yet is tried again."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from fast.daemon_world import DEADLINE, NEW, OLD, World
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.states import State
from s3mount_agent.daemon.loop import Daemon
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Placed
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.state import status_file


def test_a_change_of_a_mount_in_use_waits_without_being_restless(world: World) -> None:
    daemon = Daemon(world)
    looks = world.run(daemon, DEADLINE)
    assert world.supervisor.log == []
    assert world.up is OLD
    error = world.failures[OLD.mount.id]
    assert error.problem is Problem.MOUNT_BUSY
    assert 20 <= world.tries <= 46, "pauses grow to half a minute"
    assert looks <= 60
    assert (world.told, world.codes) == ([Event.STOP_FAILED], ["mount-busy"])
    assert daemon.settled
    assert daemon.sentence == "1 of 1 mounts are up"
    assert daemon.pids == [7]


def test_after_the_deadline_it_is_left_alone(world: World) -> None:
    daemon = Daemon(world)
    world.run(daemon, DEADLINE + 120)
    assert world.failures[OLD.mount.id].retry_for == 0
    tries = world.tries
    looks = world.run(daemon, 3600)
    assert looks <= 3600 / 300 + 1
    assert world.tries == tries
    assert world.up is OLD
    assert world.told == [Event.STOP_FAILED]


def test_an_end_that_takes_its_time_is_looked_for_and_is_no_failure(world: World) -> None:
    def stop(placed: Placed, *, force: bool = False, patient: bool = True) -> None:
        assert not patient
        world.tries += 1
        if world.tries < 5:
            raise AgentError(Problem.MOUNT_ENDING, "it is about to end")
        world.up = None

    world.supervisor.stop = stop  # type: ignore[method-assign]
    daemon = Daemon(world)
    world.run(daemon, 3)
    assert 1 < world.tries < 5
    assert world.told == []
    world.run(daemon, 20)
    assert world.tries == 5
    # Nothing comes up in this world, of which a second attempt is made soon.
    assert world.told == [Event.STOPPED, Event.STARTED, Event.STARTED]
    assert world.supervisor.log == ["remove s3", "write s3", "start s3", "write s3", "start s3"]


def test_who_uses_a_mount_that_was_unmounted_is_waited_for_and_ended_only_if_it_hangs(
    world: World,
) -> None:
    world.wanted, world.absent = [OLD], True
    daemon = Daemon(world)
    world.run(daemon, 10 * DEADLINE)
    assert world.supervisor.log == []
    assert world.told == [Event.STOP_FAILED]
    world.watch.condition = Condition(silences=2)
    daemon.cycle()
    assert world.supervisor.log == ["end s3"]
    assert world.told == [Event.STOP_FAILED, Event.HUNG]


def test_once_it_is_free_it_is_changed(world: World) -> None:
    daemon = Daemon(world)
    world.run(daemon, 100)
    world.supervisor.refusing = ()
    world.run(daemon, 31)
    assert world.supervisor.log[:4] == ["stop s3", "remove s3", "write s3", "start s3"]
    assert world.told[:3] == [Event.STOP_FAILED, Event.STOPPED, Event.STARTED]
    world.up = NEW
    log, told = len(world.supervisor.log), len(world.told)
    world.run(daemon, 70)
    assert world.failures == {}
    assert world.supervisor.log[log:] == []
    assert world.told[told:] == []


def test_a_change_that_is_taken_back_waits_no_longer(world: World) -> None:
    daemon = Daemon(world)
    world.run(daemon, 100)
    world.wanted = [OLD]
    world.write()
    tries = world.tries
    world.run(daemon, 300)
    assert world.tries == tries
    assert world.failures == {}
    assert world.supervisor.log == []
    assert world.told == [Event.STOP_FAILED]


def test_a_mount_in_use_that_is_no_longer_wanted_waits_too(world: World) -> None:
    world.wanted = []
    daemon = Daemon(world)
    world.run(daemon, DEADLINE)
    assert 20 <= world.tries <= 46
    assert world.up is OLD
    assert world.told == [Event.STOP_FAILED]
    world.supervisor.refusing = ()
    daemon = Daemon(world)  # restarted: it asks at once
    world.run(daemon, 1)
    assert world.supervisor.log == ["stop s3", "remove s3"]
    assert world.told[-1] is Event.STOPPED
    assert world.failures == {}


def test_a_new_configuration_is_a_new_chance(world: World) -> None:
    daemon = Daemon(world)
    world.run(daemon, DEADLINE + 120)
    tries = world.tries
    world.in_force = dataclasses.replace(world.in_force, busy_deadline=60)
    world.write()
    world.run(daemon, 60)
    assert world.tries > tries


def test_the_longest_pause_is_the_configurations(world: World) -> None:
    world.in_force = dataclasses.replace(world.in_force, retry_at_most_every=5)
    world.run(Daemon(world), DEADLINE)
    assert DEADLINE / 5 <= world.tries <= DEADLINE / 2.5 + 5


def test_a_mount_that_is_well_is_left_alone(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    looks = world.run(daemon, 3600)
    assert 3600 / 300 <= looks <= 3600 / 300 + 1
    assert (world.supervisor.log, world.told, world.failures) == ([], [], {})
    assert world.watch.followed == [OLD.mount.id]
    assert daemon.settled
    daemon.cycle()
    assert 0 < daemon.pause() <= 300


def test_a_mount_that_may_hang_is_left_alone_until_that_is_certain(world: World) -> None:
    world.wanted = [OLD]
    world.watch.condition = Condition(silences=1)
    daemon = Daemon(world)
    daemon.cycle()
    assert (world.supervisor.log, world.told) == ([], [])
    assert daemon.sentence == "0 of 1 mounts are up; /mnt/s3 is hung"
    assert not daemon.settled
    world.watch.condition = Condition(silences=2)
    daemon.cycle()
    assert (world.supervisor.log, world.told) == (["end s3"], [Event.HUNG])
    assert daemon.pause() <= 0.5


@pytest.mark.parametrize(
    ("problem", "tries"), [(Problem.BUCKET_MISSING, range(1, 2)), (Problem.MOUNT_REFUSED, range(1))]
)
def test_what_the_bootstrap_found_to_be_without_hope_is_tried_once_at_a_start_and_not_told_again(
    world: World, problem: Problem, tries: range
) -> None:
    world.wanted = [OLD]
    world.up = None
    hopeless = status_file.failure_of(AgentError(problem, "in vain"))
    row = status_file.fresh(OLD.mount)._replace(state=State.FAILED, failure=hopeless)
    world.known = (row,)
    daemon = Daemon(world)
    daemon.cycle()
    assert world.supervisor.log.count("start s3") in tries
    assert world.told == []
    assert world.failures[OLD.mount.id].problem is problem
    assert daemon.settled


@pytest.mark.parametrize(("problem", "told"), [(Problem.LOCKED, 0), (Problem.CONFIG_INVALID, 1)])
def test_a_cycle_that_is_not_possible_is_tried_again_soon_and_told_once(
    world: World, problem: Problem, told: int
) -> None:
    world.blind = AgentError(problem, "not now")
    daemon = Daemon(world)
    for _ in range(3):
        assert daemon.is_due(table_changed=False)
        daemon.cycle()
        assert daemon.sentence == "not now"
        assert daemon.settled is (problem.exit_code is Exit.USAGE)  # nothing to wait for
        assert not daemon.is_due(table_changed=False)
        assert 0 < daemon.pause() <= 2
        world.time += 2
    assert world.told == [Event.CYCLE_FAILED] * told
    assert world.codes == [problem.code] * told
    assert world.messages == ["not now"] * told


class RisingWorld(World):
    """The mount comes up while the daemon writes down what it has seen."""

    def remember(self, *seen: Any) -> tuple[MountStatus, ...]:
        self.active, self.starting = True, False
        return super().remember(*seen)


def test_a_mount_that_comes_up_during_a_cycle_is_looked_after_at_once() -> None:
    world = RisingWorld()
    world.wanted = [OLD]
    world.active, world.starting = False, True
    assert world.run(Daemon(world), 60) == 2  # and not one every half second from then on
    assert world.watch.pids == {7}


def test_mount_s3_that_somebody_has_installed_is_seen_soon(world: World) -> None:
    world.up, world.wanted, world.program = None, [OLD], None
    daemon = Daemon(world)
    daemon.cycle()
    assert world.failures[OLD.mount.id].problem is Problem.PACKAGES_FAILED
    assert daemon.pause() <= 2
    assert not daemon.is_due(table_changed=False)
    world.program = Installed("/usr/bin/mount-s3", (1, 24, 0))
    assert daemon.is_due(table_changed=False)
    daemon.cycle()
    assert world.supervisor.log == ["write s3", "start s3"]
    assert not daemon.is_due(table_changed=False)


def test_another_mount_s3_is_installed_and_no_mount_is_disturbed(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    world.version = "1.24.0"
    # Not at once: a bootstrap has just tried.
    daemon.cycle()
    assert world.installs == []
    began = world.time
    world.run(daemon, 10_000)
    assert world.installs, "nobody has had it installed"
    # Ever more rarely: meanwhile nobody looks after the mounts. A new file is a new chance.
    pauses = [b - a for a, b in zip([began, *world.installs], world.installs)]
    assert pauses[0] >= 119
    assert pauses == sorted(pauses)
    assert 2 * pauses[0] <= pauses[-1] <= 2 * 3600
    world.written += 1
    changed = world.time
    world.run(daemon, 500)
    assert world.installs[len(pauses)] - changed < 500
    world.program = Installed("/usr/bin/mount-s3", (1, 24, 0))
    tried = len(world.installs)
    world.run(daemon, 1000)
    assert len(world.installs) == tried
    assert (world.supervisor.log, world.told) == ([], [])


def test_a_unit_that_was_deleted_is_written_again_and_told(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    assert (world.supervisor.log, world.told) == ([], [])
    world.lost = True
    daemon.cycle()
    assert (world.supervisor.log, world.told) == (["write s3"], [Event.REWRITTEN])
    assert world.messages[-1].startswith("wrote again the unit of /mnt/s3, because its unit had")
    # One that cannot be written is told as such.
    world.supervisor.unwritable["/mnt/s3"] = AgentError(Problem.FILE_FAILED, "no")
    daemon.cycle()
    assert world.told[1:] == [Event.WRITE_FAILED]


def test_one_that_was_taken_down_by_hand_is_not_told_to_be_unwanted(world: World) -> None:
    world.wanted, world.down = [OLD], (OLD.mount.id,)
    world.supervisor.refusing = ()
    Daemon(world).cycle()
    assert world.told == [Event.STOPPED]
    assert world.messages == ["took down /mnt/s3, because an administrator takes it down"]


def test_why_mount_s3_is_missing_is_said_as_the_last_attempt_said_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a bootstrap, apply or a later attempt wrote down is not replaced by a lesser reason."""
    path = tmp_path / "status.json"
    monkeypatch.setattr(status_file.load, "__defaults__", (path,))
    world.up, world.wanted, world.program = None, [OLD], None
    daemon = Daemon(world)
    unknown = AgentError(Problem.PACKAGES_FAILED, "its lock is taken", retry_for=math.inf)
    for error in (AgentError(Problem.SIGNATURE_BAD, "its signature is bad"), unknown):
        failure = status_file.failure_of(error)
        row = status_file.fresh(OLD.mount)._replace(failure=failure)
        status_file.save({"role": "head"}, [row], path)
        for _ in range(2):
            daemon.cycle()
            said = status_file.failure_of(world.failures[OLD.mount.id])
            assert said == failure
    # One that failed when there was a mount-s3 did not for want of it.
    status_file.save({"mount_s3": "1.24.0"}, [row], path)
    daemon.cycle()
    assert "not be installed yet" in world.failures[OLD.mount.id].message
