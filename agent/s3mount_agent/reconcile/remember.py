"""Writing down what is known of the mounts, so that status can be quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from s3mount_agent.core.errors import Problem
from s3mount_agent.core.health import Condition
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import look
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.state import held, status_file


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
    observed = observe(context.supervisor)
    rows = []
    for mount in context.mounts:
        known = before.row(mount.id) if before else None
        if known is not None and tried is not None and mount.id not in tried:
            rows.append(known)
            continue
        error = failures.get(mount.id)
        # A mount that is in use is up: it is the change to it that failed.
        busy = error if error and error.problem is Problem.MOUNT_BUSY else None
        rows.append(
            dataclasses.replace(
                known or status_file.fresh_row(mount),
                bucket=str(mount.bucket),
                read_only=mount.read_only,
                held=mount.id in down,
                pending=status_file.pending_of(busy) if busy else None,
                failure=status_file.failure_of(error) if error and not busy else None,
            )
        )
        if conditions is not None:
            condition = conditions.get(mount.id, Condition())
            placed = observed.placed.get(mount.id)
            rows[-1] = dataclasses.replace(
                rows[-1],
                hung=condition.hung,
                s3=condition.s3,
                pid=placed.pid if placed else None,
            )
    wanted = {mount.id for mount in context.mounts}
    leaving = [each for each in observed.placed.values() if each.id not in wanted]
    rows += map(status_file.leaving_row, leaving)
    sights = look.look(rows, observed)
    status_file.save(context.describe(installed), (sight.row for sight in sights))
    return sights
