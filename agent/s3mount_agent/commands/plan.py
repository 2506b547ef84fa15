"""``s3mount-agent plan``: what apply would change."""

from __future__ import annotations

import json

from s3mount_agent.config import environment
from s3mount_agent.console.output import say_aside
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.decide.plan import Action, Kind, Plan
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0 with nothing to do, 4 with changes."""
    node.require_root("only root may read all that a plan is made of")
    environment.require_understood()
    environment.load()

    from s3mount_agent.reconcile import preview

    url = given.value("--config")
    todo = preview.preview(url, say_aside)
    print(_json(todo) if given.has("--json") else "\n".join(_lines(todo)))
    return Exit.PENDING if todo else Exit.OK


def _json(todo: Plan) -> str:
    changes = [{**vars(action), "kind": _sign(action, todo)[1]} for action in _shown(todo)]
    shown: dict[str, object] = {"schema": 1, "changes": changes, "foreign": todo.foreign}
    if todo.write_files:
        shown["write_files"] = dict(todo.write_files)
    if todo.installs:
        shown["install"] = dict(zip(("mount_s3", "instead_of"), filter(None, todo.installs)))
    if todo.warnings:
        shown["warnings"] = todo.warnings
    return json.dumps(shown, separators=(",", ":"))


def _lines(todo: Plan) -> list[str]:
    lines = []
    counts = dict.fromkeys(("add", "change", "remove"), 0)
    width = max((len(action.directory) for action in todo.actions), default=0)
    for action in _shown(todo):
        sign, word = _sign(action, todo)
        counts[word] += 1
        bucket = f"s3://{action.bucket}"
        lines.append(f"  {sign} {action.directory:<{width}}  {bucket}  ({action.because})")
    for directory in todo.foreign:
        lines.append(f"  ! {directory}  (something else is mounted there: not touched)")
    known = [each for each in todo.strangers if each.is_known]
    notes = [f"      {each.directory}: {each.words}" for each in known]
    notes += [f"  warning: {sentence}" for sentence in todo.warnings]
    if todo.write_files:
        files = ", ".join(f"{number} on {directory}" for directory, number in todo.write_files)
        notes.insert(0, f"  files that can be open for writing at once: {files}")
    if todo.installs:
        lines.insert(0, _installs(*todo.installs))
    if not todo and todo.foreign:
        summary = "Nothing that the agent may change: somebody else has to make way."
        return [*lines, *notes, summary]
    if not todo:
        return [*lines, "Nothing to change: this node is as its configuration says.", *notes]
    summary = ", ".join(f"{count} to {word}" for word, count in counts.items())
    return [*lines, *notes, f"Plan: {summary}."]


def _installs(version: str, before: str) -> str:
    if not before:
        return f"  + mount-s3 {version}  (it is not there yet)"
    return f"  ~ mount-s3 {version}  (in the place of {before}; what is mounted runs on with that)"


def _shown(todo: Plan) -> list[Action]:
    """One action for each mount: a stop before a start is one change."""
    started = {action.id for action in todo.of(Kind.START)}
    return [a for a in todo.actions if a.kind is not Kind.STOP or a.id not in started]


def _sign(action: Action, todo: Plan) -> tuple[str, str]:
    if action.kind is Kind.STOP:
        return "-", "remove"
    stopped = {each.id for each in todo.of(Kind.STOP)}
    return ("~", "change") if action.kind is Kind.WRITE or action.id in stopped else ("+", "add")
