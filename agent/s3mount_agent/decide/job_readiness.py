"""Whether jobs may start on a node, as far as their data are concerned: the one place that says so.

What is seen now counts whoever is silent: a directory without its mount looks empty to a job. What
only the daemon can know (whether a mount answers, whether S3 does) is not held against a node whose
daemon is silent: a fault of the agent's must not keep a fleet from its work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from s3mount_agent.core.states import NodeState, Presence, State
from s3mount_agent.decide.mount_status import MountStatus

# States in which the mount is there, though S3 does not answer through it as it should.
_THERE = {State.OK: NodeState.OK, State.DEGRADED: NodeState.DEGRADED}


class Readiness(NamedTuple):
    """``state``: OK, a job may start; DEGRADED, it may, and should know the ``sentence``; FAILED,
    it would not find its data. ``sentence`` is one line, for the log of a scheduler; ``doubtful``:
    OK for want of anybody who knows better."""

    state: NodeState
    sentence: str
    doubtful: bool = False


def readiness(
    mounts: Iterable[MountStatus], *, named: bool, silent: str | None, strict: bool
) -> Readiness:
    """Judges what a job needs. ``named``: the job has named these mounts; else they are all of the
    node's, of which those that the configuration lets fail (``required`` is False) keep no job
    away. ``silent`` is why the daemon's knowledge is none, if so, which ``strict`` does not let
    pass.
    """
    mounts = tuple(mounts)
    found = [(_state(each, named=named, silent=bool(silent)), each) for each in mounts]
    for state in (NodeState.FAILED, NodeState.DEGRADED):
        bad = [mount for judged, mount in found if judged is state]
        if bad:
            # One hint is enough for a line: `status` tells the others.
            told = [*map(_words, bad), *filter(None, [bad[0].hint])]
            return Readiness(state, _line("; ".join(told)))
    if silent is None:
        return Readiness(NodeState.OK, _all_well(mounts))
    if strict:
        return Readiness(NodeState.FAILED, _line(f"{silent}: nobody knows how the mounts are"))
    return Readiness(NodeState.OK, _line(f"{silent}: jobs start without its word"), doubtful=True)


def is_awaited(mount: MountStatus, *, by_jobs: bool) -> bool:
    """Whether a boot waits for a mount, and with it slurmd (Before=slurmd.service).

    What has failed may heal in time, and is waited for where jobs would miss it (``by_jobs``).
    """
    if mount.held or mount.state in _THERE:
        return False
    if mount.state in (State.FAILED, State.FOREIGN):
        return by_jobs and mount.required
    return True


def _state(mount: MountStatus, *, named: bool, silent: bool) -> NodeState:
    if silent and mount.presence is Presence.OURS and mount.alive:
        return NodeState.OK
    state = _THERE.get(mount.state, NodeState.FAILED)
    if state is NodeState.FAILED and not (named or mount.required):
        return NodeState.DEGRADED
    return state


def _words(mount: MountStatus) -> str:
    reason = f": {mount.reason}" if mount.reason else ""
    return f"{mount.path} (s3://{mount.bucket}) is {mount.state.value}{reason}"


def _all_well(mounts: tuple[MountStatus, ...]) -> str:
    if not mounts:
        return "this node has no mounts"
    return f"{', '.join(each.path for each in mounts)} {'is' if len(mounts) == 1 else 'are'} up"


def _line(text: str) -> str:
    return " ".join(text.split())
