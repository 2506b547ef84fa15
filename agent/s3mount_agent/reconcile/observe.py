"""Looking at a node: what the agent placed, and what the mount table has. Touches no mount."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from s3mount_agent.core.plan import Observed, Placed
from s3mount_agent.core.states import Presence, Stranger
from s3mount_agent.supervisor import connections
from s3mount_agent.supervisor.protocol import Supervisor
from s3mount_agent.system import holders, mountinfo
from s3mount_agent.system.mountinfo import Table


def observe(supervisor: Supervisor, *, also: Collection[str] = ()) -> Observed:
    """The node as it is; ``also`` are directories of which it is to be told, too, what others have
    mounted there."""
    # In this order: what is up by now has its mount by then, and is not taken for one without.
    placed = supervisor.placed()
    return judge_table(placed, Table.read(), also=also)


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
        connection = connections.load(directory)
        running = any(each.serves or each.starting for each in here)
        own = connections.ours(table, directory, connection, running=running)
        presence[directory], other = connections.lies_there(table, directory, own)
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
