"""A configuration file as a tree in which every value knows where it stands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, Union

from s3mount_agent.core.errors import AgentError, Problem, together

_Read = TypeVar("_Read")
# A file from outside may be wrong in thousands of places.
_MOST_ERRORS = 30


@dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Scalar:
    """A single value as it is written, and what YAML takes it for: str, bool, int, float, null."""

    text: str
    kind: str
    mark: Mark


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True)
class Table:
    """A mapping, its keys in order and each there once."""

    entries: tuple[tuple[Scalar, Node], ...]
    mark: Mark

    def __iter__(self) -> Iterator[tuple[Scalar, Node]]:
        return iter(self.entries)

    def get(self, name: str) -> Node | None:
        """The value of a key."""
        return next((value for key, value in self.entries if key.text == name), None)


Node = Union[Scalar, Items, Table]


@dataclass(frozen=True)
class Source:
    """A file's name and text, for errors that show the line they are about.

    ``errors`` are those that were found on the way: the reader goes on after one, so that people
    are told of all at once.
    """

    name: str
    text: str
    errors: list[AgentError] = field(default_factory=list, compare=False)

    def attempt(self, read: Callable[..., _Read], *arguments: Any) -> _Read | None:
        """What a reader makes of its arguments, or None, its error being kept."""
        try:
            return read(*arguments)
        except AgentError as error:
            if len(self.errors) >= _MOST_ERRORS:
                raise
            self.keep(error)
        return None

    def keep(self, error: AgentError) -> None:
        """Keeps an error, for others to be found; raises all that were where there are many."""
        self.errors.append(error)
        if len(self.errors) >= _MOST_ERRORS:
            self.settle()

    def settle(self) -> None:
        """Raises what was found: the first error, with the others in its company."""
        if self.errors:
            raise together(self.errors)

    def refuse(
        self,
        mark: Mark,
        message: str,
        *,
        problem: Problem = Problem.CONFIG_INVALID,
        hint: str | None = None,
        quote: bool = True,
    ) -> NoReturn:
        """Raises :meth:`error`."""
        raise self.error(mark, message, problem=problem, hint=hint, quote=quote)

    def error(
        self,
        mark: Mark,
        message: str,
        *,
        problem: Problem = Problem.CONFIG_INVALID,
        hint: str | None = None,
        quote: bool = True,
    ) -> AgentError:
        """An error that names file, line and column and quotes the line (unless it holds what
        nobody should read)."""
        # It may quote a value, which may be as long as the file; status and the journal keep it.
        cut = message if len(message) <= 500 else f"{message[:500]}…"
        return AgentError(
            problem,
            f"{self.name}:{mark.line}:{mark.column}: {cut}",
            cause=self._quoted(mark) if quote else None,
            hint=hint,
        )

    def located(self, mark: Mark, error: AgentError) -> AgentError:
        """An error that has no place yet, with its company, at a place."""
        every = (error, *error.more)
        return together(
            [self.error(mark, e.message, problem=e.problem, hint=e.hint) for e in every]
        )

    def _quoted(self, mark: Mark) -> str:
        lines = itertools.islice(self.text.splitlines(), mark.line - 1, mark.line)
        shown = "".join(c if c.isprintable() else "?" for c in next(lines, ""))[:200]
        return f"{shown}\n{' ' * (mark.column - 1)}^" if mark.column <= 200 else shown
