"""The agent's own files, most of them JSON, read as if anybody might have written them.

A file that cannot be what the agent wrote is told, set aside as ``NAME.bad``, and made anew by who
writes it next: none of them holds what a node cannot do without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from s3mount_agent.core.text import parse_json
from s3mount_agent.filesystem import files

_Built = TypeVar("_Built")
_Kind = TypeVar("_Kind")
WRONG = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What a document of the wrong shape raises in who takes it apart."""


def read(
    path: Path, build: Callable[[Any], _Built], *, parse: Callable[[str], Any] = parse_json
) -> _Built | None:
    """What ``build`` makes of a file's document; None where there is no file, or a damaged one.

    ``parse`` makes the document of the text. Both raise one of ``WRONG`` for what is not theirs.
    Raises ``file-failed`` where the file cannot be read at all.
    """
    text = files.read(path)
    if text is None:
        return None
    try:
        return build(parse(text))
    except WRONG as error:
        _set_aside(path, f"{type(error).__name__}: {error}"[:300])
        return None


def write(path: Path, document: object, *, exactly: int | None = None) -> bool:
    """Writes a document as one line, as :func:`files.write` does."""
    return files.write(path, json.dumps(document) + "\n", exactly=exactly)


def field(
    fields: Mapping[str, object], name: str, kind: type[_Kind], default: _Kind | None = None
) -> _Kind:
    """A value of its kind; raises KeyError where there is none and no default, and TypeError."""
    value = fields[name] if default is None else fields.get(name, default)
    # To Python true is a number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def optional(fields: Mapping[str, object], name: str, kind: type[_Kind]) -> _Kind | None:
    """A value of its kind, or None where there is none; raises TypeError."""
    return None if fields.get(name) is None else field(fields, name, kind)


def texts(value: object) -> tuple[str, ...]:
    """A list of texts; raises TypeError."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("it is not a list of texts")
    return tuple(value)


def named_texts(value: object) -> dict[str, str]:
    """A table of texts; raises TypeError."""
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise TypeError("it is not a table of texts")
    return value


def _set_aside(path: Path, cause: str) -> None:
    aside = path.with_name(f"{path.name}.bad")
    try:
        path.replace(aside)
    except OSError:  # not root, or read-only: it is told by who can do something about it
        return
    from s3mount_agent.decide.journal_events import Event  # nearly never, and slow
    from s3mount_agent.system import journal

    journal.event(
        Event.DAMAGED, f"{path} was damaged: it is kept as {aside} and made anew", cause=cause
    )
