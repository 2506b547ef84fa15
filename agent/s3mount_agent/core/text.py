"""Which text may come in at all, and how it is cut to size on its way out."""

from __future__ import annotations

from s3mount_agent.core.errors import AgentError, Problem


def require_plain(what: str, text: str) -> None:
    """Refuses text that is not UTF-8 or holds control characters (``argument-not-text``).

    Such text has no meaning in a path, a bucket or an option, and it is what injections into
    unit files and terminals are made of.
    """
    # Undecodable bytes in argv arrive as lone surrogates (PEP 383).
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise AgentError(Problem.ARGUMENT_NOT_TEXT, f"the {what} {text!a} is not valid UTF-8")
    if any(not c.isprintable() for c in text):
        raise AgentError(
            Problem.ARGUMENT_NOT_TEXT,
            f"the {what} {text!a} holds a line break or another character that cannot be shown",
        )


def last_lines(text: str, *, lines: int = 10, characters: int = 1500) -> str:
    """The end of a program's output, bounded in lines and characters, without empty lines."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(kept)[-characters:]
