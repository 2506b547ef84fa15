"""The status of a node: what the agent placed, what the mount table has, what was remembered of
each mount, and what follows. Touches no mount.

``status`` tells of this, unless a glance is enough (glance.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.options import Options
from s3mount_agent.core.states import Presence, Stranger
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus, judge
from s3mount_agent.decide.plan import Observed, Placed
from s3mount_agent.filesystem import holders, mountinfo, paths, procfs
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.state import held_down, status_file
from s3mount_agent.state.status_file import now
from s3mount_agent.supervisor import agent_service, fuse_connections
from s3mount_agent.supervisor.interface import Supervisor, supervisor

if TYPE_CHECKING:  # they would bring much to `status`, which needs nothing of it
    from s3mount_agent.mountpoint.program import Installed
    from s3mount_agent.reconcile.context import Context
    from s3mount_agent.reconcile.execute import Failures


_WAITS = (Problem.MOUNT_BUSY, Problem.MOUNT_ENDING)


def observe(supervisor: Supervisor, *, also: Collection[str] = ()) -> Observed:
    """The node as it is; ``also`` are directories of which it is to be told, too, what others have
    mounted there."""
    # In this order: what is up by now has its mount by then, and is not taken for one without.
    placed = supervisor.placed()
    return judge_table(placed, Table.read(), also=also)


def look_at(context: Context) -> Observed:
    """The node as it is, with what others have mounted where it wants mounts."""
    return observe(context.supervisor, also=[mount.directory for mount in context.mounts])


def judge_table(
    placed: Mapping[str, Placed], table: Table, *, also: Collection[str] = ()
) -> Observed:
    """What the mount table means for the mounts that the agent placed: which are its own.

    A directory without one has nothing of ours: whatever is mounted there is somebody else's.
    """
    presence = dict.fromkeys(mountinfo.reached(table), Presence.FOREIGN)
    strangers: dict[str, Stranger] = {}
    dead_binds: dict[str, tuple[tuple[str, str], ...]] = {}
    waiting: dict[str, str] = {}
    for directory, here in _by_directory(placed).items():
        connection = fuse_connections.load(directory)
        running = any(each.serves or each.starting for each in here)
        own = fuse_connections.ours(table, directory, connection, running=running)
        presence[directory], other = fuse_connections.lies_there(table, directory, own)
        if other is not None:
            strangers[directory] = holders.stranger(other)
        if connection is not None:
            binds = connection.dead_binds(table)
            if binds:
                dead_binds[directory] = tuple((each.directory, each.root) for each in binds)
            if connection.waiting and any(each.leaving for each in here):
                waiting[directory] = connection.waiting
    for directory in set(also) - strangers.keys():
        there = table.on(directory)
        if there is not None and presence[directory] is Presence.FOREIGN:
            strangers[directory] = holders.stranger(there)
    return Observed(placed, presence, strangers, dead_binds, waiting)


def _by_directory(placed: Mapping[str, Placed]) -> dict[str, list[Placed]]:
    found: dict[str, list[Placed]] = {}
    for each in placed.values():
        found.setdefault(each.definition.directory, []).append(each)
    return found


def judge_all(known: Iterable[MountStatus], observed: Observed) -> tuple[MountStatus, ...]:
    """Judges each remembered mount by what is observed."""
    return tuple(_see(mount, observed) for mount in known)


def _see(known: MountStatus, observed: Observed) -> MountStatus:
    placed = observed.placed.get(known.id)
    same = placed is not None and placed.pid == known.asked
    pid = placed.pid if placed and placed.serves else None
    pending = known.pending
    if pending is None and known.path in observed.waiting:
        pending = f"its unit is being stopped, which waits for {observed.waiting[known.path]}"
    mount = judge(
        known._replace(
            pending=pending,
            hung=known.hung and same,
            s3=known.s3 if same else None,
            presence=observed.on(known.path),
            alive=placed is not None and placed.serves,
            starting=placed is not None and placed.starting,
            lost=placed is not None and placed.lost,
            pid=pid,
            invocation=placed.invocation if placed and pid else "",
            started=_started(pid),
            stranger=observed.strangers.get(known.path),
            write_files=_write_files(pid),
            version=known.version if pid == known.pid else "",
            dead_binds=observed.dead_binds.get(known.path, ()),
        )
    )
    return mount if mount.state is known.state else mount._replace(since=now())


def _started(pid: int | None) -> str | None:
    ticks = procfs.started(pid) if pid else None
    return None if ticks is None else status_file.moment(procfs.moment(ticks))


def _write_files(pid: int | None) -> int | None:
    # Not of its definition, which may be newer than the process: shares change without a restart.
    words = procfs.arguments(pid) if pid else ()
    return Options.of(word for word in words if word.startswith("--")).write_files


def take() -> NodeStatus:
    """Looks at the node. Raises ``not-configured`` where there is nothing to look at."""
    known = status_file.load()
    if known is None:
        return _from_configuration()
    mode = Mode(known.node.get("mode", Mode.SYSTEMD.value))
    also = [mount.path for mount in known.mounts]
    mounts = judge_all(known.mounts, observe(supervisor(mode), also=also))
    up, broken = _running()
    return known._replace(
        mounts=mounts, age=status_file.age(known.at), service_up=up, broken=broken
    )


def _from_configuration() -> NodeStatus:
    """Before the daemon's first look after a boot: slower, and without what it remembers."""
    from s3mount_agent.config import desired
    from s3mount_agent.mountpoint import program
    from s3mount_agent.reconcile.context import gather

    context = gather(desired.in_force().configuration)
    down = held_down.load()
    rows = [
        status_file.fresh(
            mount, held=mount.id in down, required=mount.directory in context.required
        )
        for mount in context.mounts
    ]
    mounts = judge_all(rows, observe(context.supervisor))
    described = context.describe(program.find())
    return NodeStatus(described, mounts, status_file.now(), "just now", *_running())


def _running() -> tuple[bool, str | None]:
    return agent_service.is_up(), paths.broken_command()


def remember(
    context: Context,
    installed: Installed | None,
    failures: Failures,
    conditions: Mapping[str, Condition] | None = None,
    *,
    tried: Collection[str] | None = None,
    observed: Observed | None = None,
) -> tuple[MountStatus, ...]:
    """Looks at the mounts and saves what is seen; a state that lasts keeps its beginning.

    ``conditions`` are what the daemon's probes say; others do not know better than it. ``tried``
    are the ids of which ``failures`` tell (None: of all); what is known of others stays.
    ``observed`` is the node for who has seen it already, and changed nothing since.
    """
    before, down, required = status_file.load(), held_down.load(), context.required
    observed = observed or look_at(context)
    rows: list[MountStatus] = []
    for mount in context.mounts:
        known = before.mount(mount.id) if before else None
        if known is not None and tried is not None and mount.id not in tried:
            rows.append(known)
            continue
        row = known or status_file.fresh(mount)
        error = failures.get(mount.id)
        # A mount that is in use is up: it is the change to it that failed.
        busy = error if error and error.problem in _WAITS else None
        gone = observed.on(mount.directory) is Presence.ABSENT
        waiting = observed.waiting.get(mount.directory)
        pending, since = _pending(context, known, busy, waiting, gone=gone)
        if conditions is not None:
            row = _with_condition(row, conditions, observed)
        rows.append(
            row._replace(
                bucket=str(mount.bucket),
                read_only=mount.read_only,
                required=mount.directory in required,
                held=mount.id in down,
                pending=pending,
                pending_since=since,
                failure=status_file.failure_of(error) if error and not busy else None,
            )
        )
    wanted = {mount.id for mount in context.mounts}
    for placed in observed.placed.values():
        if placed.id not in wanted:
            rows.append(_leaving(context, placed, before, failures.get(placed.id)))
    mounts = tuple(_with_version(each, installed) for each in judge_all(rows, observed))
    status_file.save(context.describe(installed), mounts)
    return mounts


def _with_version(mount: MountStatus, installed: Installed | None) -> MountStatus:
    """The version that a new process runs: the node's, unless another package has come since."""
    if installed is None or mount.pid is None or mount.version:
        return mount
    known = fuse_connections.load(mount.path)
    with contextlib.suppress(AgentError):
        file = fuse_connections.file_of(installed.program)
        if known is not None and (known.pid, known.program) == (mount.pid, file):
            return mount._replace(version=str(installed))
    return mount


def _with_condition(
    row: MountStatus, conditions: Mapping[str, Condition], observed: Observed
) -> MountStatus:
    condition, placed = conditions.get(row.id, Condition()), observed.placed.get(row.id)
    pid = placed.pid if placed else None
    return row._replace(hung=condition.hung, s3=condition.s3, asked=pid)


def _pending(
    context: Context,
    known: MountStatus | None,
    busy: AgentError | None,
    waiting: str | None,
    *,
    gone: bool,
) -> tuple[str | None, str | None]:
    """What waits until a mount is free, with for whom and until when, and since when it does."""
    if busy is None and not waiting:
        return None, None
    since = (known.pending_since if known else None) or status_file.now()
    if busy is None:
        return f"its unit is being stopped, which waits for {waiting}", since
    until = status_file.later(since, context.configuration.busy_deadline)
    return status_file.pending_of(busy, until, gone=gone), since


def _leaving(
    context: Context, placed: Placed, before: NodeStatus | None, error: AgentError | None
) -> MountStatus:
    """A mount that is no longer wanted, but still there; ``error`` says why it is."""
    known = before.mount(placed.id) if before else None
    row = status_file.leaving(placed)
    since = (known.pending_since if known else None) or row.since
    pending = row.pending
    if error is not None and error.problem in _WAITS:
        until = status_file.later(since, context.configuration.busy_deadline)
        pending = status_file.pending_of(error, until, removal=True)
    elif error is not None:
        pending = f"it could not be removed: {error.message}"
    return row._replace(pending=pending, pending_since=since)
