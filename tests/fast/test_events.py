"""What is told in the journal: identifiers that others have in alerts, and how they arrive."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3mount_agent.decide.journal_events import Event
from s3mount_agent.system import journal, process

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
    "BIND_DEAD": ("health", "dead", "234f1e9506a3485c82633a3c83e29207"),
    "STOPPED": ("stop", "done", "f224cfedb4459fc10247ff45137ea399"),
    "STOP_FAILED": ("stop", "failed", "cfd1442f89c0c92a3fb809304794baeb"),
    "WRITE_FAILED": ("write", "failed", "6ccbf7984f2e1468acd18591bd8511f5"),
    "REWRITTEN": ("write", "done", "bc3cf6fac6724a8c8d62342749d5956a"),
    "CYCLE_FAILED": ("cycle", "failed", "3ccf0bf2463e89201325cb2b17b7d4f5"),
    "BOOT_LATE": ("boot", "late", "d39654bf37a84230a021935719e61bac"),
    "BOOTSTRAP_FAILED": ("bootstrap", "failed", "8269c49b526e4d438bf5a5205d1d8744"),
    "REFRESHED": ("refresh", "done", "8e69b8a7df5306efb3ecf5bcb2cb999b"),
    "REFUSED": ("refresh", "refused", "bfadaed27ab11b3f93a9193cffcf8138"),
    "UNREACHABLE": ("refresh", "failed", "b0dcfbfd9313f17d373becfae454c3a9"),
    "EDITED": ("configuration", "edited", "e618a1862b4b4eb7a2b393fa94dbc7ea"),
    "DAMAGED": ("state", "damaged", "6f92fb1d47314b3088e406c42a523709"),
    "ENTRIES_LOST": ("journal", "lost", "5a38df30788e418f992e5828af6cc154"),
}
WELL = {"STARTED", "RECOVERED", "HEALED", "STOPPED", "REFRESHED", "REWRITTEN"}
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
    """A socket that is listened to as journald does."""
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(10)
        monkeypatch.setattr(journal, "_SOCKET", address)
        monkeypatch.setattr(journal, "_LOST", tmp_path / "lost")
        yield lambda: parsed(received(listener))


def received(listener: socket.socket) -> bytes:
    """One entry, which may come as a file in memory."""
    packet, descriptors, _, _ = socket.recv_fds(listener, 1 << 20, 1)
    if not descriptors:
        return packet
    with os.fdopen(descriptors[0], "rb") as file:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE  # journald refuses what could still change
        file.seek(0)
        return file.read()


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
        "PRIORITY": "3",
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


def test_an_entry_of_any_size_arrives(journald: Journald) -> None:
    cause = "x" * 1_000_000
    journal.event(Event.HUNG, "it hangs", cause=cause)
    assert journald()["S3MOUNT_CAUSE"] == cause


def test_a_journal_that_takes_nothing_is_not_waited_for_and_told_later_what_it_missed(
    journald: Journald, tmp_path: Path
) -> None:
    sent = 300
    began = time.monotonic()
    for number in range(sent):
        journal.event(Event.HUNG, f"entry {number}")
    journal.record("a line of figures, of which the next one comes soon")
    assert time.monotonic() - began < 40
    kept = 0
    lost = (tmp_path / "lost").stat().st_size
    while kept + lost < sent:
        assert journald()["MESSAGE"] == f"entry {kept}"
        kept += 1
    assert 0 < kept < sent
    journal.event(Event.HUNG, "the next")
    told = journald()
    assert told["MESSAGE"] == f"{lost} entries were lost while the journal took none"
    assert (told["MESSAGE_ID"], told["PRIORITY"]) == (GOLDEN["ENTRIES_LOST"][2], "3")
    assert journald()["MESSAGE"] == "the next"
    journal.event(Event.HUNG, "one more")
    assert journald()["MESSAGE"] == "one more"
    assert not (tmp_path / "lost").exists()


def test_what_is_lost_is_counted_also_where_nothing_can_be_written(
    journald: Journald, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_LOST", tmp_path / "none" / "lost")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_SOCKET", tmp_path)  # refuses all
        journal.event(Event.HUNG, "lost")
    journal.event(Event.HUNG, "the next")
    assert journald()["MESSAGE"] == "one entry was lost while the journal took none"
    assert journald()["MESSAGE"] == "the next"


def test_where_nobody_listens_nothing_is_said_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_LOST", tmp_path / "lost")
    monkeypatch.setattr(journal, "_SOCKET", tmp_path / "none")
    journal.event(Event.HUNG, "it hangs")
    gone = tmp_path / "gone"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(gone))
    monkeypatch.setattr(journal, "_SOCKET", gone)
    journal.event(Event.HUNG, "it hangs")
    journal.record("line")


def journalctl(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a program in the place of journalctl."""
    program = directory / "journalctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(process, "_PLACES", (str(directory), "/usr/bin", "/bin"))
    monkeypatch.setattr(journal, "_silent_until", {})


def test_only_entries_of_root_are_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user can send entries with our identifier and fields; not with root's _UID=."""
    journalctl(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked; test "$1" = --sync')
    journal.last_words("mount-s3", 77)
    journal.errors_of("mountpoint-s3-91ef1212.service", "abc")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in asked if " _UID=0 " not in line] == ["--sync"]
    assert len(asked) == 4
    assert all("_SYSTEMD_UNIT=mountpoint-s3-91ef1212.service" in line for line in asked[2:])


def test_what_several_processes_warned_of_is_asked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = """\
Nov 25 13:00:00 a-host mount-s3[62]: [WARN] ThreadId(03) open{req=2}: fuse: open failed: x: y
Nov 25 13:00:01 a-host mount-s3[7]: [WARN] mount-s3[62]: of itself
Nov 25 13:00:01 a-host kernel: something else"""
    journalctl(tmp_path, monkeypatch, f"echo \"$@\" >> {tmp_path}/asked; echo '{lines}'")
    assert journal.warnings("mount-s3", [62, 7], seconds=300) == [
        (62, "[WARN] ThreadId(03) open{req=2}: fuse: open failed: x: y"),
        (7, "[WARN] mount-s3[62]: of itself"),
    ]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "--since=-300s" in asked
    assert " _UID=0 " in asked
    assert asked.endswith(" _PID=62 _PID=7")


def test_a_journald_that_does_not_answer_is_asked_once_for_all_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo "$1" >> {tmp_path}/asked; test "$1" != --sync || exec sleep 60; echo words'
    journalctl(tmp_path, monkeypatch, script)
    monkeypatch.setattr(journal, "_SYNC_SECONDS", 0.5)
    began = time.monotonic()
    for _ in range(32):
        # Its files can still be read.
        assert journal.errors_of("mountpoint-s3-91ef1212.service", "abc") == "words\n"
    assert time.monotonic() - began < 20
    assert (tmp_path / "asked").read_text().splitlines().count("--sync") == 1


def test_files_of_the_journal_that_hang_are_asked_once_for_all_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journalctl(tmp_path, monkeypatch, f'echo "$1" >> {tmp_path}/asked; exec sleep 60')
    monkeypatch.setattr(journal, "_READ_SECONDS", 0.5)
    began = time.monotonic()
    for _ in range(32):
        assert journal.last_words("mount-s3", 77) == ""
    assert time.monotonic() - began < 20
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


SHOWN_COMMAND = re.compile(r"journalctl [^`#|\n]*")


def shown_commands() -> list[tuple[str, str]]:
    """Every journalctl command that a page, a hint or a help text shows."""
    home = Path(__file__).parents[2]
    pages = [home / "README.md", *(home / "docs").glob("*.md"), *(home / "agent").rglob("*.py")]
    return [
        (page.name, command.strip())
        for page in pages
        if page.name not in ("journal.py", "CHANGELOG.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        for command in SHOWN_COMMAND.findall(line)
    ]


def test_no_command_that_we_show_believes_entries_that_anybody_could_have_sent() -> None:
    """`-u` by itself asks only for what journald knows of the sender."""
    shown = shown_commands()
    assert len(shown) > 10
    assert [s for s in shown if not re.search(r"_UID=0|-u |--unit", s[1])] == []
