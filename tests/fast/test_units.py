"""From what systemd says of a unit to how its process has ended."""

from __future__ import annotations

import pytest

from s3mount_agent.supervisor.units import _ending
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
