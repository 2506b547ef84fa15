"""A configuration file as a tree in which every value knows where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Union

from s3mount_agent.core.errors import AgentError, Problem


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


Node = Union[Scalar, Items, Table]


@dataclass(frozen=True)
class Source:
    """A file's name and text, for errors that show the line they are about."""

    name: str
    text: str

    def refuse(
        self,
        mark: Mark,
        message: str,
        *,
        problem: Problem = Problem.CONFIG_INVALID,
        hint: str | None = None,
    ) -> NoReturn:
        """Raises an error that names file, line and column and quotes the line."""
        lines = self.text.splitlines()
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        shown = "".join(c if c.isprintable() else "?" for c in line)[:200]
        # It may quote a value, which may be as long as the file; status and the journal keep it.
        told = message if len(message) <= 500 else f"{message[:500]}…"
        raise AgentError(
            problem,
            f"{self.name}:{mark.line}:{mark.column}: {told}",
            cause=f"{shown}\n{' ' * (mark.column - 1)}^" if mark.column <= 200 else shown,
            hint=hint,
        )
