"""What the daemon tells of its mounts: once when it begins, and once when it is over."""

from __future__ import annotations

from fast.daemon_world import OLD, World
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Failure, State
from s3mount_agent.daemon.loop import Daemon
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.plan import Placed
from s3mount_agent.state import status_file


def test_degraded_is_told_once_and_so_is_its_end(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    away = Failure("s3-unreachable", "S3 cannot be reached", "wait", permanent=False)
    world.watch.condition = Condition(s3=away)
    for _ in range(3):
        daemon.cycle()
    assert (world.told, world.codes) == ([Event.DEGRADED], ["s3-unreachable"])
    assert daemon.sentence == "0 of 1 mounts are up; /mnt/s3 is degraded"
    assert daemon.settled
    world.watch.condition = Condition()
    for _ in range(3):
        daemon.cycle()
    assert world.told == [Event.DEGRADED, Event.HEALED]
    assert world.supervisor.log == []


def test_something_else_on_top_is_told_once_and_so_is_its_end(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    for covered in (True, True, False, False):
        world.covered = covered
        daemon.cycle()
    assert world.told == [Event.FOREIGN, Event.HEALED]
    assert world.supervisor.log == []


def test_what_was_told_before_a_restart_is_not_told_again(world: World) -> None:
    world.wanted = [OLD]
    away = Failure("s3-unreachable", "S3 cannot be reached", "wait", permanent=False)
    row = status_file.fresh(OLD.mount)._replace(state=State.DEGRADED, s3=away, asked=7)
    world.known = (row,)
    world.watch.condition = Condition(s3=away)
    daemon = Daemon(world)
    daemon.cycle()
    assert world.told == []
    assert world.watch.recalled == {7: away}
    world.watch.condition = Condition()
    daemon.cycle()
    assert world.told == [Event.HEALED]


def test_what_apply_has_just_seen_fail_is_known_at_once_and_not_told_again(world: World) -> None:
    """It wakes the service afterwards: status says the same before and after that."""
    world.up, world.wanted = None, []
    daemon = Daemon(world)
    daemon.cycle()
    world.wanted = [OLD]  # apply has put it in force, and tried it
    denied = Failure("access-denied", "S3 denies access", "attach a policy", permanent=False)
    world.known = (status_file.fresh(OLD.mount)._replace(failure=denied),)
    daemon.reload()
    daemon.cycle()
    assert world.failures[OLD.mount.id].message == denied.reason
    assert world.supervisor.log == ["write s3", "start s3"]  # tried at once
    world.up, world.active = OLD, False
    again = AgentError(Problem.ACCESS_DENIED, denied.reason)
    world.supervisor.failure = lambda placed: again  # type: ignore[method-assign]
    daemon.cycle()
    assert world.told == []


def test_that_the_agent_ended_a_hung_mount_is_no_failed_start(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    world.watch.condition = Condition(silences=2)
    daemon.cycle()
    world.watch.condition = Condition()
    world.active, world.ending = False, "killed by SIGKILL"
    world.supervisor.failure = lambda placed: placed.ended()  # type: ignore[method-assign]
    daemon.cycle()
    world.active, world.pid, world.ending = True, 8, ""
    daemon.cycle()
    assert world.told == [Event.HUNG, Event.RECOVERED]


def test_a_hung_mount_that_cannot_be_ended_keeps_nobody_waiting_and_is_told_once(
    world: World,
) -> None:
    world.wanted = [OLD]

    def end(placed: Placed) -> None:
        raise AgentError(Problem.PROGRAM_FAILED, "systemd-run takes too long")

    world.supervisor.end = end  # type: ignore[method-assign]
    world.watch.condition = Condition(silences=2)
    daemon = Daemon(world)
    for _ in range(3):
        daemon.cycle()
    assert world.told == [Event.HUNG, Event.STOP_FAILED]
    assert world.codes == [Problem.MOUNT_SILENT.code, Problem.PROGRAM_FAILED.code]


def test_a_configuration_that_is_wrong_changes_nothing(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()

    world.broken = AgentError(Problem.CONFIG_INVALID, "it is wrong")
    world.write()
    world.active, world.ending = False, "killed by SIGKILL"
    for _ in range(3):
        daemon.cycle()
    assert "start s3" in world.supervisor.log
    assert world.told.count(Event.REFUSED) == 1


def test_what_this_node_cannot_have_yet_is_tried_soon(world: World) -> None:
    late = AgentError(Problem.OWNER_UNKNOWN, "there is no user alice yet")
    world.unmakable = {OLD.mount.id: late}
    world.wanted = [OLD]
    daemon = Daemon(world)
    assert world.run(daemon, 300) >= 10


def test_a_failed_start_is_told_once_and_so_is_the_recovery(world: World) -> None:
    world.wanted = [OLD]
    world.active = False
    reason = AgentError(Problem.S3_UNREACHABLE, "S3 cannot be reached", retry_for=float("inf"))
    world.supervisor.failure = lambda placed: reason  # type: ignore[method-assign]
    daemon = Daemon(world)
    world.run(daemon, 300)
    failed = [code for kind, code in zip(world.told, world.codes) if kind is Event.START_FAILED]
    assert failed == [Problem.S3_UNREACHABLE.code]
    assert world.failures[OLD.mount.id] is reason
    assert not daemon.settled
    world.active = True
    world.told.clear()
    world.run(daemon, 60)
    assert world.told == [Event.RECOVERED]
    assert world.failures == {}
    assert daemon.settled


def test_the_end_of_a_process_is_told_and_so_is_the_recovery(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    world.active, world.ending = False, "killed by SIGKILL"
    daemon.cycle()
    assert world.told == [Event.ENDED]
    assert world.codes[0] == Problem.MOUNT_ENDED.code
    assert world.failures[OLD.mount.id].message == "mount-s3 of /mnt/s3 was killed by SIGKILL"
    assert world.supervisor.log == ["write s3", "start s3"]
    world.active, world.pid, world.ending = True, 8, ""
    daemon.cycle()
    daemon.cycle()
    assert world.told[1:] == [Event.RECOVERED]
    assert world.failures == {}


def test_where_systemd_was_quicker_both_are_told(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    world.pid = 8
    daemon.cycle()
    daemon.cycle()
    assert world.told == [Event.ENDED, Event.RECOVERED]
    assert world.supervisor.log == []


def test_a_process_that_ends_again_and_again_is_not_started_in_a_flurry(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    for _ in range(3600):
        before = world.supervisor.log.count("start s3")
        daemon.cycle()
        if world.supervisor.log.count("start s3") > before:
            world.active, world.pid = True, world.pid + 1
        else:
            world.active = False
        world.time += 1
    # Ten minutes of quick attempts, and from then on one about every four minutes, for ever.
    assert 40 <= world.supervisor.log.count("start s3") <= 80
    assert world.told[:3] == [Event.ENDED, Event.RECOVERED, Event.ENDED]
    assert len(world.told) <= 6, "told again when it becomes slow"
    assert world.failures[OLD.mount.id].retry_for == 0


def test_a_mount_that_something_else_covers_is_not_said_to_be_mounted_again(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon(world)
    daemon.cycle()
    world.active, world.ending = False, "killed by SIGKILL"
    daemon.cycle()
    world.active, world.pid, world.ending, world.covered = True, 8, "", True
    daemon.cycle()
    assert Event.RECOVERED not in world.told
    world.covered = False
    daemon.cycle()
    assert world.told.count(Event.RECOVERED) == 1


def test_who_asks_has_a_failed_mount_tried_at_once(world: World) -> None:
    world.wanted = [OLD]
    world.active = False
    missing = AgentError(Problem.BUCKET_MISSING, "there is no such bucket")
    world.supervisor.failure = lambda placed: missing  # type: ignore[method-assign]
    daemon = Daemon(world)
    world.run(daemon, 3600)
    for _ in range(3):  # what was due, how it went, and nothing
        starts, told = world.supervisor.log.count("start s3"), list(world.told)
        daemon.cycle()
    assert 3600 / 300 <= starts <= 3600 / 150 + 10
    assert world.supervisor.log.count("start s3") == starts
    daemon.reload()
    daemon.cycle()
    assert world.supervisor.log.count("start s3") == starts + 1
    world.run(daemon, 10)
    assert world.told == told
