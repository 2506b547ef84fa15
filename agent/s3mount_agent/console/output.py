"""Errors on stderr, within what ParallelCluster keeps of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.masking import masked

# ParallelCluster puts a failing script's stderr into a message of at most 4,096 bytes, and cannot
# cope with what is not UTF-8.
_MOST_BYTES = 3900
# Of a step's line, which stands among others of its kind.
_MARK = "[ wait ] "


def tell(errors: Sequence[AgentError]) -> None:
    """Prints errors to stderr: reason, cause and hint of each.

    Where there is no room for all, those that came first are told, after a line that says so.
    """
    if not errors or sys.stderr is None:
        return
    texts = [_text(each) for error in errors for each in (error, *error.more)]
    kept: list[str] = []
    for text in texts:
        if kept and sum(map(_size, (*kept, text))) > _MOST_BYTES - 100:
            break
        kept.append(text)
    if len(kept) < len(texts):
        kept.insert(0, f"s3mount-agent: {len(texts)} errors, of which {len(kept)} are told here\n")
    cut = "".join(kept).encode(errors="backslashreplace")[-_MOST_BYTES:]
    sys.stderr.write(cut.decode(errors="ignore"))
    sys.stderr.flush()


def say_aside(line: str) -> None:
    """Says on stderr what is waited for, where stdout is the answer's."""
    if sys.stderr is not None:
        sys.stderr.write(f"s3mount-agent: {masked(line.replace(_MARK, '').strip())}\n")
        sys.stderr.flush()


def tell_all(errors: Sequence[AgentError]) -> None:
    """Prints errors to stderr where somebody reads all of it, however much it is."""
    if sys.stderr is not None:
        text = "".join(_text(each) for error in errors for each in (error, *error.more))
        sys.stderr.write(text.encode(errors="backslashreplace").decode())
        sys.stderr.flush()


def _text(error: AgentError) -> str:
    return "\n".join(error.lines()) + "\n"


def _size(text: str) -> int:
    return len(text.encode(errors="backslashreplace"))
