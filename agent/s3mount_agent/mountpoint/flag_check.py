"""mount-s3's options: a string, split as a shell splits words and checked flag by flag."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.options import Options, room
from s3mount_agent.core.text import require_plain
from s3mount_agent.core.versions import Version, shown
from s3mount_agent.mountpoint.flags import FLAGS, SHORT_FLAGS, Flag


def parse_options(text: str) -> Options:
    """Reads an options string; raises ``options-unbalanced`` or an ``option-…`` problem.

    Between options, white space of every kind is harmless: YAML's folded and literal blocks bring
    line breaks. Within one it is refused (``argument-not-text``).
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _unbalanced(text, str(error)) from None
    for word in words:
        require_plain("option", word)
    options = Options(tuple(_read_flags(iter(words))))
    check_flag_conflicts(options)
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


def _read_flags(words: Iterator[str]) -> Iterator[tuple[str, str | None]]:
    seen: set[str] = set()
    for word in words:
        flag, attached = _find(word)
        if flag.reserved:
            raise AgentError(
                Problem.OPTION_RESERVED, f"the option --{flag.name} is not for a mount"
            )
        if flag.name in seen and not flag.repeatable:
            raise AgentError(Problem.OPTION_CONFLICT, f"the option --{flag.name} is given twice")
        seen.add(flag.name)
        yield flag.name, _read_value(flag, attached, words)


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


def _read_value(flag: Flag, attached: str | None, words: Iterator[str]) -> str | None:
    if flag.value is None:
        if attached is not None:
            raise AgentError(Problem.OPTION_VALUE, f"the option --{flag.name} takes no value")
        return None
    text = attached if attached is not None else next(words, None)
    if text is None:
        raise AgentError(Problem.OPTION_VALUE, f"the option --{flag.name} needs {flag.value.form}")
    if not flag.value.accepts(text):
        raise AgentError(
            Problem.OPTION_VALUE, f"the option --{flag.name} takes {flag.value.form}, not {text!r}"
        )
    return text


def check_flag_conflicts(options: Options) -> None:
    """Refuses options that exclude or lack each other (``option-conflict``)."""
    for name, _ in options.flags:
        flag = FLAGS[name]
        rival = next((other for other in flag.conflicts if other in options), None)
        if rival:
            raise AgentError(
                Problem.OPTION_CONFLICT, f"the options --{name} and --{rival} exclude each other"
            )
        if flag.requires and flag.requires not in options:
            raise AgentError(
                Problem.OPTION_CONFLICT,
                f"the option --{name} needs --{flag.requires}",
                hint=f"add --{flag.requires}, or leave --{name} out",
            )
    if options.value("sse") == "AES256" and "sse-kms-key-id" in options:
        raise AgentError(
            Problem.OPTION_CONFLICT, "the option --sse-kms-key-id does not go with --sse=AES256"
        )
    _check_parts(options)


def _check_parts(options: Options) -> None:
    """Refuses parts that a mount's own memory target has no room for: with such a read part
    mount-s3 does not start, and with such a write part no file can be opened for writing."""
    target = options.value("memory-target")
    if target is None:
        return
    buffers = options.buffers
    need = buffers.target(files=1)
    if int(target) >= need:
        return
    what = "read" if room(int(target)) < buffers.read or buffers.write is None else "write"
    raise AgentError(
        Problem.OPTION_CONFLICT,
        f"--memory-target={target} has no room for a {what} part of "
        f"{getattr(buffers, what)} bytes: it takes {need} MiB",
        hint=f"raise the memory target to {need} or more, or choose smaller parts",
    )
