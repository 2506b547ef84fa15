"""What is said of a wrong configuration: everything at once, each thing with its place."""

from __future__ import annotations

import pytest

from s3mount_agent.config import config_file, keys, yaml_text
from s3mount_agent.config.value_kinds import duration
from s3mount_agent.core.errors import AgentError, Problem

NAME = "s3mount.yaml"
MOUNT = "mounts:\n- bucket: my-bucket\n  directory: /mnt/s3\n"


def refusals(text: str) -> list[AgentError]:
    with pytest.raises(AgentError) as caught:
        config_file.parse(text, NAME)
    return [caught.value, *caught.value.more]


def refusal(text: str) -> AgentError:
    (error,) = refusals(text)
    assert error.problem.exit_code == 2
    return error


def test_all_that_is_wrong_is_told_at_once_in_its_order() -> None:
    text = """\
version: 2
mounts:
- bucket: x
  directory: mnt
  options: --read-onyl
- bucket: my-bucket
  path: /mnt/s3
  on: [head, HeadNode, haed]
  roles:
    LoginNode: {read_only: maybe}
- directory: /etc
refersh: 5m
environment: {AWS_SECRET_ACCESS_KEY: hush, LD_PRELOAD: x}
"""
    found = [(e.problem.code, e.message.removeprefix(f"{NAME}:")) for e in refusals(text)]
    places = [message.partition(": ")[0] for _, message in found]
    assert places == [
        *("1:10", "3:11", "4:14", "5:12", "7:3", "8:14", "8:24", "10:5"),
        *("11:14", "11:3", "12:1", "13:15", "13:44"),
    ]
    assert [code for code, _ in found if code != "config-invalid"] == [
        "bucket-invalid",
        "directory-invalid",
        "option-unknown",
        "directory-reserved",
    ]


def test_a_file_that_is_wrong_everywhere_is_not_read_to_its_end() -> None:
    errors = refusals("mounts:\n" + "- {bucket: x, directory: y}\n" * 100)
    assert len(errors) == 30
    assert sum(len(line) for error in errors for line in error.lines()) < 20_000


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        (
            "mounts: []\nversion: 2",
            "2:10",
            "this agent knows version 1 of this format, but not version 2",
            "write version: 1, or install the s3mount-agent that this file is for",
        ),
        (
            MOUNT.replace("directory", "path"),
            "3:3",
            "the key 'path' is called 'directory' here",
            "write directory: where to mount it",
        ),
        (
            MOUNT.replace("bucket:", "name:"),
            "2:3",
            "the key 'name' is called 'bucket' here",
            None,
        ),
        (MOUNT + "  on: HeadNode", "4:7", "'HeadNode' is called 'head' here", "write head"),
        (
            MOUNT + "  roles:\n    ComputeFleet: {}",
            "5:5",
            "'ComputeFleet' is called 'compute' here",
            "write compute",
        ),
        (MOUNT + "role: LoginNode", "4:7", "'LoginNode' is called 'login' here", "write login"),
        (
            "mounts:\n",
            "1:8",
            "no mounts are named here: write [] if nothing is to be mounted",
            None,
        ),
    ],
)
def test_what_people_write_has_a_sentence_of_its_own(
    text: str, place: str, message: str, hint: str | None
) -> None:
    error = refusal(text)
    assert error.message == f"{NAME}:{place}: {message}"
    assert hint is None or error.hint == hint


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
)
def test_a_secret_is_refused_and_not_repeated(name: str) -> None:
    error = refusal(f"mounts: []\nenvironment: {{{name}: hush-hush}}")
    assert error.message.startswith(f"{NAME}:2:15: {name} is a secret, and this file is none")
    assert "/etc/s3mount-agent/environment" in error.hint
    assert "hush" not in "\n".join(error.lines())


@pytest.mark.parametrize("word", ["directry", "path", "mount_point"])
def test_a_key_by_another_name_is_not_called_missing_as_well(word: str) -> None:
    assert f"{word!r}" in refusal(MOUNT.replace("directory", word)).message


def test_mounts_that_do_not_fit_together_are_shown_where_the_second_stands() -> None:
    error = refusal(
        MOUNT + "- {bucket: other, directory: /mnt/x}\n- {bucket: b-3, directory: /mnt/s3/y}"
    )
    assert error.problem is Problem.DIRECTORY_TWICE
    assert error.message.startswith(f"{NAME}:5:3: ")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("mounts: []".encode("utf-16"), "is UTF-16 text, not UTF-8"),
        ("mounts: []".encode("utf-16-be"), "is UTF-16 text or no text at all, not UTF-8"),
        ("mounts: []".encode("utf-32"), "is UTF-32 text, not UTF-8"),
        (
            "mounts: []\n# für alle".encode("latin-1"),
            ":2:4: the byte 0xFC is not UTF-8 text (in Latin-1 it is 'ü')",
        ),
        (b"\x81", ":1:1: the byte 0x81 is not UTF-8 text"),
    ],
)
def test_a_wrong_encoding_is_named(data: bytes, said: str) -> None:
    with pytest.raises(AgentError) as caught:
        yaml_text.decode(data, NAME)
    assert caught.value.message.startswith(f"{NAME}{said}" if said[0] == ":" else f"{NAME} {said}")
    assert "UTF-8" in caught.value.hint


def test_a_byte_order_mark_of_utf_8_does_no_harm() -> None:
    text = yaml_text.decode(b"\xef\xbb\xbfmounts: []", NAME)
    assert config_file.parse(text, NAME).rows == ()


def test_every_key_has_a_type_and_a_default_in_the_documents() -> None:
    for section in (keys.TOP, keys.MOUNT, keys.HEALTH, keys.INSTALL, keys.METRICS):
        for key in section.keys:
            assert key.kind.type()
            assert bool(section.default(key)) is not key.required, key.name


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (5, "5s"), (90, "90s"), (300, "5m"), (7200, "2h"), (604800, "7d")],
)
def test_a_time_is_told_as_it_is_written(seconds: int, told: str) -> None:
    assert duration(seconds) == told


def told(text: str) -> list[str]:
    return [error.message.removeprefix(f"{NAME}:") for error in refusals(text)]


def test_every_two_mounts_in_each_others_way_are_told() -> None:
    rows = ["/mnt/a", "/mnt/b", "/mnt/a", "/mnt/b/c", "/mnt/b"]
    text = "mounts:\n" + "".join(f"- {{bucket: my-bucket, directory: {row}}}\n" for row in rows)
    assert sorted(told(text)) == [
        "4:3: the directory /mnt/a is given twice",
        "5:3: the directories /mnt/b and /mnt/b/c lie inside each other",
        "6:3: the directory /mnt/b is given twice",
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "alow_other: true", ["there is no key 'alow_other'", "given twice"]),
        ("", "weight: much", ["a whole number", "given twice"]),
        ("weight: 0", "options: --foo --bar", ["a whole", "--foo", "--bar", "given twice"]),
        (
            "options: --cache=/var/cache/x",
            "weight: 0, read_only: true, allow_delete: true, cache: /var/cache/x",
            ["a whole number", "exclude each other", "given twice", "share the cache"],
        ),
        # Nothing that follows from another error: other nodes may be meant, or other options.
        ("on: [head]", "on: [compyte]", ["one of head"]),
        ("queues: [a]", "queue: [b]", ["'queue' is called 'queues'"]),
        ("on: [head]", "xyzzy: [compute]", ["there is no key 'xyzzy'"]),
        ("on: [head]", "on: [compute], chace: /x, max_cache_size: 5", ["there is no key 'chace'"]),
        ("on: [head]", "on: [compute], options: --allow-delete, roles: {hed: {}}", ["one of head"]),
    ],
)
def test_what_is_wrong_in_a_row_hides_nothing(first: str, second: str, expected: list[str]) -> None:
    rows = (f"- {{bucket: my-bucket, directory: /mnt/s3, {each}}}\n" for each in (first, second))
    found = told("mounts:\n" + "".join(rows))
    assert len(found) == len(expected), found
    for message, words in zip(found, expected):
        assert words in message


def test_a_key_that_is_given_twice_hides_nothing() -> None:
    text = "refresh: 5m\nrefresh: 6m\nmounts:\n- bucket: x\n  directory: /mnt/a\n  bucket: my-b\n"
    (twice, again, bucket) = told(text)
    assert twice == "2:1: the key 'refresh' is given twice"
    assert again == "6:3: the key 'bucket' is given twice"
    assert bucket.startswith("4:11: 'x' is not a bucket")
    assert [each.partition(":")[0] for each in told("a: 1\na: 2\nb: 'x\n")] == ["2", "3"]
