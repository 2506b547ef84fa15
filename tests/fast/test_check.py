"""`check`: whether a job may start here, told in one line, whoever is silent."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fast.glance_world import IDS, World
from s3mount_agent import cli
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Failure, NodeState, Presence, State
from s3mount_agent.decide.job_readiness import readiness
from s3mount_agent.decide.mount_status import MountStatus, judge
from s3mount_agent.filesystem import mountinfo
from s3mount_agent.reconcile import glance, observe
from s3mount_agent.state import status_file

HERE, THERE = IDS
PID = os.getpid()
DENIED = Failure("access-denied", "S3 denies\n  access", "allow it", permanent=True)
SILENT = "the agent's service is down"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch.setattr)
    made.make(PID)
    yield made
    os.close(made.descriptor)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["check", *words])
    out, err = capsys.readouterr()
    assert len((out + err).splitlines()) <= 1 + 2 * (code == 2)
    return code, out, err


def mount(**values: Any) -> MountStatus:
    up = {"presence": Presence.OURS, "alive": True}
    return judge(MountStatus("585e79a6", "/mnt/s3", "data", read_only=False, **{**up, **values}))


OK = mount()
DEGRADED = mount(s3=DENIED)
HUNG = mount(hung=True)
STALE = mount(alive=False)
GONE = {"presence": Presence.ABSENT}
MISSING = mount(**GONE)
HELD = mount(**GONE, alive=False, held=True)
STARTING = mount(**GONE, alive=False, starting=True)
RETRYING = mount(**GONE, alive=False, failure=DENIED._replace(permanent=False))
FAILED = mount(**GONE, alive=False, failure=DENIED)
FOREIGN = mount(presence=Presence.FOREIGN)
COVERED = mount(presence=Presence.COVERED)
NOT_THERE = [STALE, MISSING, HELD, STARTING, RETRYING, FAILED, FOREIGN, COVERED]


def names(mounts: list[MountStatus]) -> list[str]:
    return [f"{each.state.value}, {each.reason}" for each in mounts]


def state(seen: MountStatus, *others: MountStatus, **how: Any) -> NodeState:
    usual = {"named": False, "silent": None, "strict": False}
    return readiness([OK, seen, *others], **{**usual, **how}).state


@pytest.mark.parametrize("seen", [*NOT_THERE, HUNG], ids=names([*NOT_THERE, HUNG]))
def test_a_job_does_not_start_where_its_mount_is_not_there_or_hangs(seen: MountStatus) -> None:
    assert state(seen) is NodeState.FAILED
    assert state(seen, named=True) is NodeState.FAILED
    # One that the configuration lets fail keeps away only who has asked for it.
    assert state(seen._replace(required=False)) is NodeState.DEGRADED
    assert state(seen._replace(required=False), named=True) is NodeState.FAILED


def test_s3_that_does_not_answer_is_no_fault_of_the_nodes() -> None:
    assert state(DEGRADED) is NodeState.DEGRADED
    assert state(DEGRADED, MISSING) is NodeState.FAILED
    assert state(OK) is NodeState.OK


def test_a_change_that_waits_keeps_no_job_away() -> None:
    assert state(mount(pending="its new options wait")) is NodeState.OK


@pytest.mark.parametrize("seen", NOT_THERE, ids=names(NOT_THERE))
def test_what_is_seen_to_be_missing_counts_also_while_the_daemon_is_silent(
    seen: MountStatus,
) -> None:
    assert state(seen, silent=SILENT) is NodeState.FAILED


@pytest.mark.parametrize("seen", [OK, HUNG, DEGRADED], ids=names([OK, HUNG, DEGRADED]))
def test_what_only_the_daemon_knows_does_not_count_while_it_is_silent(seen: MountStatus) -> None:
    found = readiness([seen], named=False, silent=SILENT, strict=False)
    assert (found.state, found.doubtful) == (NodeState.OK, True)
    assert SILENT in found.sentence
    strict = readiness([seen], named=False, silent=SILENT, strict=True)
    assert (strict.state, strict.doubtful) == (NodeState.FAILED, False)


def test_the_line_names_each_mount_with_its_reason_and_one_mend() -> None:
    found = readiness([FAILED, MISSING, DEGRADED], named=False, silent=None, strict=False)
    assert found.sentence == (
        "/mnt/s3 (s3://data) is failed: S3 denies access; /mnt/s3 (s3://data) is missing: mount-s3 "
        "runs, but its mount is gone; allow it"
    )


def test_all_well_is_said_on_stdout(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == (0, f"ok: {HERE}, {THERE} are up\n", "")
    assert told(capsys, f"{HERE}/data/in.csv") == (0, f"ok: {HERE} is up\n", "")


def degrade(world: World, **values: Any) -> None:
    known = status_file.load()
    assert known is not None
    first, *others = known.mounts
    status_file.save(known.node, [first._replace(**values), *others], world.snapshot)


def test_what_is_wrong_is_one_line_on_stderr_with_the_nodes_name(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    degrade(world, hung=True)
    code, out, err = told(capsys)
    assert (code, out) == (1, "")
    assert err.startswith(f"s3mount-agent: failed on {os.uname().nodename}: {HERE} (s3://my-bucket")
    assert "is hung: mount-s3 does not answer; " in err
    # Another job needs only the other one.
    assert told(capsys, THERE)[0] == 0
    degrade(world, hung=False, s3=DENIED)
    code, _, err = told(capsys, THERE, f"{HERE}/x")
    assert code == 3
    assert f": {HERE} (s3://my-bucket) is degraded: S3 denies access; allow it\n" in err


def look(world: World, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """What the whole look tells, to which a silent daemon leaves it."""

    def take() -> Any:
        if isinstance(answer, AgentError):
            raise answer
        return answer

    fcntl.flock(world.descriptor, fcntl.LOCK_UN)
    monkeypatch.setattr(observe, "take", take)


def test_a_daemon_that_is_down_is_a_warning_unless_strict(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = glance.take()
    assert seen is not None
    look(world, monkeypatch, seen._replace(service_up=False))
    code, out, err = told(capsys)
    assert (code, out) == (0, "")
    assert err == (
        f"s3mount-agent: warning on {os.uname().nodename}: the agent's service is down: "
        "jobs start without its word\n"
    )
    code, out, err = told(capsys, "--strict", HERE)
    assert (code, out) == (1, "")
    assert "failed on" in err


@pytest.mark.parametrize(("minutes", "doubt"), [(10, ""), (12, "has said nothing since")])
def test_a_daemon_that_says_nothing_any_more_is_silent(
    world: World, capsys: pytest.CaptureFixture[str], minutes: int, doubt: str
) -> None:
    known = status_file.load()
    assert known is not None
    at = status_file.later(known.at, -60.0 * minutes)
    world.snapshot.write_text(world.snapshot.read_text().replace(known.at, at))
    assert (told(capsys)[0], told(capsys, "--strict")[0]) == (0, 1 if doubt else 0)
    assert doubt in told(capsys)[2]


def test_a_node_that_knows_of_no_mounts_keeps_no_job_away(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(world, monkeypatch, AgentError(Problem.NOT_CONFIGURED, "this node has no config.yaml"))
    code, out, err = told(capsys, HERE)
    assert (code, out) == (0, "")
    assert "warning on" in err
    assert "this node has no config.yaml" in err
    assert told(capsys, "--strict")[0] == 1


@pytest.mark.parametrize("path", ["/home", "/mnt", "/mnt/s3-other/file", "/", "../etc"])
def test_a_path_on_no_mount_is_wrong_usage(
    world: World, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    code, out, err = told(capsys, path)
    assert (code, out) == (2, "")
    assert "[mount-unknown]" in err
    assert HERE in err


def test_a_path_leads_to_a_mount_through_links_and_is_not_followed_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mnt"
    (place / "in").mkdir(parents=True)
    (place / "in/out").symlink_to("/")
    (tmp_path / "data").symlink_to("mnt")
    (tmp_path / "far").symlink_to(tmp_path / "data/in")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    for path in ("data", "mnt/", "./data/in/out/etc", "far/x", "x/../mnt", f"{tmp_path}//mnt/x"):
        assert mountinfo.first_on_the_way(path, {str(place)}) == str(place), path
    for path in ("mnt2", "..", "loop", "", "/"):
        assert mountinfo.first_on_the_way(path, {str(place)}) is None, path


def test_in_a_directory_that_was_removed_absolute_paths_go_on_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert mountinfo.first_on_the_way("/mnt/s3/x", {"/mnt/s3"}) == "/mnt/s3"


def test_whether_a_mount_is_required_outlives_the_daemon(world: World) -> None:
    degrade(world, required=False)
    known = status_file.load()
    assert known is not None
    assert [each.required for each in known.mounts] == [False, True]
    assert State.OK is known.mounts[0].state
