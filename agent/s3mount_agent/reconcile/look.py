"""The state of every mount now: what was remembered, held against what can be seen at no cost."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from s3mount_agent.core.options import Options
from s3mount_agent.core.plan import Observed
from s3mount_agent.core.states import Facts, Judgement, NodeState, judge, node_state
from s3mount_agent.state.origin import Origin
from s3mount_agent.state.status_file import Row, now
from s3mount_agent.system import process


@dataclass(frozen=True)
class Sight:
    """One mount as it is now."""

    row: Row
    judgement: Judgement
    pid: int | None
    write_files: int | None = None
    """How many files may be open for writing at once, by the target that its process was started
    with; None where nothing limits that."""
    dead_binds: tuple[tuple[str, str], ...] = ()
    """Bind mounts of what had been mounted here before: where, and which directory of it."""

    @property
    def mends(self) -> tuple[str, ...]:
        """The command for each of them that makes it live again."""
        return tuple(
            f"umount {shlex.quote(there)} && mount --bind "
            f"{shlex.quote(self.row.path + root.rstrip('/'))} {shlex.quote(there)}"
            for there, root in self.dead_binds
        )

    def without_hint(self) -> Sight:
        """The same for where there is little room: the command without --json tells the hint."""
        return dataclasses.replace(self, judgement=dataclasses.replace(self.judgement, hint=None))

    def to_json(self) -> dict[str, object]:
        """The mount as ``status --json`` shows it, without what does not apply."""
        shown: dict[str, object] = {
            "path": self.row.path,
            "bucket": self.row.bucket,
            "state": self.judgement.state.value,
            "reason": self.judgement.reason,
            "hint": self.judgement.hint,
            "since": self.row.since,
            "pid": self.pid,
            "read_only": self.row.read_only,
        }
        if self.write_files is not None:
            shown["write_files"] = self.write_files
        if self.row.pending:
            shown["pending"] = self.row.pending
        if self.dead_binds:
            shown["dead_binds"] = [directory for directory, _ in self.dead_binds]
        return shown


def look(rows: Iterable[Row], observed: Observed) -> tuple[Sight, ...]:
    """Judges each remembered mount by what is observed."""
    return tuple(_see(row, observed) for row in rows)


def sum_up(sights: Iterable[Sight]) -> NodeState:
    """The node's state: with a change that waits it is not as its configuration says."""
    sights = tuple(sights)
    state = node_state(sight.judgement.state for sight in sights)
    waits = any(sight.row.pending for sight in sights)
    return NodeState.DEGRADED if waits and state is NodeState.OK else state


def document(
    node: Mapping[str, str],
    sights: tuple[Sight, ...],
    origin: Origin | None,
    at: str = "",
    pending: str | None = None,
) -> dict[str, object]:
    """What ``status --json`` prints: ``at`` is when the daemon last looked; ``config`` is there
    where a source is followed, and where config.yaml waits to be put in force (``pending``)."""
    shown: dict[str, object] = {
        "schema": 1,
        "state": sum_up(sights).value,
        "node": {**node, "at": at} if at else dict(node),
        "mounts": [sight.to_json() for sight in sights],
    }
    followed = {"pending": pending}
    if origin is not None:
        known = {"source": origin.shown_url, "version": origin.shown, "problem": origin.problem}
        followed = {**known, **followed}
    if any(followed.values()):
        shown["config"] = {key: value for key, value in followed.items() if value}
    return shown


def _see(row: Row, observed: Observed) -> Sight:
    placed = observed.placed.get(row.id)
    same = placed is not None and placed.pid == row.pid
    judgement = judge(
        Facts(
            presence=observed.on(row.path),
            alive=placed is not None and placed.serves,
            starting=placed is not None and placed.starting,
            held=row.held,
            failure=row.failure,
            hung=row.hung and same,
            s3=row.s3 if same else None,
            stranger=observed.strangers.get(row.path),
        )
    )
    if judgement.state is not row.state:
        row = dataclasses.replace(row, state=judgement.state, since=now())
    if row.pending is None and row.path in observed.waiting:
        told = f"its unit is being stopped, which waits for {observed.waiting[row.path]}"
        row = dataclasses.replace(row, pending=told)
    pid = placed.pid if placed and placed.serves else None
    return Sight(
        row,
        judgement,
        pid,
        write_files=_write_files(pid),
        dead_binds=observed.dead_binds.get(row.path, ()),
    )


def _write_files(pid: int | None) -> int | None:
    # Not of its definition, which may be newer than the process: shares change without a restart.
    words = process.arguments(pid) if pid else ()
    return Options.of(word for word in words if word.startswith("--")).write_files
