"""Which paths may become the directory of a mount."""

from __future__ import annotations

import pytest

from s3mount_agent.core.directory import is_below, parse_directory, require_apart
from s3mount_agent.core.errors import AgentError, Exit, Problem


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("/mnt/s3", "/mnt/s3"),
        ("/mnt/s3/", "/mnt/s3"),
        ("//mnt///s3//", "/mnt/s3"),
        ("/s3", "/s3"),
        ("/home/ubuntu/data", "/home/ubuntu/data"),
        ("/data/with space", "/data/with space"),
        ("/data/100%n", "/data/100%n"),
        ("/data/$(reboot);x", "/data/$(reboot);x"),
        ('/data/"quoted"', '/data/"quoted"'),
        ("/data/ünïcode", "/data/ünïcode"),
        ("/data/..hidden", "/data/..hidden"),
        ("/etcetera", "/etcetera"),
        ("/opt/slurmdata", "/opt/slurmdata"),
        ("/usr/local/data", "/usr/local/data"),
        ("/" + "a" * 255, "/" + "a" * 255),
    ],
)
def test_a_directory_is_read_into_its_one_spelling(text: str, directory: str) -> None:
    assert parse_directory(text) == directory


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", Problem.DIRECTORY_INVALID),
        ("mnt/s3", Problem.DIRECTORY_INVALID),
        ("./mnt", Problem.DIRECTORY_INVALID),
        ("~/s3", Problem.DIRECTORY_INVALID),
        ("/mnt/../etc", Problem.DIRECTORY_INVALID),
        ("/mnt/s3/..", Problem.DIRECTORY_INVALID),
        ("/mnt/./s3", Problem.DIRECTORY_INVALID),
        ("/mnt/s3\\", Problem.DIRECTORY_INVALID),
        ("/mnt/" + "a" * 256, Problem.DIRECTORY_INVALID),
        ("/mnt/" + "ü" * 128, Problem.DIRECTORY_INVALID),
        ("/mnt" + "/abc" * 1024, Problem.DIRECTORY_INVALID),
        ("/", Problem.DIRECTORY_RESERVED),
        ("//", Problem.DIRECTORY_RESERVED),
        ("/etc", Problem.DIRECTORY_RESERVED),
        ("/etc/", Problem.DIRECTORY_RESERVED),
        ("/etc/s3", Problem.DIRECTORY_RESERVED),
        ("/mnt", Problem.DIRECTORY_RESERVED),
        ("/home", Problem.DIRECTORY_RESERVED),
        ("/usr", Problem.DIRECTORY_RESERVED),
        ("/usr/bin", Problem.DIRECTORY_RESERVED),
        ("/usr/lib/x", Problem.DIRECTORY_RESERVED),
        ("/var/lib/x", Problem.DIRECTORY_RESERVED),
        ("/proc/self/fd", Problem.DIRECTORY_RESERVED),
        ("/dev/shm", Problem.DIRECTORY_RESERVED),
        ("/opt/parallelcluster/shared", Problem.DIRECTORY_RESERVED),
        ("/opt/slurm/etc", Problem.DIRECTORY_RESERVED),
        ("/opt/s3mount-agent/current", Problem.DIRECTORY_RESERVED),
        ("/run/s3mount-agent", Problem.DIRECTORY_RESERVED),
        ("/mnt/s3\n[Service]", Problem.ARGUMENT_NOT_TEXT),
        ("/mnt/s3\x00", Problem.ARGUMENT_NOT_TEXT),
        ("/mnt/\udcff", Problem.ARGUMENT_NOT_TEXT),
        ("/mnt/s3\u2029", Problem.ARGUMENT_NOT_TEXT),
    ],
)
def test_a_bad_directory_is_refused(text: str, problem: Problem) -> None:
    with pytest.raises(AgentError) as caught:
        parse_directory(text)
    assert caught.value.problem is problem
    assert problem.exit_code is Exit.USAGE
    assert len("\n".join(caught.value.lines()).encode()) < 1000


@pytest.mark.parametrize(
    ("directories", "words"),
    [
        (["/mnt/s3", "/mnt/s3"], "given twice"),
        (["/mnt/a", "/mnt/b", "/mnt/a"], "given twice"),
        (["/mnt/s3", "/mnt/s3/below"], "inside each other"),
        (["/mnt/s3/below/deep", "/mnt/other", "/mnt/s3"], "inside each other"),
    ],
)
def test_directories_that_meet_are_refused(directories: list[str], words: str) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        require_apart(directories)
    assert caught.value.problem is Problem.DIRECTORY_TWICE


def test_directories_side_by_side_are_accepted() -> None:
    require_apart(["/mnt/s3", "/mnt/s3-readonly", "/mnt/s", "/mnt/s33"])


@pytest.mark.parametrize(
    ("directory", "ancestor", "below"),
    [
        ("/mnt/s3", "/mnt", True),
        ("/mnt/s3", "/", True),
        ("/mnt/s3", "/mnt/s3", False),
        ("/mnt/s3x", "/mnt/s3", False),
        ("/mnt", "/mnt/s3", False),
    ],
)
def test_below_means_strictly_below(directory: str, ancestor: str, below: bool) -> None:
    assert is_below(directory, ancestor) is below
