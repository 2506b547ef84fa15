"""What apply has found is what status says at that moment, in the same words, and what the service
goes on from."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fast.in_memory import context, parse_mount
from fast.ward import Ward
from s3mount_agent.config import config_file
from s3mount_agent.config.configuration import Configuration, of_mounts
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Presence, State
from s3mount_agent.decide.plan import Observed, Placed, Plan
from s3mount_agent.filesystem import lock
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import bootstrap, execute, observe, reasons
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.observe import judge_all
from s3mount_agent.reconcile.session import Session
from s3mount_agent.state import status_file
from s3mount_agent.state.timeline import Timeline
from s3mount_agent.supervisor import agent_service, fuse_connections
from s3mount_agent.supervisor.fuse_connections import Connection
from s3mount_agent.system import journal
from s3mount_agent.system.probe import Answer, Finding, Listing

DENIED = "ListObjectsV2 failed: Service error: Access Denied"
CONFIGURATION = "mounts: [{bucket: my-bucket, directory: /mnt/s3}]"
PID = 4711
BUSY = AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use", cause="sh (pid 5)")


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Observed:
    """A node with one mount that is up, of which mount-s3 says that access is denied."""

    @contextlib.contextmanager
    def hold(purpose: str, *, timeout: float) -> Iterator[None]:
        yield

    path = (tmp_path / "status.json",)
    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(journal, "last_words", lambda identifier, pid: DENIED)
    monkeypatch.setattr(status_file.load, "__defaults__", path)
    monkeypatch.setattr(status_file.save, "__defaults__", path)
    around = context(config_file.parse(CONFIGURATION, "x"))
    (mount,) = around.mounts
    definition = Definition("my-bucket", "/mnt/s3", ("mount-s3",), Mode.SYSTEMD, read_only=False)
    placed = Placed(mount.id, definition, "", active=True, pid=PID)
    status_file.save({"role": "compute"}, [status_file.fresh(mount)])
    return Observed({mount.id: placed}, {"/mnt/s3": Presence.OURS})


def test_apply_and_status_say_the_same(seen: Observed) -> None:
    around = context(config_file.parse(CONFIGURATION, "x"))
    (mount,) = around.mounts
    finding = Finding(Answer.ERROR, error="Permission denied")
    failures, refused = reasons.unanswered(around.mounts, seen, {mount.id: finding}, {})
    reasons.remember(refused)
    known = status_file.load()
    assert known is not None
    (mount_now,) = judge_all(known.mounts, seen)
    error = failures[mount.id]
    assert error.problem is Problem.ACCESS_DENIED
    assert error.cause == "Permission denied"
    assert (mount_now.state, mount_now.reason) == (State.DEGRADED, error.message)
    assert known.node == {"role": "compute"}
    # Of another process it says nothing.
    later = {mount.id: dataclasses.replace(seen.placed[mount.id], pid=PID + 1)}
    (mount_now,) = judge_all(known.mounts, Observed(later, seen.presence))
    assert mount_now.state is State.OK


@pytest.mark.parametrize(
    ("words", "problem"), [(DENIED, Problem.ACCESS_DENIED), ("", Problem.MOUNT_SILENT)]
)
@pytest.mark.parametrize("answer", [Answer.SILENT, Answer.DISCONNECTED])
def test_of_a_mount_that_does_not_answer_they_say_the_same_too(
    seen: Observed,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    words: str,
    problem: Problem,
) -> None:
    monkeypatch.setattr(journal, "last_words", lambda identifier, pid: words)
    around = context(config_file.parse(CONFIGURATION, "x"))
    (mount,) = around.mounts
    finding = Finding(answer, seconds=30)
    failures, refused = reasons.unanswered(around.mounts, seen, {mount.id: finding}, {})
    error = failures[mount.id]
    assert (error.problem, error.cause) == (problem, "no answer within 30 seconds")
    reasons.remember(refused)
    known = status_file.load()
    assert known is not None
    (mount_now,) = judge_all(known.mounts, seen)
    assert (mount_now.state, mount_now.reason) == (State.DEGRADED, error.message)


def test_a_bootstrap_writes_down_what_it_sees_once_it_has_the_lock(
    seen: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may wait for the lock for a minute."""
    held: list[bool] = []

    @contextlib.contextmanager
    def hold(wanted: Desired, by: str) -> Iterator[bool]:
        held.append(True)
        yield True
        held.pop()

    def look(around: Context) -> Observed:
        assert held
        return seen

    monkeypatch.setattr(bootstrap, "still_in_force", hold)
    monkeypatch.setattr(bootstrap, "look_at", look)
    monkeypatch.setattr(agent_service, "wake", lambda: None)
    around = context(config_file.parse(CONFIGURATION, "x"))
    (placed,) = seen.placed.values()
    before = Observed({placed.id: dataclasses.replace(placed, active=False, starting=True)}, {})
    desired = Desired(around.configuration, CONFIGURATION)
    begun = bootstrap._Begun(Session(desired, around, before), None, 0.0, False, {}, before)
    begun.starts = execute.prepare(Plan(), (), before, around)
    bootstrap._await(begun, "apply", Timeline())
    assert [mount.state for mount in begun.mounts] == [State.OK]


def test_of_a_mount_without_a_process_nothing_is_remembered(seen: Observed) -> None:
    around = context(config_file.parse(CONFIGURATION, "x"))
    (mount,) = around.mounts
    finding = Finding(Answer.SILENT, seconds=30)
    gone = Observed({}, seen.presence)
    failures, refused = reasons.unanswered(around.mounts, gone, {mount.id: finding}, {})
    assert failures[mount.id].problem is Problem.MOUNT_SILENT
    assert refused == {}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BUSY.retried_for(600), ": /mnt/s3 is in use by sh (pid 5), until 20"),
        (BUSY, " for the next `s3mount-agent apply`: /mnt/s3 is in use by sh (pid 5)"),
        (AgentError(Problem.MOUNT_ENDING, "it ends"), ": it ends, until 20"),
    ],
)
def test_a_removal_that_waits_says_until_when(seen: Observed, error: AgentError, told: str) -> None:
    around = context(Configuration(busy_deadline=600))
    (mount_id,) = seen.placed
    (mount,) = observe.remember(around, None, {mount_id: error}, observed=seen)
    assert (mount.pending or "").startswith(f"it is to be removed, which waits{told}")
    assert mount.state is State.OK


def test_the_version_that_a_mount_runs_is_the_one_it_was_started_with(
    seen: Observed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse_connections, "_HOME", tmp_path)
    around = context(config_file.parse(CONFIGURATION, "x"))
    (placed,) = seen.placed.values()
    path, later = tmp_path / "mount-s3", tmp_path / "later"
    path.touch()
    later.touch()
    pid = PID
    own = Connection("/mnt/s3", "0:54", pid=pid)
    fuse_connections.save(own._replace(program=fuse_connections.file_of(str(path))))

    def versions(version: tuple[int, ...]) -> list[str]:
        here = dataclasses.replace(placed, pid=pid)
        now = dataclasses.replace(seen, placed={placed.id: here})
        installed = Installed(str(path), version)
        return [mount.version for mount in observe.remember(around, installed, {}, observed=now)]

    assert versions((1, 23, 0)) == ["1.23.0"]
    later.replace(path)  # another package
    assert versions((1, 24, 0)) == ["1.23.0"]
    # Started anew it is what is there; of what was started between two looks nobody knows.
    pid = PID + 1
    fuse_connections.save(own._replace(pid=pid))
    assert versions((1, 24, 0)) == [""]
    fuse_connections.save(own._replace(pid=pid, program=fuse_connections.file_of(str(path))))
    assert versions((1, 24, 0)) == ["1.24.0"]


def test_a_unit_that_was_deleted_is_said(seen: Observed) -> None:
    known = status_file.load()
    assert known is not None
    lost = {each.id: dataclasses.replace(each, lost=True) for each in seen.placed.values()}
    (mount,) = judge_all(known.mounts, Observed(lost, seen.presence))
    assert (mount.state, mount.reason) == (State.OK, "its unit was deleted while it runs")


def test_a_removal_that_failed_says_why(seen: Observed) -> None:
    (mount_id,) = seen.placed
    error = AgentError(Problem.PROGRAM_FAILED, "/mnt/s3 could not be unmounted")
    around = context(Configuration())
    (mount,) = observe.remember(around, None, {mount_id: error}, observed=seen)
    assert mount.pending == "it could not be removed: /mnt/s3 could not be unmounted"
    (mount,) = observe.remember(around, None, {}, observed=seen)
    assert mount.pending == "it is to be removed when it is no longer in use"


def test_the_service_goes_on_from_what_apply_has_found(tmp_path: Path) -> None:
    ward = Ward()
    ward.follow(one=(str(tmp_path), PID))
    failure = status_file.failure_of(AgentError(Problem.ACCESS_DENIED, "no"))
    ward.health.recall({PID: failure})
    assert ward.condition("one").s3 == failure
    ward.work()  # and looks at once whether it is so still
    assert ward.health.descriptors
    ward.settle()
    assert ward.condition("one").s3 is None


@pytest.mark.parametrize(
    ("presence", "failed", "line"),
    [
        (Presence.OURS, 0, r"\[  ok  \] verify .* 1 of 1 mounts answer"),
        (Presence.OURS, 1, r"\[failed\] verify .* 1 of 2 mounts answer"),
        (Presence.ABSENT, 0, r"\[failed\] verify .* 0 of 1 mounts answer"),
    ],
)
def test_a_mount_whose_change_waits_is_verified_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    presence: Presence,
    failed: int,
    line: str,
) -> None:
    names = ["used", "failed"][: 1 + failed]
    mounts = tuple(parse_mount(f"bucket-{name}", str(tmp_path / name), "") for name in names)
    around = context(of_mounts(mounts))
    errors = (AgentError(Problem.MOUNT_BUSY, "in use"), AgentError(Problem.ACCESS_DENIED, "no"))
    failures = {mount.id: error for mount, error in zip(mounts, errors)}
    (tmp_path / "used").mkdir()
    seen = Observed({}, {mounts[0].directory: presence})
    monkeypatch.setattr(bootstrap, "judge_table", lambda *_, **__: seen)
    session = cast(Session, SimpleNamespace(context=around, observed=seen))
    begun = bootstrap._Begun(session, None, 0, False, failures, seen)
    found = bootstrap._verify(around, begun, Listing(()), Timeline())
    assert re.search(line, capsys.readouterr().out)
    # One that has gone meanwhile has but come to its change.
    assert found == ({} if presence is Presence.OURS else {mounts[0].id: errors[0]})


@pytest.mark.parametrize("up", [True, False])
def test_a_service_that_does_not_come_up_is_no_step_that_is_ok(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, up: bool
) -> None:
    monkeypatch.setattr(agent_service, "ensure_running", lambda *, new: True)
    monkeypatch.setattr(agent_service, "comes_up", lambda: up)
    session = cast(Session, SimpleNamespace(context=context(), observed=Observed({}, {})))
    begun = bootstrap._Begun(session, None, 0, True, {}, session.observed)
    bootstrap._call_service(begun, Timeline())
    said = capsys.readouterr().out
    assert said.startswith("[  ok  ] daemon" if up else "[failed] daemon")
    assert ("is starting" if up else "the agent's service is down: `") in said
