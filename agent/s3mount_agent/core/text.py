"""Which text may come in at all, and how it is cut to size on its way out."""

from __future__ import annotations

import json
import re
from typing import Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import masked

_LONGEST_NAME = 120
_MOMENT = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])T([01][0-9]|2[0-3]):([0-5][0-9]):([0-6][0-9])Z"
)


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


def shown(name: str) -> str:
    """What somebody else has called a mount or a program, as it is said to people: on one line of
    at most 120 characters, with nothing in it that a terminal obeys, and masked."""
    plain = masked("".join(c if c.isprintable() else "?" for c in name))
    return plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "…"


def parse_json(text: str) -> Any:
    """A JSON document that may have been written by anybody: without what json takes beyond the
    standard (NaN), numbers that overflow elsewhere, and texts that no file can be called by.

    Raises ValueError, or RecursionError where it is too deep.
    """
    document = json.loads(text, parse_int=_whole, parse_float=_number, parse_constant=_number)
    if "\\u" in text:  # the only way in for a NUL or half a character
        _require_text(document)
    return document


def _whole(digits: str) -> int:
    # 64 bits hold it; and int() takes its time for many digits.
    if len(digits) > 18:
        raise ValueError("it has a number that can be none")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not abs(number) < 1e18:  # nor is it not a number
        raise ValueError("it has a number that can be none")
    return number


def _require_text(value: object) -> None:
    if isinstance(value, str):
        # Of undecodable bytes there may be traces (PEP 383): paths can have them.
        value.encode(errors="surrogateescape")
        if "\0" in value:
            raise ValueError("it has a NUL in a text")
    elif isinstance(value, (list, dict)):
        for each in value:
            _require_text(each)
        for each in value.values() if isinstance(value, dict) else ():
            _require_text(each)


def last_lines(text: str, *, lines: int = 10, characters: int = 1500) -> str:
    """The end of a program's output, bounded in lines and characters, without empty lines."""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(kept)[-characters:]


def epoch(at: str) -> int:
    """Seconds since 1970 of a time in UTC as the agent writes it, 2026-11-23T17:00:00Z.

    Raises ValueError. By hand, since time.strptime() loads half a dozen modules.
    """
    match = _MOMENT.fullmatch(at)
    if match is None:
        raise ValueError(f"{at!r} is no time")
    year, month, day, hour, minute, second = map(int, match.groups())
    # Years that begin in March, so that the odd day comes last: Howard Hinnant's days_from_civil.
    years, months = (year, month - 3) if month > 2 else (year - 1, month + 9)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * months + 2) // 5 + day
    return ((days - 719469) * 24 + hour) * 3600 + minute * 60 + second
