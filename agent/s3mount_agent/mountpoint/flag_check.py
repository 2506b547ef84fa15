"""mount-s3's options: a string, split as a shell splits words and checked flag by flag."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterator

from s3mount_agent.core.errors import AgentError, Problem, together
from s3mount_agent.core.options import Options, room
from s3mount_agent.core.text import require_plain
from s3mount_agent.core.versions import Version, shown
from s3mount_agent.mountpoint.flags import FLAGS, SHORT_FLAGS, Flag

# An options string from outside may be wrong in thousands of places.
_MOST_ERRORS = 30


def parse_options(text: str) -> Options:
    """Reads an options string; raises ``options-unbalanced``, or all ``option-…`` problems at once.

    Between options, white space of every kind is harmless: YAML's folded and literal blocks bring
    line breaks. Within one it is refused (``argument-not-text``).
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _unbalanced(text, str(error)) from None
    errors: list[AgentError] = []
    options = Options(tuple(_read_flags(deque(words), errors)))
    errors += _rivals(options) if errors else conflicts(options)
    if errors:
        raise together(errors)
    return options


def _unbalanced(text: str, why: str) -> AgentError:
    """Says where the quote was opened that is not closed."""
    opened = ""
    place = 0
    escaped = False
    for position, character in enumerate(text, start=1):
        if escaped:
            escaped = False
        elif character == "\\" and opened != "'":
            escaped = True
        elif opened:
            opened = "" if character == opened else opened
        elif character in "\"'":
            opened, place = character, position
    if opened:
        why = f"the quote {opened} at character {place} is never closed"
    shown = " ".join(text.split())
    require_plain("options string", shown)
    return AgentError(Problem.OPTIONS_UNBALANCED, f"the options {shown!r} cannot be split: {why}")


def require_known_to(version: Version, options: Options) -> None:
    """Refuses a flag that this version of mount-s3 does not have yet (``option-unknown``)."""
    for name, _ in options.flags:
        since = FLAGS[name].since
        if version < since:
            have, need = shown(version), shown(since)
            raise AgentError(
                Problem.OPTION_UNKNOWN,
                f"the installed mount-s3 {have} does not know --{name}",
                hint=f"install mount-s3 {need} or later, or leave the option out",
            )


def _read_flags(words: deque[str], errors: list[AgentError]) -> Iterator[tuple[str, str | None]]:
    """The flags that can be read; of the others, what is wrong with them is added to ``errors``."""
    seen: set[str] = set()
    while words and len(errors) < _MOST_ERRORS:
        word = words.popleft()
        try:
            require_plain("option", word)
            flag, attached = _find(word)
            if flag.reserved:
                raise AgentError(
                    Problem.OPTION_RESERVED, f"the option --{flag.name} is not for a mount"
                )
            value = _read_value(flag, attached, words)
            if flag.name in seen and not flag.repeatable:
                message = f"the option --{flag.name} is given twice"
                raise AgentError(Problem.OPTION_CONFLICT, message)
        except AgentError as error:
            errors.append(error)
            while words and not words[0].startswith("-"):
                words.popleft()  # it may be a value of what was refused
        else:
            seen.add(flag.name)
            yield flag.name, value


def _find(word: str) -> tuple[Flag, str | None]:
    """The flag that a word names, and the value attached to it (``--name=value``, ``-lvalue``)."""
    name, equals, attached = word.partition("=")
    if name.startswith("--") and name[2:] in FLAGS:
        return FLAGS[name[2:]], attached if equals else None
    short = SHORT_FLAGS.get(word[1:2]) if word[:1] == "-" else None
    if short is not None and (short.value is not None or len(word) == 2):
        return short, word[2:].removeprefix("=") or None
    import difflib

    close = difflib.get_close_matches(name.lstrip("-"), FLAGS, n=1)
    raise AgentError(
        Problem.OPTION_UNKNOWN,
        f"mount-s3 has no option {word!r}",
        hint=f"did you mean --{close[0]}?" if close else None,
    )


def _read_value(flag: Flag, attached: str | None, words: deque[str]) -> str | None:
    if flag.value is None:
        if attached is not None:
            raise AgentError(Problem.OPTION_VALUE, f"the option --{flag.name} takes no value")
        return None
    if attached is None and not words:
        raise AgentError(Problem.OPTION_VALUE, f"the option --{flag.name} needs {flag.value.form}")
    text = words[0] if attached is None else attached
    require_plain("option", text)
    if not flag.value.accepts(text):
        raise AgentError(
            Problem.OPTION_VALUE, f"the option --{flag.name} takes {flag.value.form}, not {text!r}"
        )
    return words.popleft() if attached is None else text


def conflicts(options: Options) -> Iterator[AgentError]:
    """Where options exclude or lack each other (``option-conflict``)."""
    yield from _rivals(options)
    for name in dict(options.flags):
        needed = FLAGS[name].requires
        if needed and needed not in options:
            yield AgentError(
                Problem.OPTION_CONFLICT,
                f"the option --{name} needs --{needed}",
                hint=f"add --{needed}, or leave --{name} out",
            )
    yield from _too_large_parts(options)


def _rivals(options: Options) -> Iterator[AgentError]:
    """Options that exclude each other, whatever else is given."""
    for name in dict(options.flags):
        for rival in FLAGS[name].conflicts:
            if rival in options:
                yield AgentError(
                    Problem.OPTION_CONFLICT,
                    f"the options --{name} and --{rival} exclude each other",
                )
    if options.value("sse") == "AES256" and "sse-kms-key-id" in options:
        yield AgentError(
            Problem.OPTION_CONFLICT, "the option --sse-kms-key-id does not go with --sse=AES256"
        )


def _too_large_parts(options: Options) -> Iterator[AgentError]:
    """Parts that a mount's own memory target has no room for: with such a read part mount-s3 does
    not start, and with such a write part no file can be opened for writing."""
    target = options.value("memory-target")
    if target is None:
        return
    buffers = options.buffers
    need = buffers.target(files=1)
    if int(target) >= need:
        return
    what = "read" if room(int(target)) < buffers.read or buffers.write is None else "write"
    yield AgentError(
        Problem.OPTION_CONFLICT,
        f"--memory-target={target} has no room for a {what} part of "
        f"{getattr(buffers, what)} bytes: it takes {need} MiB",
        hint=f"raise the memory target to {need} or more, or choose smaller parts",
    )
