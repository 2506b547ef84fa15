"""Taking mounts down."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Observed, plan
from s3mount_agent.filesystem import files, paths
from s3mount_agent.mountpoint import program
from s3mount_agent.reconcile import execute
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.observe import observe, remember
from s3mount_agent.reconcile.session import Session, node_session
from s3mount_agent.state import held_down
from s3mount_agent.system import journal, systemd

_LOCK_SECONDS = 120.0
_THERE = (Presence.OURS, Presence.COVERED)


def unmount(directories: Collection[str] | None) -> list[AgentError]:
    """Takes down the mounts on these directories (None: all) until the next boot or bootstrap.

    Returns what stood in the way. Raises ``mount-unknown`` for a directory that is none of ours.
    """
    with node_session("unmount", timeout=_LOCK_SECONDS) as session:
        context = session.context
        require_changeable(context)
        ids = _ids(directories, session)
        failures = take_down(ids, session)
        remember(context, program.find(), {}, tried=ids)
    return list(failures.values())


def require_changeable(context: Context, *, also: Collection[Path] = ()) -> None:
    """Refuses to begin what could not be brought to its end: mounts that are down, with units that
    cannot be removed, would come back by themselves, and nobody would know why."""
    units = (systemd.ETC,) if context.conduct.mode is Mode.SYSTEMD else ()
    for directory in (paths.RUN, paths.STATE, *units, *also):
        files.require_writable(directory)


def take_down(ids: frozenset[str], session: Session) -> Failures:
    """Carries out the plan of a node that has only these mounts, and wants none of them."""
    context, observed = session.context, session.observed
    before = held_down.load()
    # Held first: the daemon may look at any moment, and must not bring them back.
    held_down.save(before | ids)
    here = {mount.id: mount.directory for mount in context.mounts if mount.id in ids}
    placed = {each.id: each for each in observed.placed.values() if each.id in ids}
    observed = dataclasses.replace(observed, placed=placed)
    todo = plan((), observed)
    # Nothing is wrong with them, and they are still wanted: this is who wants them down, and why.
    by_hand = (
        dataclasses.replace(a, because="an administrator takes it down") for a in todo.actions
    )
    todo = dataclasses.replace(todo, actions=tuple(by_hand))
    start = context.supervisor.start_later  # of nothing
    failures = execute.carry_out(todo, (), observed, context, start=start)
    for each in placed.values():
        if each.definition.directory in todo.foreign:
            failures[each.id] = covered(each.definition.directory, observed)
    # One that is unmounted here and lives on for others is to stay down all the same.
    after = observe(context.supervisor)
    up = {each.id for each in placed.values() if after.on(each.definition.directory) in _THERE}
    held_down.save(before | ids.difference(failures.keys() & up))
    here.update({each.id: each.definition.directory for each in placed.values()})
    for mount_id, directory in here.items():
        journal.say(f"{directory}: {_outcome(mount_id, directory, failures, observed)}")
    return failures


def covered(directory: str, observed: Observed) -> AgentError:
    """Why a mount that lies under something else is not taken down (``directory-in-use``)."""
    stranger = observed.strangers.get(directory)
    what = f": {stranger.words}" if stranger else ""
    where = stranger.directory if stranger else directory
    return AgentError(
        Problem.DIRECTORY_IN_USE,
        f"something else is mounted on {where}, over the agent's mount{what}",
        hint=stranger.mend if stranger else None,
    )


def _outcome(mount_id: str, directory: str, failures: Failures, observed: Observed) -> str:
    error = failures.get(mount_id)
    if error is not None:
        in_use = error.message == f"{directory} is in use"
        return "in use" if in_use else error.message
    stranger = observed.strangers.get(directory)
    outcome = "unmounted" if mount_id in observed.placed else "no mount of the agent is there"
    return f"{outcome}; not touched: {stranger.words}" if stranger else outcome


def _ids(directories: Collection[str] | None, session: Session) -> frozenset[str]:
    """The wanted mounts on these directories, and those of ours that are still there."""
    wanted = [(mount.id, mount.directory) for mount in session.context.mounts]
    placed = [(each.id, each.definition.directory) for each in session.observed.placed.values()]
    known = {*wanted, *placed}
    unknown = sorted(set(directories or ()) - {directory for _, directory in known})
    if unknown:
        raise AgentError(
            Problem.MOUNT_UNKNOWN, f"{unknown[0]} is not the directory of a mount of this node"
        )
    chosen = (each for each in known if directories is None or each[1] in directories)
    return frozenset(mount_id for mount_id, _ in chosen)
