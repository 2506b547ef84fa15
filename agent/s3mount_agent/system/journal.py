"""The journal: one entry per event, with fields to search for.

Entries are sent in journald's own protocol, and never waited for: a journald that is stopped or
busy takes nothing, and systemd-python would wait for it. What it did not take is counted, and told
when it takes entries again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.masking import masked
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.system import process

if TYPE_CHECKING:
    import socket

IDENTIFIER = "s3mount-agent"
_SOCKET = Path("/run/systemd/journal/socket")
# One byte for each entry that was lost, by whichever of our programs; where it cannot be written,
# each remembers its own.
_LOST = Path("/run/s3mount-agent/lost-entries")
_lost_here = 0
# journald's priorities: syslog(3).
_ERROR, _INFO = 3, 6
_SYNC_SECONDS = 2.0
_READ_SECONDS = 5.0
# What did not answer is not asked again for so long: many mounts may have to be explained.
_SILENT_SECONDS = 60.0
_silent_until: dict[str, float] = {}
_closed = False


def close() -> None:
    """Sends nothing from now on: with each entry journald writes down the command line of who sent
    it, and in ours is a secret that could not be hidden."""
    global _closed
    _closed = True


def event(
    kind: Event,
    message: str,
    *,
    mount: str = "",
    bucket: str = "",
    error_code: str = "",
    cause: str = "",
) -> None:
    """Sends one entry; ``journalctl _UID=0 S3MOUNT_MOUNT=/mnt/s3`` tells the story of one mount."""
    fields = {
        "MESSAGE_ID": kind.message_id,
        "S3MOUNT_ACTION": kind.action,
        "S3MOUNT_RESULT": kind.result,
        "S3MOUNT_MOUNT": mount,
        "S3MOUNT_BUCKET": bucket,
        "S3MOUNT_ERROR_CODE": error_code,
        "S3MOUNT_CAUSE": masked(cause),
        "PRIORITY": str(_ERROR if kind.is_bad else _INFO),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    tell_lost()
    if not _send(masked(message), {name: value for name, value in fields.items() if value}):
        _count_lost()


def record(line: str) -> None:
    """Sends a line as it is, for programs that read the journal; the next one makes up for one that
    is lost."""
    _send(line, {"PRIORITY": str(_INFO), "SYSLOG_IDENTIFIER": f"{IDENTIFIER}-metrics"})


def last_words(identifier: str, pid: int) -> str:
    """The last warnings that a process of root's logged, at most five minutes old; nothing where
    there is no journal, or one that cannot be read now."""
    since, what = "--since=-5min", "--priority=warning"
    return read(since, what, f"--identifier={identifier}", f"_PID={pid}", lines=10)


def warnings(identifier: str, pids: Iterable[int], *, seconds: float) -> list[tuple[int, str]]:
    """What processes of root's have warned of in the last so many seconds, each with its pid, the
    oldest first; nothing where the journal cannot be read now. One question for all of them."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=short", "--lines=1000", "_UID=0"]
    since = [f"--since=-{seconds:.0f}s", "--priority=warning", f"--identifier={identifier}"]
    lines = _ask("files", [*command, *since, *(f"_PID={pid}" for pid in pids)], _READ_SECONDS)
    found = re.findall(rf"^.*? {re.escape(identifier)}\[(\d+)\]: (.*)$", lines, re.MULTILINE)
    return [(int(pid), message) for pid, message in found]


def errors_of(unit: str, invocation: str) -> str:
    """What a unit's processes wrote to stderr in one of its runs, or else in this boot: the end."""
    _sync()
    matches = [f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]
    # By the time we ask, systemd may have begun the next run, which has said nothing yet.
    run = read(*matches, f"_SYSTEMD_INVOCATION_ID={invocation}", lines=20)
    return run or read(*matches, "--boot", lines=20)


def read(*matches: str, lines: int) -> str:
    """The messages of root's last entries that match; nothing if they cannot be read now.

    Anybody may send entries that look like ours, but not as root: journald itself says who did.
    """
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", "_UID=0"]
    return _ask("files", [*command, *matches], _READ_SECONDS)


def _sync() -> None:
    """journald reads what units write when it comes to it; this waits until it has."""
    _ask("journald", ["journalctl", "--sync"], _SYNC_SECONDS)


def _ask(whom: str, command: list[str], seconds: float) -> str:
    if time.monotonic() < _silent_until.get(whom, 0):
        return ""
    try:
        answer = process.run(command, timeout=seconds, check=False)
    except AgentError:
        _silent_until[whom] = time.monotonic() + _SILENT_SECONDS
        return ""
    return answer.stdout if answer.stdout.strip() else ""


def _send(message: str, fields: dict[str, str]) -> bool:
    """Sends one entry in journald's own protocol, at once or not at all; False if journald did not
    take it. Where there is none, nothing is missing.

    https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    """
    if _closed:
        return True
    import socket  # which `status` does without

    parts = []
    for name, value in {"MESSAGE": message, **fields}.items():
        data = value.encode(errors="replace")
        parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
    entry = b"".join(parts)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(0)  # never waits
            try:
                channel.sendto(entry, str(_SOCKET))
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                _send_as_file(channel, entry)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _send_as_file(channel: socket.socket, entry: bytes) -> None:
    """What is too large for a datagram is handed over in memory that nobody can change any more."""
    import socket

    # Named here: arguments and files are checked on systems, too, which have none.
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    with os.fdopen(os.memfd_create("entry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC), "wb") as file:
        file.write(entry)
        file.flush()
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
        descriptors = struct.pack("i", file.fileno())
        channel.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], 0, str(_SOCKET))


def _count_lost(number: int = 1) -> None:
    global _lost_here
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(_LOST, flags, 0o600), "wb") as file:
            file.write(b"x" * number)
    except OSError:
        _lost_here += number


def tell_lost() -> None:
    """Says how many entries were lost, once journald takes entries again."""
    global _lost_here
    lost, _lost_here = _lost_here, 0
    # Whoever renames it tells it.
    mine = _LOST.with_name(f"{_LOST.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        _LOST.rename(mine)
        lost += mine.stat().st_size
        mine.unlink()
    if not lost:
        return
    kind = Event.ENTRIES_LOST
    entries = "one entry was" if lost == 1 else f"{lost} entries were"
    fields = {
        "MESSAGE_ID": kind.message_id,
        "S3MOUNT_ACTION": kind.action,
        "S3MOUNT_RESULT": kind.result,
        "PRIORITY": str(_ERROR),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    if not _send(f"{entries} lost while the journal took none", fields):
        _count_lost(lost)


def say(line: str) -> None:
    """One line on stdout, at once; a stdout that nobody reads any more is no reason to fail."""
    if sys.stdout is None:  # closed when we were started
        return
    try:
        sys.stdout.write(masked(line) + "\n")
        sys.stdout.flush()
    except OSError:
        pass
