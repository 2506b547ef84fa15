"""What is told in the journal: identifiers that others have in alerts, and how they arrive."""

from __future__ import annotations

import importlib
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3mount_agent.core.events import Event
from s3mount_agent.system import journal

# Never change a row: somebody's alert has it. New kinds of events get new rows.
GOLDEN = {
    "STARTED": ("start", "done", "89f9b6c0ae9024e15e722e3a4537358c"),
    "START_FAILED": ("start", "failed", "0ce98e63976fc971bd76a952793f715c"),
    "ENDED": ("health", "ended", "47693c92196e4b6db70786b400922440"),
    "RECOVERED": ("start", "recovered", "7d5ee7bbf9b002d193e0fd2c2789a640"),
    "HUNG": ("health", "hung", "ac8486b7504994e304887866895698c0"),
    "DEGRADED": ("health", "degraded", "7132066120f026d062bf9e845561d9dc"),
    "FOREIGN": ("health", "foreign", "6f0a94fb530e4163ae002f78cdc4d3a1"),
    "HEALED": ("health", "recovered", "3c7455e4f1400d79f3cd537e6607db4f"),
    "STOPPED": ("stop", "done", "f224cfedb4459fc10247ff45137ea399"),
    "STOP_FAILED": ("stop", "failed", "cfd1442f89c0c92a3fb809304794baeb"),
    "WRITE_FAILED": ("write", "failed", "6ccbf7984f2e1468acd18591bd8511f5"),
    "CYCLE_FAILED": ("cycle", "failed", "3ccf0bf2463e89201325cb2b17b7d4f5"),
    "REFRESHED": ("refresh", "done", "8e69b8a7df5306efb3ecf5bcb2cb999b"),
    "REFUSED": ("refresh", "refused", "bfadaed27ab11b3f93a9193cffcf8138"),
    "UNREACHABLE": ("refresh", "failed", "b0dcfbfd9313f17d373becfae454c3a9"),
}
WELL = {"STARTED", "RECOVERED", "HEALED", "STOPPED", "REFRESHED"}
DOCUMENT = Path(__file__).parents[2] / "docs/operations.md"


def test_what_others_search_for_never_changes() -> None:
    found = {each.name: (each.action, each.result, each.message_id) for each in Event}
    assert found == GOLDEN


def test_each_kind_of_event_has_an_identifier_of_its_own() -> None:
    identifiers = [each.message_id for each in Event]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in identifiers)
    kinds = [(each.action, each.result) for each in Event]
    assert len(set(kinds)) == len(kinds)


def test_what_went_well_is_no_warning() -> None:
    assert {each.name for each in Event if not each.is_bad} == WELL


def test_the_administrators_page_has_all_of_them() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]+ \| `([0-9a-f]{32})` \|$", text, re.M)
    assert rows == list(GOLDEN.values())


Journald = Callable[[], "dict[str, str]"]


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A socket that is listened to as journald does, for who has no systemd-python."""
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(10)
        monkeypatch.setattr(journal, "_SOCKET", address)
        without(monkeypatch)
        yield lambda: parsed(listener.recv(1 << 16))


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", import_module)


def parsed(packet: bytes) -> dict[str, str]:
    """One entry by https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    fields: dict[str, str] = {}
    while packet:
        line, _, packet = packet.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", packet)
            value, end = packet[8 : 8 + length], packet[8 + length :]
            assert end[:1] == b"\n"
            packet = end[1:]
        fields[name.decode()] = value.decode()
    return fields


def test_an_event_is_one_entry_with_fields(journald: Journald) -> None:
    cause = "first line\nS3MOUNT_MOUNT=/mnt/forged\nlast line"
    journal.event(
        Event.START_FAILED,
        "it failed:\nüber",
        mount="/mnt/s3",
        bucket="my-bucket",
        error_code="access-denied",
        cause=cause,
    )
    assert journald() == {
        "MESSAGE": "it failed:\nüber",
        "MESSAGE_ID": GOLDEN["START_FAILED"][2],
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "s3mount-agent",
        "S3MOUNT_ACTION": "start",
        "S3MOUNT_RESULT": "failed",
        "S3MOUNT_MOUNT": "/mnt/s3",
        "S3MOUNT_BUCKET": "my-bucket",
        "S3MOUNT_ERROR_CODE": "access-denied",
        "S3MOUNT_CAUSE": cause,
    }


def test_what_an_event_does_not_have_is_left_out(journald: Journald) -> None:
    journal.event(Event.REFRESHED, "a new version is in force")
    fields = journald()
    assert fields["PRIORITY"] == "6"
    assert set(fields) == {
        *("MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER"),
        *("S3MOUNT_ACTION", "S3MOUNT_RESULT"),
    }


def test_a_line_of_metrics_has_an_identifier_of_its_own(journald: Journald) -> None:
    journal.record('{"_aws":{}}')
    assert journald() == {
        "MESSAGE": '{"_aws":{}}',
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "s3mount-agent-metrics",
    }


def test_systemd_python_gets_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, str]]] = []

    class Module:
        @staticmethod
        def send(message: str, **fields: str) -> None:
            sent.append((message, fields))

    monkeypatch.setattr(importlib, "import_module", lambda name: Module)
    journal.event(Event.HUNG, "it hangs", mount="/mnt/s3", bucket="my-bucket")
    assert sent == [
        (
            "it hangs",
            {
                "MESSAGE_ID": GOLDEN["HUNG"][2],
                "PRIORITY": "4",
                "SYSLOG_IDENTIFIER": "s3mount-agent",
                "S3MOUNT_ACTION": "health",
                "S3MOUNT_RESULT": "hung",
                "S3MOUNT_MOUNT": "/mnt/s3",
                "S3MOUNT_BUCKET": "my-bucket",
            },
        )
    ]


def test_where_nobody_listens_nothing_is_said_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    monkeypatch.setattr(journal, "_SOCKET", tmp_path / "none")
    journal.event(Event.HUNG, "it hangs")
    gone = tmp_path / "gone"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(gone))
    monkeypatch.setattr(journal, "_SOCKET", gone)
    journal.event(Event.HUNG, "it hangs")
    journal.record("line")
