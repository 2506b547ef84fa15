"""How ``status`` looks to people: in 80 columns, and in colour only where there is some."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from s3mount_agent.core.states import NodeState, State, few_files

if TYPE_CHECKING:
    from s3mount_agent.decide.mount_status import MountStatus, NodeStatus
    from s3mount_agent.state.config_origin import Origin

_WIDTH = 80
_INDENT = 12
_GREEN, _YELLOW, _RED = "32", "33", "31"
# Never by colour alone: the word stands there, too.
_COLOURS = {
    State.OK.value: _GREEN,
    State.FAILED.value: _RED,
    State.STALE.value: _RED,
    State.HUNG.value: _RED,
    State.FOREIGN.value: _RED,
    NodeState.OK.value: _GREEN,
    NodeState.FAILED.value: _RED,
}


def has_colour() -> bool:
    """Whether stdout is a terminal that shows colours, and nobody minds: https://no-color.org"""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def table(seen: NodeStatus, followed: Origin | None, edit: str | None, *, colour: bool) -> str:
    """The node and its mounts; ``edit`` is what is to be said of a config.yaml not in force."""
    lines = list(_head(seen, colour=colour))
    lines += _mounts(seen, colour=colour)
    if not seen.service_up:
        from s3mount_agent.supervisor import agent_service  # nearly never, and slow

        lines.append(f"  the agent's service is down: `{agent_service.how_to_start()}`")
    if seen.broken:
        lines += _told("agent", f"no mount would come back: {seen.broken}", 2)
        lines += _told("hint", "run s3mount-bootstrap again")
    if followed is not None:
        lines += _told("configuration", f"version {followed.shown} of {followed.shown_url}", 2)
        if followed.problem:
            lines += _told("problem", followed.problem)
    if edit:
        lines += _told("configuration", edit, 2)
    return "\n".join(lines)


def _head(seen: NodeStatus, *, colour: bool) -> Iterator[str]:
    node = seen.node
    where = " ".join(filter(None, [node.get("cluster"), node.get("role"), node.get("queue")]))
    state = seen.state
    first, *others = _filled(f"{state.value}: {where or os.uname().nodename}", 0)
    yield _painted(state.value, colour=colour) + first[len(state.value) :]
    yield from others
    facts = (
        f"mode {node.get('mode', 'unknown')}, mount-s3 {node.get('mount_s3', 'not installed')}, "
        f"agent {node.get('agent', 'unknown')}, {_knowledge(seen, state)}"
    )
    yield from _filled(facts, 2)


def _knowledge(seen: NodeStatus, state: NodeState) -> str:
    """How old it is. Mounts and processes are looked at now; only whether they answer is older, and
    while all is well that is no cause for alarm."""
    if state is NodeState.OK and seen.service_up:
        return f"seen just now (answers: {seen.age})"
    return f"looked at {seen.age}"


def _mounts(seen: NodeStatus, *, colour: bool) -> Iterator[str]:
    """A line for each where all fit into the width, or else two."""
    mounts = seen.mounts
    width = max((len(mount.path) for mount in mounts), default=0)
    access = {mount.id: "ro" if mount.read_only else "rw" for mount in mounts}
    first = {s.id: f"{s.path:<{width}}  {access[s.id]}" for s in mounts}
    process = {s.id: _process(s) for s in mounts}
    longest = max((len(f"{first[s.id]}  s3://{s.bucket}") for s in mounts), default=0)
    one_line = longest + max(map(len, process.values()), default=0) + _INDENT + 2 <= _WIDTH
    bucket_first = longest + _INDENT <= _WIDTH
    for mount in mounts:
        state = mount.state.value
        bucket = f"s3://{mount.bucket}"
        painted = _painted(state, colour=colour) + " " * (9 - len(state))
        line = f"  {painted} {first[mount.id]}"
        if one_line:
            yield f"{line}  {bucket}  {process[mount.id]}"
        elif bucket_first:
            yield f"{line}  {bucket}"
            yield f"{'':{_INDENT}}{process[mount.id]}"
        else:
            yield line
            yield from (f"{'':{_INDENT}}{each}" for each in (bucket, process[mount.id]))
        yield from _why(mount)
        outdated = seen.outdated(mount)
        if outdated:
            yield from _filled(outdated, _INDENT)


def _process(mount: MountStatus) -> str:
    pid = f"pid {mount.pid}" if mount.pid else "no process"
    return f"{pid}, since {mount.shown_since}"


def _why(mount: MountStatus) -> Iterator[str]:
    few = few_files(mount.path, mount.write_files, os.cpu_count() or 1)
    if few:
        yield from _told("warning", few)
    if mount.pending:
        yield from _told("pending", mount.pending)
    for mend in mount.mends:
        yield from _told("dead bind", mend)
    if mount.state is not State.OK:
        yield from _told("reason", mount.reason or "")
        if mount.hint:
            yield from _told("hint", mount.hint)


def _told(what: str, text: str, indent: int = _INDENT) -> list[str]:
    return _filled(f"{what}: {text}", indent)


def _filled(text: str, indent: int) -> list[str]:
    """The text in lines; no word is broken: it may be a path, a URL or a command."""
    if indent + len(text) <= _WIDTH:
        return [f"{'':{indent}}{text}"]
    import textwrap

    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _painted(word: str, *, colour: bool) -> str:
    return f"\x1b[{_COLOURS.get(word, _YELLOW)}m{word}\x1b[0m" if colour else word
