"""What the agent believes of mount-s3, asked of the one installed: stand-in or AWS's own."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cluster.cluster import Cluster
from node.article import ENVIRONMENT, SECOND, SEEN, eventually
from node.conftest import NewNode
from s3mount_agent.core.errors import Problem
from s3mount_agent.mountpoint.messages import explain

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from cluster.command import Command
    from cluster.node import Node

pytestmark = pytest.mark.node

DIRECTORY = "/mnt/contract"
MISSING = "a-bucket-that-is-nowhere"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "Command"]
NOT_CONNECTED = "Transport endpoint is not connected"


@pytest.fixture(scope="module")
def node(new_ready_module_node: NewNode) -> Node:
    """A node with mount-s3 and without the agent."""
    return new_ready_module_node("standalone")


@pytest.fixture(scope="module")
def settings(node: Node) -> dict[str, str]:
    """How mount-s3 finds S3 on this node; it gives up early."""
    lines = node.read(ENVIRONMENT).splitlines()
    return {**dict(line.split("=", 1) for line in lines), "AWS_MAX_ATTEMPTS": "1"}


@pytest.fixture(autouse=True)
def directory(node: Node) -> Iterator[None]:
    """An empty directory, and afterwards nothing mounted and nothing running."""
    node.run(["mkdir", "-p", DIRECTORY])
    yield
    node.run(["pkill", "-KILL", "-x", "mount-s3"], check=False)
    node.run(["umount", "-l", DIRECTORY], check=False)
    node.run(["find", DIRECTORY, "-xdev", "-mindepth", "1", "-delete"])


@pytest.fixture
def mount_s3(node: Node, settings: dict[str, str]) -> Run:
    """Runs mount-s3 to its end."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
        words = ["mount-s3", *arguments]
        return node.run(words, env={**settings, **(env or {})}, check=False, timeout=90)

    return run


@pytest.fixture
def foreground(node: Node, settings: dict[str, str]) -> Iterator[Start]:
    """Starts mount-s3 in the foreground and returns once it has mounted."""
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        argv = ["mount-s3", "--foreground", *arguments, SECOND, DIRECTORY]
        started.append(node.popen(argv, env=settings))
        assert eventually(lambda: is_mounted(node), 10)
        return started[-1]

    yield start
    for command in started:
        command.kill()
        command.communicate()


def is_mounted(node: Node) -> bool:
    """Whether something is mounted on the directory."""
    return f" {DIRECTORY} " in node.read("/proc/mounts")


def entry(node: Node) -> list[str]:
    """The directory's line in the mount table."""
    lines = node.read("/proc/mounts").splitlines()
    return next(line.split() for line in lines if line.split()[1] == DIRECTORY)


def problem(answer: subprocess.CompletedProcess[str]) -> Problem:
    """What the agent makes of mount-s3's last words."""
    return explain(answer.stderr, bucket=SECOND, directory=DIRECTORY).problem


def test_it_tells_its_version(mount_s3: Run) -> None:
    assert re.match(r"mount-s3 \d+\.\d+\.\d+", mount_s3("--version").stdout)


def test_it_is_where_the_agent_looks(node: Node) -> None:
    for path in ("/opt/aws/mountpoint-s3/bin/mount-s3", "/usr/bin/mount-s3"):
        assert node.run(["test", "-x", path], check=False).returncode == 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--no-such-flag",),
        ("--uid", "0"),
        ("--gid", "0"),
        ("--dir-mode", "1000"),
        ("--allow-root", "--allow-other"),
        ("--max-cache-size", "1"),
        ("--region",),
        ("--bucket-type", "other"),
    ],
)
def test_it_refuses_wrong_arguments_with_2(mount_s3: Run, flags: tuple[str, ...]) -> None:
    answer = mount_s3(SECOND, DIRECTORY, *flags)
    assert answer.returncode == 2
    assert problem(answer) is Problem.MOUNT_REFUSED


def test_it_takes_every_flag_that_the_agent_adds(foreground: Start) -> None:
    flags = ("--allow-other", "--uid=1000", "--gid=1000", "--dir-mode=0700", "--file-mode=0600")
    assert foreground(*flags, "--user-agent-prefix=s3mount-agent", "--read-only").poll() is None


def test_it_refuses_a_directory_that_is_missing(mount_s3: Run) -> None:
    answer = mount_s3(SECOND, "/mnt/nowhere")
    assert answer.returncode == 1
    assert "mount point /mnt/nowhere does not exist" in answer.stderr
    assert problem(answer) is Problem.MOUNT_FAILED


def test_it_refuses_a_directory_that_is_a_file(mount_s3: Run) -> None:
    answer = mount_s3(SECOND, "/etc/hostname")
    assert answer.returncode == 1
    assert "mount point /etc/hostname is not a directory" in answer.stderr
    assert problem(answer) is Problem.MOUNT_FAILED


def test_it_refuses_a_directory_that_is_not_empty(node: Node, mount_s3: Run) -> None:
    node.run(["touch", f"{DIRECTORY}/a-file"])
    answer = mount_s3(SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert "mountpoint is not empty" in answer.stderr
    assert problem(answer) is Problem.DIRECTORY_NOT_EMPTY
    assert not is_mounted(node)


def test_it_refuses_a_directory_that_is_mounted(foreground: Start, mount_s3: Run) -> None:
    foreground()
    answer = mount_s3(SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert f"mount point {DIRECTORY} is already mounted" in answer.stderr
    assert problem(answer) is Problem.MOUNT_FAILED


@pytest.mark.parametrize("how", [(), ("--foreground",)])
def test_it_tells_that_a_bucket_does_not_exist(mount_s3: Run, how: tuple[str, ...]) -> None:
    answer = mount_s3(*how, MISSING, DIRECTORY)
    assert answer.returncode == 1
    assert "The bucket does not exist" in answer.stderr
    assert f"initial ListObjectsV2 failed for bucket {MISSING}" in answer.stderr
    assert problem(answer) is Problem.BUCKET_MISSING


def test_it_tells_that_access_is_denied(mount_s3: Run, break_s3: Callable[..., None]) -> None:
    break_s3(SECOND)
    answer = mount_s3(SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert "Forbidden: Access Denied" in answer.stderr
    assert problem(answer) is Problem.ACCESS_DENIED


def test_it_tells_that_requests_are_throttled(mount_s3: Run, break_s3: Callable[..., None]) -> None:
    break_s3(SECOND, status=503, code="SlowDown", message="Please reduce your request rate.")
    assert problem(mount_s3(SECOND, DIRECTORY)) is Problem.S3_THROTTLED


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://s3.invalid:9"])
def test_it_tells_that_s3_cannot_be_reached(mount_s3: Run, endpoint: str) -> None:
    answer = mount_s3(SECOND, DIRECTORY, env={"AWS_ENDPOINT_URL": endpoint})
    assert answer.returncode == 1
    assert problem(answer) is Problem.S3_UNREACHABLE


def test_it_tells_that_it_has_no_credentials(mount_s3: Run) -> None:
    answer = mount_s3(SECOND, DIRECTORY, env=CREDENTIALS)
    assert answer.returncode == 1
    assert "No signing credentials" in answer.stderr
    assert problem(answer) is Problem.CREDENTIALS_MISSING


def test_it_tells_that_a_profile_is_none(mount_s3: Run) -> None:
    answer = mount_s3("--profile=nobodys", SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert problem(answer) is Problem.CREDENTIALS_MISSING


def test_it_tells_that_a_part_size_is_wrong(mount_s3: Run) -> None:
    answer = mount_s3("--part-size=1", SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert "part size must be" in answer.stderr
    assert problem(answer) is Problem.MOUNT_REFUSED


def test_it_needs_libfuse2(node: Node, mount_s3: Run) -> None:
    library = node.run(["sh", "-c", "ls /lib/*/libfuse.so.2"]).stdout.strip()
    node.run(["mv", library, f"{library}.away"])
    try:
        answer = mount_s3(SECOND, DIRECTORY)
    finally:
        node.run(["mv", f"{library}.away", library])
    assert answer.returncode == 127
    assert "error while loading shared libraries: libfuse.so.2" in answer.stderr
    assert problem(answer) is Problem.MOUNT_FAILED


def test_it_needs_dev_fuse(
    cluster: Cluster, new_ready_node: NewNode, settings: dict[str, str]
) -> None:
    node = new_ready_node("standalone")
    node.run(["mkdir", DIRECTORY])
    node.run(["umount", "/dev/fuse"])
    node.run(["rm", "/dev/fuse"])
    answer = node.run(["mount-s3", SECOND, DIRECTORY], env=settings, check=False)
    assert answer.returncode == 1
    assert problem(answer) is Problem.FUSE_MISSING


def test_in_the_background_it_says_that_it_has_mounted(node: Node, mount_s3: Run) -> None:
    answer = mount_s3(SECOND, DIRECTORY)
    assert answer.returncode == 0
    assert answer.stdout.strip() == f"bucket {SECOND} is mounted at {DIRECTORY}"
    assert SEEN in node.run(["ls", DIRECTORY]).stdout
    assert node.run(["umount", DIRECTORY]).returncode == 0


@pytest.mark.parametrize("access", ["rw", "ro"])
def test_its_line_in_the_mount_table(node: Node, foreground: Start, access: str) -> None:
    foreground("--allow-other", *(["--read-only"] if access == "ro" else []))
    source, _, kind, options, *_ = entry(node)
    assert (source, kind) == ("mountpoint-s3", "fuse")
    told = options.split(",")
    assert told[0] == access
    assert {"nosuid", "nodev", "default_permissions", "allow_other"} <= set(told)


def test_in_the_foreground_it_stays(node: Node, foreground: Start) -> None:
    command = foreground()
    time.sleep(0.5)
    assert command.poll() is None


def test_it_ends_with_0_when_something_else_unmounts(node: Node, foreground: Start) -> None:
    command = foreground()
    node.run(["umount", DIRECTORY])
    assert command.wait(15) == 0
    assert not is_mounted(node)


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_asked_to_end_it_unmounts(node: Node, foreground: Start, signal: str) -> None:
    command = foreground()
    node.run(["pkill", f"-{signal}", "-x", "mount-s3"])
    assert command.wait(15) == 0
    assert not is_mounted(node)


def test_asked_to_end_while_in_use_it_leaves_a_dead_mount(node: Node, foreground: Start) -> None:
    command = foreground()
    with node.popen(["sleep", "60"], cwd=DIRECTORY) as inside:
        node.run(["pkill", "-TERM", "-x", "mount-s3"])
        assert command.wait(15) == 0
        assert entry(node)[0] == "mountpoint-s3"
        assert NOT_CONNECTED in node.run(["ls", DIRECTORY], check=False).stderr
        inside.kill()


def test_killed_it_leaves_a_dead_mount_that_it_will_not_mount_over(
    node: Node, foreground: Start, mount_s3: Run
) -> None:
    command = foreground()
    node.run(["pkill", "-KILL", "-x", "mount-s3"])
    command.wait(15)
    assert entry(node)[0] == "mountpoint-s3"
    assert NOT_CONNECTED in node.run(["stat", DIRECTORY], check=False).stderr
    answer = mount_s3(SECOND, DIRECTORY)
    assert answer.returncode == 1
    assert f"mount point {DIRECTORY} does not exist" in answer.stderr
    assert problem(answer) is Problem.MOUNT_FAILED
    node.run(["umount", DIRECTORY])
    assert not is_mounted(node)
