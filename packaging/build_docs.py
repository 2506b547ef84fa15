"""Writes what the documentation shares with the code, so that the two cannot differ.

docs/errors.md from the table of problems, the tables of docs/configuration.md and
docs/s3mount.schema.json from the table of keys, and that of docs/operations.md from the events.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from s3mount_agent.config import keys
from s3mount_agent.config.schema import Section, json_schema
from s3mount_agent.core.errors import Exit, Problem
from s3mount_agent.decide.journal_events import Event

DOCS = Path(__file__).parents[1] / "docs"
_ERRORS = """\
# Errors

Written by `packaging/build_docs.py` from `agent/s3mount_agent/core/errors.py`.

Every error is told in the same form, on stderr (`bootstrap` on a node that continues tells it on
stdout), and in the journal with the field `S3MOUNT_ERROR_CODE=`:

    s3mount-agent: error [CODE]: what is wrong, in one sentence
      cause: what mount-s3, apt or the kernel said, in their own words
      hint: what to do about it

Codes are stable. Exit codes: 0 ok, 1 failed, 2 wrong usage or invalid configuration (nothing was
changed on the node), 3 degraded (`status`, `check`), 4 changes pending (`plan`, `apply`) or not
ready in time (`status --wait`). `bootstrap-damaged` and `python-missing` come from the first lines
of s3mount-bootstrap itself.

"""
_OF_THE_HEAD = [
    ("bootstrap-damaged", Exit.FAILED, "upload dist/s3mount-bootstrap again, in binary mode"),
    ("python-missing", Exit.FAILED, "install a python3 of version 3.9 or later, then run again"),
]
_BEGIN = "<!-- written by packaging/build_docs.py -->\n"
_END = "<!-- end of what is written -->\n"


def errors() -> str:
    """docs/errors.md."""
    rows = [(problem.code, problem.exit_code, problem.hint) for problem in Problem]
    table = "\n".join(
        f"| `{code}` | {exit_code:d} | {hint} |" for code, exit_code, hint in [*rows, *_OF_THE_HEAD]
    )
    return f"{_ERRORS}| code | exit | hint |\n|---|---|---|\n{table}\n"


def configuration() -> str:
    """The tables of docs/configuration.md."""
    return (
        f"## The file\n\n{_table(keys.TOP)}\n"
        f"## A mount\n\n{_table(keys.MOUNT)}\n"
        f"## `health`\n\n{_table(keys.HEALTH)}\n"
        f"## `install`\n\n{_table(keys.INSTALL)}\n"
        f"## `metrics`\n\n{_table(keys.METRICS)}\n"
        f"## `environment`\n\nAllowed names: {', '.join(keys.ENVIRONMENT.words)}.\n"
    )


def events() -> str:
    """The table of docs/operations.md."""
    rows = [
        f"| `{event.action}` | `{event.result}` | {event.about} | `{event.message_id}` |"
        for event in Event
    ]
    head = "| `S3MOUNT_ACTION=` | `S3MOUNT_RESULT=` | what happened | `MESSAGE_ID=` |"
    return "\n".join([head, "|---|---|---|---|", *rows]) + "\n"


def schema() -> str:
    """docs/s3mount.schema.json."""
    return (
        json.dumps(json_schema(keys.TOP, "s3mount-agent configuration", keys.SCHEMA_ID), indent=1)
        + "\n"
    )


def pages() -> dict[Path, str]:
    """Every page that is written, and what it should hold."""
    return {
        DOCS / "errors.md": errors(),
        DOCS / "configuration.md": _renewed(DOCS / "configuration.md", configuration()),
        DOCS / "operations.md": _renewed(DOCS / "operations.md", events()),
        DOCS / "s3mount.schema.json": schema(),
    }


def _renewed(page: Path, tables: str) -> str:
    """A page with what stands between its two marks made anew."""
    head, _, rest = page.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    return f"{head}{_BEGIN}\n{tables}\n{_END}{tail}"


def _table(section: Section) -> str:
    lines = [
        f"| `{key.name}`{' (required)' if key.required else ''} | {key.kind.type()} "
        f"| {section.default(key)} | {key.about} |"
        for key in section.keys
    ]
    return "\n".join(["| key | type | default | |", "|---|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    stale = {
        path: text
        for path, text in pages().items()
        if not path.exists() or path.read_text() != text
    }
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"out of date: {', '.join(map(str, stale))}" if stale else 0)
    for path, text in stale.items():
        path.write_text(text)
