"""Reads a unit as systemd does, and takes anything for an error that nobody can have meant."""

from __future__ import annotations

import re
from collections.abc import Iterator

Unit = dict[str, list[tuple[str, str]]]


def sections(text: str) -> Unit:
    """Reads a unit as systemd.syntax(7) says; a line that is not an assignment is an error."""
    found: Unit = {}
    section = ""
    for line in text.split("\n"):
        assert not line.endswith("\\"), f"continued line: {line!r}"
        if not line or line[0] in "#;":
            continue
        header = re.fullmatch(r"\[([^\]]*)\]", line)
        if header:
            section = header[1]
            assert section not in found
            found[section] = []
            continue
        key, equals, value = line.partition("=")
        assert equals, f"not an assignment: {line!r}"
        found[section].append((key.strip(), value.strip()))
    return found


def words(value: str) -> Iterator[str]:
    """Splits a command line as systemd does: systemd.service(5), "Command lines"."""
    position = 0
    while position < len(value):
        if value[position] in " \t":
            position += 1
            continue
        assert value[position] != ";" or value[position : position + 2].strip() != ";"
        word, quote = "", ""
        while position < len(value) and (quote or value[position] not in " \t"):
            character = value[position]
            position += 1
            if character == "\\":
                character = value[position]
                position += 1
                # \n, \t, \xHH, \s … would be control characters or spaces: never meant here.
                assert character in "\\\"'", f"escape \\{character}"
                word += character
            elif quote and character == quote:
                quote = ""
            elif not quote and character in "\"'":
                quote = character
            else:
                word += character
        assert not quote, "open quote"
        yield word


def expanded(word: str, *, variables: bool) -> str:
    """Expands specifiers and variables where there are none: systemd.unit(5), "Specifiers"."""
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), f"a specifier in {word!r}"
    word = word.replace("%%", "%")
    if not variables:
        return word
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), f"a variable in {word!r}"
    return word.replace("$$", "$")


def commands(unit: Unit, key: str) -> list[list[str]]:
    lines = [value for name, value in unit["Service"] if name == key]
    return [[expanded(word, variables=True) for word in words(line)] for line in lines]


def environment(unit: Unit) -> dict[str, str]:
    """The variables of Environment=: systemd.exec(5). Quotes and escapes count, ``$`` does not."""
    found: dict[str, str] = {}
    for value in [value for name, value in unit["Service"] if name == "Environment"]:
        for word in words(value):
            name, equals, text = expanded(word, variables=False).partition("=")
            assert equals, f"not an assignment: {word!r}"
            assert re.fullmatch(r"[A-Z0-9_]+", name), f"not a name: {name!r}"
            assert name not in found, f"{name} twice"
            found[name] = text
    return found
