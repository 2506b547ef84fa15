"""How command lines are read: one table, one reader, the same manners for every command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from s3mount_agent import cli
from s3mount_agent.console import parser, table
from s3mount_agent.console.parser import Given, parse
from s3mount_agent.console.table import COMMANDS, Command
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.node_roles import Mode, OnFailure, Role

ALL = [command.name for command in COMMANDS]
SEEN = [command.name for command in COMMANDS if not command.hidden]


def read(line: str, *more: str) -> Given:
    name, *words = line.split()
    return parse(parser.find(name), [*words, *more])


def refusal(line: str, *more: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        read(line, *more)
    assert caught.value.problem is Problem.USAGE
    return caught.value


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    return (code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mount", "apply"),
        ("mounts", "status"),
        ("remount", "apply"),
        ("restart", "apply"),
        ("reload", "apply"),
        ("start", "apply"),
        ("mout", "apply"),
        ("umount", "unmount"),
        ("unmout", "unmount"),
        ("stop", "unmount"),
        ("lint", "validate"),
        ("healthcheck", "check"),
        ("ls", "status"),
        ("remove", "uninstall"),
    ],
)
def test_the_words_that_people_use_lead_to_the_right_command(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    code, out, err = told(capsys, typed)
    assert (code, out) == (Exit.USAGE, "")
    assert err.splitlines()[-1] == f"  hint: did you mean `s3mount-agent {meant}`?"


def test_no_word_for_a_command_is_another_command_or_given_twice() -> None:
    words = [*ALL, *(word for command in COMMANDS for word in command.aka)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("name", ALL)
def test_help_of_a_command_runs_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def called(module: str) -> None:
        raise AssertionError(module)

    monkeypatch.setattr(cli, "import_module", called)
    shown = [told(capsys, *words) for words in (["help", name], [name, "--help"], [name, "-h"])]
    assert shown[0] == shown[1] == shown[2]
    code, out, err = shown[0]
    assert (code, err) == (Exit.OK, "")
    assert out.startswith(f"usage: s3mount-agent {name}")
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_of_all_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, "help")
    assert max(map(len, out.splitlines())) <= 80
    assert [name for name in SEEN if f"\n  {name} " not in out] == []


def test_help_of_what_is_no_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, "help", "statsu")
    assert code == Exit.USAGE
    assert "did you mean `s3mount-agent status`?" in err


@pytest.mark.parametrize("name", SEEN)
def test_every_option_and_argument_is_explained(name: str) -> None:
    command = parser.find(name)
    shown = parser.help_of(command)
    for option in command.options:
        assert (option.name in shown) is bool(option.about)
    for word, about in command.words:
        assert word in shown
        assert about.split()[0] in shown
    for example in command.examples:
        assert f"  s3mount-agent {example}" in shown


@pytest.mark.parametrize("name", SEEN)
def test_the_examples_of_the_help_are_good(name: str) -> None:
    import shlex

    for example in parser.find(name).examples:
        first, *words = shlex.split(example)
        parse(parser.find(first), words)


def test_the_choices_are_those_of_the_model() -> None:
    bootstrap = parser.find("bootstrap")
    for name, kind in (("--role", Role), ("--mode", Mode), ("--on-failure", OnFailure)):
        option = bootstrap.option(name)
        assert option
        assert option.value.split("|") == [each.value for each in kind]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status --debug --json", True),
        ("status --json --debug", True),
        ("status --json", False),
        ("unmount /mnt/s3 --debug", True),
        ("unmount -- --debug", False),
        ("plan --config --debug", False),  # the value of --config, whatever it looks like
        ("bootstrap --debug b /d --x", True),
        ("bootstrap --role head --debug b /d --x", True),
        ("bootstrap b /d --x --debug", True),
        ("bootstrap b --debug /d --x", True),
        ("bootstrap b /d --debug", False),  # mount-s3's option
        ("bootstrap b /d --debug c /e --debug", False),
        ("bootstrap b /d --debug --debug", True),
    ],
)
def test_debug_is_taken_anywhere_but_where_it_is_a_mounts_option(line: str, expected: bool) -> None:
    given = read(line)
    assert given.debug is expected
    if line.startswith("bootstrap"):
        assert len(given.words) % 3 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("1d", 86400), ("0.2", 0.2)],
)
def test_a_time_is_read(text: str, expected: float) -> None:
    assert read("status --wait", text).value("--wait") == expected
    assert read(f"status --wait={text}").value("--wait") == expected


@pytest.mark.parametrize("text", ["soon", "", "-1", "nan", "inf", "5w", "1e9", "m", "5 5", "٣"])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert refusal("status --wait", text).message == (
        f"--wait takes a time such as 90, 90s, 5m or 1h, not {text!r}"
    )


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("unmount --al", "unmount has no option '--al'", "did you mean --all?"),
        ("status --jsn", "status has no option '--jsn'", "did you mean --json?"),
        ("status -j", "status has no option '-j'", "see `s3mount-agent status --help`"),
        ("status --json=1", "the option --json takes no value", None),
        ("status --json --json", "the option --json is given twice", None),
        ("status --wait", "the option --wait needs a value: SECONDS", None),
        ("apply /mnt/s3", "apply takes no arguments, but was given '/mnt/s3'", None),
        ("validate", "validate needs FILE", None),
        ("unit-hook clean", "unit-hook needs DIRECTORY", None),
        (
            "bootstrap --allow-other b /d",
            "bootstrap has no option '--allow-other'",
            "mount-s3's options are the third argument of each mount, in one word",
        ),
    ],
)
def test_what_is_wrong_is_named(line: str, message: str, hint: str | None) -> None:
    error = refusal(line)
    assert error.message == message
    assert hint is None or error.hint == hint


def test_options_and_arguments_may_stand_in_any_order() -> None:
    assert read("status /a --json /b").words == ("/a", "/b")
    assert read("unmount -- --all").words == ("--all",)
    assert not read("unmount -- --all").has("--all")
    assert read("validate -").words == ("-",)


def test_a_command_that_is_interrupted_says_what_becomes_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert cli.guarded(interrupted, interrupted="it goes on") == Exit.FAILED
    assert capsys.readouterr().err == "\ns3mount-agent: it goes on\n"


def test_a_row_of_the_table_may_be_as_short_as_a_name() -> None:
    bare = Command("x", "about", "does")
    assert parse(bare, []).words == ()
    assert parser.help_of(bare).startswith("usage: s3mount-agent x\n")


def test_reading_a_command_line_brings_no_more_than_it_needs() -> None:
    """The hooks of a mount's unit and status pay for it at each start."""
    code = (
        "import sys\nbefore = set(sys.modules)\n"
        "import s3mount_agent.cli as cli, json\n"
        "given = cli.parser.parse(cli.parser.find('status'), ['--json', '/mnt/s3'])\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(answer.stdout))
    assert "s3mount_agent.console.table" in loaded
    assert loaded.isdisjoint({"argparse", "difflib", "textwrap", "dataclasses", "pathlib"})
    assert table.COMMANDS
