"""The command line: exit codes, the form of errors, and what it costs to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount_agent import __version__, cli
from s3mount_agent.console.output import tell
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.state.timeline import LEFT

COMMANDS = "bootstrap status apply unmount uninstall daemon".split()
HEAVY = "boto3 botocore yaml tenacity psutil urllib.request asyncio requests".split()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Runs a command as a user would, and returns its exit code, stdout and stderr."""
    try:
        code = cli.main(words)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys)
    assert code == Exit.USAGE
    for command in COMMANDS:
        assert f"\n  {command} " in out


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help_is_no_error(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert told(capsys, word)[0] == Exit.OK


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_told(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert told(capsys, word) == (0, f"s3mount-agent {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(
    capsys: pytest.CaptureFixture[str], command: str, flag: str
) -> None:
    code, out, err = told(capsys, command, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: s3mount-agent {command}")


@pytest.mark.parametrize(
    ("typed", "meant"), [("statsu", "status"), ("boostrap", "bootstrap"), ("umount", "unmount")]
)
def test_a_mistyped_command_gets_the_right_one_as_a_hint(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    code, out, err = told(capsys, typed)
    assert (code, out) == (Exit.USAGE, "")
    assert err.splitlines() == [
        f"s3mount-agent: error [usage]: there is no command '{typed}'",
        f"  hint: did you mean `s3mount-agent {meant}`?",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["xyzzy"], "usage"),
        (["--no-such-option"], "usage"),
        (["plan", "extra"], "usage"),
        (["status", "--no-such-option"], "usage"),
        (["status", "--wait"], "usage"),
        (["status", "--wait", "soon"], "usage"),
        (["apply", "extra"], "usage"),
        (["uninstall", "extra"], "usage"),
        (["unmount"], "usage"),
        (["unmount", "relative"], "directory-invalid"),
        (["unmount", "/etc"], "directory-reserved"),
        (["unit-hook"], "usage"),
        (["unit-hook", "format", "/mnt/s3"], "usage"),
        (["bootstrap"], "args-not-triples"),
        (["bootstrap", "my-bucket", "/mnt/s3"], "args-not-triples"),
        (["bootstrap", "--no-such-option", "my-bucket", "/mnt/s3", ""], "usage"),
        (["bootstrap", "--role"], "usage"),
        (["bootstrap", "--role", "boss", "my-bucket", "/mnt/s3", ""], "usage"),
        (["bootstrap", "--assume-family", "apk", "my-bucket", "/mnt/s3", ""], "usage"),
        (["install", "--assume-family=apk"], "usage"),
        (["install", "--version", "present"], "usage"),
        (["install", "--no-such-option"], "usage"),
        (["install", "my-bucket"], "usage"),
        (["bootstrap", "--mode=fast", "my-bucket", "/mnt/s3", ""], "usage"),
        (["bootstrap", "--on-failure=", "my-bucket", "/mnt/s3", ""], "usage"),
        (["bootstrap", "B", "/mnt/s3", ""], "bucket-invalid"),
        (["bootstrap", "my-bucket", "mnt", ""], "directory-invalid"),
        (["bootstrap", "my-bucket", "/mnt/s3", "--read-onyl"], "option-unknown"),
        (["bootstrap", "my-bucket", "/mnt/s3", "'"], "options-unbalanced"),
        (["bootstrap", "my-bucket", "/mnt/s3\n", ""], "argument-not-text"),
        (["bootstrap", "my-bucket", "/mnt/\udcff", ""], "argument-not-text"),
    ],
)
def test_wrong_usage_is_told_with_code_and_hint_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    exit_code, out, err = told(capsys, *words)
    lines = err.splitlines()
    assert (exit_code, out) == (Exit.USAGE, "")
    assert lines[0].startswith(f"s3mount-agent: error [{code}]: ")
    assert lines[-1].startswith("  hint: ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (AgentError(Problem.LOCKED, "busy"), 1, "error [locked]: busy"),
        (AgentError(Problem.MODE, "no"), 2, "error [mode]: no"),
        (KeyError("x"), 1, "error [internal]: something unforeseen went wrong"),
        (RecursionError(), 1, "error [internal]: something unforeseen went wrong"),
    ],
)
def test_errors_become_exit_codes_and_never_tracebacks(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail() -> int:
        raise error

    assert cli.guarded(fail) == code
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"s3mount-agent: {line}"
    assert "Traceback" not in err
    assert cli.guarded(fail, debug=True) == code
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert f"s3mount-agent: {line}" in told


def test_an_interrupted_command_fails_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert cli.guarded(interrupted) == 1
    assert capsys.readouterr().err == ""
    assert cli.guarded(interrupted, interrupted="nothing was changed") == 1
    assert capsys.readouterr().err == "\ns3mount-agent: nothing was changed\n"


def test_who_knows_what_becomes_of_an_interrupted_command_has_the_last_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def left() -> int:
        raise KeyboardInterrupt(LEFT)

    assert cli.guarded(left, interrupted="nothing was changed") == 1
    assert capsys.readouterr().err == f"\ns3mount-agent: {LEFT}\n"


def test_an_error_is_told_as_reason_cause_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    tell([AgentError(Problem.LOCKED, "busy", cause="first\n\nsecond", hint="wait")])
    assert capsys.readouterr().err.splitlines() == [
        "s3mount-agent: error [locked]: busy",
        "  cause: first",
        "  cause: second",
        "  hint: wait",
    ]


@pytest.mark.parametrize("character", ["x", "ü", "漢", "🪣", "\udcff", "\n", "\x00"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("hint", ["end", "the end", "at the end", "in the end"])
def test_what_is_told_fits_and_is_utf8(
    capfdbinary: pytest.CaptureFixture[bytes], character: str, count: int, hint: str
) -> None:
    errors = [
        AgentError(Problem.INTERNAL, f"{n} {character * 3000}", cause=character * 9000, hint=hint)
        for n in range(count)
    ]
    tell(errors)
    err = capfdbinary.readouterr().err
    assert len(err) < 4000
    assert err.decode("utf-8").endswith(f"  hint: {hint}\n")
    assert b"\\x" not in err  # half a character at the cut


def test_nothing_is_told_of_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    tell([])
    assert capsys.readouterr().err.strip() == ""


def run(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


MAIN = "import sys; from s3mount_agent.cli import main; sys.exit(main())"


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1"])
def test_errors_are_utf8_in_every_locale(locale: str) -> None:
    answer = run(MAIN, "bootstrap", "bücket", "/mnt/s3", "", LC_ALL=locale, LANG=locale)
    assert answer.returncode == Exit.USAGE
    assert answer.stderr.decode("utf-8").startswith("s3mount-agent: error [bucket-invalid]: ")


def test_undecodable_arguments_are_refused() -> None:
    answer = subprocess.run(
        [sys.executable.encode(), b"-c", MAIN.encode(), b"bootstrap", b"b\xff", b"/mnt/s3", b""],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == Exit.USAGE
    assert b"[argument-not-text]" in answer.stderr
    answer.stderr.decode("utf-8")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout
    child.stdout.close()
    assert child.stderr
    said = child.stderr.read()
    assert b"Traceback" not in said
    assert b"BrokenPipeError" not in said
    child.stderr.close()
    child.wait(30)


@pytest.mark.parametrize("module", ["commands.status", "commands.unit_hook", "cli"])
def test_a_command_imports_nothing_that_it_does_not_need(module: str) -> None:
    code = f"import sys, json, s3mount_agent.{module}; print(json.dumps(sorted(sys.modules)))"
    answer = run(code)
    assert answer.returncode == 0, answer.stderr
    loaded = set(json.loads(answer.stdout))
    assert f"s3mount_agent.{module}" in loaded
    assert loaded.isdisjoint(HEAVY)
    # Each start of a mount waits for two hooks, which run nothing and know no configuration.
    assert loaded.isdisjoint({"subprocess", "hashlib", "s3mount_agent.config.environment"})


def test_an_apply_with_nothing_to_do_imports_nothing_of_what_it_would_take() -> None:
    """What downloads, what tries again, and AWS's own."""
    parts = ("commands.apply", "config.desired", "reconcile.bootstrap", "supervisor.units")
    code = "".join(f"import s3mount_agent.{part};" for part in parts)
    answer = run(f"import sys, json; {code} print(json.dumps(sorted(sys.modules)))")
    assert answer.returncode == 0, answer.stderr
    heavy = "boto3 botocore tenacity asyncio http.client urllib.request ssl email platform psutil"
    assert not set(heavy.split()).intersection(json.loads(answer.stdout))


@pytest.mark.skipif(Path("/etc/s3mount-agent").exists(), reason="this machine runs the agent")
def test_status_of_a_node_without_mounts_says_so() -> None:
    answer = run(MAIN, "status", "--json")
    assert answer.returncode == Exit.FAILED
    assert b"error [not-configured]: this node has no " in answer.stderr
