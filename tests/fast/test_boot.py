"""When the service says that it is up, which slurmd waits for at a boot (Before=slurmd.service)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from fast.daemon_world import DIRECTORY, OLD, World
from fast.in_memory import context
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import OnFailure, Role
from s3mount_agent.daemon import loop
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.reconcile.context import Context
from s3mount_agent.state import status_file

REFUSED = AgentError(Problem.MOUNT_REFUSED, "mount-s3 refuses its arguments")
SECONDS = 300


class Boot(World):
    """A node whose one mount has failed, in the first minutes after its boot."""

    def __init__(self, role: Role = Role.COMPUTE) -> None:
        super().__init__()
        self.began = self.time
        self.role = role
        self.wanted, self.up = [OLD], None
        self.unmakable = {OLD.mount.id: REFUSED}
        self.heals_at = self.ready_at = float("inf")
        self.late: list[str] = []

    def gather(self, configuration: Configuration) -> Context:
        return context(configuration, self.supervisor, role=self.role)

    def remember(self, around: Context, *seen: Any) -> Any:
        rows = super().remember(around, *seen)
        required = DIRECTORY in around.required
        return tuple(row._replace(required=required) for row in rows)

    def notify(self, *lines: str) -> None:
        if "READY=1" in lines:
            self.ready_at = self.time - self.began

    def event(self, kind: Event, message: str, **fields: Any) -> None:
        if kind is Event.BOOT_LATE:
            self.late.append(message)
        else:
            super().event(kind, message, **fields)

    def tell_lost(self) -> None:
        pass

    def watchdog(self) -> float:
        return 180.0

    def follows_a_source(self) -> bool:
        return False

    # What wakes the daemon: here nothing but time.
    @property
    def stopping(self) -> bool:
        return self.time - self.began > SECONDS

    def take_reload(self) -> bool:
        return False

    def take_table_change(self) -> bool:
        return False

    def wait(self, seconds: float, pids: Iterable[int], quiet: Iterable[int]) -> bool:
        self.time += max(0.05, seconds)
        if self.time - self.began >= self.heals_at:
            self.unmakable, self.up = {}, OLD
        return False

    def live(self) -> float:
        """Lives through it; returns after how many seconds it was up."""
        loop._work(self, self)  # type: ignore[arg-type]
        return self.ready_at


@pytest.mark.parametrize("role", [Role.COMPUTE, Role.STANDALONE])
def test_jobs_wait_for_a_mount_that_has_failed_until_the_deadline(role: Role) -> None:
    boot = Boot(role)
    assert 120 <= boot.live() < 121
    assert boot.late == [
        "the boot goes on after 120 seconds, and with it slurmd: "
        f"0 of 1 mounts are up; {DIRECTORY} is failed"
    ]


def test_and_no_longer_than_until_it_is_up() -> None:
    boot = Boot()
    boot.heals_at = 40
    assert 40 <= boot.live() < 120
    assert boot.late == []


@pytest.mark.parametrize("role", [Role.HEAD, Role.LOGIN])
def test_where_no_jobs_run_a_failure_is_waited_for_by_nobody(role: Role) -> None:
    assert Boot(role).live() == 0


def test_what_the_configuration_lets_fail_is_waited_for_by_nobody() -> None:
    boot = Boot()
    (row,) = boot.in_force.rows
    rows = (dataclasses.replace(row, on_failure=OnFailure.CONTINUE),)
    boot.in_force = dataclasses.replace(boot.in_force, rows=rows)
    assert boot.live() == 0


def test_who_restarts_the_service_waits_for_no_failure() -> None:
    boot = Boot()
    failure = status_file.failure_of(REFUSED)
    boot.known = (status_file.fresh(OLD.mount)._replace(failure=failure),)
    assert boot.live() == 0
    assert boot.late == []
