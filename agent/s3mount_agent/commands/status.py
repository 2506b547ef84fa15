"""``s3mount-agent status``: the mounts of this node, quickly, also while one of them hangs."""

from __future__ import annotations

import json
import time

from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.states import NodeState
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus
from s3mount_agent.reconcile import glance
from s3mount_agent.state import config_origin, in_force
from s3mount_agent.state.config_origin import Origin

_POLL_SECONDS = 0.2
# What SSM Run Command shows of an output, with the final line break.
_SSM_CHARACTERS = 2499


def main(given: Given) -> int:
    """0 ok, 3 degraded, 1 failed; with --wait, 4 if not ok in time."""
    wait = given.value("--wait")
    seen = _take(given.words)
    if wait is not None and seen.state is NodeState.DEGRADED:
        seen = _await(seen, given.words, wait)
    state = seen.state
    if given.has("--json"):
        print(_json(seen))
    else:
        from s3mount_agent.console import screen

        print(screen.table(seen, config_origin.load(), _pending(seen), colour=screen.has_colour()))
    if wait is not None and state is NodeState.DEGRADED:
        return Exit.PENDING
    return state.exit_code


def _await(seen: NodeStatus, words: tuple[str, ...], wait: float) -> NodeStatus:
    """What there is to show once all is well, or one has failed, or the time is over."""
    from s3mount_agent.console.output import say_aside
    from s3mount_agent.state.timeline import waiting_for

    deadline = time.monotonic() + wait
    late = [f"{each.path} ({each.state.value})" for each in seen.mounts if each.reason]
    what = f"waiting for {', '.join(late) or 'the mounts'}"
    leaves = "Ctrl-C ends the waiting only"
    with waiting_for(what, wait, attempt="", leaves=leaves, say=say_aside):
        while seen.state is NodeState.DEGRADED and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            seen = _take(words)
    return seen


def _take(words: tuple[str, ...]) -> NodeStatus:
    """What there is to show, of some directories only if any are named."""
    seen = glance.take() or _look()
    if not words:
        return seen
    from s3mount_agent.core.directory_rules import parse_directory

    chosen = {parse_directory(word) for word in words}
    known = [mount.path for mount in seen.mounts]
    unknown = chosen.difference(known)
    if unknown:
        raise AgentError(
            Problem.MOUNT_UNKNOWN,
            f"{min(unknown)} is not the directory of a mount of this node",
            hint=f"its mounts are on {', '.join(known)}" if known else "it has no mounts",
        )
    kept = tuple(mount for mount in seen.mounts if mount.path in chosen)
    return seen._replace(mounts=kept)


def _look() -> NodeStatus:
    from s3mount_agent.reconcile import observe  # which takes twice as long

    return observe.take()


def _json(seen: NodeStatus) -> str:
    text = _compact(seen)
    if len(text) < _SSM_CHARACTERS:
        return text
    return _compact(seen._replace(mounts=tuple(mount.without_hint() for mount in seen.mounts)))


def _compact(seen: NodeStatus) -> str:
    return json.dumps(document(seen, config_origin.load(), _pending(seen)), separators=(",", ":"))


def document(seen: NodeStatus, followed: Origin | None, edit: str | None) -> dict[str, object]:
    """What ``status --json`` prints: ``config`` is there where a source is followed, and where
    config.yaml waits to be put in force (``edit``)."""
    shown: dict[str, object] = {
        "schema": 1,
        "state": seen.state.value,
        "node": {**seen.node, "at": seen.at},
        "mounts": [_shown(seen, mount) for mount in seen.mounts],
    }
    config = {"pending": edit}
    if followed is not None:
        known = (followed.shown_url, followed.shown, followed.problem)
        config = {**dict(zip(("source", "version", "problem"), known)), **config}
    if any(config.values()):
        shown["config"] = {key: value for key, value in config.items() if value}
    if not seen.service_up:
        shown["daemon"] = "down"
    if seen.broken:
        shown["agent"] = seen.broken
    return shown


def _shown(seen: NodeStatus, mount: MountStatus) -> dict[str, object]:
    """A mount; the version that it runs, where that is another than the node's."""
    outdated = {"mount_s3": mount.version} if seen.outdated(mount) else {}
    return {**mount.to_json(), **outdated}


def _pending(seen: NodeStatus) -> str | None:
    """What is to be said of a configuration that is in force and was not carried out yet, or of a
    config.yaml that is not in force."""
    if seen.behind:
        return "a newer version is in force, which the agent carries out now"
    try:
        if not in_force.is_edited():
            return None
    except AgentError:  # a file that not everybody may read
        return None
    from s3mount_agent.config import desired  # nearly never, and slow

    return desired.pending()
