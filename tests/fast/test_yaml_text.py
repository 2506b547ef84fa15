"""Text that may come from anywhere: a tree where everything has its place, or a clear refusal."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3mount_agent.config import config_file, yaml_text
from s3mount_agent.config.document import Items, Mark, Node, Scalar, Table
from s3mount_agent.core.errors import AgentError, Exit, Problem

NAME = "s3mount.yaml"
LONGEST_SECONDS = 10.0


def refusal(text: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        yaml_text.parse(text, NAME)
    error = caught.value
    assert error.problem is Problem.CONFIG_INVALID
    assert error.problem.exit_code is Exit.USAGE
    return error


def plain(node: Node) -> object:
    """The tree as Python has it, every scalar as its text."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key.text: plain(value) for key, value in node}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a: &x 1\nb: 2", "1:4", "anchors and aliases"),
        ("a: 1\nb: *x", "2:4", "anchors and aliases"),
        ("&x a: 1", "1:1", "anchors and aliases"),
        ("a: &x [1, *x]", "1:4", "anchors and aliases"),
        ("a: &x {b: 1}", "1:4", "anchors and aliases"),
        ("a: {b: 1}\nc: {<<: *a}", "2:9", "anchors and aliases"),
        ("a: !!str 1", "1:4", "tags"),
        ("a: !x 1", "1:4", "tags"),
        ("a: ! 1", "1:4", "tags"),
        ("a: !<x> 1", "1:4", "tags"),
        ("!!map {a: 1}", "1:1", "tags"),
        ("a: !!python/object/apply:os.system [reboot]", "1:4", "tags"),
        ("a: !!binary aGk=", "1:4", "tags"),
        ("a: 1\n---\nb: 1", "2:1", "more than one document"),
        ("--- a\n--- b", "2:1", "more than one document"),
        ("a: 1\n...\n---\n", "3:1", "more than one document"),
        ("a: 1\nb: 2\na: 3", "3:1", "'a' is given twice"),
        ("a: {b: 1, b: 2}", "1:11", "'b' is given twice"),
        ("a: 1\n'a': 2", "2:1", "'a' is given twice"),
        ("? [a]\n: 1", "1:3", "a key must be a single word"),
        ("{a: 1}: 2", "1:1", "a key must be a single word"),
        ("a: 1\nb: [", "2:5", "not YAML"),
        ("a: 'b", "1:4", "the quote ' that is opened here is never closed"),
        ('a:\n  b: "c\n  d: e\n', "2:6", 'the quote " that is opened here is never closed'),
        ('a: "b\nc: "d"\n', "1:4", 'the quote " that is opened here is not closed before'),
        ("a: 'b\nc: 'd e'\nf: 1", "1:4", "the quote ' that is opened here is not closed before"),
        ('a: "b c"\nd: "e" f', "2:8", "not YAML"),
        ("a:\n\t- 1", "2:1", "not YAML"),
        ("a: b: c", "1:5", "not YAML"),
        ("a: @x", "1:4", "not YAML"),
        ("a: 1\n  b: 2", "2:4", "not YAML"),
        ("%YAML 3.0\n---\na: 1", "1:1", "not YAML"),
        ("a: }", "1:4", "not YAML"),
        ('a: "\\q"', "1:6", "not YAML"),
        ("", "1:1", "empty"),
        ("\n\n", "1:1", "empty"),
        ("# nothing but a remark\n", "1:1", "empty"),
        ("\ufeff", "1:1", "empty"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_place(text: str, place: str, said: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"{NAME}:{place}: ")
    assert said in error.message


@pytest.mark.parametrize(
    ("text", "place", "quoted"),
    [
        ("a: 1\nb: \x00", "2:4", "b: ?"),
        ("a: \x07", "1:4", "a: ?"),
        ("a: \x1b[2J", "1:4", "a: ?[2J"),
        ("\x7f", "1:1", "?"),
        ("a: 1\n\nbé: \udcff", "3:5", "bé: ?"),
        ("a: \ud800", "1:4", "a: ?"),
        ("a: \ufffe", "1:4", "a: ?"),
        ("a: \x0b", "1:4", "a: "),
        ("a: 1\r\nb: \x0c", "2:4", "b: "),
        ('a: 1\nb: "\\UFFFFFFFF"', "2:", 'b: "\\UFFFFFFFF"'),
        ('a: 1\nb: "\\U00110000"', "2:", 'b: "\\U00110000"'),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(text: str, place: str, quoted: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"{NAME}:{place}")
    assert error.cause is not None
    assert error.cause.splitlines()[0] == quoted


def test_the_line_is_quoted_with_the_place_below_it() -> None:
    error = refusal("mounts:\n  - bucket: *x\n")
    assert error.lines() == [
        f"s3mount-agent: error [config-invalid]: {NAME}:2:13: anchors and aliases are not allowed",
        "  cause:   - bucket: *x",
        "  cause:             ^",
        f"  hint: {Problem.CONFIG_INVALID.hint}",
    ]


def test_a_quoted_line_is_cut_and_cannot_write_to_the_terminal() -> None:
    error = refusal("a: [*x, \u202e\u200b " + "x" * 5000)
    assert len("\n".join(error.lines())) < 700
    assert error.cause is not None
    assert error.cause.startswith("a: [*x, ?? xxx")


def test_a_file_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"mounts: []\nrole: h\xe9ad\n")
    with pytest.raises(AgentError) as caught:
        config_file.parse(config_file.read(path), str(path))
    assert caught.value.problem is Problem.CONFIG_INVALID
    assert caught.value.message.startswith(f"{path}:2:8: ")
    assert caught.value.cause is not None
    assert caught.value.cause.splitlines()[0] == "role: h?ad"


@pytest.mark.parametrize(
    "text",
    ["[" * 12 + "]" * 12, "{a: " * 12 + "}" * 12, "- " * 12 + "a", "? " * 12 + "a", "[" * 200_000],
)
def test_great_depth_is_refused(text: str) -> None:
    assert "nested too deeply" in refusal(text).message


def test_usual_depth_is_fine() -> None:
    assert plain(yaml_text.parse("[" * 11 + "]" * 11, NAME)) == [[[[[[[[[[[]]]]]]]]]]]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "🪣"])
def test_a_great_size_in_bytes_is_refused(letter: str) -> None:
    wide = len(letter.encode())
    text = "a: " + letter * ((yaml_text.LARGEST_BYTES - 3) // wide)
    assert isinstance(yaml_text.parse(text, NAME), Table)
    assert "larger than 256 KiB" in refusal(text + letter).message


# 256 KiB at most, made to be slow.
SLOW = {
    "keys": "".join(f"a{n}: b\n" for n in range(25_000)),
    "items": "[" + "a," * 125_000 + "]",
    "pairs": "[" + "a: b, " * 40_000 + "]",
    "empty lines": "'" + "a\n\n" * 80_000 + "'",
    "escapes": '"' + "\\x41" * 60_000 + '"',
    "digits": "1" * 250_000,
    "sixties": "1" + ":1" * 120_000,
    "underscores": "1_" * 125_000 + "x",
    "remarks": "#\n" * 125_000 + "a",
    "a block": "|\n" + " a\n" * 80_000,
    "a long word": "a\n" + " a\n" * 80_000,
    "blanks": " " * 250_000 + "a",
    "open brackets in lines": "[\n" * 120_000,
    "open quotes": '"' + "a " * 120_000,
    "questions": "? a\n" * 60_000,
    "colons": "a:" * 120_000,
    "dashes": "-\n" * 120_000,
    "directives": "%A b\n" * 50_000 + "---\na",
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
def test_no_text_takes_long(text: str) -> None:
    assert len(text) <= yaml_text.LARGEST_BYTES
    began = time.process_time()
    with contextlib.suppress(AgentError):
        yaml_text.parse(text, NAME)
    assert time.process_time() - began < LONGEST_SECONDS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("on", "bool"),
        ("true", "bool"),
        ("'true'", "str"),
        ("0755", "int"),
        ("'0755'", "str"),
        ("1.5", "float"),
        ("", "null"),
        ("~", "null"),
        ("null", "null"),
        ("2026-01-01", "str"),
        ("=", "str"),
        ("<<", "str"),
        ("x", "str"),
    ],
)
def test_a_value_stays_as_it_is_written(text: str, kind: str) -> None:
    tree = yaml_text.parse(f"key: {text}", NAME)
    assert isinstance(tree, Table)
    value = tree.entries[0][1]
    assert isinstance(value, Scalar)
    assert (value.text, value.kind) == (text.strip("'"), kind)


def test_words_that_yaml_takes_for_truths_are_keys_like_others() -> None:
    tree = yaml_text.parse("on: [head]\nyes: 1\nnull: 2\n1: 3", NAME)
    assert plain(tree) == {"on": ["head"], "yes": "1", "null": "2", "1": "3"}


def test_everything_knows_its_place() -> None:
    tree = yaml_text.parse("# remark\na: 1\nb:\n  - x\n  - {c: 'é', d: y}\n", NAME)
    assert isinstance(tree, Table)
    assert tree.mark == Mark(2, 1)
    (key_a, value_a), (key_b, items) = tree.entries
    assert [key_a.mark, value_a.mark, key_b.mark] == [Mark(2, 1), Mark(2, 4), Mark(3, 1)]
    assert isinstance(items, Items)
    assert [item.mark for item in items.items] == [Mark(4, 5), Mark(5, 5)]
    table = items.items[1]
    assert isinstance(table, Table)
    assert [value.mark for _, value in table] == [Mark(5, 9), Mark(5, 17)]


PIECES = st.one_of(
    st.sampled_from([*"\n\n\r\t -?:,[]{}#&*!|>'\"%@`~\\\x85\u2028\ufeff\x00", "  ", "- ", ": "]),
    st.sampled_from(
        'a b true null 0755 1e5 .inf <<: *a &a !!str !<x> --- ... %YAML %TAG \\U \\UFFFFFFFF "\\x'
        ' "\\ud800" |2- >+9 mounts: bucket: ? |\n >\n'.split(" ")
    ),
    st.text(max_size=3),
    st.characters(categories=["Cs", "Cc", "Cn", "Zl", "Zp"]),
)


@settings(max_examples=1500, deadline=5000)
@given(st.lists(PIECES, max_size=30).map("".join))
@example("%TAG ! tag:x,2000:\n---\n!a b")
@example("!<%ff> a")
@example("!<%80> a")
@example("%YAML 1.99999999999999999999999\n---\na")
@example('"\\UFFFFFFFF"')
@example("- |9\n a")
@example("? ? ? a")
@example("a\r\x85\u2028b: [")
def test_any_text_is_a_tree_or_refused(text: str) -> None:
    try:
        tree = yaml_text.parse(text, NAME)
    except AgentError as error:
        refused = error
    else:
        plain(tree)
        return
    assert refused.problem is Problem.CONFIG_INVALID
    assert refused.message.startswith(f"{NAME}:")
    told = "\n".join(refused.lines())
    assert told.encode("utf-8")
    assert len(told) < 2000
    assert all(line.isprintable() for line in told.split("\n"))
    _, line, column, _ = refused.message.split(":", 3)
    assert int(column) >= 1
    assert 1 <= int(line) <= text.count("\n") + len((text + "x").splitlines())


JSON_LIKE = st.recursive(
    st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def escaped(value: object) -> str:
    """Flow YAML in which every character is an escape, so that any text gets through."""
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(escaped, value)) + "]"
    assert isinstance(value, dict)
    return "{" + ", ".join(f"? {escaped(k)} : {escaped(v)}" for k, v in value.items()) + "}"


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max([1, *map(depth, value.values())]) if value else 0
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=-1)
    return 0


@given(JSON_LIKE.filter(lambda value: depth(value) <= 10))
def test_any_value_comes_through_unchanged(value: object) -> None:
    assert plain(yaml_text.parse(escaped(value), NAME)) == value
