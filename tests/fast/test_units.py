"""From what systemd says of a unit to how its process has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from fast.in_memory import parse_mount
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.decide.plan import Placed
from s3mount_agent.supervisor import fuse_connections, units
from s3mount_agent.supervisor.units import Units, _await_end, _ending
from s3mount_agent.system import process, systemd

UNIT = "mountpoint-s3-585e79a6.service"
SHOWN = {
    "Id": UNIT,
    "ActiveState": "failed",
    "MainPID": "0",
    "UnitFileState": "static",
    "NeedDaemonReload": "no",
    "InvocationID": "",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
}


def facts(monkeypatch: pytest.MonkeyPatch, **fields: str) -> systemd.UnitFacts:
    text = "\n".join(f"{name}={value}" for name, value in {**SHOWN, **fields}.items())

    def run(command: list[str], **given: object) -> process.Completed:
        asked = next(word for word in command if word.startswith("--property="))
        assert set(SHOWN) <= set(asked[len("--property=") :].split(","))
        return process.Completed(tuple(command), 0, text + "\n", "")

    monkeypatch.setattr(process, "run", run)
    return systemd.show([UNIT])[UNIT]


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({}, ""),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "1"}, ""),
        (
            {"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"},
            "killed by SIGKILL",
        ),
        (
            {"Result": "core-dump", "ExecMainCode": "3", "ExecMainStatus": "11"},
            "killed by SIGSEGV",
        ),
        (
            {"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "40"},
            "killed by signal 40",
        ),
        (
            {"Result": "oom-kill", "ExecMainCode": "2", "ExecMainStatus": "9"},
            "killed for want of memory",
        ),
        # A hook was killed, not mount-s3: before its start, or after its end with 1.
        ({"Result": "signal"}, ""),
        ({"Result": "signal", "ExecMainCode": "1", "ExecMainStatus": "1"}, ""),
    ],
)
def test_only_what_killed_mount_s3_itself_is_said_to_have_ended_it(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], ending: str
) -> None:
    assert _ending(facts(monkeypatch, **fields)) == ending


def test_a_unit_with_a_job_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not facts(monkeypatch).has_job
    assert facts(monkeypatch, Job="77").has_job


@pytest.mark.parametrize("replaced", [False, True])
def test_a_unit_that_somebody_has_put_in_the_place_of_ours_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, replaced: bool
) -> None:
    disabled: list[str] = []
    monkeypatch.setattr(units, "_PLACES", (tmp_path,))
    monkeypatch.setattr(systemd, "ETC", tmp_path)
    monkeypatch.setattr(systemd, "disable", disabled.extend)
    monkeypatch.setattr(systemd, "reload", lambda: None)
    monkeypatch.setattr(systemd, "reset_failed", lambda unit: None)
    monkeypatch.setattr(fuse_connections, "forget", lambda directory: None)
    mount = parse_mount("my-bucket", "/mnt/s3", "")
    command = ("/usr/bin/mount-s3", *mount.arguments(None))
    definition = Definition("my-bucket", "/mnt/s3", command, Mode.SYSTEMD, mount.read_only)
    supervisor = Units(Mode.SYSTEMD)
    text = supervisor.text(definition)
    unit = tmp_path / mount.unit
    unit.write_text("[Service]\nExecStart=/bin/true\n" if replaced else text)
    assert supervisor.remove([Placed(mount.id, definition, text)]) == {}
    assert unit.exists() is replaced
    assert disabled == ([] if replaced else [mount.unit])


def test_the_link_of_a_unit_that_somebody_has_deleted_goes_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(units, "_PLACES", (tmp_path,))
    monkeypatch.setattr(systemd, "ETC", tmp_path)
    monkeypatch.setattr(systemd, "reload", lambda: None)
    there, theirs = "mountpoint-s3-91ef1212.service", "mountpoint-s3-theirs.service"
    (tmp_path / there).write_text("")
    systemd.enable([UNIT, there, theirs])
    assert Units(Mode.SYSTEMD).remove(()) == {}
    assert {each.name for each in systemd.wanted_at_boot().iterdir()} == {there, theirs}


@pytest.mark.parametrize(
    ("patient", "problem"), [(True, Problem.MOUNT_BUSY), (False, Problem.MOUNT_ENDING)]
)
def test_who_has_other_mounts_to_look_after_waits_a_moment_for_an_end(
    monkeypatch: pytest.MonkeyPatch, patient: bool, problem: Problem
) -> None:
    waited: list[float] = []

    def run(command: list[str], *, timeout: float, check: bool) -> process.Completed:
        assert command[:2] == ["systemctl", "stop"]
        waited.append(timeout)
        raise AgentError(Problem.PROGRAM_TIMEOUT, "it takes its time")

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(AgentError) as caught:
        _await_end("/mnt/s3", UNIT, killed=False, patient=patient)
    assert caught.value.problem is problem
    assert (sum(waited) <= 1) is not patient


@pytest.mark.parametrize(
    ("fields", "ending", "forgotten"),
    [
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, "killed by KILL", True),
        ({"Result": "start-limit-hit"}, "", True),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "1"}, "", False),
    ],
)
def test_what_ended_too_often_for_systemd_can_be_started_by_hand(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], ending: str, *, forgotten: bool
) -> None:
    shown = facts(monkeypatch, **fields)
    reset: list[str] = []
    monkeypatch.setattr(systemd, "show", lambda names: dict.fromkeys(names, shown))
    monkeypatch.setattr(systemd, "reset_failed", reset.append)
    monkeypatch.setattr(Units, "_explain", lambda *_: AgentError(Problem.MOUNT_FAILED, "it failed"))
    definition = Definition("my-bucket", "/mnt/s3", ("mount-s3",), Mode.SYSTEMD, read_only=False)
    placed = Placed("585e79a6", definition, "", ending=ending)
    assert Units(Mode.SYSTEMD).failure(placed) is not None
    assert reset == ([UNIT] if forgotten else [])
