"""What may stand in a configuration: kinds of values, and tables of keys made of them.

One definition serves three: reading a file, the JSON Schema for editors, and the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from s3mount_agent.config.document import Items, Node, Scalar, Source, Table
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.text import require_plain
from s3mount_agent.mountpoint.flags import FLAGS, Flag


class Kind(Protocol):
    """A kind of value."""

    def read(self, node: Node, source: Source) -> Any:
        """The value; raises ``config-invalid`` where the node stands."""

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema (draft 2020-12)."""


@dataclass(frozen=True)
class Text:
    """A single value that matches a pattern; ``form`` says in an error what was expected."""

    form: str = "a text"
    pattern: str = r"[\s\S]*"

    def read(self, node: Node, source: Source) -> str:
        """The text as it is written: 0755 stays 0755."""
        if not isinstance(node, Scalar) or node.kind == "null":
            source.refuse(node.mark, f"{self.form} was expected here")
        if not re.fullmatch(self.pattern, node.text, re.ASCII):
            source.refuse(node.mark, f"{self.form} was expected here, not {node.text!r}")
        return node.text

    def schema(self) -> dict[str, Any]:
        """Numbers are fine, too: YAML takes an unquoted 0755 for one; and so is ``true``."""
        return {"type": ["string", "number", "boolean"], "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, node: Node, source: Source) -> str:
        """The word."""
        if not isinstance(node, Scalar) or node.text not in self.words:
            hint = _suggestion(node.text, self.words) if isinstance(node, Scalar) else None
            source.refuse(node.mark, f"one of {', '.join(self.words)} was expected here", hint=hint)
        return node.text

    def schema(self) -> dict[str, Any]:
        """An enumeration; a word of digits may stand without quotes."""
        return {"enum": [*self.words, *(int(word) for word in self.words if word.isdecimal())]}


@dataclass(frozen=True)
class Truth:
    """true or false."""

    def read(self, node: Node, source: Source) -> bool:
        """The truth."""
        if not isinstance(node, Scalar) or node.kind != "bool":
            source.refuse(node.mark, "true or false was expected here")
        return node.text.lower() in ("true", "yes", "on")

    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number:
    """A whole number within bounds."""

    least: int
    most: int

    def read(self, node: Node, source: Source) -> int:
        """The number, in decimal digits."""
        digits = isinstance(node, Scalar) and re.fullmatch(r"\d{1,12}", node.text, re.ASCII)
        if digits and self.least <= int(digits[0]) <= self.most:
            return int(digits[0])
        source.refuse(
            node.mark, f"a whole number from {self.least} to {self.most} was expected here"
        )

    def schema(self) -> dict[str, Any]:
        """An integer, also in quotes."""
        return {
            "type": ["integer", "string"],
            "pattern": r"^\d{1,12}$",
            "minimum": self.least,
            "maximum": self.most,
        }


@dataclass(frozen=True)
class Duration:
    """A time such as 90s, 5m, 2h or 1d, in seconds."""

    least: int
    most: int

    def read(self, node: Node, source: Source) -> int:
        """The seconds."""
        match = isinstance(node, Scalar) and re.fullmatch(
            r"(\d{1,7})\s*([smhd]?)", node.text, re.ASCII
        )
        if match:
            seconds = int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
            if self.least <= seconds <= self.most:
                return seconds
        source.refuse(
            node.mark,
            f"a time from {self.least}s to {self.most}s was expected here, such as 90s or 5m",
        )

    def schema(self) -> dict[str, Any]:
        """Seconds, or a number with its unit."""
        return {"type": ["string", "integer"], "pattern": r"^\d{1,7}\s*[smhd]?$", "minimum": 0}


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind; one alone may stand without brackets."""

    kind: Kind
    most: int = 100

    def read(self, node: Node, source: Source) -> tuple[Any, ...]:
        """The values."""
        items: Sequence[Node] = node.items if isinstance(node, Items) else [node]
        if len(items) > self.most:
            source.refuse(items[self.most].mark, f"at most {self.most} values may stand here")
        return tuple(self.kind.read(item, source) for item in items)

    def schema(self) -> dict[str, Any]:
        """An array, or one of its items."""
        item = self.kind.schema()
        return {"anyOf": [item, {"type": "array", "items": item, "maxItems": self.most}]}


@dataclass(frozen=True)
class MapOf:
    """A mapping whose keys are of a closed or patterned set, and whose values are of one kind."""

    kind: Kind
    keys: Text | Choice

    def read(self, node: Node, source: Source) -> dict[str, Any]:
        """The values by key."""
        if not isinstance(node, Table):
            source.refuse(node.mark, "a mapping was expected here")
        return {self.keys.read(key, source): self.kind.read(value, source) for key, value in node}

    def schema(self) -> dict[str, Any]:
        """An object."""
        if isinstance(self.keys, Choice):
            properties = {word: self.kind.schema() for word in self.keys.words}
            return {"type": "object", "properties": properties, "additionalProperties": False}
        return {
            "type": "object",
            "patternProperties": {f"^(?:{self.keys.pattern})$": self.kind.schema()},
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Key:
    """A key of a section: its kind, one sentence about it, and whether it must be there."""

    name: str
    kind: Kind
    about: str
    required: bool = False


@dataclass(frozen=True)
class Section:
    """A mapping with known keys, read into a dict that has those that are given."""

    keys: tuple[Key, ...]

    def read(self, node: Node, source: Source) -> dict[str, Any]:
        """The values by key; an unknown key is an error with a suggestion."""
        if not isinstance(node, Table):
            source.refuse(node.mark, "a mapping (key: value) was expected here")
        known = {key.name: key for key in self.keys}
        values = {}
        for key, value in node:
            if key.text not in known:
                hint = _suggestion(key.text, known) or f"known: {', '.join(known)}"
                source.refuse(key.mark, f"there is no key {key.text!r} here", hint=hint)
            values[key.text] = known[key.text].kind.read(value, source)
        for key_ in self.keys:
            if key_.required and key_.name not in values:
                source.refuse(node.mark, f"the key {key_.name!r} is missing here")
        return values

    def schema(self) -> dict[str, Any]:
        """A closed object."""
        return {
            "type": "object",
            "properties": {
                key.name: {**key.kind.schema(), "description": key.about} for key in self.keys
            },
            "required": [key.name for key in self.keys if key.required],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class FlagValue:
    """The value of one of mount-s3's flags: true, false, or what the flag takes."""

    flag: Flag

    def read(self, node: Node, source: Source) -> str | bool:
        """The text for mount-s3, or for a flag without value whether it is set."""
        value = self.flag.value
        if value is None:
            return Truth().read(node, source)
        text = Text(value.form).read(node, source)
        if isinstance(node, Scalar) and node.kind == "bool" and text.lower() == "false":
            return False  # takes the flag away
        is_true = isinstance(node, Scalar) and node.kind == "bool" and text.lower() == "true"
        located(lambda: require_plain("value", text), node, source)
        if is_true or not value.accepts(text):
            source.refuse(node.mark, f"{value.form} was expected here, not {text!r}")
        return text

    def schema(self) -> dict[str, Any]:
        """Numbers may stand without quotes; ``false`` takes the flag away."""
        if self.flag.value is None:
            return {"type": "boolean"}
        return {"anyOf": [{"type": ["string", "number"]}, {"const": False}]}


def flag_keys() -> tuple[Key, ...]:
    """A key for every flag of mount-s3 that a user may give, with ``_`` for ``-``."""
    return tuple(
        Key(
            name.replace("-", "_"),
            ListOf(FlagValue(flag)) if flag.repeatable else FlagValue(flag),
            f"mount-s3's --{name}" + (f": {flag.value.form}" if flag.value else ""),
        )
        for name, flag in FLAGS.items()
        if not flag.reserved
    )


def json_schema(section: Section, title: str) -> Mapping[str, Any]:
    """The whole schema of a file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **section.schema(),
    }


@dataclass(frozen=True)
class Parsed:
    """A text that one of the model's own readers understands; its errors get their place here."""

    form: str
    parse: Callable[[str], Any]

    def read(self, node: Node, source: Source) -> Any:
        """What the reader makes of the text."""
        text = Text(self.form).read(node, source)
        return located(lambda: self.parse(text), node, source)

    def schema(self) -> dict[str, Any]:
        """A text: what it may be is more than a schema can say."""
        return Text(self.form).schema()


@dataclass(frozen=True)
class Built:
    """A section that becomes an object; errors in building it get the section's place."""

    section: Section
    build: Callable[[dict[str, Any]], Any]

    def read(self, node: Node, source: Source) -> Any:
        """The object."""
        values = self.section.read(node, source)
        return located(lambda: self.build(values), node, source)

    def schema(self) -> dict[str, Any]:
        """The section's."""
        return self.section.schema()


def _suggestion(word: str, known: Iterable[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else None


def located(read: Callable[[], Any], node: Node, source: Source) -> Any:
    """Calls a reader and gives its error the place of ``node``, if it has none yet."""
    try:
        return read()
    except AgentError as error:
        if error.message.startswith(f"{source.name}:"):
            raise
        source.refuse(node.mark, error.message, problem=error.problem, hint=error.hint)
