"""Tables of keys, made of the kinds of values.

One row serves all: reading a file, where its value goes, the JSON Schema for editors, and the
documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from s3mount_agent.config.document import Items, Node, Scalar, Source, Table
from s3mount_agent.config.value_kinds import (
    Choice,
    Duration,
    FlagValue,
    ValueKind,
    duration,
    located,
    suggestion,
)
from s3mount_agent.mountpoint.flags import FLAGS

# What the agent gives mount-s3 where nobody says otherwise.
_FLAG_DEFAULTS = {
    "uid": "the cluster's user",
    "gid": "the cluster's user's group",
    "memory-target": "its [share](#shares)",
    "maximum-throughput-gbps": "its share of `bandwidth_gbps`",
    "user-agent-prefix": "`s3mount-agent`",
}


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind; one alone may stand without brackets."""

    kind: ValueKind
    most: int = 100
    empty: str = ""
    """What to say of a value that is missing where a list should be."""

    def read(self, node: Node, source: Source) -> tuple[Any, ...]:
        """The values."""
        if self.empty and isinstance(node, Scalar) and node.kind == "null":
            source.refuse(node.mark, self.empty)
        items: Sequence[Node] = node.items if isinstance(node, Items) else [node]
        if len(items) > self.most:
            source.refuse(items[self.most].mark, f"at most {self.most} values may stand here")
        return tuple(source.attempt(self.kind.read, item, source) for item in items)

    def schema(self) -> dict[str, Any]:
        """An array, or one of its items; not ``anyOf``, whose errors point nowhere."""
        item = self.kind.schema()
        array = {"type": "array", "items": item, "maxItems": self.most}
        return {"if": {"type": "array"}, "then": array, "else": item}

    def type(self) -> str:
        """That of its items."""
        return f"list of: {self.kind.type()}"


@dataclass(frozen=True)
class MapOf:
    """A mapping whose keys are of a closed set, and whose values are of one kind.

    ``refused`` has keys that are no typing errors, with what to say of them; their values are not
    shown. ``special`` has the kinds of values that are not like the others.
    """

    kind: ValueKind
    keys: Choice
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    special: Mapping[str, ValueKind] = field(default_factory=dict)

    def read(self, node: Node, source: Source) -> dict[Any, Any]:
        """The values by key."""
        if not isinstance(node, Table):
            source.refuse(node.mark, "a mapping was expected here")
        values = {}
        for key, value in node:
            name = source.attempt(self._key, key, source)
            if name is not None:
                kind = self.special.get(key.text, self.kind)
                values[name] = source.attempt(kind.read, value, source)
        return values

    def _key(self, key: Scalar, source: Source) -> Any:
        if key.text in self.refused:
            message, hint = self.refused[key.text]
            source.refuse(key.mark, message, hint=hint, quote=False)
        return self.keys.read(key, source)

    def schema(self) -> dict[str, Any]:
        """An object."""
        kinds = {word: self.special.get(word, self.kind) for word in self.keys.words}
        properties = {word: kind.schema() for word, kind in kinds.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def type(self) -> str:
        """A mapping."""
        return "mapping"


@dataclass(frozen=True)
class Key:
    """A key of a section: its kind, one sentence about it, and whether it must be there.

    ``into`` is the attribute that its value becomes ("" for that of the same name); that
    attribute's own default is the key's, and ``default`` only says what is not simply a value.
    ``aka`` are names that people give it.
    """

    name: str
    kind: ValueKind
    about: str
    required: bool = False
    into: str = ""
    default: str = ""
    aka: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A mapping with known keys, read into a dict of the attributes that are given: None is what
    could not be read, under "" where nobody knows which key was meant.

    ``of`` is the class whose attributes they are, ``flat`` whether they are those of the object
    that the section is a part of. ``never`` are names of what is refused on purpose, with why.
    """

    keys: tuple[Key, ...]
    of: type | None = None
    flat: bool = False
    never: Mapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, source: Source) -> dict[str, Any]:
        """The values by attribute; an unknown key is an error with a suggestion."""
        if not isinstance(node, Table):
            source.refuse(node.mark, "a mapping (key: value) was expected here")
        known = {key.name: key for key in self.keys}
        values: dict[str, Any] = {}
        missing = {key.name for key in self.keys if key.required}
        for word, value in node:
            name = _name(word)
            missing.discard(name if name in known else self._meant(name) or "")
            row = source.attempt(self._row, word, source)
            if row is None:
                values.setdefault(self._into(self._meant(name)), None)
                continue
            if word.text != name and any(key.text == name for key, _ in node):
                message = f"the key {name!r} is given twice, once as {word.text!r}"
                source.attempt(source.refuse, word.mark, message)
            read = source.attempt(row.kind.read, value, source)
            if isinstance(row.kind, Section) and row.kind.flat:
                values.update(read or {})
            else:
                values[self._into(row.name)] = read
        for name in [key.name for key in self.keys if key.name in missing]:
            source.attempt(source.refuse, node.mark, f"the key {name!r} is missing here")
        return values

    def _row(self, word: Scalar, source: Source) -> Key:
        known = {key.name: key for key in self.keys}
        name = _name(word)
        if name in known:
            return known[name]
        if name in self.never:
            source.refuse(word.mark, f"{name!r} cannot be said here", hint=self.never[name])
        hint = suggestion(name, known) or f"known: {', '.join(known)}"
        message = f"there is no key {name!r} here"
        for key in self.keys:
            if name in key.aka:
                message = f"the key {name!r} is called {key.name!r} here"
                hint = f"write {key.name}: {key.about}"
        source.refuse(word.mark, message, hint=hint)

    def _meant(self, name: str) -> str | None:
        """The key that a wrong name stands for: it need not be called missing as well."""
        import difflib

        by_name = {key.name: key.name for key in self.keys}
        by_name.update((word, key.name) for key in self.keys for word in key.aka)
        close = difflib.get_close_matches(name[:100], by_name, n=1)
        return by_name[close[0]] if close else None

    def _into(self, name: str | None) -> str:
        return next((key.into or key.name for key in self.keys if key.name == name), "")

    def schema(self) -> dict[str, Any]:
        """A closed object."""
        properties = {
            key.name: {**key.kind.schema(), "description": key.about} for key in self.keys
        }
        if "on" in properties:
            properties["true"] = properties["on"]
        return {
            "type": "object",
            "properties": properties,
            "required": [key.name for key in self.keys if key.required],
            "additionalProperties": False,
        }

    def default(self, key: Key) -> str:
        """A key's default, as the documentation shows it."""
        if key.default or key.required:
            return key.default
        attributes = dataclasses.fields(self.of) if self.of is not None else ()
        value = next((f.default for f in attributes if f.name == (key.into or key.name)), None)
        if isinstance(value, Enum):
            value = value.value
        if isinstance(key.kind, Duration) and isinstance(value, int):
            return f"`{duration(value)}`"
        if isinstance(value, bool):
            return f"`{str(value).lower()}`"
        return f"`{value}`" if isinstance(value, (str, int)) else ""

    def type(self) -> str:
        """A mapping."""
        return "mapping"


@dataclass(frozen=True)
class Built:
    """A section that becomes an object; errors in building it get the section's place."""

    section: Section
    build: Callable[[dict[str, Any]], Any]
    name: str = "mapping"
    known: Callable[[dict[str, Any]], Any] = lambda values: None
    """What is made of a section in which something is wrong."""

    def read(self, node: Node, source: Source) -> Any:
        """The object, or what is known of it where something in it is wrong, which is kept in the
        source."""
        before = len(source.errors)
        values = self.section.read(node, source)
        if len(source.errors) > before:
            return self.known(values)
        return located(lambda: self.build(values), node, source)

    def schema(self) -> dict[str, Any]:
        """The section's."""
        return self.section.schema()

    def type(self) -> str:
        """The object's name."""
        return self.name


def flag_keys() -> tuple[Key, ...]:
    """A key for every flag of mount-s3 that a user may give, with ``_`` for ``-``."""
    return tuple(
        Key(
            name.replace("-", "_"),
            ListOf(FlagValue(flag)) if flag.repeatable else FlagValue(flag),
            f"mount-s3's --{name}",
            default=_FLAG_DEFAULTS.get(name, "mount-s3's own" if flag.value else "`false`"),
        )
        for name, flag in FLAGS.items()
        if not flag.reserved
    )


def json_schema(section: Section, title: str, name: str) -> Mapping[str, Any]:
    """The whole schema of a file; ``name`` is a URI that stands for it and leads nowhere."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        "title": title,
        **section.schema(),
    }


def _name(word: Scalar) -> str:
    """A key as it is written; ``on`` that went through a YAML 1.1 program comes back as true."""
    return "on" if word.kind == "bool" and word.text.lower() == "true" else word.text
