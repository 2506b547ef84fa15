"""Writes docs/errors.md from the one table of problems, so that the two cannot differ."""

from __future__ import annotations

import sys
from pathlib import Path

from s3mount_agent.model.errors import Exit, Problem

TARGET = Path(__file__).parents[1] / "docs/errors.md"
_HEAD = """\
# Errors

Written by `packaging/build_docs.py` from `agent/s3mount_agent/model/errors.py`.

Every error is told in the same form, on stderr (`bootstrap` on a node that continues tells it on
stdout), and in the journal with the field `S3MOUNT_ERROR_CODE=`:

    s3mount-agent: error [CODE]: what is wrong, in one sentence
      cause: what mount-s3, apt or the kernel said, in their own words
      hint: what to do about it

Codes are stable. Exit codes: 0 ok, 1 failed, 2 wrong usage or invalid configuration (nothing was
changed on the node), 3 degraded (`status`), 4 not ready in time (`status --wait`).
`bootstrap-damaged` and `python-missing` come from the first lines of s3mount-bootstrap itself.

"""
_OF_THE_HEAD = [
    ("bootstrap-damaged", Exit.FAILED, "upload dist/s3mount-bootstrap again, in binary mode"),
    ("python-missing", Exit.FAILED, "install a python3 of version 3.9 or later, then run again"),
]


def text() -> str:
    """The whole page."""
    rows = [(problem.code, problem.exit_code, problem.hint) for problem in Problem]
    table = "\n".join(
        f"| `{code}` | {exit_code:d} | {hint} |" for code, exit_code, hint in [*rows, *_OF_THE_HEAD]
    )
    return f"{_HEAD}| code | exit | hint |\n|---|---|---|\n{table}\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if TARGET.read_text() == text() else "docs/errors.md is out of date")
    TARGET.write_text(text())
