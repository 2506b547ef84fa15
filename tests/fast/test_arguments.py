"""The article's arguments: what is in the wrong place is pointed at, and all is told at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fast.in_memory import parse_mount
from s3mount_agent import cli
from s3mount_agent.config import config_file
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.console.output import tell
from s3mount_agent.core.errors import AgentError, Exit, Problem, together
from s3mount_agent.core.node_roles import Role
from s3mount_agent.mountpoint.flag_check import parse_options

GOOD = ("my-bucket", "/mnt/s3", "--allow-other")
AGENT = Path(__file__).parents[2] / "agent"


def refusal(*arguments: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        parse_arguments(arguments)
    return caught.value


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ("b-1", "/d", "--allow-delete", "--allow-other"),
            "argument 4 '--allow-other' stands where a bucket is expected: quote the options",
            'write all options of a mount as one argument: "--allow-delete --allow-other"',
        ),
        (
            ("b-1", "/d", "--allow-delete", "--allow-other", "b-2", "/e"),
            "argument 4 '--allow-other' stands where a bucket is expected: quote the options",
            None,
        ),
        (
            (*GOOD, "b-1", "/d", "--uid", "1000", "--debug"),
            "argument 8 '--debug' stands where a directory is expected: quote the options",
            None,
        ),
        (
            ("/mnt/s3", "my-bucket", "--allow-other"),
            "arguments 1 and 2 are the wrong way round: '/mnt/s3' is a directory, and 'my-bucket' "
            "a bucket",
            "the bucket comes first, then the directory",
        ),
        (
            (*GOOD, "/mnt/two", "s3://b-2/", ""),
            "arguments 4 and 5 are the wrong way round: '/mnt/two' is a directory, and 's3://b-2/' "
            "a bucket",
            None,
        ),
        (
            ("my-bucket", "--allow-other", "/mnt/s3"),
            "argument 2 '--allow-other' stands where a directory is expected",
            None,
        ),
        (
            ("b-1", "/d", "b-2", "/e"),
            "argument 3 'b-2' stands where the options of a mount are expected, but looks like the "
            "next bucket",
            'a mount without options has an empty one: ""',
        ),
        (
            ("b-1", "/d"),
            "2 arguments are not a multiple of three: after argument 2, '/d', the options of a "
            "mount are missing",
            None,
        ),
        ((), "no mount was given", None),
    ],
)
def test_what_stands_in_the_wrong_place_is_pointed_at(
    arguments: tuple[str, ...], message: str, hint: str | None
) -> None:
    error = refusal(*arguments)
    assert error.message == message
    if len(arguments) % 3 or not arguments:
        assert error.problem is Problem.ARGS_NOT_TRIPLES
    else:  # the code that such an argument always had
        assert error.problem in (Problem.BUCKET_INVALID, Problem.DIRECTORY_INVALID)
    assert hint is None or error.hint == hint


def test_everything_that_is_wrong_is_told_at_once() -> None:
    error = refusal("x", "mnt", "--read-onyl", *GOOD, "s3://b-3/x", "/etc", "'")
    assert [each.message.partition(": ")[0] for each in (error, *error.more)] == [
        f"argument {number}" for number in (1, 2, 3, 7, 8, 9)
    ]


def test_mounts_in_each_others_way_are_told_beside_all_else() -> None:
    pairs = ("my-bucket", "/mnt/a", "", "my-bucket", "/mnt/b", "--cache /var/cache/x")
    error = refusal(*pairs, "x", "/mnt/a", "--foo --bar", "bucket-4", "/mnt/b", "--foo")
    messages = [each.message for each in (error, *error.more)]
    assert [message.partition(": ")[0] for message in messages] == [
        *("argument 7", "argument 9", "argument 9", "argument 12"),
        "the directory /mnt/a is given twice",
        "the directory /mnt/b is given twice",
    ]


def test_what_is_told_of_many_errors_fits_and_says_how_many_there_are(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    bad = [word for n in range(40) for word in ("x", f"/mnt/{n}", "")]
    tell([refusal(*bad)])
    err = capfdbinary.readouterr().err.decode()
    assert len(err) < 4000
    first, *rest = err.splitlines()
    told = sum("error [bucket-invalid]" in line for line in rest)
    assert first == f"s3mount-agent: 40 errors, of which {told} are told here"
    assert told > 10
    assert rest[0].startswith("s3mount-agent: error [bucket-invalid]: argument 1: ")
    assert rest[-1].startswith("  hint: ")


def test_errors_in_company_are_values() -> None:
    first, second = AgentError(Problem.LOCKED, "a"), AgentError(Problem.LOCKED, "b")
    assert [each.message for each in together([first, second]).more] == ["b"]
    assert first.more == ()


@pytest.mark.parametrize("space", ["\n", "\n\n", " \t ", "\r\n", "  "])
@pytest.mark.parametrize("after", ["", "\n"])
def test_white_space_between_options_is_harmless(space: str, after: str) -> None:
    assert parse_options(f"--allow-other{space}--uid{space}7{after}") == parse_options(
        "--allow-other --uid 7"
    )


@pytest.mark.parametrize("block", [">", "|", ">-", "|+"])
def test_options_may_be_a_block_of_lines(block: str) -> None:
    text = (
        "mounts:\n- bucket: my-bucket\n  directory: /mnt/s3\n"
        f"  options: {block}\n    --allow-other\n\n    --uid 7\n"
    )
    (mount,) = config_file.parse(text, "x").mounts(Role.COMPUTE, "")
    assert mount == parse_mount("my-bucket", "/mnt/s3", "--allow-other --uid 7")


@pytest.mark.parametrize(
    "text", ["--profile 'a\nb'", "--profile a\\\nb", "--profile 'a\tb'", "\x1b"]
)
def test_a_line_break_in_an_option_is_refused(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_options(text)
    assert caught.value.problem is Problem.ARGUMENT_NOT_TEXT


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("--prefix 'a/", "the quote ' at character 10 is never closed"),
        ("--profile \"it's", 'the quote " at character 11 is never closed'),
        ("--profile 'a' --prefix '", "the quote ' at character 24 is never closed"),
        ('--profile \\\' --prefix "\\"', 'the quote " at character 23 is never closed'),
        ("--profile a\\", "No escaped character"),
    ],
)
def test_a_quote_is_shown_where_it_was_opened(text: str, why: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_options(text)
    assert caught.value.problem is Problem.OPTIONS_UNBALANCED
    assert caught.value.message.endswith(f"cannot be split: {why}")


# What a Mac has not, of what we use elsewhere.
A_MAC = """
import fcntl, os, select, signal, socket, time
LINUX = {
    os: ("O_PATH", "memfd_create", "MFD_", "pidfd_open", "P_PIDFD", "pipe2", "sched_"),
    fcntl: ("F_SEAL_", "F_ADD_SEALS", "F_OFD_"),
    socket: ("SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_PEERCRED"),
    select: ("epoll", "EPOLL"),
    signal: ("pidfd_send_signal",),
    time: ("CLOCK_BOOTTIME",),
}
for module, names in LINUX.items():
    for name in [each for each in dir(module) if each.startswith(names)]:
        delattr(module, name)
"""


def as_nobody(*words: str, computer: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the agent as an ordinary user of a computer that is no node."""
    code = computer + (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv.pop(1))\n"
        "import s3mount_agent.cli as cli, s3mount_agent.commands.bootstrap, yaml\n"
        "import s3mount_agent.commands.plan, s3mount_agent.config.desired, socket\n"
        # What is imported later may lie where only root can read it: all but this is here by now.
        "os.setgid(65534), os.setuid(65534)\n"
        "sys.exit(cli.main())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(AGENT), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@needs_root
def test_an_ordinary_user_may_check_arguments_and_is_told_that_they_are_good() -> None:
    answer = as_nobody("bootstrap", "--check", *GOOD, "s3://Old_Bucket/x/", "/mnt/x", "--read-only")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        "The arguments are good. Nothing was changed; a node would mount:",
        "  /mnt/s3 <- s3://my-bucket  rw",
        "  /mnt/x <- s3://Old_Bucket/x/  ro",
        "  note: files that can be open for writing at once: at least 47 on /mnt/s3",
        "  note: Old_Bucket: only a bucket of before 2018 can have this name",
        "This computer itself was not checked: on a node, run it as root.",
    ]


@needs_root
def test_an_ordinary_user_may_check_a_file() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        Path(file.name).chmod(0o644)
        file.write("mounts: [{bucket: my-bucket, directory: /mnt/s3, on: [head, compute]}]")
        file.flush()
        answer = as_nobody("bootstrap", "--config", file.name, "--check", "--role=head")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[:2] == [
        f"{file.name} is good. Nothing was changed; a node would mount:",
        "  /mnt/s3 <- s3://my-bucket  rw",
    ]


@needs_root
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("bootstrap", "--check", *GOOD), Exit.OK, "The arguments are good."),
        (("bootstrap", "--check", "--config", "{}"), Exit.OK, "{} is good."),
        (("validate", "{}"), Exit.OK, "{} is good."),
        (("bootstrap", "x", "/mnt/s3", ""), Exit.USAGE, "error [bucket-invalid]"),
    ],
)
def test_any_computer_may_be_a_mac(words: tuple[str, ...], code: Exit, said: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        Path(file.name).chmod(0o644)
        file.write("mounts: [{bucket: my-bucket, directory: /mnt/s3}]")
        file.flush()
        answer = as_nobody(*(word.format(file.name) for word in words), computer=A_MAC)
    assert (answer.returncode, "[internal]" in answer.stderr) == (code, False), answer.stderr
    assert said.format(file.name) in answer.stdout + answer.stderr


@needs_root
@pytest.mark.parametrize("words", [("plan",), ("bootstrap", *GOOD), ("apply",)])
def test_an_ordinary_user_is_told_that_it_takes_root(words: tuple[str, ...]) -> None:
    answer = as_nobody(*words)
    assert answer.returncode == Exit.FAILED
    assert "error [not-root]: only root may " in answer.stderr
    assert answer.stderr.endswith("  hint: run it as root, for example with sudo\n")


@needs_root
def test_wrong_arguments_are_told_to_everybody() -> None:
    answer = as_nobody("bootstrap", "x", "/mnt/s3", "")
    assert answer.returncode == Exit.USAGE
    assert "error [bucket-invalid]" in answer.stderr
    assert cli.main(["help"]) == Exit.OK
