"""Writing down what is known of the mounts, so that status can be quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.health import Condition
from s3mount_agent.core.plan import Observed, Placed
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import look
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.state import held, status_file
from s3mount_agent.state.status_file import Row


def remember(
    context: Context,
    installed: Installed | None,
    failures: Failures,
    conditions: Mapping[str, Condition] | None = None,
    *,
    tried: Collection[str] | None = None,
) -> tuple[look.Sight, ...]:
    """Looks at the mounts and saves what is seen; a state that lasts keeps its beginning.

    ``conditions`` are what the daemon's probes say; others do not know better than it. ``tried``
    are the ids of which ``failures`` tell (None: of all); what is known of others stays.
    """
    before = status_file.load()
    down = held.load()
    observed = observe(context.supervisor, also=[mount.directory for mount in context.mounts])
    rows: list[Row] = []
    for mount in context.mounts:
        known = before.row(mount.id) if before else None
        if known is not None and tried is not None and mount.id not in tried:
            rows.append(known)
            continue
        row = known or status_file.fresh_row(mount)
        error = failures.get(mount.id)
        # A mount that is in use is up: it is the change to it that failed.
        busy = error if error and error.problem is Problem.MOUNT_BUSY else None
        pending, since = _pending(context, known, busy, observed.waiting.get(mount.directory))
        if conditions is not None:
            row = _with_condition(row, conditions, observed)
        rows.append(
            dataclasses.replace(
                row,
                bucket=str(mount.bucket),
                read_only=mount.read_only,
                held=mount.id in down,
                pending=pending,
                pending_since=since,
                failure=status_file.failure_of(error) if error and not busy else None,
            )
        )
    wanted = {mount.id for mount in context.mounts}
    for placed in observed.placed.values():
        if placed.id not in wanted:
            rows.append(_leaving(placed, before, failures.get(placed.id)))
    sights = look.look(rows, observed)
    status_file.save(context.describe(installed), (sight.row for sight in sights))
    return sights


def _with_condition(row: Row, conditions: Mapping[str, Condition], observed: Observed) -> Row:
    condition, placed = conditions.get(row.id, Condition()), observed.placed.get(row.id)
    pid = placed.pid if placed else None
    return dataclasses.replace(row, hung=condition.hung, s3=condition.s3, pid=pid)


def _pending(
    context: Context, known: Row | None, busy: AgentError | None, waiting: str | None
) -> tuple[str | None, str | None]:
    """What waits until a mount is free, with for whom and until when, and since when it does."""
    if busy is None and not waiting:
        return None, None
    since = (known.pending_since if known else None) or status_file.now()
    if busy is None:
        return f"its unit is being stopped, which waits for {waiting}", since
    until = status_file.later(since, context.configuration.busy_deadline)
    return status_file.pending_of(busy, until), since


def _leaving(placed: Placed, before: status_file.Snapshot | None, error: AgentError | None) -> Row:
    """A mount that is no longer wanted, but still there."""
    known = before.row(placed.id) if before else None
    row = status_file.leaving_row(placed, error)
    since = (known.pending_since if known else None) or row.since
    return dataclasses.replace(row, pending_since=since)
