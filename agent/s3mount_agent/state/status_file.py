"""/run/s3mount-agent/status.json: what was last known of each mount, for who only wants to look."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Failure, State
from s3mount_agent.core.text import epoch
from s3mount_agent.decide.mount_status import REMEMBERED, MountStatus, NodeStatus
from s3mount_agent.filesystem import files, json_codec, paths
from s3mount_agent.state import in_force

if TYPE_CHECKING:
    from s3mount_agent.core.mounts import Mount
    from s3mount_agent.decide.plan import Placed

PATH = paths.RUN / "status.json"
_SCHEMA = 1
# core/node_roles.py has them, which who only looks need not load.
_MODES = ("systemd", "direct")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def moment(seconds: float) -> str:
    """A time (seconds since 1970) as it stands in the snapshot and in status."""
    return time.strftime(_TIME, time.gmtime(seconds))


def now() -> str:
    """The moment in which we are."""
    return moment(time.time())


def age(at: str) -> str:
    """How long ago a moment was, in words."""
    return f"{max(0, round(time.time() - epoch(at)))} s ago"


def fresh(mount: Mount, *, held: bool = False, required: bool = True) -> MountStatus:
    """A mount of which nothing is known yet."""
    bucket, at = str(mount.bucket), now()
    known = MountStatus(mount.id, mount.directory, bucket, mount.read_only, State.MISSING, at, held)
    return known._replace(required=required)


def leaving(placed: Placed) -> MountStatus:
    """A mount that is no longer wanted, but still there."""
    definition = placed.definition
    return MountStatus(
        placed.id,
        definition.directory,
        definition.bucket,
        definition.read_only,
        State.OK,
        now(),
        pending="it is to be removed when it is no longer in use",
        required=False,
    )


def pending_of(
    busy: AgentError, until: str = "", *, gone: bool = False, removal: bool = False
) -> str:
    """What status says of a change, or a ``removal``, that waits for its mount to be free (at the
    longest ``until``, UTC), or has waited enough; ``gone``: it is unmounted already, and waits to
    come back, however long that takes."""
    from s3mount_agent.decide.retry_policy import is_lasting  # who only looks needs nothing of it

    if gone:
        return f"{busy.message}: {busy.cause}" if busy.cause else busy.message
    what = "it is to be removed, which waits" if removal else "its new options wait"
    message = f"{busy.message} by {busy.cause}" if busy.cause else busy.message
    if not is_lasting(busy):
        return f"{what}: {message}" + (f", until {until} at the longest" * bool(until))
    return f"{what} for the next `s3mount-agent apply`: {message}"


def later(at: str, seconds: float) -> str:
    """A moment of :func:`now` and so many seconds."""
    return moment(epoch(at) + seconds)


def failure_of(error: AgentError) -> Failure:
    """An error as it is remembered."""
    from s3mount_agent.decide.retry_policy import is_lasting

    return Failure(error.problem.code, error.message, error.hint, permanent=is_lasting(error))


def error_of(failure: Failure) -> AgentError:
    """The inverse of :func:`failure_of`, without its cause."""
    from s3mount_agent.decide.retry_policy import is_lasting

    known = {problem.code: problem for problem in Problem}
    problem = known.get(failure.code, Problem.MOUNT_FAILED)
    error = AgentError(problem, failure.reason, hint=failure.hint)
    if is_lasting(error) is failure.permanent:
        return error
    return error.retried_for(0 if failure.permanent else math.inf)


def load(path: Path = PATH) -> NodeStatus | None:
    """The last snapshot since the node booted, or None if there is none that can be read."""
    return json_codec.read(path, _build)


def save(node: Mapping[str, str], mounts: Iterable[MountStatus], path: Path = PATH) -> None:
    """Writes a snapshot; where there is no space for two, the old one makes room.

    Without one, status is slower. With an old one it would be wrong.
    """
    rows = [_remembered(mount) for mount in mounts]
    record = {"at": now(), "of": in_force.version(), "node": dict(node), "mounts": rows}
    document = {"schema": _SCHEMA, **record}
    text = json.dumps(document) + "\n"
    try:
        files.write(path, text)
    except AgentError as error:
        if error.problem is not Problem.NO_SPACE:
            raise
        files.remove(path)
        files.write(path, text)


def _remembered(mount: MountStatus) -> dict[str, object]:
    values = {name: getattr(mount, name) for name in REMEMBERED}
    failures = {n: value._asdict() for n, value in values.items() if isinstance(value, Failure)}
    return {**values, **failures}


def _build(fields: Any) -> NodeStatus | None:
    if fields["schema"] != _SCHEMA:
        return None
    node = json_codec.named_texts(fields["node"])
    if node.get("mode", _MODES[0]) not in _MODES:
        raise ValueError(f"there is no mode {node['mode']!r}")
    mounts = tuple(map(_mount, json_codec.field(fields, "mounts", list)))
    # An agent before this one did not say of which configuration it tells.
    of = json_codec.optional(fields, "of", str)
    behind = of is not None and of != in_force.version()
    return NodeStatus(node, mounts, _moment(json_codec.field(fields, "at", str)), behind=behind)


def _moment(at: str) -> str:
    epoch(at)
    return at


def _mount(fields: Any) -> MountStatus:
    pending = json_codec.optional(fields, "pending_since", str)
    return MountStatus(
        id=json_codec.field(fields, "id", str),
        path=json_codec.field(fields, "path", str),
        bucket=json_codec.field(fields, "bucket", str),
        read_only=json_codec.field(fields, "read_only", bool),
        state=State(fields["state"]),
        since=_moment(json_codec.field(fields, "since", str)),
        held=json_codec.field(fields, "held", bool, default=False),
        pending=json_codec.optional(fields, "pending", str),
        pending_since=_moment(pending) if pending is not None else None,
        failure=_failure(fields.get("failure")),
        hung=json_codec.field(fields, "hung", bool, default=False),
        s3=_failure(fields.get("s3")),
        asked=json_codec.optional(fields, "asked", int),
        pid=json_codec.optional(fields, "pid", int),
        invocation=json_codec.field(fields, "invocation", str, default=""),
        write_files=json_codec.optional(fields, "write_files", int),
        required=json_codec.field(fields, "required", bool, default=True),
        version=json_codec.field(fields, "version", str, default=""),
    )


def _failure(fields: Any) -> Failure | None:
    if fields is None:
        return None
    code, reason, hint = (
        json_codec.field(fields, name, str) for name in ("code", "reason", "hint")
    )
    return Failure(code, reason, hint, permanent=json_codec.field(fields, "permanent", bool))
