"""The journal: one entry per event, with fields to search for.

systemd-python comes from the node's distribution, and only with the first bootstrap; without it, or
under another interpreter, journald is spoken to in its own protocol.
"""

from __future__ import annotations

import contextlib
import importlib
import struct
import sys
from pathlib import Path
from typing import Callable

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.events import Event
from s3mount_agent.system import process

IDENTIFIER = "s3mount-agent"
_SOCKET = Path("/run/systemd/journal/socket")
# journald's priorities: syslog(3).
_WARNING, _INFO = 4, 6
# A journal that takes nothing must not keep us from the mounts.
_JOURNAL_SECONDS = 1.0


def event(
    kind: Event,
    message: str,
    *,
    mount: str = "",
    bucket: str = "",
    error_code: str = "",
    cause: str = "",
) -> None:
    """Writes one entry; ``journalctl S3MOUNT_MOUNT=/mnt/s3`` tells the story of one mount."""
    send = _sender()
    if send is None:
        return
    fields = {
        "S3MOUNT_ACTION": kind.action,
        "S3MOUNT_RESULT": kind.result,
        "S3MOUNT_MOUNT": mount,
        "S3MOUNT_BUCKET": bucket,
        "S3MOUNT_ERROR_CODE": error_code,
        "S3MOUNT_CAUSE": cause,
        "PRIORITY": str(_WARNING if kind.is_bad else _INFO),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    kept = {name: value for name, value in fields.items() if value}
    with contextlib.suppress(OSError):
        send(message, MESSAGE_ID=kind.message_id, **kept)


def record(line: str) -> None:
    """Writes a line as it is, for programs that read the journal."""
    send = _sender()
    if send is not None:
        with contextlib.suppress(OSError):
            send(line, PRIORITY=str(_INFO), SYSLOG_IDENTIFIER=f"{IDENTIFIER}-metrics")


def last_words(identifier: str, pid: int) -> str:
    """The last warnings that a process logged, at most five minutes old; nothing where there is no
    journal, or one that cannot be read now."""
    command = [
        "journalctl",
        "--no-pager",
        "--quiet",
        "--output=cat",
        "--lines=10",
        "--since=-5min",
        "--priority=warning",
        f"--identifier={identifier}",
        f"_PID={pid}",
    ]
    try:
        return process.run(command, timeout=10, check=False).stdout
    except AgentError:
        return ""


def _sender() -> Callable[..., None] | None:
    try:
        journal = importlib.import_module("systemd.journal")
    except ImportError:
        return _send if _SOCKET.exists() else None
    send: Callable[..., None] = journal.send
    return send


def _send(message: str, **fields: str) -> None:
    """journald's own protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    import socket

    parts = []
    for name, value in {"MESSAGE": message, **fields}.items():
        data = value.encode(errors="replace")
        parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_UNIX, kind) as channel:
        channel.settimeout(_JOURNAL_SECONDS)
        channel.sendto(b"".join(parts), str(_SOCKET))


def say(line: str) -> None:
    """One line on stdout, at once; a stdout that nobody reads any more is no reason to fail."""
    if sys.stdout is None:  # closed when we were started
        return
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        pass
