"""What status shows: the daemon's last snapshot, held against the node as it is now."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass

from s3mount_agent.core.roles import Mode
from s3mount_agent.reconcile import look
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.state import held, status_file
from s3mount_agent.supervisor import service
from s3mount_agent.supervisor.protocol import supervisor


@dataclass(frozen=True)
class Overview:
    """The node's facts, its mounts, how old the knowledge is that cannot be had live (``age`` in
    words, ``at`` in UTC), and whether the agent's service runs."""

    node: Mapping[str, str]
    sights: tuple[Sight, ...]
    age: str
    at: str
    service_up: bool


def take() -> Overview:
    """Looks at the node. Raises ``not-configured`` where there is nothing to look at."""
    known = status_file.load()
    if known is None:
        return _from_configuration()
    mode = Mode(known.node.get("mode", Mode.SYSTEMD.value))
    also = [row.path for row in known.rows]
    sights = look.look(known.rows, observe(supervisor(mode), also=also))
    return Overview(known.node, sights, _age(known.at), known.at, service.is_up())


def _from_configuration() -> Overview:
    """Before the daemon's first look after a boot: slower, and without what it remembers."""
    from s3mount_agent.config import desired
    from s3mount_agent.mountpoint import program
    from s3mount_agent.reconcile.context import gather

    context = gather(desired.in_force().configuration)
    down = held.load()
    rows = [status_file.fresh_row(mount, held=mount.id in down) for mount in context.mounts]
    sights = look.look(rows, observe(context.supervisor))
    told = context.describe(program.find())
    return Overview(told, sights, "just now", status_file.now(), service.is_up())


def _age(at: str) -> str:
    seconds = time.time() - calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))
    return f"{max(0, round(seconds))} s ago"
