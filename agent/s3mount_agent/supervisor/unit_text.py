"""The text of a mount's systemd unit, in which any value stands for itself and nothing else."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.filesystem import json_codec

_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
# systemd ignores sections that begin with "X-" (systemd.unit(5)): ours says what the unit is for,
# so that the agent knows its own units and need not read a command line back.
_RECORD = re.compile(r"^\[X-S3Mount\]\nRecord=(?P<json>\{.*\})$", re.MULTILINE)


def quote(word: str) -> str:
    """One word of a command line or path list, safe from systemd's own expansion.

    Specifiers (%), variables ($) and C escapes are expanded even within quotes: systemd.service(5),
    section "Command lines".
    """
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(character, escaped)
    return f'"{word}"'


def quote_path(path: str) -> str:
    """A path in a setting that splits words and expands specifiers, but knows no variables."""
    return quote(path).replace("$$", "$")


def render(template: str, definition: Definition, *, agent: Sequence[str]) -> str:
    """Fills the template of a mount's unit; ``agent`` is the command that runs this agent."""
    hook = " ".join(map(quote, (*agent, "unit-hook")))
    directory = quote(definition.directory)
    places = [f"{kind}={path}" for kind, path in definition.places]
    values = {
        "DESCRIPTION": f"Mount s3://{definition.bucket} at {definition.directory}".replace(
            "%", "%%"
        ),
        "DISKS": " ".join(map(quote_path, on_disks(definition))),
        "COMMAND": " ".join(map(quote, definition.command)),
        "PREPARE": " ".join([f"{hook} prepare {directory}", *map(quote, places)]),
        "CLEAN": f"{hook} clean {directory}",
        "READY": f"{hook} ready {directory}",
        "STOP": f"{hook} {'tear' if definition.lazy else 'stop'} {directory}",
        # In direct mode the agent's daemon decides when a mount comes back, and with which pause.
        "RESTART": "always" if definition.mode is Mode.SYSTEMD else "no",
        "MEMORY_MAX": "infinity" if definition.memory_max is None else f"{definition.memory_max}M",
        "ENVIRONMENT": " ".join(quote_path(f"{k}={v}") for k, v in definition.environment),
        "RECORD": definition.to_json(),
    }
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def on_disks(definition: Definition) -> list[str]:
    """The paths whose file systems must be mounted before; the directory itself is our own."""
    parent = posixpath.dirname(definition.directory)
    return list(dict.fromkeys([parent, *(path for _, path in definition.places)]))


def read_definition(unit_text: str) -> Definition | None:
    """What a unit says it is for, or None if the agent did not make it."""
    match = _RECORD.search(unit_text)
    if match is None:
        return None
    try:
        return Definition.from_json(match["json"])
    except json_codec.WRONG:
        return None
