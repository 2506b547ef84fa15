"""YAML: text that may come from anywhere becomes a tree of plain values.

The file may be hostile: aliases (which make small files huge), tags, several documents, duplicate
keys, great depth and great size are refused, and nothing but strings is ever constructed.
"""

from __future__ import annotations

import codecs
import contextlib
from typing import TYPE_CHECKING, Any

from s3mount_agent.config.document import Items, Mark, Node, Scalar, Source, Table
from s3mount_agent.core.errors import AgentError, Problem

if TYPE_CHECKING:
    import yaml

# Byte order marks that editors on Windows write.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
LARGEST_BYTES = 256 * 1024
_DEEPEST = 10
_KINDS = {"str", "bool", "int", "float", "null"}


def decode(data: bytes, name: str) -> str:
    """The text of a file; raises ``config-invalid`` with what it is where it is not UTF-8."""
    if len(data) > LARGEST_BYTES:
        raise _too_large(name)
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise _not_utf8(f"{name} is {encoding} text, not UTF-8")
    if b"\0" in data[:4]:
        raise _not_utf8(f"{name} is UTF-16 text or no text at all, not UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        byte = data[error.start]
        latin = bytes([byte]).decode("cp1252", errors="replace")
        meant = f" (in Latin-1 it is {latin!r})" if latin.isprintable() else ""
        raise _not_utf8(
            f"{name}:{line}:{column}: the byte 0x{byte:02X} is not UTF-8 text{meant}"
        ) from None


def require_small(text: str, name: str) -> None:
    """Refuses a text that is larger than :func:`parse` reads (``config-invalid``)."""
    if len(text.encode(errors="replace")) > LARGEST_BYTES:
        raise _too_large(name)


def _too_large(name: str) -> AgentError:
    return AgentError(
        Problem.CONFIG_INVALID,
        f"{name} is larger than {LARGEST_BYTES >> 10} KiB",
        hint="a configuration has a few lines for each mount",
    )


def _not_utf8(message: str) -> AgentError:
    return AgentError(
        Problem.CONFIG_INVALID, message, hint="save it as UTF-8, with an editor or with iconv"
    )


def parse(text: str, name: str) -> Node:
    """The tree of a YAML text; raises ``config-invalid`` with the place in ``name``."""
    source = Source(name, text)
    node = read(source)
    source.settle()
    return node


def read(source: Source) -> Node:
    """The tree of a YAML text. What does not keep it from being read, such as a key that is given
    twice, is kept in the source; raises the rest, with that."""
    node = source.attempt(_parse, source.text, source)
    if node is None:
        source.settle()
        raise AssertionError(source.name)
    return node


def _parse(text: str, source: Source) -> Node:
    import yaml

    require_small(text, source.name)
    try:
        loader = yaml.SafeLoader(text)
        return _Reader(loader, source).document()
    except yaml.reader.ReaderError as error:
        what = f"U+{ord(text[error.position]):04X}"
        source.refuse(_place(text, error.position), f"this is not text: it holds {what}")
    except yaml.MarkedYAMLError as error:
        _refuse_open_quote(text, error, source)
        place = error.problem_mark or error.context_mark
        mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
        source.refuse(mark, f"this is not YAML: {error.problem or error.context}")
    except (ValueError, OverflowError):  # "\\UFFFFFFFF": PyYAML asks chr() for anything
        mark = Mark(loader.line + 1, loader.column + 1)
        source.refuse(mark, "there is no such character")


def _refuse_open_quote(text: str, error: yaml.MarkedYAMLError, source: Source) -> None:
    """A quote that is not closed is an error where the file ends, or at the next quote: what people
    look for is where it was opened."""
    import yaml

    opened = error.context_mark if "quoted scalar" in (error.context or "") else None
    at_end = opened is not None and "end of stream" in (error.problem or "")
    if not at_end:
        opened = None
        with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError):
            for token in yaml.scan(text, Loader=yaml.SafeLoader):
                if error.problem_mark and token.start_mark.index >= error.problem_mark.index:
                    break
                quoted = isinstance(token, yaml.ScalarToken) and token.style in ("'", '"')
                if quoted and token.start_mark.line < token.end_mark.line:
                    opened = token.start_mark
    if opened is not None:
        quote = text[opened.index]
        closed = "never closed" if at_end else "not closed before the line ends"
        mark = Mark(opened.line + 1, opened.column + 1)
        source.refuse(mark, f"this is not YAML: the quote {quote} that is opened here is {closed}")


class _Reader:
    """Builds the tree from the parser's events, which knows nothing of objects."""

    def __init__(self, loader: Any, source: Source) -> None:
        self._loader = loader
        self._source = source

    def document(self) -> Node:
        import yaml

        self._loader.get_event()  # the beginning of the stream
        if self._loader.check_event(yaml.StreamEndEvent):
            self._source.refuse(Mark(1, 1), "the file is empty")
        self._loader.get_event()
        node = self._node(0)
        self._loader.get_event()
        if not self._loader.check_event(yaml.StreamEndEvent):
            self._refuse(self._loader.peek_event(), "there is more than one document")
        return node

    def _node(self, depth: int) -> Node:
        import yaml

        event = self._loader.get_event()
        if depth > _DEEPEST:
            self._refuse(event, "this is nested too deeply")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(event, "anchors and aliases are not allowed")
        if event.tag is not None:
            self._refuse(event, "tags are not allowed")
        mark = _mark(event)
        if isinstance(event, yaml.ScalarEvent):
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            kind = tag.rpartition(":")[2]
            return Scalar(event.value, kind if kind in _KINDS else "str", mark)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not self._loader.check_event(yaml.SequenceEndEvent):
                items.append(self._node(depth + 1))
            self._loader.get_event()
            return Items(tuple(items), mark)
        return self._table(depth, mark)

    def _table(self, depth: int, mark: Mark) -> Table:
        import yaml

        entries: dict[str, tuple[Scalar, Node]] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            event = self._loader.peek_event()
            key = self._node(depth + 1)
            if not isinstance(key, Scalar):
                self._source.refuse(_mark(event), "a key must be a single word")
            if key.text in entries:
                message = f"the key {key.text!r} is given twice"
                self._source.attempt(self._refuse, event, message)
            value = self._node(depth + 1)
            entries.setdefault(key.text, (key, value))
        self._loader.get_event()
        return Table(tuple(entries.values()), mark)

    def _refuse(self, event: Any, message: str) -> None:
        self._source.refuse(_mark(event), message)


def _place(text: str, position: int) -> Mark:
    lines = (text[:position] + "x").splitlines()
    return Mark(len(lines), len(lines[-1]))


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
