"""``s3mount-agent status``: the mounts of this node, quickly, also while one of them hangs."""

from __future__ import annotations

import json
import os
import time

from s3mount_agent.commands.parser import Parser
from s3mount_agent.core.errors import Exit
from s3mount_agent.core.states import NodeState, State
from s3mount_agent.reconcile import look, overview
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.state import origin

_POLL_SECONDS = 0.2
# What SSM Run Command shows of an output, with the final line break.
_SSM_CHARACTERS = 2499


def main(arguments: list[str]) -> int:
    """0 ok, 3 degraded, 1 failed; with --wait, 4 if not ok in time."""
    parser = Parser(
        prog="s3mount-agent status",
        description="Shows the mounts of this node. Never touches a mount, so that it answers "
        "while one hangs.",
        epilog="exit codes: 0 all is well, 3 degraded, 1 a mount failed for good, "
        "4 not well within --wait",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="wait until all is well, or one has failed"
    )
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + (options.wait or 0)
    seen = overview.take()
    while options.wait is not None and look.sum_up(seen.sights) is NodeState.DEGRADED:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
        seen = overview.take()
    state = look.sum_up(seen.sights)
    print(_json(seen) if options.json else _table(seen))
    if options.wait is not None and state is NodeState.DEGRADED:
        return Exit.PENDING
    return state.exit_code


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _json(seen: overview.Overview) -> str:
    text = _compact(seen, seen.sights)
    if len(text) < _SSM_CHARACTERS:
        return text
    return _compact(seen, tuple(sight.without_hint() for sight in seen.sights))


def _compact(seen: overview.Overview, sights: tuple[Sight, ...]) -> str:
    document = look.document(seen.node, sights, origin.load(), seen.at)
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
        lines.append(f"  configuration: version {followed.shown} of {followed.url}")
        if followed.problem:
            lines.append(f"{'':12}problem: {followed.problem}")
    return "\n".join(lines)
