"""Mounts whose health is looked after, with real looks and a clock that a test sets."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.daemon.health import Health
from s3mount_agent.daemon.senses import Senses
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.plan import Placed
from s3mount_agent.filesystem import procfs
from s3mount_agent.system.probe import Probe

PATIENCE = 60.0
RARELY = 100_000
LOOK, LIST, HUNG_AFTER = 60, 300, 30


class Told(Senses):
    """Real looks by a clock that a test sets; what mount-s3 says is what the test has it say."""

    def __init__(self) -> None:
        self.time = 5000.0
        self.begun: list[Probe] = []
        self.words = ""
        self.complaints: list[tuple[int, str]] = []
        self.asked: list[tuple[object, ...]] = []
        self.idle: bool | None = None
        self.awaited = False

    def now(self) -> float:
        return self.time

    def luck(self) -> float:
        return 0

    def look(self, directories: Sequence[str], *, deep: bool) -> Probe:
        self.begun.append(Probe(directories, deep=deep, clock=self.now))
        return self.begun[-1]

    def is_idle(self, directory: str) -> bool:
        return super().is_idle(directory) if self.idle is None else self.idle

    def is_awaited(self, directory: str) -> bool:
        return self.awaited

    def last_words(self, identifier: str, pid: int) -> str:
        self.asked.append((identifier, pid))
        return self.words

    def warnings(self, pids: Collection[int], seconds: float) -> Iterable[tuple[int, str]]:
        self.asked.append((list(pids), seconds))
        return self.complaints


class Ward:
    """Mounts that are looked after, and all that is known of them."""

    def __init__(self) -> None:
        self.senses = Told()
        self.begun = self.senses.begun
        self.health = Health(self.senses)
        self.configuration = Configuration(
            look_every=LOOK, check_s3_every=LIST, hung_after=HUNG_AFTER
        )

    @property
    def now(self) -> float:
        return self.senses.time

    @now.setter
    def now(self, time: float) -> None:
        self.senses.time = time

    def follow(self, **up: tuple[Any, ...]) -> None:
        """These are up: a directory, a process and options each, by id."""
        self.health.follow([placed(name, *each) for name, each in up.items()], self.configuration)

    def detach(self, **gone: tuple[str, int]) -> None:
        """These serve on, though somebody has unmounted them."""
        gone_ones = [placed(name, *each) for name, each in gone.items()]
        self.health.follow([], self.configuration, gone_ones)

    def work(self, seconds: float = 0) -> bool:
        """Some time passes, then everything is looked at once."""
        self.now += seconds
        return self.health.work(self.configuration)

    def settle(self, running: int = 0) -> None:
        """Takes in what the looks find, until only so many are still under way."""
        deadline = time.monotonic() + PATIENCE
        self.work()
        while len(self.health.descriptors) > running:
            assert time.monotonic() < deadline, self.running()
            time.sleep(0.01)
            self.work()

    def running(self, *, deep: bool | None = None) -> list[str | None]:
        """Where children are looking now."""
        looks = [each for each in self.begun if each.at is not None]
        return [each.at for each in looks if deep is None or each.deep is deep]

    def condition(self, mount_id: str) -> Condition:
        return self.health.conditions()[mount_id]


def placed(mount_id: str, directory: str, pid: int, *options: str) -> Placed:
    command = ("/usr/bin/mount-s3", *options, "my-bucket", directory)
    definition = Definition("my-bucket", directory, command, Mode.SYSTEMD, False)
    return Placed(mount_id, definition, "", active=True, starting=False, pid=pid)


def let_it_work(pid: int) -> None:
    """Waits until a process has used some processor time."""
    before, deadline = procfs.processor_seconds(pid), time.monotonic() + PATIENCE
    while procfs.processor_seconds(pid) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
