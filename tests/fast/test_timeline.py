"""The lines of a bootstrap, the record of where its time went, and what status shows."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fast.in_memory import parse_mount
from s3mount_agent import cli
from s3mount_agent.commands.status import document
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import NodeState, Presence, State
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus, sum_up
from s3mount_agent.decide.plan import Observed, Placed
from s3mount_agent.filesystem.procfs import arguments as process_arguments
from s3mount_agent.mountpoint import messages
from s3mount_agent.reconcile import observe
from s3mount_agent.state import status_file, timeline
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.state.timeline import Downloading, Timeline, Waiting, waiting_for
from s3mount_agent.system import threads

AT = "2026-11-23T17:00:00Z"
NODE = {
    "role": "compute",
    "mode": "direct",
    "cluster": "hpc-production-cluster",
    "queue": "gpu-spot-queue",
    "agent": "0.1.0",
    "mount_s3": "1.24.0",
}


@pytest.fixture(autouse=True)
def timeline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "timeline.json"
    monkeypatch.setattr(timeline, "TIMELINE", path)
    return path


def test_a_download_that_takes_its_time_says_how_far_and_how_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, said = [100.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tell = Downloading(600, say=said.append)
    for second in range(61):  # 800 kB each
        now[0] = 100.0 + second
        tell("mount-s3.deb", second * 800_000, 48_000_000)
    assert len(said) == 4, said
    assert said[0].startswith("[ wait ] mount-s3.deb: 4.0 MB of 48.0 MB, 800 kB/s (until ")
    assert said[-1].startswith("[ wait ] mount-s3.deb: 40.0 MB of 48.0 MB, 800 kB/s (until ")
    assert said[0].endswith(" UTC at most; Ctrl-C leaves it to the agent)")
    # One that begins anew, and of which nobody says how long it is.
    now[0] += 16
    tell("mount-s3.deb", 2_000, 0)
    assert said[-1].startswith("[ wait ] mount-s3.deb: 2 kB, 0 kB/s (until ")


def test_each_step_is_one_line_with_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = Timeline()
    with timeline.step("facts") as step:
        step.result = "role head"
    with pytest.raises(AgentError), timeline.step("install"):
        raise AgentError(Problem.INTERNAL, "no")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("[  ok  ] facts")
    assert first.endswith(" s  role head")
    assert second.startswith("[failed] install")


def test_a_step_that_did_not_happen_is_never_ok(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = Timeline()
    for way in ("skip", "warn", "fail", "wait"):
        with timeline.step(way) as step:
            step.result = "done"
            getattr(step, way)("it did not happen")
    with pytest.raises(KeyboardInterrupt), timeline.step("stopped"):
        raise KeyboardInterrupt
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == [
        *("[ skip ]", "[ warn ]", "[failed]", "[ wait ]", "[failed]"),
    ]
    assert all("ok" not in line and "done" not in line for line in lines)


def test_a_record_that_cannot_be_written_fails_nothing_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(timeline, "TIMELINE", tmp_path / "file/timeline.json")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    record = Timeline()
    record.save()
    assert capsys.readouterr().out.startswith("warning: there is no record of these times")


def test_a_long_wait_is_told_with_all_that_one_wants_to_know_and_not_22_times(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told = Waiting("/mnt/s3", 300)
    denied = AgentError(Problem.ACCESS_DENIED, "S3 denies access")
    for _ in range(22):
        told(denied)
        now += 13
    told(AgentError(Problem.S3_THROTTLED, "S3 throttles requests"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    first = r"\[ wait \] /mnt/s3: S3 denies access \(attempt 1, until \d\d:\d\d:\d\d UTC; (.*)\)"
    match = re.fullmatch(first, lines[0])
    assert match
    assert match[1] == "Ctrl-C leaves it to the agent"
    assert "attempt 23" in lines[-1]
    assert "throttles" in lines[-1]


def test_a_silent_wait_is_told_once_and_what_is_done_at_once_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_SILENT_SECONDS", 0.1)
    said: list[str] = []
    with waiting_for("quick", 60, say=said.append):
        pass
    time.sleep(0.3)
    assert said == []
    with waiting_for("unmounting /mnt/s3", 60, say=said.append):
        time.sleep(0.5)
    (told,) = said
    until = r"\(attempt 1, until \d\d:\d\d:\d\d UTC at most; Ctrl-C leaves it to the agent\)"
    assert re.fullmatch(rf"\[ wait \] unmounting /mnt/s3 {until}", told)


@pytest.mark.parametrize("before", [None, "the record of an earlier run"])
@pytest.mark.parametrize("changed", [True, False])
def test_a_run_that_changed_something_or_is_the_first_leaves_a_record(
    timeline_file: Path, changed: bool, before: str | None
) -> None:
    if before:
        timeline_file.write_text(before)
    timeline = Timeline()
    with timeline.step("one"):
        pass
    with pytest.raises(ZeroDivisionError), timeline.step("two"):
        raise ZeroDivisionError
    timeline.changed = changed
    timeline.save()
    if before and not changed:
        assert timeline_file.read_text() == before
    else:
        record = json.loads(timeline_file.read_text())
        assert record["schema"] == 1
        assert [(row["step"], row["result"]) for row in record["steps"]] == [
            ("one", "ok"),
            ("two", "failed"),
        ]
        assert 0 <= record["steps"][0]["start"] <= record["steps"][1]["start"] < 60


def row(number: int, error: AgentError | None = None) -> MountStatus:
    return MountStatus(
        f"0000000{number}",
        f"/mnt/s3-readonly-{number}",
        f"hpc-dev-mountpoint-sample-{number}",
        False,
        State.MISSING,
        "2026-11-23T17:00:00Z",
        failure=status_file.failure_of(error) if error else None,
    )


def placed(of: MountStatus, *, active: bool) -> Placed:
    definition = Definition(of.bucket, of.path, ("/usr/bin/mount-s3",), Mode.DIRECT, False)
    return Placed(of.id, definition, "", active=active, pid=4194303 if active else None)


def test_what_is_remembered_is_held_against_what_is_seen() -> None:
    rows = [row(1), row(2), row(3, AgentError(Problem.BUCKET_MISSING, "gone"))]
    observed = Observed(
        {rows[0].id: placed(rows[0], active=True), rows[1].id: placed(rows[1], active=False)},
        {each.path: Presence.OURS for each in rows[:2]},
    )
    sights = observe.judge_all(rows, observed)
    assert [s.state for s in sights] == [State.OK, State.STALE, State.FAILED]
    assert [s.pid for s in sights] == [4194303, None, None]
    assert sum_up(sights) is NodeState.FAILED


def test_a_state_that_lasts_keeps_its_beginning() -> None:
    old = row(1)
    same = observe.judge_all([old], Observed({}, {}))[0]
    assert (same.state, same.since) == (old.state, old.since)
    new = observe.judge_all([old], Observed({}, {old.path: Presence.FOREIGN}))[0]
    assert (new.state, new.since > old.since) == (State.FOREIGN, True)


SAID = (
    "No signing credentials available, see CRT debug logs",
    "Forbidden: Access Denied",
    "The bucket does not exist",
    "Wrong region (expecting ap-southeast-2)",
    "Request throttled",
    "CRT error 1059: DNS",
    "something new",
)


KEYS = {"path", "bucket", "state", "reason", "hint", "since", "pid", "read_only"}


@pytest.mark.parametrize("said", SAID)
def test_status_json_of_eight_mounts_fits_what_ssm_keeps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
) -> None:
    """SSM Run Command cuts what it shows at 2,500 characters."""
    path = tmp_path / "status.json"
    monkeypatch.setattr(status_file.load, "__defaults__", (path,))
    rows = []
    for number in range(8):
        bucket, directory = f"hpc-dev-mountpoint-sample-{number}", f"/mnt/s3-readonly-{number}"
        rows.append(row(number, messages.explain(said, bucket=bucket, directory=directory)))
    status_file.save(NODE, rows, path)
    permanent = rows[0].failure is not None and rows[0].failure.permanent
    assert cli.main(["status", "--json"]) == (Exit.FAILED if permanent else Exit.DEGRADED)
    text = capsys.readouterr().out
    assert len(text) < 2500, f"{len(text)} characters"
    assert text.count("\n") == 1
    mounts = json.loads(text)["mounts"]
    assert [mount.keys() >= KEYS for mount in mounts] == [True] * 8
    assert {mount["reason"] is None for mount in mounts} == {False}


def test_status_tells_how_many_files_may_be_open_for_writing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what its process was started with, which a later share of the node does not change."""
    words = ("mount-s3", "--foreground", "--memory-target=512", "a-bucket", "/mnt/s3")
    command = [sys.executable, "-c", "print(input())", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process_arguments(process.pid)[-1:] != ("/mnt/s3",):
            time.sleep(0.01)  # it has its words a moment after its program
        rows = [row(number) for number in range(8)]
        refused = messages.explain(
            "open failed with errno 12: x", bucket="b", directory="/mnt/s3-7"
        )
        failure = status_file.failure_of(refused)
        rows = [each._replace(s3=failure, asked=process.pid) for each in rows]
        up = {
            each.id: dataclasses.replace(placed(each, active=True), pid=process.pid)
            for each in rows
        }
        there = {each.path: Presence.OURS for each in rows}
        sights = observe.judge_all(rows, Observed(up, there))
        process.communicate(b"\n")
    shown = [sight.to_json() for sight in sights]
    assert [(each["state"], each["write_files"]) for each in shown] == [("degraded", 47)] * 8
    seen = NodeStatus(NODE, sights, AT, "now")
    monkeypatch.setattr(observe, "take", lambda: seen)
    for cpus, warned in ((47, 0), (48, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda cpus=cpus: cpus)
        cli.main(["status"])
        out = capsys.readouterr().out
        assert out.count("warning: only 47 files can be open for writing at once") == warned
    cli.main(["status", "--json"])
    assert len(capsys.readouterr().out) < 2500
    gone = observe.judge_all(rows, Observed({}, {}))[0].to_json()
    assert "write_files" not in gone


def test_status_json_has_what_was_promised() -> None:
    error = AgentError(Problem.S3_THROTTLED, "too much", retry_for=math.inf)
    sights = observe.judge_all([row(1, error)], Observed({}, {}))
    shown = json.loads(json.dumps(document(NodeStatus(NODE, sights, AT), None, None)))
    assert "config" not in shown
    assert shown["schema"] == 1
    assert shown["state"] == "degraded"
    assert shown["node"] == {**NODE, "at": AT}
    assert shown["mounts"] == [
        {
            "path": "/mnt/s3-readonly-1",
            "bucket": "hpc-dev-mountpoint-sample-1",
            "state": "retrying",
            "reason": "too much",
            "hint": Problem.S3_THROTTLED.hint,
            "since": sights[0].since,
            "pid": None,
            "read_only": False,
        }
    ]


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        (
            Origin("s3://b/k", '"abc"', '"abc"'),
            {"source": "s3://b/k", "version": "abc"},
        ),
        (
            Origin("s3://b/k", '"abc"', '"def"', "s3://b/k:1:1: no"),
            {"source": "s3://b/k", "version": "abc", "problem": "s3://b/k:1:1: no"},
        ),
    ],
)
def test_status_json_tells_what_is_in_force_and_what_is_wrong_with_the_newer(
    origin: Origin, shown: dict[str, str]
) -> None:
    assert document(NodeStatus(NODE, (), AT), origin, None)["config"] == shown


@pytest.mark.parametrize("pending", [None, "its new options wait: /mnt/s3 is in use by vi"])
def test_what_is_pending_is_shown_where_there_is_something(pending: str | None) -> None:
    waiting = row(1)._replace(pending=pending)
    shown = observe.judge_all([waiting], Observed({}, {}))[0].to_json()
    assert shown.get("pending") == pending
    assert ("pending" in shown) is (pending is not None)


@pytest.mark.parametrize(("patience", "gave_up"), [(600, False), (0, True)])
def test_a_change_that_has_waited_enough_says_so(patience: float, gave_up: bool) -> None:
    busy = AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use by vi", retry_for=patience)
    told = status_file.pending_of(busy)
    assert told.endswith(": /mnt/s3 is in use by vi")
    assert ("apply" in told) is gave_up


def test_a_fresh_mount_is_shown_with_its_bucket_and_prefix() -> None:
    mount = parse_mount("s3://my-bucket/a/", "/mnt/s3", "--read-only")
    shown = observe.judge_all([status_file.fresh(mount)], Observed({}, {}))[0].to_json()
    assert (shown["path"], shown["bucket"], shown["read_only"]) == (
        "/mnt/s3",
        "my-bucket/a/",
        True,
    )
