"""What is told in the journal: one row per kind of event, with a MESSAGE_ID that never changes."""

from __future__ import annotations

from enum import Enum


class Event(Enum):
    """A row per kind: S3MOUNT_ACTION=, S3MOUNT_RESULT=, MESSAGE_ID=, and what it means."""

    STARTED = (
        "start",
        "done",
        "89f9b6c0ae9024e15e722e3a4537358c",
        "a mount was made, or is being made",
    )
    START_FAILED = (
        "start",
        "failed",
        "0ce98e63976fc971bd76a952793f715c",
        "a mount could not be made",
    )
    ENDED = (
        "health",
        "ended",
        "47693c92196e4b6db70786b400922440",
        "mount-s3 of a mount that was up has ended",
    )
    RECOVERED = (
        "start",
        "recovered",
        "7d5ee7bbf9b002d193e0fd2c2789a640",
        "a mount that had failed is up again",
    )
    HUNG = (
        "health",
        "hung",
        "ac8486b7504994e304887866895698c0",
        "mount-s3 did not answer and was ended",
    )
    DEGRADED = (
        "health",
        "degraded",
        "7132066120f026d062bf9e845561d9dc",
        "a mount is up, but S3 cannot be used through it",
    )
    FOREIGN = (
        "health",
        "foreign",
        "6f0a94fb530e4163ae002f78cdc4d3a1",
        "something else was mounted on a mount's directory",
    )
    HEALED = (
        "health",
        "recovered",
        "3c7455e4f1400d79f3cd537e6607db4f",
        "a mount that was degraded or foreign can be used again",
    )
    STOPPED = ("stop", "done", "f224cfedb4459fc10247ff45137ea399", "a mount was taken down")
    STOP_FAILED = (
        "stop",
        "failed",
        "cfd1442f89c0c92a3fb809304794baeb",
        "a mount could not be taken down, for example because it is in use",
    )
    WRITE_FAILED = (
        "write",
        "failed",
        "6ccbf7984f2e1468acd18591bd8511f5",
        "a unit, or the file of metrics, could not be written",
    )
    CYCLE_FAILED = (
        "cycle",
        "failed",
        "3ccf0bf2463e89201325cb2b17b7d4f5",
        "the service could not look after the mounts at all",
    )
    REFRESHED = (
        "refresh",
        "done",
        "8e69b8a7df5306efb3ecf5bcb2cb999b",
        "a new version of the configuration is in force",
    )
    REFUSED = (
        "refresh",
        "refused",
        "bfadaed27ab11b3f93a9193cffcf8138",
        "a new version of the configuration is wrong and was refused",
    )
    UNREACHABLE = (
        "refresh",
        "failed",
        "b0dcfbfd9313f17d373becfae454c3a9",
        "the configuration's source is out of reach",
    )
    EDITED = (
        "configuration",
        "edited",
        "e618a1862b4b4eb7a2b393fa94dbc7ea",
        "config.yaml is not what is in force: it was edited, damaged or removed",
    )
    DAMAGED = (
        "state",
        "damaged",
        "6f92fb1d47314b3088e406c42a523709",
        "a file of the agent's own was damaged and is made anew",
    )
    ENTRIES_LOST = (
        "journal",
        "lost",
        "5a38df30788e418f992e5828af6cc154",
        "journald did not take some entries: it was stopped, or had too much to do",
    )

    def __init__(self, action: str, result: str, message_id: str, about: str) -> None:
        self.action = action
        self.result = result
        self.message_id = message_id
        self.about = about

    @property
    def is_bad(self) -> bool:
        """Whether somebody should know."""
        return self.result not in ("done", "recovered")
