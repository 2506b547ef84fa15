"""A node for the daemon, with one mount that is in use and a clock that a test sets."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from fast.in_memory import Supervisor, context
from s3mount_agent.config import desired
from s3mount_agent.config.arguments import parse_mount
from s3mount_agent.config.configuration import Configuration, Entry
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.definition import Definition
from s3mount_agent.core.errors import Problem
from s3mount_agent.core.events import Event
from s3mount_agent.core.health import Condition
from s3mount_agent.core.plan import Observed, Placed, Wanted
from s3mount_agent.core.roles import Mode
from s3mount_agent.core.states import Failure, Presence
from s3mount_agent.daemon import loop as daemons
from s3mount_agent.daemon.loop import Daemon
from s3mount_agent.daemon.retries import Troubles
from s3mount_agent.mountpoint import program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import directories, execute, look
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.state import held, in_force, status_file
from s3mount_agent.system import files, journal, lock

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
        self.known: status_file.Snapshot | None = None
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
                status_file.fresh_row(want.mount),
                failure=status_file.failure_of(error) if error and not busy else None,
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


def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in whose stead the daemon touches nothing else."""
    found = World()
    random.seed(1)
    monkeypatch.setattr(in_force, "PATH", tmp_path / "in-force.json")
    files.write(in_force.PATH, "a version\n")

    @contextlib.contextmanager
    def hold(purpose: str, *, timeout: float) -> Iterator[None]:
        yield

    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(journal, "event", found.event)
    monkeypatch.setattr(held, "load", frozenset)
    monkeypatch.setattr(status_file, "load", lambda: found.known)
    monkeypatch.setattr(daemons, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(daemons, "Health", lambda: found.health)
    monkeypatch.setattr(desired, "in_force", lambda: Desired(found.configuration, ""))
    monkeypatch.setattr(desired, "begin", lambda: (Desired(found.configuration, ""), None))
    monkeypatch.setattr(desired, "pending", lambda: None)
    monkeypatch.setattr(daemons, "gather", lambda conf: context(conf, found.supervisor))
    monkeypatch.setattr(program, "find", lambda: Installed("/usr/bin/mount-s3", (1, 23, 0)))
    monkeypatch.setattr(execute, "want", lambda *given: (tuple(found.wanted), {}))
    monkeypatch.setattr(daemons, "observe", found.observe)
    monkeypatch.setattr(daemons, "remember", found.remember)
    monkeypatch.setattr(daemons, "Troubles", lambda: Troubles(lambda: found.now))
    monkeypatch.setattr(directories, "make", lambda directory: None)
    monkeypatch.setattr(directories, "remove", lambda gone: None)
    monkeypatch.setattr(directories, "tidy", lambda wanted: None)
    return found
