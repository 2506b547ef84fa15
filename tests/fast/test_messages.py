"""What mount-s3's words mean, and which mount-s3 there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent.core.errors import Problem
from s3mount_agent.mountpoint import messages, program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.system import process

BUCKET, DIRECTORY = "my-bucket", "/mnt/s3"
CHAIN = """\
Error: Failed to create S3 client

Caused by:
    0: initial ListObjectsV2 failed for bucket {bucket} in region us-east-1
    1: {cause}
"""


@pytest.mark.parametrize(
    "line",
    [
        'open{req=2078 ino=25 name="x"}: mountpoint_s3_fs::fuse: open failed with errno 12: '
        "write handle limit reached (max 47)",
        "no concurrent open-for-write file handles allowed: memory target leaves no budget",
    ],
)
def test_a_file_that_could_not_be_opened_for_writing_is_a_problem_of_its_own(line: str) -> None:
    error = messages.explain(line, bucket=BUCKET, directory=DIRECTORY)
    assert error.problem is Problem.WRITE_LIMIT
    assert DIRECTORY in error.message


def test_targets_and_parts_that_do_not_go_together_are_refused_arguments() -> None:
    words = "Error: read part size (400 MiB) exceeds the memory available for data buffers (1 MiB)"
    error = messages.explain(words, bucket=BUCKET, directory=DIRECTORY)
    assert error.problem is Problem.MOUNT_REFUSED


@pytest.mark.parametrize(
    ("cause", "problem"),
    [
        (
            "No signing credentials available, see CRT debug logs",
            Problem.CREDENTIALS_MISSING,
        ),
        ("No signing credentials found", Problem.CREDENTIALS_MISSING),
        ("invalid AWS credentials", Problem.PROFILE_INVALID),
        ("Forbidden: Access Denied", Problem.ACCESS_DENIED),
        (
            "Forbidden: User: arn:aws:sts::1:assumed-role/x is not authorized to perform: "
            "s3:ListBucket on resource: arn:aws:s3:::my-bucket because no identity-based policy "
            "allows the s3:ListBucket action",
            Problem.ACCESS_DENIED,
        ),
        # RequestTimeTooSkewed, ExpiredToken, InvalidToken, InvalidAccessKeyId.
        (
            "Forbidden: The difference between the request time and the current time is too large.",
            Problem.CLOCK_WRONG,
        ),
        (
            "Client error: CRT error 14361: aws-c-s3: AWS_ERROR_S3_REQUEST_TIME_TOO_SKEWED, "
            "RequestTimeTooSkewed error received from S3.",
            Problem.CLOCK_WRONG,
        ),
        ("Forbidden: Request has expired", Problem.CLOCK_WRONG),
        ("Forbidden: The provided token has expired.", Problem.CREDENTIALS_EXPIRED),
        (
            "Forbidden: The provided token is malformed or otherwise invalid.",
            Problem.CREDENTIALS_INVALID,
        ),
        (
            "Forbidden: The AWS Access Key Id you provided does not exist in our records.",
            Problem.CREDENTIALS_INVALID,
        ),
        (
            "Forbidden: The request signature we calculated does not match the signature you "
            "provided. Check your key and signing method.",
            Problem.SIGNATURE_WRONG,
        ),
        (
            "Forbidden: The request signature does not match",
            Problem.SIGNATURE_WRONG,
        ),
        ("The bucket does not exist", Problem.BUCKET_MISSING),
        ("Wrong region (expecting eu-west-1)", Problem.REGION_WRONG),
        ("Request throttled", Problem.S3_THROTTLED),
        (
            "Client error: Internal S3 client error: XML parsing error: unexpected connection",
            Problem.S3_ERRORS,
        ),
        (
            "Client error: Unknown CRT error: CRT error 1059: aws-c-io: AWS_IO_DNS_INVALID_NAME, "
            "Host name was invalid for dns resolution.",
            Problem.S3_UNREACHABLE,
        ),
        (
            "Client error: Unknown CRT error: CRT error 1049: aws-c-io: AWS_IO_SOCKET_TIMEOUT, "
            "socket operation timed out.",
            Problem.S3_UNREACHABLE,
        ),
        (
            "Client error: CRT error 1048: aws-c-io: AWS_IO_SOCKET_NO_ROUTE_TO_HOST",
            Problem.S3_UNREACHABLE,
        ),
    ],
)
@pytest.mark.parametrize(
    ("bucket", "directory"),
    [
        (BUCKET, DIRECTORY),
        # Names are no reasons.
        ("forbidden-fruit", "/mnt/throttled"),
        ("slowdown.connection-data", "/mnt/The bucket does not exist"),
        ("nosuchbucket", "/mnt/AccessDenied"),
    ],
)
def test_what_s3_says_is_understood(
    cause: str, problem: Problem, bucket: str, directory: str
) -> None:
    words = CHAIN.format(bucket=bucket, cause=cause)
    error = messages.explain(words, bucket=bucket, directory=directory)
    assert (error.problem, error.retry_for) == (problem, None)
    assert str(error.cause).splitlines()[-1].strip() == f"1: {cause}"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "fuse: mountpoint is not empty\nfuse: if you are sure this is safe, use the 'nonempty'",
            Problem.DIRECTORY_NOT_EMPTY,
        ),
        ("Error: mount point /mnt/s3 is already mounted", Problem.MOUNT_FAILED),
        ("Error: mount point /mnt/s3 does not exist", Problem.MOUNT_FAILED),
        ("Error: mount point /mnt/s3 is not a directory", Problem.MOUNT_FAILED),
        (
            "fuse: device not found, try 'modprobe fuse' first",
            Problem.FUSE_MISSING,
        ),
        (
            "/usr/bin/mount-s3: error while loading shared libraries: libfuse.so.2: cannot open "
            "shared object file: No such file or directory",
            Problem.LIBRARY_MISSING,
        ),
        (
            "error: unexpected argument '--nope' found\n\nUsage: mount-s3 [OPTIONS] <BUCKET> "
            "<DIRECTORY>\n\nFor more information, try '--help'.",
            Problem.MOUNT_REFUSED,
        ),
        (
            "Error: Failed to create S3 client\nCaused by:\n    part size must be at least 5MiB",
            Problem.MOUNT_REFUSED,
        ),
        (
            "Error: Timeout after 30 seconds while waiting for mount process to be ready",
            Problem.S3_UNREACHABLE,
        ),
        ("something new", Problem.MOUNT_FAILED),
        ("", Problem.MOUNT_FAILED),
    ],
)
def test_what_mount_s3_itself_says_is_understood(words: str, problem: Problem) -> None:
    error = messages.explain(words, bucket=BUCKET, directory=DIRECTORY)
    assert (error.problem, error.retry_for) == (problem, None)
    assert error.cause is None if not words else str(error.cause) in words.replace("\n\n", "\n")


def test_the_bucket_and_its_region_are_named() -> None:
    words = CHAIN.format(bucket=BUCKET, cause="Wrong region (expecting eu-west-1)")
    error = messages.explain(words, bucket=BUCKET, directory=DIRECTORY)
    assert error.message == "the bucket my-bucket is in the region eu-west-1"


def test_the_missing_library_is_named() -> None:
    words = "error while loading shared libraries: libfuse.so.2: cannot open"
    assert "libfuse.so.2" in messages.explain(words, bucket=BUCKET, directory=DIRECTORY).message


def test_braces_in_names_are_only_braces() -> None:
    words = CHAIN.format(bucket="x", cause="The bucket does not exist")
    error = messages.explain(words, bucket="s3://b/{detail}/{0}/", directory="/mnt/{x}")
    assert "{detail}/{0}" in error.message


def test_endless_words_are_cut_to_their_end() -> None:
    words = "\n".join(f"line {number} " + "x" * 300 for number in range(1000))
    error = messages.explain(words, bucket=BUCKET, directory=DIRECTORY)
    assert len(str(error.cause)) <= 1500
    assert str(error.cause).endswith("line 999 " + "x" * 300)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("mount-s3 1.23.0", (1, 23, 0)),
        ("mount-s3 1.21.0+1.amzn2023", (1, 21, 0)),
        ("mount-s3 1.4.1-unofficial+a1b2c3d", (1, 4, 1)),
    ],
)
def test_the_installed_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, version: tuple[int, ...]
) -> None:
    path = script(tmp_path / "bin/mount-s3", f'[ "$1" = --version ] && echo "{said}"')
    monkeypatch.setattr(program, "_PLACES", str(path.parent))
    assert program.find() == Installed(str(path), version)
    assert str(program.find()) == ".".join(map(str, version))


@pytest.mark.parametrize(
    "text", ["exit 127", "echo mount-s3 1.23.0; exit 1", "echo something else", "true"]
)
def test_a_mount_s3_that_does_not_run_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = script(tmp_path / "bin/mount-s3", text)
    monkeypatch.setattr(program, "_PLACES", str(path.parent))
    assert program.find() is None


def test_the_same_program_is_found_whatever_the_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = script(tmp_path / "bin/mount-s3", "echo mount-s3 1.23.0")
    other = script(tmp_path / "mine/mount-s3", "echo mount-s3 1.0.0")
    monkeypatch.setattr(program, "_PLACES", str(here.parent))
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    assert program.find() == Installed(str(here), (1, 23, 0))


def test_without_a_mount_s3_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_PLACES", str(tmp_path))
    assert program.find() is None


def test_another_program_in_its_place_is_asked_anew_whatever_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages that are built reproducibly give all their files the same date."""
    monkeypatch.setattr(program, "_PLACES", str(tmp_path / "bin"))
    for version in ((1, 23, 0), (1, 24, 0)):
        new = script(tmp_path / "new/mount-s3", f"echo mount-s3 {'.'.join(map(str, version))}")
        os.utime(new, (1_700_000_000, 1_700_000_000))
        (tmp_path / "bin").mkdir(exist_ok=True)
        new.replace(tmp_path / "bin/mount-s3")
        found = program.find()
        assert found is not None
        assert found.version == version


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mount-s3 in the place of /usr/local/bin, and none elsewhere."""
    here = script(tmp_path / "local/mount-s3", "echo mount-s3 1.24.0")
    monkeypatch.setattr(program, "_PLACES", str(tmp_path / "none"))
    monkeypatch.setattr(program, "_LOCAL", str(here))
    monkeypatch.setattr(program, "_local", None)
    return here


def test_one_that_an_image_brings_is_taken_where_only_root_can_change_it(local: Path) -> None:
    assert program.find() == Installed(str(local), (1, 24, 0))
    script(local, "echo mount-s3 1.24.1")
    assert program.find() == Installed(str(local), (1, 24, 1))
    local.chmod(0o777)
    assert program.find() is None


def test_with_debug_too(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that asks has no stderr to tell of the programs that it runs."""
    monkeypatch.setattr(process, "_traced", True)
    assert program.find() == Installed(str(local), (1, 24, 0))


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_one_on_a_file_system_that_hangs_is_what_it_was(
    local: Path, fuse: SmallFuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who asks for it hangs, neither in looking nor in running it."""
    monkeypatch.setattr(program, "_LOCAL_SECONDS", 0.5)
    known = program.find()
    assert known is not None
    fuse.hang()
    monkeypatch.setattr(program, "_LOCAL", f"{fuse.directory}/mount-s3")
    assert program.find() == known
    monkeypatch.setattr(program, "_local", None)
    assert program.find() is None
