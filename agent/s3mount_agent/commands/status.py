"""``s3mount-agent status``: the mounts of this node, quickly, also while one of them hangs."""

from __future__ import annotations

import dataclasses
import json
import os
import time

from s3mount_agent.commands.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.options import few_files
from s3mount_agent.core.states import NodeState, State
from s3mount_agent.reconcile import look, overview
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.state import in_force, origin

_POLL_SECONDS = 0.2
# What SSM Run Command shows of an output, with the final line break.
_SSM_CHARACTERS = 2499


def main(given: Given) -> int:
    """0 ok, 3 degraded, 1 failed; with --wait, 4 if not ok in time."""
    wait = given.value("--wait")
    deadline = time.monotonic() + (wait or 0)
    seen = _take(given.words)
    while wait is not None and look.sum_up(seen.sights) is NodeState.DEGRADED:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
        seen = _take(given.words)
    state = look.sum_up(seen.sights)
    print(_json(seen) if given.has("--json") else _table(seen))
    if wait is not None and state is NodeState.DEGRADED:
        return Exit.PENDING
    return state.exit_code


def _take(words: tuple[str, ...]) -> overview.Overview:
    """What there is to show, of some directories only if any are named."""
    seen = overview.take()
    if not words:
        return seen
    from s3mount_agent.core.directory import parse_directory

    chosen = {parse_directory(word) for word in words}
    unknown = chosen.difference(sight.row.path for sight in seen.sights)
    if unknown:
        raise AgentError(
            Problem.MOUNT_UNKNOWN, f"{min(unknown)} is not the directory of a mount of this node"
        )
    kept = tuple(sight for sight in seen.sights if sight.row.path in chosen)
    return dataclasses.replace(seen, sights=kept)


def _json(seen: overview.Overview) -> str:
    text = _compact(seen, seen.sights)
    if len(text) < _SSM_CHARACTERS:
        return text
    return _compact(seen, tuple(sight.without_hint() for sight in seen.sights))


def _compact(seen: overview.Overview, sights: tuple[Sight, ...]) -> str:
    document = look.document(seen.node, sights, origin.load(), seen.at, _pending())
    if not seen.service_up:
        document["daemon"] = "down"
    return json.dumps(document, separators=(",", ":"))


def _table(seen: overview.Overview) -> str:
    told = seen.node
    where = " ".join(filter(None, [told.get("cluster"), told.get("role"), told.get("queue")]))
    lines = [
        f"{look.sum_up(seen.sights).value}: {where or os.uname().nodename}"
        f" (mode {told.get('mode', 'unknown')}, mount-s3 {told.get('mount_s3', 'not installed')},"
        f" agent {told.get('agent', 'unknown')}, looked at {seen.age})"
    ]
    width = max((len(sight.row.path) for sight in seen.sights), default=0)
    for sight in seen.sights:
        access = "ro" if sight.row.read_only else "rw"
        pid = f"pid {sight.pid}" if sight.pid else "no process"
        lines.append(
            f"  {sight.judgement.state.value:<9} {sight.row.path:<{width}}  {access}  "
            f"s3://{sight.row.bucket}  {pid}, since {sight.row.since}"
        )
        few = few_files(sight.row.path, sight.write_files, os.cpu_count() or 1)
        if few:
            lines.append(f"{'':12}warning: {few}")
        if sight.row.pending:
            lines.append(f"{'':12}pending: {sight.row.pending}")
        if sight.judgement.state is not State.OK:
            lines.append(f"{'':12}reason: {sight.judgement.reason}")
            if sight.judgement.hint:
                lines.append(f"{'':12}hint: {sight.judgement.hint}")
    if not seen.service_up:
        lines.append("  the agent's service is down: `systemctl start s3mount-agent`")
    followed = origin.load()
    if followed is not None:
        lines.append(f"  configuration: version {followed.shown} of {followed.shown_url}")
        if followed.problem:
            lines.append(f"{'':12}problem: {followed.problem}")
    edit = _pending()
    if edit:
        lines.append(f"  configuration: {edit}")
    return "\n".join(lines)


def _pending() -> str | None:
    """What is to be said of a config.yaml that is not in force."""
    try:
        if not in_force.is_edited():
            return None
    except AgentError:  # a file that not everybody may read
        return None
    from s3mount_agent.config import desired  # nearly never, and slow

    return desired.pending()
