"""Which paths may become the directory of a mount."""

from __future__ import annotations

import pytest

from s3mount_agent.core.buckets import parse_bucket
from s3mount_agent.core.directory_rules import (
    is_below,
    may_be_read,
    may_be_written,
    parse_directory,
)
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mounts import Mount, require_consistent


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


def mount(directory: str) -> Mount:
    return Mount(parse_bucket("my-bucket"), directory)


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
        require_consistent([mount(directory) for directory in directories])
    assert caught.value.problem is Problem.DIRECTORY_TWICE


def test_directories_side_by_side_are_accepted() -> None:
    apart = ["/mnt/s3", "/mnt/s3-readonly", "/mnt/s", "/mnt/s33"]
    assert len(require_consistent([mount(directory) for directory in apart])) == 4


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


@pytest.mark.parametrize(
    "path",
    "/usr /usr/local/data /usr/local/sbin /usr/local/lib/python3.11/dist-packages /usr/games/x "
    "/root /root/.ssh /root/bin /var /var/x /var/tmp/x /var/www/x /run/x /boot/x /snap/bin /nix/x "
    "/opt/slurm /opt/s3mount-agent /opt/amazon/efa/lib /opt/intel/x /home/ubuntu/.ssh "
    "/home/ubuntu/.ssh/x /lib64/security /tmp /opt /srv /media /etc/cron.d "
    "/etc/ld.so.conf.d".split(),
)
def test_nothing_of_the_systems_can_be_mounted_over(path: str) -> None:
    """Twenty of these were accepted at 12edeff, among them /usr/local/sbin."""
    for spelling in (path, f"/{path}", f"{path}/", path.replace("/", "//")):
        with pytest.raises(AgentError) as caught:
            parse_directory(spelling)
        assert caught.value.problem is Problem.DIRECTORY_RESERVED


@pytest.mark.parametrize(
    "path",
    "/mnt/s3 /mnt/s3-readonly /mnt/a/b /media/x /srv/x /opt/ours /data /data/x /fsx/x /shared/x "
    "/scratch/x /tmp/x /home/project /s3 /usrdata /variable /library".split(),
)
def test_what_is_common_goes_on_working(path: str) -> None:
    assert parse_directory(path) == path


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/var/cache/s3", True),
        ("/var/log/s3/one", True),
        ("/var/tmp/c", True),
        ("/tmp/c d", True),
        ("/scratch/cache", True),
        ("/c", True),
        ("/var/tmp/./c", True),
        ("//etc/cron.d", False),
        ("/./etc/zz", False),
        ("/mnt/./../etc", False),
        ("///usr/local/lib", False),
        ("/etc", False),
        ("/var/cache", False),
        ("/var/log", False),
        ("/var/log/journal/x", False),
        ("/var/cache/apt", False),
        ("/var/lib/x", False),
        ("/var/tmp/../lib/x", False),
        ("/run/x", False),
        ("/root/cache", False),
        ("/home/ubuntu/.ssh/x", False),
        ("cache", False),
        ("", False),
    ],
)
def test_mount_s3_writes_only_where_it_may(path: str, may: bool) -> None:
    """At 12edeff //etc/cron.d and /./etc/zz passed, and were written to."""
    assert may_be_written(path) is may


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/etc/ssl/certs/ca-certificates.crt", True),
        ("/opt/site/ca.pem", True),
        ("/dev/stdin", False),
        ("//proc/kmsg", False),
        ("/./sys/x", False),
        ("/etc/../dev/zero", False),
        ("ca.pem", False),
    ],
)
def test_mount_s3_reads_no_devices(path: str, may: bool) -> None:
    assert may_be_read(path) is may
