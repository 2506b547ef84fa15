"""How every command line is read, and how its help looks: by the table of commands alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from s3mount_agent.console.table import COMMANDS, Command, Option

if TYPE_CHECKING:
    from s3mount_agent.core.errors import AgentError

_WIDTH = 80


class Given(NamedTuple):
    """What a command was given: its arguments, and its options by name with what they were read
    as (True for one without value). ``wants_help`` and ``debug`` are understood by all."""

    command: Command
    words: tuple[str, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to
    wants_help: bool = False
    debug: bool = False

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self.options

    def value(self, name: str) -> Any:
        """The value of an option, None if it was not given."""
        return self.options.get(name)


def find(name: str) -> Command:
    """The command of this name; raises ``usage`` with the nearest one."""
    for command in COMMANDS:
        if command.name == name:
            return command
    known = {c.name: c.name for c in COMMANDS if not c.hidden}
    known.update((word, c.name) for c in COMMANDS for word in c.aka)
    close = _closest(name, known)
    hint = f"did you mean `s3mount-agent {known[close]}`?" if close else None
    raise _usage(f"there is no command {name!r}", hint)


def parse(command: Command, arguments: Iterable[str]) -> Given:
    """Reads a command's arguments; raises ``usage`` with what is wrong.

    Options may stand anywhere before ``--``. Where a command has ``options_first``, they end with
    the first argument, but for ``--debug``, which is taken wherever it cannot be a mount's option.
    """
    words: list[str] = []
    options: dict[str, Any] = {}
    wants_help = debug = only_words = False
    rest = iter(arguments)
    for word in rest:
        if only_words or (command.options_first and words and word != "--debug"):
            words.append(word)
        elif word == "--debug":
            if command.options_first and len(words) % 3 == 2:
                words.append(word)  # a mount's third argument: mount-s3 has an option --debug, too
            else:
                debug = True
        elif word == "--":
            only_words = True
        elif word in ("-h", "--help"):
            wants_help = True
        elif word.startswith("--") or (word[:1] == "-" != word and not command.options_first):
            name, value = _read_option(command, word, rest)
            if name in options:
                raise _usage(f"the option {name} is given twice", _see(command))
            options[name] = value
        else:
            words.append(word)
    if not wants_help:
        _require_count(command, words)
    return Given(command, tuple(words), options, wants_help, debug)


def _read_option(command: Command, word: str, rest: Iterator[str]) -> tuple[str, object]:
    name, equals, attached = word.partition("=")
    option = command.option(name)
    if option is None:
        known = [each.name for each in _shown(command)] + ["--help", "--debug"]
        close = _closest(name, known)
        hint = f"did you mean {close}?" if close else command.stray or _see(command)
        raise _usage(f"{command.name} has no option {name!r}", hint)
    if not option.value:
        if equals:
            raise _usage(f"the option {name} takes no value", _see(command))
        return name, True
    text = attached if equals else next(rest, None)
    if text is None:
        raise _usage(f"the option {name} needs a value: {option.value}", _see(command))
    try:
        return name, option.read(text)
    except ValueError:
        raise _usage(f"{name} takes {option.form}, not {text!r}", _see(command)) from None


def _require_count(command: Command, words: list[str]) -> None:
    if len(words) < command.least:
        missing = command.words[len(words) % len(command.words)][0]
        raise _usage(f"{command.name} needs {missing}", _see(command))
    if command.most is not None and len(words) > command.most:
        takes = f"at most {command.most}" if command.most else "no arguments"
        extra = words[command.most]
        raise _usage(f"{command.name} takes {takes}, but was given {extra!r}", _see(command))


def help_of(command: Command) -> str:
    """The help of one command."""
    before = f"s3mount-agent {command.name}"
    usage = command.usage or (_usage_of(command),)
    lines = [f"{'usage:' if n == 0 else '':<6} {before} {u}".rstrip() for n, u in enumerate(usage)]
    lines += ["", *_filled(command.does)]
    if command.words:
        lines += ["", *_rows(command.words)]
    options = [
        (f"{option.name} {option.value}".rstrip(), option.about) for option in _shown(command)
    ]
    where = "options, before the first BUCKET:" if command.options_first else "options:"
    lines += ["", where, *_rows([*options, ("--debug", "show what went wrong inside, too")])]
    if command.examples:
        lines += ["", "for example:", *(f"  s3mount-agent {each}" for each in command.examples)]
    if command.codes:
        meanings = ", ".join(f"{code} {meaning}" for code, meaning in command.codes)
        lines += ["", *_filled(f"exit codes: {meanings}")]
    return "\n".join(lines)


def _usage_of(command: Command) -> str:
    words = " ".join(name for name, _ in command.words)
    if words and command.most is None:
        words += "..."
    options = [f"[{o.name} {o.value}".rstrip() + "]" for o in _shown(command)]
    return " ".join([*options, f"[{words}]" if words and not command.least else words])


def _shown(command: Command) -> list[Option]:
    return [option for option in command.options if option.about]


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns; a first one that is too wide has a line of its own."""
    lines = []
    for name, about in rows:
        first, *more = _filled(about, _WIDTH - 18)
        if len(name) <= 14:
            lines.append(f"  {name:<16}{first}".rstrip())
        else:
            lines += [f"  {name}", f"{'':18}{first}"]
        lines += [f"{'':18}{line}" for line in more]
    return lines


def _filled(text: str, width: int = _WIDTH) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _closest(word: str, known: Iterable[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    return close[0] if close else None


def _see(command: Command) -> str:
    return f"see `s3mount-agent {command.name} --help`"


def _usage(message: str, hint: str | None) -> AgentError:
    from s3mount_agent.core.errors import AgentError, Problem

    return AgentError(Problem.USAGE, message, hint=hint)
