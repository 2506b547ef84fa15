"""The words for what a mount is and what lies on its directory; decide/mount_status.py judges."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from s3mount_agent.core.errors import Exit


class State(str, Enum):
    """What a mount is, as status and the journal call it."""

    OK = "ok"
    STARTING = "starting"
    RETRYING = "retrying"
    DEGRADED = "degraded"
    HUNG = "hung"
    STALE = "stale"
    MISSING = "missing"
    FAILED = "failed"
    FOREIGN = "foreign"


class Presence(Enum):
    """What the mount table has on a directory: nothing, the mount of our own process, that beneath
    something else which is not ours (on the directory, or over one above it), or only the latter.
    """

    ABSENT = "absent"
    OURS = "ours"
    COVERED = "covered"
    FOREIGN = "foreign"

    @property
    def is_in_the_way(self) -> bool:
        """Whether something lies there that the agent never touches."""
        return self in (Presence.COVERED, Presence.FOREIGN)


class Stranger(NamedTuple):
    """A mount that is not the agent's: ``directory`` is where it lies, which may be above the one
    that it hides. ``uid`` is who mounted it, ``pid`` and ``command`` its process, as far as that is
    known; ``in_fstab``: /etc/fstab has a mount for that directory."""

    directory: str
    source: str
    fstype: str
    uid: int | None = None
    pid: int | None = None
    command: str = ""
    in_fstab: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it is known who put it there."""
        return bool(self.pid or self.uid or self.in_fstab)

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        found = [f"{self.source} ({self.fstype})"]
        if self.uid:
            found.append(f"mounted by user {self.uid}")
        if self.pid:
            found.append(f"served by pid {self.pid}: {self.command}")
        if self.in_fstab:
            found.append("which /etc/fstab mounts there")
        return ", ".join(found)

    @property
    def mend(self) -> str:
        """How somebody gets it out of the way."""
        if self.in_fstab:
            return (
                f"one of the two has to go: take {self.directory} out of /etc/fstab and unmount "
                "it, or take the mount out of the agent's configuration"
            )
        return (
            f"`umount {self.directory}` when nobody needs it; the agent never touches a mount that "
            "it did not make"
        )


class Failure(NamedTuple):
    """Why the last attempt failed: the problem's code, one sentence, a hint, and whether trying
    again can help."""

    code: str
    reason: str
    hint: str
    permanent: bool


class NodeState(str, Enum):
    """A node's state: that of its worst mount."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"

    @property
    def exit_code(self) -> Exit:
        """The exit code of ``status``."""
        return {"ok": Exit.OK, "degraded": Exit.DEGRADED, "failed": Exit.FAILED}[self.value]


def node_state(states: Iterable[State]) -> NodeState:
    """Sums the mounts' states up; a node without mounts is ok."""
    found = set(states)
    if State.FAILED in found:
        return NodeState.FAILED
    return NodeState.OK if found <= {State.OK} else NodeState.DEGRADED


def few_files(directory: str, files: int | None, cpus: int) -> str | None:
    """A warning where fewer files may be open for writing at once than a node has CPUs."""
    if files is None or files >= cpus:
        return None
    return (
        f"only {files} files can be open for writing at once on {directory}, and this node has "
        f"{cpus} CPUs: one more gets 'Cannot allocate memory'; raise its memory_target or weight, "
        "or memory_percent"
    )
