"""A node for the daemon, with one mount that is in use and a clock that a test sets."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fast.in_memory import Supervisor, context, parse_mount
from s3mount_agent.config.configuration import Configuration, Row
from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Failure, Presence
from s3mount_agent.daemon.loop import Daemon
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Observed, Placed, Plan, Wanted
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import execute, observe
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures, Hands
from s3mount_agent.state import status_file

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

    def follow(
        self,
        up: Iterable[Placed],
        configuration: Configuration,
        detached: Iterable[Placed] = (),
    ) -> None:
        up = [*up, *detached]
        self.followed = [placed.id for placed in up]
        self.pids = {placed.pid for placed in up}

    def conditions(self) -> Mapping[str, Condition]:
        return dict.fromkeys(self.followed, self.condition)

    def pause(self) -> float:
        return 3600.0


class Untouched(Hands):
    """Makes and removes no directory, and tells the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def make(self, want: Wanted) -> None:
        pass

    def remove(self, gone: Iterable[str]) -> None:
        tuple(gone)

    def tell(self, event: Event, message: str, **fields: str) -> None:
        self._world.event(event, message, **fields)


class World(Surroundings):
    """A node with one mount, whose options are changed while it is in use."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.neighbours: list[tuple[MountStatus, ...]] = []
        self.supervisor = Supervisor(DIRECTORY)
        self.up: Wanted | None = OLD
        self.program: Installed | None = Installed("/usr/bin/mount-s3", (1, 23, 0))
        self.version = "1.23.0"
        self.installs: list[float] = []
        self.active = True
        self.starting = False
        self.pid = 7
        self.ending = ""
        self.covered = False
        self.absent = False
        self.lost = False
        self.down: tuple[str, ...] = ()
        self.wanted = [NEW]
        self.unmakable: Failures = {}
        self.tries = 0
        self.failures: Failures = {}
        self.watch = Health()
        self.told: list[Event] = []
        self.codes: list[str] = []
        self.messages: list[str] = []
        self.known: tuple[MountStatus, ...] = ()
        self.written = 1
        self.broken: AgentError | None = None
        self.blind: AgentError | None = None
        self.in_force = Configuration(
            (Row(Bucket("my-bucket"), DIRECTORY),), busy_deadline=DEADLINE
        )
        self._luck = random.Random(1)  # noqa: S311
        stop = self.supervisor.stop

        def counted(placed: Placed, *, force: bool = False, patient: bool = True) -> None:
            self.tries += 1
            stop(placed, force=force, patient=patient)
            self.up = None

        self.supervisor.stop = counted  # type: ignore[method-assign]

    def now(self) -> float:
        return self.time

    def luck(self) -> float:
        return self._luck.random()

    def health(self) -> Any:
        return self.watch

    def versions(self) -> tuple[int, int]:
        return self.written, 0

    def configuration(self) -> Configuration:
        if self.broken is not None:
            raise self.broken
        return self.in_force

    def begin(self) -> tuple[Configuration, AgentError | None]:
        return self.configuration(), None

    def edited(self) -> int:
        return 0

    def pending(self) -> str | None:
        return None

    def ask_ahead(self, configuration: Configuration) -> None:
        pass

    def recall(self) -> tuple[MountStatus, ...]:
        return self.known

    def alone(self) -> AbstractContextManager[None]:
        @contextlib.contextmanager
        def hold() -> Iterator[None]:
            yield

        return hold()

    def table(self) -> Mapping[str, object]:
        return {}

    def gather(self, configuration: Configuration) -> Context:
        if self.blind is not None:
            raise self.blind
        return context(configuration, self.supervisor)

    def installed(self) -> Installed | None:
        return self.program

    def want(
        self, around: Context, installed: Installed, observed: Observed
    ) -> tuple[tuple[Wanted, ...], Failures]:
        wanted = (each for each in self.wanted if each.mount.id not in self.unmakable)
        return tuple(wanted), dict(self.unmakable)

    def held(self) -> frozenset[str]:
        return frozenset(self.down)

    def carry_out(
        self,
        todo: Plan,
        wanted: Sequence[Wanted],
        observed: Observed,
        around: Context,
        told: Failures,
    ) -> Failures:
        start, hands = self.supervisor.start_later, Untouched(self)
        return execute.carry_out(
            todo, wanted, observed, around, start=start, told=told, hands=hands, patient=False
        )

    def tidy(self, wanted: Iterable[Mount]) -> None:
        pass

    def is_to_install(self, configuration: Configuration) -> bool:
        return self.version != str(self.program)

    def install_later(self) -> None:
        self.installs.append(self.time)

    def notify(self, *lines: str) -> None:
        pass

    def tell(
        self,
        event: Event,
        message: str,
        error: AgentError | None,
        *,
        mount: str = "",
        bucket: str = "",
    ) -> None:
        code = error.problem.code if error else ""
        self.event(event, message, mount=mount, bucket=bucket, error_code=code)

    def observe(self, around: Context) -> Observed:
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
            settled=not self.lost,
            lost=self.lost,
        )
        presence = Presence.OURS if self.active else Presence.ABSENT
        presence = Presence.FOREIGN if self.covered else presence
        presence = Presence.ABSENT if self.absent else presence
        return Observed({placed.id: placed}, {DIRECTORY: presence})

    def tell_neighbours(self, around: Context, sights: tuple[MountStatus, ...]) -> None:
        self.neighbours.append(sights)

    def remember(
        self,
        around: Context,
        installed: Installed | None,
        failures: Failures,
        conditions: Mapping[str, Condition],
    ) -> tuple[MountStatus, ...]:
        self.failures = failures
        rows = []
        for want in self.wanted:
            condition = conditions.get(want.mount.id, Condition())
            error = failures.get(want.mount.id)
            busy = error is not None and error.problem is Problem.MOUNT_BUSY
            row = status_file.fresh(want.mount)._replace(
                failure=status_file.failure_of(error) if error and not busy else None,
                hung=condition.hung,
                s3=condition.s3,
                asked=self.pid if self.active else None,
            )
            rows.append(row)
        return observe.judge_all(rows, self.observe(around))

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
        if kind not in (Event.REFUSED, Event.CYCLE_FAILED):
            assert (mount, bucket) == (DIRECTORY, "my-bucket")
        assert message
        self.messages.append(message)
        self.told.append(kind)
        self.codes.append(error_code)

    def write(self) -> None:
        """Somebody writes the configuration."""
        self.written += 1

    def run(self, daemon: Daemon, seconds: float) -> int:
        """Lives through some seconds as the service does; returns how often it looked."""
        end, looks, happened = self.time + seconds, 0, True
        while self.time < end:
            if happened or daemon.is_due(table_changed=False):
                daemon.cycle()
                assert "mounts are up" in daemon.sentence
                looks += 1
            happened = False
            self.time += max(0.05, daemon.pause())
        return looks
