"""What is known of one mount, in one record: from the look at it to the line on a screen.

The one place that says what state a mount is in: :func:`judge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from s3mount_agent.core.states import (
    Failure,
    NodeState,
    Presence,
    State,
    Stranger,
    node_state,
)

# What is written down between two looks; the rest is seen anew each time.
REMEMBERED = (
    "id",
    "path",
    "bucket",
    "read_only",
    "state",
    "since",
    "held",
    "pending",
    "pending_since",
    "failure",
    "hung",
    "s3",
    "asked",
    "pid",
    "invocation",
    "write_files",
    "required",
    "version",
)


class MountStatus(NamedTuple):
    """One mount: what is remembered of it, what is seen of it now, and what follows from both.

    Remembered: ``since`` is when it came into ``state`` (UTC); ``held``: an administrator took it
    down; ``pending``: what waits until the mount is no longer in use, with who uses it and until
    when; ``failure``: the last attempt's, if it failed; ``hung``: it does not answer, which was
    confirmed; ``s3``: why S3 cannot be used through it; ``asked``: the process of which these two
    tell. Of the process that was seen: ``pid``, ``invocation``, systemd's name for its run, and
    ``write_files``, how many files may be open for writing at once, None where nothing limits that,
    and ``version``, that of the mount-s3 which it runs, where that is known. ``required``: the node
    is not whole without it; the configuration does not let it fail.

    Seen: ``presence``: what lies on its directory; ``alive``: its process runs; ``starting``: it is
    on its way up; ``lost``: its unit was deleted while it runs; ``started``: since when its process
    runs (UTC); ``stranger``: what lies there instead of our own mount, or over it; ``dead_binds``:
    bind mounts of what had been mounted here before, as where and which directory of it.

    What follows: ``state``, and the ``reason`` and the ``hint`` that go with it (None where there
    is nothing to say).
    """

    id: str
    path: str
    bucket: str
    read_only: bool
    state: State = State.MISSING
    since: str = ""
    held: bool = False
    pending: str | None = None
    pending_since: str | None = None
    failure: Failure | None = None
    hung: bool = False
    s3: Failure | None = None
    asked: int | None = None
    pid: int | None = None
    invocation: str = ""
    write_files: int | None = None
    required: bool = True
    version: str = ""
    presence: Presence = Presence.ABSENT
    alive: bool = False
    starting: bool = False
    lost: bool = False
    started: str | None = None
    stranger: Stranger | None = None
    dead_binds: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    hint: str | None = None

    @property
    def mends(self) -> tuple[str, ...]:
        """The command for each of its dead bind mounts that makes it live again."""
        if not self.dead_binds:
            return ()
        import shlex  # nearly never

        return tuple(
            f"umount {shlex.quote(there)} && mount --bind "
            f"{shlex.quote(self.path + root.rstrip('/'))} {shlex.quote(there)}"
            for there, root in self.dead_binds
        )

    @property
    def shown_since(self) -> str:
        """Since when what is shown is so: where there is a process, since it runs."""
        return self.started or self.since

    def judged(
        self, state: State, reason: str | None = None, hint: str | None = None
    ) -> MountStatus:
        """The same in this state."""
        return self._replace(state=state, reason=reason, hint=hint)

    def without_hint(self) -> MountStatus:
        """The same for where there is little room: the command without --json tells the hint."""
        return self._replace(hint=None)

    def to_json(self) -> dict[str, object]:
        """The mount as ``status --json`` shows it, without what does not apply."""
        shown: dict[str, object] = {
            "path": self.path,
            "bucket": self.bucket,
            "state": self.state.value,
            "reason": self.reason,
            "hint": self.hint,
            "since": self.shown_since,
            "pid": self.pid,
            "read_only": self.read_only,
        }
        if self.write_files is not None:
            shown["write_files"] = self.write_files
        if self.pending:
            shown["pending"] = self.pending
        if self.dead_binds:
            shown["dead_binds"] = [directory for directory, _ in self.dead_binds]
        return shown


def judge(mount: MountStatus) -> MountStatus:
    """The same with its state, and the reason and the hint that go with it, told from the mount."""
    if mount.presence.is_in_the_way:
        return _judge_foreign(mount)
    if mount.presence is Presence.OURS:
        return _judge_mounted(mount)
    if mount.held:
        return mount.judged(
            State.MISSING,
            "an administrator unmounted it",
            "`s3mount-agent apply` or a reboot brings it back",
        )
    if mount.failure is not None:
        state = State.FAILED if mount.failure.permanent else State.RETRYING
        return mount.judged(state, mount.failure.reason, mount.failure.hint)
    if mount.starting:
        return mount.judged(State.STARTING, "mount-s3 is starting")
    if mount.alive and mount.pending:
        return mount.judged(
            State.MISSING,
            "mount-s3 runs, but its mount is gone: it was unmounted under who uses it",
            "it comes back when they are done, and nothing that they write is lost",
        )
    reason = "mount-s3 runs, but its mount is gone" if mount.alive else "it is not mounted"
    return mount.judged(
        State.MISSING,
        reason,
        "the agent brings it back; `journalctl _UID=0 -t s3mount-agent` tells more",
    )


def _judge_foreign(mount: MountStatus) -> MountStatus:
    stranger = mount.stranger
    what = f": {stranger.words}" if stranger else ""
    where = stranger.directory if stranger else "this directory"
    if mount.presence is Presence.COVERED:
        reason = f"something else is mounted on {where}, over the agent's mount{what}"
    else:
        reason = f"something else is mounted on this directory{what}"
    mend = (
        stranger.mend
        if stranger
        else ("unmount it; the agent never touches a mount that it did not make")
    )
    return mount.judged(State.FOREIGN, reason, mend)


def _judge_mounted(mount: MountStatus) -> MountStatus:
    if mount.alive and mount.hung:
        return mount.judged(
            State.HUNG,
            "mount-s3 does not answer",
            "if that lasts, the agent ends it and mounts again; open files are lost then",
        )
    if mount.alive and mount.s3 is not None:
        return mount.judged(State.DEGRADED, mount.s3.reason, mount.s3.hint)
    if mount.alive and mount.lost:
        note = "its unit was deleted while it runs"
        return mount.judged(State.OK, note, "the agent writes it again, without a new mount")
    if mount.alive:
        return mount.judged(State.OK)
    if mount.starting:
        return mount.judged(State.STARTING, "mount-s3 is starting")
    return mount.judged(
        State.STALE,
        "mount-s3 has ended and left its mount behind",
        "the agent clears it and mounts again; programs must open their files anew",
    )


def sum_up(mounts: Iterable[MountStatus]) -> NodeState:
    """The node's state: with a change that waits it is not as its configuration says."""
    mounts = tuple(mounts)
    state = node_state(mount.state for mount in mounts)
    waits = any(mount.pending for mount in mounts)
    return NodeState.DEGRADED if waits and state is NodeState.OK else state


class NodeStatus(NamedTuple):
    """A node and its mounts at a moment.

    ``node`` holds the node's own facts; ``at`` is when that was learned which cannot be had live
    (UTC), and ``age`` the same in words; ``service_up``: the agent's service runs. ``broken`` is
    why the agent's command cannot, if it cannot: then no hook of a mount can, either. ``behind``: a
    newer configuration is in force than was carried out by then.
    """

    node: Mapping[str, str]
    mounts: tuple[MountStatus, ...]
    at: str
    age: str = ""
    service_up: bool = True
    broken: str | None = None
    behind: bool = False

    @property
    def state(self) -> NodeState:
        """The node's: it is not all well with mounts that would not come back, or are to change."""
        state = sum_up(self.mounts)
        unwell = self.broken or self.behind
        return NodeState.DEGRADED if unwell and state is NodeState.OK else state

    def outdated(self, mount: MountStatus) -> str:
        """What there is to say of a mount that runs another mount-s3 than the node has by now."""
        installed = self.node.get("mount_s3")
        if not mount.version or not installed or mount.version == installed:
            return ""
        return f"running {mount.version}, installed {installed}: takes effect at the next mount"

    def mount(self, mount_id: str) -> MountStatus | None:
        """What is known of a mount."""
        return next((mount for mount in self.mounts if mount.id == mount_id), None)
