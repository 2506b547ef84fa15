"""A glance at a node: its status where nothing has changed since the daemon's last look.

The whole look (observe.py) asks systemd of each unit, and loads half of the agent for it. But as
long as the daemon holds its lock and every mount's unit and process are those that it saw, systemd
would answer what it answered then. All else is looked at anew in the same way: our own connection
lies on its directory, and nothing waits. A single mount for which that does not hold, and it is for
the whole look to tell, which knows all that can be the matter.
"""

from __future__ import annotations

from s3mount_agent.core.states import Presence
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus, judge
from s3mount_agent.filesystem import files, lock, paths, procfs
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.state import status_file
from s3mount_agent.supervisor import fuse_connections
from s3mount_agent.supervisor.fuse_connections import Connection


def take() -> NodeStatus | None:
    """The node's status, word for word as the whole look tells it; None where that has to look."""
    known = status_file.load()
    if known is None or lock.holder(paths.DAEMON_LOCK) is None:
        return None
    table = Table.read()
    mounts = []
    for mount in known.mounts:
        seen = _see(mount, table)
        if seen is None:
            return None
        mounts.append(seen)
    age = status_file.age(known.at)
    return known._replace(mounts=tuple(mounts), age=age, broken=paths.broken_command())


def _see(known: MountStatus, table: Table) -> MountStatus | None:
    connection = fuse_connections.load(known.path)
    if connection is None or known.pending or not _is_as_it_was(known, connection):
        return None
    own = fuse_connections.ours(table, known.path, connection, running=True)
    presence, _ = fuse_connections.lies_there(table, known.path, own)
    if presence is not Presence.OURS:
        return None
    same = known.pid == known.asked
    return judge(
        known._replace(
            hung=known.hung and same,
            s3=known.s3 if same else None,
            presence=presence,
            alive=True,
            started=status_file.moment(procfs.moment(connection.start)),
        )
    )


def _is_as_it_was(known: MountStatus, connection: Connection) -> bool:
    """Whether a mount's unit and process are those of the last look, and nobody has been left or is
    waited for since."""
    if not connection.device or connection.binds or connection.waiting:
        return False
    unit = f"mountpoint-s3-{known.id}.service"
    if not any(files.modified(place / unit) for place in paths.UNITS):
        return False
    invocation = procfs.invocation(unit)
    seen = (known.pid, known.invocation)
    return bool(invocation) and seen == (connection.pid, invocation) and connection.is_alive
