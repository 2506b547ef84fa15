"""Writing down what is known of the mounts, so that status can be quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from s3mount_agent.doors.mount_s3 import Installed
from s3mount_agent.model.mounts import Mount
from s3mount_agent.work import held, look, snapshot
from s3mount_agent.work.context import Context
from s3mount_agent.work.observe import observe
from s3mount_agent.work.reconcile import Failures


def remember(
    mounts: Iterable[Mount],
    context: Context,
    installed: Installed | None,
    failures: Failures,
) -> tuple[look.Sight, ...]:
    """Looks at the mounts and saves what is seen; a state that lasts keeps its beginning."""
    before = snapshot.load()
    down = held.load()
    rows = []
    for mount in mounts:
        known = before.row(mount.id) if before else None
        error = failures.get(mount.id)
        rows.append(
            dataclasses.replace(
                known or snapshot.fresh_row(mount),
                bucket=str(mount.bucket),
                read_only=mount.read_only,
                held=mount.id in down,
                failure=snapshot.failure_of(error) if error else None,
            )
        )
    sights = look.look(rows, observe(context.supervisor))
    snapshot.save(context.describe(installed), (sight.row for sight in sights))
    return sights
