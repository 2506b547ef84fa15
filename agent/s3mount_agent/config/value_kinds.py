"""The kinds of single values in a configuration: how each is read and documented."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from s3mount_agent.config.document import Node, Scalar, Source
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.text import require_plain
from s3mount_agent.mountpoint.flags import Flag

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class ValueKind(Protocol):
    """A kind of value."""

    def read(self, node: Node, source: Source) -> Any:
        """The value; raises ``config-invalid`` where the node stands."""

    def schema(self) -> dict[str, Any]:
        """The kind as JSON Schema (draft 2020-12)."""

    def type(self) -> str:
        """What the documentation calls it."""


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

    def type(self) -> str:
        """The form without its article."""
        return re.sub(r"^an? ", "", self.form)


@dataclass(frozen=True)
class Choice:
    """One of some words; ``meant`` has what people write instead of them."""

    words: tuple[str, ...]
    meant: Mapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, source: Source) -> str:
        """The word."""
        if isinstance(node, Scalar) and node.text in self.words:
            return node.text
        text = node.text if isinstance(node, Scalar) else ""
        if text in self.meant:
            meant = self.meant[text]
            source.refuse(node.mark, f"{text!r} is called {meant!r} here", hint=f"write {meant}")
        hint = suggestion(text, self.words)
        source.refuse(node.mark, f"one of {', '.join(self.words)} was expected here", hint=hint)

    def schema(self) -> dict[str, Any]:
        """An enumeration; a word of digits may stand without quotes."""
        return {"enum": [*self.words, *(int(word) for word in self.words if word.isdecimal())]}

    def type(self) -> str:
        """The words."""
        return ", ".join(f"`{word}`" for word in self.words)


@dataclass(frozen=True)
class OneOf(Choice):
    """One of the values of an enumeration, as which it is read."""

    kind: type[Enum] = Enum

    def read(self, node: Node, source: Source) -> Any:
        """The member."""
        return self.kind(super().read(node, source))


def one_of(kind: type[Enum], meant: Mapping[str, str] | None = None) -> OneOf:
    """The kind of an enumeration's values."""
    return OneOf(tuple(str(each.value) for each in kind), meant or {}, kind)


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

    def type(self) -> str:
        """Its two words."""
        return "`true`, `false`"


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

    def type(self) -> str:
        """Its bounds."""
        return f"whole number, {self.least} to {self.most}"


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
            seconds = int(match[1]) * _SECONDS[match[2] or "s"]
            if self.least <= seconds <= self.most:
                return seconds
        bounds = f"{duration(self.least)} to {duration(self.most)}"
        source.refuse(node.mark, f"a time from {bounds} was expected here, such as 90s or 5m")

    def schema(self) -> dict[str, Any]:
        """Seconds, or a number with its unit."""
        return {"type": ["string", "integer"], "pattern": r"^\d{1,7}\s*[smhd]?$", "minimum": 0}

    def type(self) -> str:
        """Its bounds."""
        return f"time, {duration(self.least)} to {duration(self.most)}"


def duration(seconds: int) -> str:
    """Seconds as people write them: 90s, 5m, 2h, 1d."""
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


@dataclass(frozen=True)
class Parsed:
    """A text that one of the model's own readers understands; its errors get their place here.

    ``pattern`` is as much of it as an editor can check.
    """

    form: str
    parse: Callable[[str], Any]
    pattern: str = r"[\s\S]*"

    def read(self, node: Node, source: Source) -> Any:
        """What the reader makes of the text."""
        text = Text(self.form).read(node, source)
        return located(lambda: self.parse(text), node, source)

    def schema(self) -> dict[str, Any]:
        """A text: what it may be is more than a schema can say."""
        return Text(self.form, self.pattern).schema()

    def type(self) -> str:
        """The form without its article."""
        return Text(self.form).type()


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
        return {"type": ["string", "number", "boolean"], "not": {"const": True}}

    def type(self) -> str:
        """What mount-s3 takes."""
        if self.flag.value is None:
            return Truth().type()
        return re.sub(r"^an? |^one of ", "", self.flag.value.form)


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The hint with the known word that is nearest, if there is one."""
    import difflib

    close = difflib.get_close_matches(word[:100], known, n=1)
    return f"did you mean {close[0]}?" if close else None


def located(read: Callable[[], Any], node: Node, source: Source) -> Any:
    """Calls a reader and gives its error the place of ``node``, if it has none yet."""
    try:
        return read()
    except AgentError as error:
        if error.message.startswith(f"{source.name}:"):
            raise
        raise source.located(node.mark, error) from None
