"""The daemon and its mounts: one in use is waited for, without restlessness and not for ever; one
that hangs is ended; and what is told of both."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fast.in_memory import Supervisor, context
from s3mount_agent.doors import config_file, files, held, journal, lock, mount_s3
from s3mount_agent.doors.mount_s3 import Installed
from s3mount_agent.model.bucket import Bucket
from s3mount_agent.model.configuration import Configuration, Entry
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.events import Event
from s3mount_agent.model.health import Condition
from s3mount_agent.model.mounts import parse_mount
from s3mount_agent.model.plan import Observed, Placed, Wanted
from s3mount_agent.model.roles import Mode
from s3mount_agent.model.states import Failure, Presence, State
from s3mount_agent.model.unit import Definition
from s3mount_agent.work import daemon as daemons
from s3mount_agent.work import desired, directories, look, reconcile, snapshot
from s3mount_agent.work.context import Context
from s3mount_agent.work.daemon import Daemon
from s3mount_agent.work.look import Sight
from s3mount_agent.work.reconcile import Failures
from s3mount_agent.work.troubles import Troubles

DIRECTORY = "/mnt/s3"
DEADLINE = 600


def wanted(options: str) -> Wanted:
    mount = parse_mount("my-bucket", DIRECTORY, options)
    command = ("/usr/bin/mount-s3", *mount.arguments(None))
    definition = Definition("my-bucket", DIRECTORY, command, Mode.SYSTEMD, mount.read_only)
    return Wanted(mount, definition, definition.to_json())


OLD, NEW = wanted("--read-only"), wanted("--allow-delete")


class Health:
    """Says of every mount that is up what a test says; has no probes."""

    def __init__(self) -> None:
        self.condition = Condition()
        self.recalled: dict[int, Failure] = {}
        self.followed: list[str] = []
        self.pids: set[int | None] = set()
        self.descriptors: list[int] = []

    def work(self, configuration: Configuration) -> bool:
        return False

    def recall(self, known: Mapping[int, Failure]) -> None:
        self.recalled = dict(known)

    def follow(self, up: Iterable[Placed], configuration: Configuration) -> None:
        up = list(up)
        self.followed = [placed.id for placed in up]
        self.pids = {placed.pid for placed in up}

    def conditions(self) -> Mapping[str, Condition]:
        return dict.fromkeys(self.followed, self.condition)

    def pause(self) -> float:
        return 3600.0


class World:
    """A node with one mount, whose options are changed while it is in use."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.supervisor = Supervisor(DIRECTORY)
        self.up: Wanted | None = OLD
        self.active = True
        self.starting = False
        self.pid = 7
        self.ending = ""
        self.covered = False
        self.wanted = [NEW]
        self.tries = 0
        self.failures: Failures = {}
        self.health = Health()
        self.told: list[Event] = []
        self.codes: list[str] = []
        self.known: snapshot.Snapshot | None = None
        self.configuration = Configuration(
            (Entry(Bucket("my-bucket"), DIRECTORY),), busy_deadline=DEADLINE
        )
        stop = self.supervisor.stop

        def counted(placed: Placed, *, force: bool = False) -> None:
            self.tries += 1
            stop(placed, force=force)
            self.up = None

        self.supervisor.stop = counted  # type: ignore[method-assign]

    def observe(self, supervisor: object) -> Observed:
        if self.up is None:
            return Observed({}, {})
        placed = Placed(
            self.up.mount.id,
            self.up.definition,
            self.up.text,
            active=self.active,
            starting=self.starting,
            pid=self.pid if self.active else None,
            ending=self.ending,
        )
        presence = Presence.MOUNTPOINT_S3 if self.active else Presence.ABSENT
        presence = Presence.OTHER if self.covered else presence
        return Observed({placed.id: placed}, {DIRECTORY: presence})

    def remember(
        self,
        around: Context,
        installed: object,
        failures: Failures,
        conditions: Mapping[str, Condition],
    ) -> tuple[Sight, ...]:
        self.failures = failures
        rows = []
        for want in self.wanted:
            condition = conditions.get(want.mount.id, Condition())
            error = failures.get(want.mount.id)
            busy = error is not None and error.problem is Problem.MOUNT_BUSY
            row = dataclasses.replace(
                snapshot.fresh_row(want.mount),
                failure=snapshot.failure_of(error) if error and not busy else None,
                hung=condition.hung,
                s3=condition.s3,
                pid=self.pid if self.active else None,
            )
            rows.append(row)
        return look.look(rows, self.observe(self.supervisor))

    def event(
        self,
        kind: Event,
        message: str,
        *,
        mount: str = "",
        bucket: str = "",
        error_code: str = "",
        cause: str = "",
    ) -> None:
        assert (mount, bucket) == (DIRECTORY, "my-bucket")
        assert message
        self.told.append(kind)
        self.codes.append(error_code)

    def run(self, daemon: Daemon, seconds: float) -> int:
        """Lives through some seconds as the service does; returns how often it looked."""
        end, looks, happened = self.now + seconds, 0, True
        while self.now < end:
            if happened or daemon.is_due(table_changed=False):
                daemon.cycle()
                assert "mounts are up" in daemon.sentence
                looks += 1
            happened = False
            self.now += max(0.05, daemon.pause())
        return looks


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    random.seed(1)
    path = tmp_path / "config.yaml"
    files.write(path, "mounts: []\n")
    monkeypatch.setattr(config_file, "PATH", path)

    @contextlib.contextmanager
    def hold(purpose: str, *, timeout: float) -> Iterator[None]:
        yield

    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(journal, "event", found.event)
    monkeypatch.setattr(held, "load", frozenset)
    monkeypatch.setattr(snapshot, "load", lambda: found.known)
    monkeypatch.setattr(daemons, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(daemons, "Health", lambda: found.health)
    monkeypatch.setattr(desired, "in_force", lambda: found.configuration)
    monkeypatch.setattr(daemons, "gather", lambda conf: context(conf, found.supervisor))
    monkeypatch.setattr(mount_s3, "find", lambda: Installed("/usr/bin/mount-s3", (1, 23, 0)))
    monkeypatch.setattr(reconcile, "want", lambda *given: (tuple(found.wanted), {}))
    monkeypatch.setattr(daemons, "observe", found.observe)
    monkeypatch.setattr(daemons, "remember", found.remember)
    monkeypatch.setattr(daemons, "Troubles", lambda: Troubles(lambda: found.now))
    monkeypatch.setattr(directories, "make", lambda directory: None)
    monkeypatch.setattr(directories, "remove", lambda gone: None)
    monkeypatch.setattr(directories, "tidy", lambda wanted: None)
    return found


def test_a_change_of_a_mount_in_use_waits_without_being_restless(world: World) -> None:
    daemon = Daemon()
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
    daemon = Daemon()
    world.run(daemon, DEADLINE + 120)
    assert world.failures[OLD.mount.id].patience == 0
    tries = world.tries
    looks = world.run(daemon, 3600)
    assert looks <= 3600 / 300 + 1
    assert world.tries == tries
    assert world.up is OLD
    assert world.told == [Event.STOP_FAILED]


def test_once_it_is_free_it_is_changed(world: World) -> None:
    daemon = Daemon()
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
    daemon = Daemon()
    world.run(daemon, 100)
    world.wanted = [OLD]
    files.write(config_file.PATH, "mounts: []  # as it was\n")
    tries = world.tries
    world.run(daemon, 300)
    assert world.tries == tries
    assert world.failures == {}
    assert world.supervisor.log == []
    assert world.told == [Event.STOP_FAILED]


def test_a_mount_in_use_that_is_no_longer_wanted_waits_too(world: World) -> None:
    world.wanted = []
    daemon = Daemon()
    world.run(daemon, DEADLINE)
    assert 20 <= world.tries <= 46
    assert world.up is OLD
    assert world.told == [Event.STOP_FAILED]
    world.supervisor.refusing = ()
    daemon = Daemon()  # restarted: it asks at once
    world.run(daemon, 1)
    assert world.supervisor.log == ["stop s3", "remove s3"]
    assert world.told[-1] is Event.STOPPED
    assert world.failures == {}


def test_a_new_configuration_is_a_new_chance(world: World) -> None:
    daemon = Daemon()
    world.run(daemon, DEADLINE + 120)
    tries = world.tries
    world.configuration = dataclasses.replace(world.configuration, busy_deadline=60)
    files.write(config_file.PATH, "mounts: []  # another\n")
    world.run(daemon, 60)
    assert world.tries > tries


def test_the_longest_pause_is_the_configurations(world: World) -> None:
    world.configuration = dataclasses.replace(world.configuration, retry_at_most_every=5)
    world.run(Daemon(), DEADLINE)
    assert DEADLINE / 5 <= world.tries <= DEADLINE / 2.5 + 5


def test_a_mount_that_is_well_is_left_alone(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    looks = world.run(daemon, 3600)
    assert 3600 / 300 <= looks <= 3600 / 300 + 1
    assert (world.supervisor.log, world.told, world.failures) == ([], [], {})
    assert world.health.followed == [OLD.mount.id]
    assert daemon.settled
    daemon.cycle()
    assert 0 < daemon.pause() <= 300


def test_a_mount_that_may_hang_is_left_alone_until_that_is_certain(world: World) -> None:
    world.wanted = [OLD]
    world.health.condition = Condition(silences=1)
    daemon = Daemon()
    daemon.cycle()
    assert (world.supervisor.log, world.told) == ([], [])
    assert daemon.sentence == "0 of 1 mounts are up; /mnt/s3 is hung"
    assert not daemon.settled
    world.health.condition = Condition(silences=2)
    daemon.cycle()
    assert (world.supervisor.log, world.told) == (["end s3"], [Event.HUNG])
    assert daemon.pause() <= 0.5


def test_degraded_is_told_once_and_so_is_its_end(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    daemon.cycle()
    away = Failure("s3-unreachable", "S3 cannot be reached", "wait", permanent=False)
    world.health.condition = Condition(s3=away)
    for _ in range(3):
        daemon.cycle()
    assert (world.told, world.codes) == ([Event.DEGRADED], ["s3-unreachable"])
    assert daemon.sentence == "0 of 1 mounts are up; /mnt/s3 is degraded"
    assert daemon.settled
    world.health.condition = Condition()
    for _ in range(3):
        daemon.cycle()
    assert world.told == [Event.DEGRADED, Event.HEALED]
    assert world.supervisor.log == []


def test_something_else_on_top_is_told_once_and_so_is_its_end(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    daemon.cycle()
    for covered in (True, True, False, False):
        world.covered = covered
        daemon.cycle()
    assert world.told == [Event.FOREIGN, Event.HEALED]
    assert world.supervisor.log == []


def test_what_was_told_before_a_restart_is_not_told_again(world: World) -> None:
    world.wanted = [OLD]
    away = Failure("s3-unreachable", "S3 cannot be reached", "wait", permanent=False)
    row = dataclasses.replace(snapshot.fresh_row(OLD.mount), state=State.DEGRADED, s3=away, pid=7)
    world.known = snapshot.Snapshot(snapshot.now(), {}, (row,))
    world.health.condition = Condition(s3=away)
    daemon = Daemon()
    daemon.cycle()
    assert world.told == []
    assert world.health.recalled == {7: away}
    world.health.condition = Condition()
    daemon.cycle()
    assert world.told == [Event.HEALED]


def test_that_the_agent_ended_a_hung_mount_is_no_failed_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    daemon.cycle()
    world.health.condition = Condition(silences=2)
    daemon.cycle()
    world.health.condition = Condition()
    world.active, world.ending = False, "killed by SIGKILL"
    monkeypatch.setattr(world.supervisor, "failure", lambda placed: placed.ended())
    daemon.cycle()
    world.active, world.pid, world.ending = True, 8, ""
    daemon.cycle()
    assert world.told == [Event.HUNG, Event.RECOVERED]


def test_a_hung_mount_that_cannot_be_ended_keeps_nobody_waiting_and_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wanted = [OLD]

    def end(placed: Placed) -> None:
        raise AgentError(Problem.PROGRAM_FAILED, "systemd-run takes too long")

    monkeypatch.setattr(world.supervisor, "end", end)
    world.health.condition = Condition(silences=2)
    daemon = Daemon()
    for _ in range(3):
        daemon.cycle()
    assert world.told == [Event.HUNG, Event.STOP_FAILED]
    assert world.codes == [Problem.MOUNT_SILENT.code, Problem.PROGRAM_FAILED.code]


def test_a_configuration_that_is_wrong_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    daemon.cycle()

    def wrong() -> Configuration:
        raise AgentError(Problem.CONFIG_INVALID, "it is wrong")

    told: list[Event] = []
    monkeypatch.setattr(desired, "in_force", wrong)
    monkeypatch.setattr(journal, "event", lambda kind, *args, **fields: told.append(kind))
    files.write(config_file.PATH, "mounts: [\n")
    world.active, world.ending = False, "killed by SIGKILL"
    for _ in range(3):
        daemon.cycle()
    assert "start s3" in world.supervisor.log
    assert told.count(Event.REFUSED) == 1


def test_what_this_node_cannot_have_yet_is_tried_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = AgentError(Problem.OWNER_UNKNOWN, "there is no user alice yet")
    monkeypatch.setattr(reconcile, "want", lambda *given: ((), {OLD.mount.id: late}))
    world.wanted = [OLD]
    daemon = Daemon()
    assert world.run(daemon, 300) >= 10


def test_a_failed_start_is_told_once_and_so_is_the_recovery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wanted = [OLD]
    world.active = False
    reason = AgentError(Problem.S3_UNREACHABLE, "S3 cannot be reached", patience=float("inf"))
    monkeypatch.setattr(world.supervisor, "failure", lambda placed: reason)
    daemon = Daemon()
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
    daemon = Daemon()
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
    daemon = Daemon()
    daemon.cycle()
    world.pid = 8
    daemon.cycle()
    daemon.cycle()
    assert world.told == [Event.ENDED, Event.RECOVERED]
    assert world.supervisor.log == []


def test_a_process_that_ends_again_and_again_is_not_started_in_a_flurry(world: World) -> None:
    world.wanted = [OLD]
    daemon = Daemon()
    daemon.cycle()
    for _ in range(3600):
        before = world.supervisor.log.count("start s3")
        daemon.cycle()
        if world.supervisor.log.count("start s3") > before:
            world.active, world.pid = True, world.pid + 1
        else:
            world.active = False
        world.now += 1
    assert 5 <= world.supervisor.log.count("start s3") <= 60
    assert world.told == [Event.ENDED, Event.RECOVERED, Event.ENDED], "told once, then given up"
    assert world.failures[OLD.mount.id].patience == 0


def test_what_the_bootstrap_found_to_be_without_hope_is_not_tried(world: World) -> None:
    world.wanted = [OLD]
    world.up = None
    hopeless = snapshot.failure_of(AgentError(Problem.BUCKET_MISSING, "there is no such bucket"))
    row = dataclasses.replace(snapshot.fresh_row(OLD.mount), state=State.FAILED, failure=hopeless)
    world.known = snapshot.Snapshot(snapshot.now(), {}, (row,))
    daemon = Daemon()
    world.run(daemon, 3600)
    assert world.supervisor.log == []
    assert world.failures[OLD.mount.id].problem is Problem.BUCKET_MISSING
    assert daemon.settled


@pytest.mark.parametrize(("problem", "told"), [(Problem.LOCKED, 0), (Problem.CONFIG_INVALID, 1)])
def test_a_cycle_that_is_not_possible_is_tried_again_soon_and_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch, problem: Problem, told: int
) -> None:
    kinds: list[tuple[Event, str]] = []
    error = AgentError(problem, "not now")

    def event(kind: Event, message: str, *, error_code: str) -> None:
        assert message == error.message
        kinds.append((kind, error_code))

    def gather(configuration: Configuration) -> Context:
        raise error

    monkeypatch.setattr(journal, "event", event)
    monkeypatch.setattr(daemons, "gather", gather)
    daemon = Daemon()
    for _ in range(3):
        assert daemon.is_due(table_changed=False)
        daemon.cycle()
        assert daemon.sentence == "not now"
        assert not daemon.settled
        assert not daemon.is_due(table_changed=False)
        assert 0 < daemon.pause() <= 2
        world.now += 2
    assert kinds == [(Event.CYCLE_FAILED, problem.code)] * told


def test_a_mount_that_comes_up_during_a_cycle_is_looked_after_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wanted = [OLD]
    world.active, world.starting = False, True

    def remember(*seen: Any) -> tuple[Sight, ...]:
        world.active, world.starting = True, False
        return world.remember(*seen)

    monkeypatch.setattr(daemons, "remember", remember)
    assert world.run(Daemon(), 60) == 2  # and not one every half second from then on
    assert world.health.pids == {7}
