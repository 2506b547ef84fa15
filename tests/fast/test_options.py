"""The options string of one mount."""

from __future__ import annotations

import shlex
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.options import Options
from s3mount_agent.core.versions import Version
from s3mount_agent.mountpoint.flag_check import parse_options, require_known_to
from s3mount_agent.mountpoint.flags import FLAGS


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("   ", ()),
        ("--read-only --allow-other", ("--read-only", "--allow-other")),
        ("--allow-delete --allow-other", ("--allow-delete", "--allow-other")),
        ("--uid 1000 --gid=1000", ("--uid=1000", "--gid=1000")),
        ("--prefix 'a b/'", ("--prefix=a b/",)),
        ('--cache="/tmp/c d"', ("--cache=/tmp/c d",)),
        ("-d -l /var/log/m", ("--debug", "--log-directory=/var/log/m")),
        ("-l/var/log/m", ("--log-directory=/var/log/m",)),
        ("--bind eth0 --bind eth1", ("--bind=eth0", "--bind=eth1")),
        ("--dir-mode 0750 --file-mode 640", ("--dir-mode=0750", "--file-mode=640")),
        ("--metadata-ttl indefinite", ("--metadata-ttl=indefinite",)),
        ("--negative-metadata-ttl 60", ("--negative-metadata-ttl=60",)),
        (
            "--sse aws:kms --sse-kms-key-id arn:aws:kms:eu-west-1:1:key/x",
            ("--sse=aws:kms", "--sse-kms-key-id=arn:aws:kms:eu-west-1:1:key/x"),
        ),
        ("--prefix='100%n $(reboot); \"x\"/'", ('--prefix=100%n $(reboot); "x"/',)),
        ("--user-agent-prefix 'a#b'", ("--user-agent-prefix=a#b",)),
        ("--endpoint-url http://127.0.0.1:5000", ("--endpoint-url=http://127.0.0.1:5000",)),
        ("--maximum-throughput-gbps 1", ("--maximum-throughput-gbps=1",)),
        ("--max-cache-size 0 --cache /tmp/c", ("--max-cache-size=0", "--cache=/tmp/c")),
        # mount-s3 itself takes these together.
        ("--no-sign-request --profile x", ("--no-sign-request", "--profile=x")),
    ],
)
def test_options_are_split_as_a_shell_splits_words(text: str, arguments: tuple[str, ...]) -> None:
    assert parse_options(text).arguments() == arguments


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("--prefix 'a/", Problem.OPTIONS_UNBALANCED),
        ('--prefix "a/', Problem.OPTIONS_UNBALANCED),
        ("--read-only \\", Problem.OPTIONS_UNBALANCED),
        ("--no-such-flag", Problem.OPTION_UNKNOWN),
        ("-x", Problem.OPTION_UNKNOWN),
        ("--", Problem.OPTION_UNKNOWN),
        ("-", Problem.OPTION_UNKNOWN),
        ("''", Problem.OPTION_UNKNOWN),
        ("read-only", Problem.OPTION_UNKNOWN),
        ("--read-only; reboot", Problem.OPTION_UNKNOWN),
        ("$(reboot)", Problem.OPTION_UNKNOWN),
        ("--read-only extra", Problem.OPTION_UNKNOWN),
        ("-o allow_other", Problem.OPTION_UNKNOWN),
        ("--READ-ONLY", Problem.OPTION_UNKNOWN),
        ("--foreground", Problem.OPTION_RESERVED),
        ("-f", Problem.OPTION_RESERVED),
        ("--help", Problem.OPTION_RESERVED),
        ("-h", Problem.OPTION_RESERVED),
        ("--version", Problem.OPTION_RESERVED),
        ("-V", Problem.OPTION_RESERVED),
        ("--read-only --allow-delete", Problem.OPTION_CONFLICT),
        ("--allow-delete --read-only", Problem.OPTION_CONFLICT),
        ("--allow-overwrite --read-only", Problem.OPTION_CONFLICT),
        ("--allow-root --allow-other", Problem.OPTION_CONFLICT),
        ("--no-log --debug", Problem.OPTION_CONFLICT),
        ("--no-log -l /tmp/x", Problem.OPTION_CONFLICT),
        ("--part-size 8388608 --read-part-size 8388608", Problem.OPTION_CONFLICT),
        ("--read-only --read-only", Problem.OPTION_CONFLICT),
        ("--uid 1 --uid=2", Problem.OPTION_CONFLICT),
        ("--max-cache-size 100", Problem.OPTION_CONFLICT),
        ("--sse-kms-key-id arn:aws:kms:x:1:key/y", Problem.OPTION_CONFLICT),
        ("--sse AES256 --sse-kms-key-id arn:aws:kms:x:1:key/y", Problem.OPTION_CONFLICT),
        ("--otlp-export-interval 5", Problem.OPTION_CONFLICT),
        ("--read-only=true", Problem.OPTION_VALUE),
        ("--read-only=", Problem.OPTION_VALUE),
        ("--uid", Problem.OPTION_VALUE),
        ("--uid 0", Problem.OPTION_VALUE),
        ("--gid 0", Problem.OPTION_VALUE),
        ("--uid 4294967296", Problem.OPTION_VALUE),
        ("--uid root", Problem.OPTION_VALUE),
        ("--uid \u0661", Problem.OPTION_VALUE),
        ("--uid --gid", Problem.OPTION_VALUE),
        ("--dir-mode 1000", Problem.OPTION_VALUE),
        ("--file-mode 888", Problem.OPTION_VALUE),
        ("--prefix no-slash", Problem.OPTION_VALUE),
        ("--prefix ''", Problem.OPTION_VALUE),
        ("--sse DES", Problem.OPTION_VALUE),
        ("--bucket-type other", Problem.OPTION_VALUE),
        ("--maximum-throughput-gbps 0", Problem.OPTION_VALUE),
        ("--maximum-throughput-gbps 1.5", Problem.OPTION_VALUE),
        ("--memory-target 511", Problem.OPTION_VALUE),
        ("--part-size 5242879", Problem.OPTION_VALUE),
        ("--read-part-size 5368709121", Problem.OPTION_VALUE),
        ("--write-part-size 1", Problem.OPTION_VALUE),
        ("--memory-target 512 --read-part-size 402653185", Problem.OPTION_CONFLICT),
        ("--memory-target 512 --read-part-size 402653185 --read-only", Problem.OPTION_CONFLICT),
        ("--memory-target 512 --write-part-size 394264577", Problem.OPTION_CONFLICT),
        ("--memory-target 600 --part-size 1073741824", Problem.OPTION_CONFLICT),
        ("--metadata-ttl never", Problem.OPTION_VALUE),
        ("--endpoint-url s3.local", Problem.OPTION_VALUE),
        ("--expected-bucket-owner 12", Problem.OPTION_VALUE),
        ("--log-directory", Problem.OPTION_VALUE),
        ("-l", Problem.OPTION_VALUE),
        ("--profile 'a\nb'", Problem.ARGUMENT_NOT_TEXT),
        ("--read-only\x00", Problem.ARGUMENT_NOT_TEXT),
        ("--prefix '\udcff/'", Problem.ARGUMENT_NOT_TEXT),
    ],
)
def test_bad_options_are_refused_with_their_code(text: str, problem: Problem) -> None:
    with pytest.raises(AgentError) as caught:
        parse_options(text)
    assert caught.value.problem is problem
    assert problem.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--readonly", "--read-only"),
        ("--allow-others", "--allow-other"),
        ("--alow-delete", "--allow-delete"),
        ("-read-only", "--read-only"),
        ("--cahce=/tmp/x", "--cache"),
    ],
)
def test_a_mistyped_flag_gets_the_right_one_as_a_hint(typed: str, meant: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_options(typed)
    assert caught.value.problem is Problem.OPTION_UNKNOWN
    assert f"did you mean {meant}?" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "version", "known"),
    [
        ("--memory-target 512", (1, 23, 0), False),
        ("--memory-target 512", (1, 24, 0), True),
        ("--ca-bundle /x", (1, 22, 9), False),
        ("--ca-bundle /x", (1, 23, 0), True),
        ("--otlp-endpoint http://x", (1, 20, 0), False),
        ("--otlp-endpoint http://x", (1, 21, 0), True),
        ("--infer-content-type", (1, 0, 0), True),
        ("--read-only --allow-other", (1, 0, 0), True),
        ("", (1, 0, 0), True),
    ],
)
def test_a_flag_needs_its_version_of_mount_s3(text: str, version: Version, known: bool) -> None:
    options = parse_options(text)
    if known:
        require_known_to(version, options)
        return
    with pytest.raises(AgentError) as caught:
        require_known_to(version, options)
    assert caught.value.problem is Problem.OPTION_UNKNOWN
    assert options.flags[0][0] in caught.value.message


def test_extended_adds_only_what_is_not_there() -> None:
    options = parse_options("--uid 7 --read-only").extended(uid="8", gid="9", dir_mode="0700")
    assert options.arguments() == ("--uid=7", "--read-only", "--gid=9", "--dir-mode=0700")


def test_without_removes_one_flag() -> None:
    options = parse_options("--uid 7 --read-only --gid 8").without("uid")
    assert options == Options((("read-only", None), ("gid", "8")))


def test_every_flag_that_another_names_exists() -> None:
    for flag in FLAGS.values():
        named = {*flag.conflicts, *([flag.requires] if flag.requires else [])}
        assert named <= FLAGS.keys(), flag.name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--allow-delete --allow-other", "--allow-other --allow-delete"),
        ("--log-directory=/var/log/m -d", "-d -l /var/log/m"),
        ("--uid 1000", "--uid=01000"),
        ("--dir-mode 0750", "--dir-mode=750"),
        ("--dir-mode 0755 --file-mode 644", ""),
        ("--max-threads 16 --part-size 8388608", ""),
        ("--read-part-size 8388608 --write-part-size 9000000", "--write-part-size 9000000"),
        ("--metadata-ttl minimal", ""),
        ("--cache /c --metadata-ttl 60", "--cache /c"),
        ("--cache-xz b --metadata-ttl 060 --negative-metadata-ttl 60", "--cache-xz b"),
        ("--metadata-ttl 5 --negative-metadata-ttl 5", "--metadata-ttl 5"),
        ("--otlp-endpoint http://x --otlp-export-interval 60", "--otlp-endpoint http://x"),
        ("--bind eth0 -d --bind eth1", "--bind eth0 --bind eth1 --debug"),
    ],
)
def test_what_means_the_same_has_one_normal_form(one: str, other: str) -> None:
    assert parse_options(one).normal() == parse_options(other).normal()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--allow-delete", "--allow-overwrite"),
        ("--bind eth0 --bind eth1", "--bind eth1 --bind eth0"),
        ("--dir-mode 0700", ""),
        ("--cache /c --metadata-ttl minimal", "--cache /c"),
        ("--metadata-ttl 60", ""),
        ("--metadata-ttl 5 --negative-metadata-ttl 60", "--metadata-ttl 5"),
        ("--cache /c --negative-metadata-ttl minimal", "--cache /c"),
        ("--max-threads 17", ""),
        ("--profile 007", "--profile 7"),
        ("--expected-bucket-owner 012345678901", "--expected-bucket-owner 112345678901"),
        # Found out by mount-s3 itself, or by the kind of bucket: not the same everywhere.
        ("--region us-east-1", ""),
        ("--upload-checksums crc32c", ""),
        ("--bucket-type general-purpose", ""),
        ("--maximum-throughput-gbps 10", ""),
    ],
)
def test_what_means_something_else_has_another(one: str, other: str) -> None:
    assert parse_options(one).normal() != parse_options(other).normal()


FLAG_TEXTS = st.lists(
    st.sampled_from(
        "-d --allow-other --allow-delete --uid=7 --gid=08 --dir-mode=0755 --max-threads=16 "
        "--metadata-ttl=60 --cache=/c --bind=a --bind=b".split()
    ),
    unique_by=lambda word: "bind" if "bind" in word else word,
)


@given(FLAG_TEXTS, st.randoms())
def test_the_normal_form_knows_no_order_and_is_its_own(words: list[str], random: Random) -> None:
    normal = parse_options(" ".join(words)).normal()
    assert normal.normal() == normal
    random.shuffle(words)
    assert parse_options(" ".join(words)).normal() == normal


@given(st.text())
def test_any_text_is_refused_or_stays_the_same_read_again(text: str) -> None:
    try:
        options = parse_options(text)
    except AgentError as error:
        refusal = error
    else:
        assert parse_options(shlex.join(options.arguments())) == options
        return
    assert refusal.problem.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--foo --bar", ["no option '--foo'", "no option '--bar'"]),
        ("--foo 7 x --uid root --gid 8", ["no option '--foo'", "--uid takes a whole number"]),
        ("--uid --bar", ["--uid takes a whole number", "no option '--bar'"]),
        ("--foreground --uid 7 --uid 8", ["--foreground is not for", "--uid is given twice"]),
        (
            "--allow-delete --read-only --allow-root --allow-other --max-cache-size 5",
            [
                "--read-only and --allow-delete exclude",
                "--allow-root and --allow-other exclude",
                "--max-cache-size needs --cache",
            ],
        ),
        ("--read-only --allow-delete --foo", ["no option '--foo'", "--read-only and --allow-del"]),
        # What the mistyped one would have been is not called missing as well.
        ("--chace /var/cache/x --max-cache-size 5", ["no option '--chace'"]),
        ("--memory-target 512 --read-part-size 1GB", ["--read-part-size takes"]),
    ],
)
def test_all_that_is_wrong_with_options_is_told_at_once(text: str, told: list[str]) -> None:
    with pytest.raises(AgentError) as caught:
        parse_options(text)
    errors = [caught.value, *caught.value.more]
    assert len(errors) == len(told), [error.message for error in errors]
    for error, words in zip(errors, told):
        assert words in error.message


def test_options_that_are_wrong_everywhere_are_not_read_to_their_end() -> None:
    with pytest.raises(AgentError) as caught:
        parse_options("--foo " * 10_000)
    assert len(caught.value.more) == 29
