"""The daemon with a mount in use: it waits, is not restless, and gives up when it should."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fast.in_memory import Supervisor, context
from s3mount_agent.doors import config_file, files, journal, lock, mount_s3
from s3mount_agent.doors.mount_s3 import Installed
from s3mount_agent.model.bucket import Bucket
from s3mount_agent.model.configuration import Configuration, Entry
from s3mount_agent.model.errors import Problem
from s3mount_agent.model.mounts import parse_mount
from s3mount_agent.model.plan import Observed, Placed, Wanted
from s3mount_agent.model.roles import Mode
from s3mount_agent.model.states import Presence
from s3mount_agent.model.unit import Definition
from s3mount_agent.work import daemon as daemons
from s3mount_agent.work import desired, directories, reconcile
from s3mount_agent.work.daemon import Daemon
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


class World:
    """A node with one mount, whose options are changed while it is in use."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.supervisor = Supervisor(DIRECTORY)
        self.up: Wanted | None = OLD
        self.wanted = [NEW]
        self.tries = 0
        self.failures: Failures = {}
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
        placed = Placed(self.up.mount.id, self.up.definition, self.up.text, active=True, pid=7)
        return Observed({placed.id: placed}, {DIRECTORY: Presence.MOUNTPOINT_S3})

    def remember(self, around: object, installed: object, failures: Failures) -> tuple[Any, ...]:
        self.failures = failures
        return ()

    def run(self, daemon: Daemon, seconds: float) -> int:
        """Lives through some seconds as the service does; returns how often it looked."""
        end, looks = self.now + seconds, 0
        while self.now < end:
            sights = daemon.cycle()
            assert sights is not None, daemon.sentence
            looks += 1
            self.now += max(0.05, daemon.pause(sights))
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
    monkeypatch.setattr(journal, "event", lambda message, **fields: None)
    monkeypatch.setattr(desired, "in_force", lambda: found.configuration)
    monkeypatch.setattr(daemons, "gather", lambda conf: context(conf, found.supervisor))
    monkeypatch.setattr(mount_s3, "find", lambda: Installed("/usr/bin/mount-s3", (1, 23, 0)))
    monkeypatch.setattr(reconcile, "want", lambda *given: (tuple(found.wanted), {}))
    monkeypatch.setattr(daemons, "observe", found.observe)
    monkeypatch.setattr(daemons, "remember", found.remember)
    monkeypatch.setattr(daemons, "Troubles", lambda: Troubles(lambda: found.now))
    monkeypatch.setattr(directories, "make", lambda directory: None)
    monkeypatch.setattr(directories, "remove", lambda gone: None)
    return found


def test_a_change_of_a_mount_in_use_waits_without_being_restless(world: World) -> None:
    daemon = Daemon()
    looks = world.run(daemon, DEADLINE)
    assert world.supervisor.log == []
    assert world.up is OLD
    error = world.failures[OLD.mount.id]
    assert error.problem is Problem.MOUNT_BUSY
    assert 10 <= world.tries <= 40, "pauses grow to a minute"
    assert looks <= 60


def test_after_the_deadline_it_is_left_alone(world: World) -> None:
    daemon = Daemon()
    world.run(daemon, DEADLINE + 120)
    assert world.failures[OLD.mount.id].patience == 0
    tries = world.tries
    world.run(daemon, 3600)
    assert world.tries == tries
    assert world.up is OLD


def test_once_it_is_free_it_is_changed(world: World) -> None:
    daemon = Daemon()
    world.run(daemon, 100)
    world.supervisor.refusing = ()
    world.run(daemon, 70)
    assert world.supervisor.log[:4] == ["stop s3", "remove s3", "write s3", "start s3"]
    world.up = NEW
    world.run(daemon, 70)
    assert world.failures == {}


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


def test_a_mount_in_use_that_is_no_longer_wanted_waits_too(world: World) -> None:
    world.wanted = []
    daemon = Daemon()
    world.run(daemon, DEADLINE)
    assert 10 <= world.tries <= 40
    assert world.up is OLD
    world.supervisor.refusing = ()
    daemon = Daemon()  # restarted: it asks at once
    world.run(daemon, 1)
    assert world.supervisor.log == ["stop s3", "remove s3"]
    assert world.failures == {}


def test_a_new_configuration_is_a_new_chance(world: World) -> None:
    daemon = Daemon()
    world.run(daemon, DEADLINE + 120)
    tries = world.tries
    world.configuration = dataclasses.replace(world.configuration, busy_deadline=60)
    files.write(config_file.PATH, "mounts: []  # another\n")
    world.run(daemon, 60)
    assert world.tries > tries
