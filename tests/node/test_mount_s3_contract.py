"""What the agent believes of mount-s3, asked of the one installed: stand-in or AWS's own."""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cluster.cluster import Cluster
from node.article import ENVIRONMENT, SECOND, SEEN, eventually, show
from node.conftest import NewNode
from s3mount_agent.core.errors import Problem
from s3mount_agent.core.options import Options
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
OPEN_ALL = "import sys; files = [open(path, 'wb') for path in sys.argv[1:]]"
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


def version_of(cluster: Cluster) -> tuple[int, ...]:
    """The release of this run, as (1, 24)."""
    return tuple(map(int, cluster.version.split(".")[:2]))


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
    assert problem(answer) is Problem.PROFILE_INVALID


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
    assert problem(answer) is Problem.LIBRARY_MISSING


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


def test_asked_to_end_while_in_use_it_stays_until_somebody_else_unmounts(
    node: Node, foreground: Start
) -> None:
    """Its own unmount fails once; then it is deaf to more signals, and to its users' leaving."""
    command = foreground()
    user = ["sh", "-c", "echo inside; exec sleep 60"]
    with node.popen(user, cwd=DIRECTORY) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == "inside\n"
        for _ in range(2):
            node.run(["pkill", "-TERM", "-x", "mount-s3"])
            time.sleep(1)
            assert command.poll() is None
            assert SEEN in node.run(["ls", DIRECTORY]).stdout
        inside.kill()
    node.run(["pkill", "-TERM", "-x", "mount-s3"])
    time.sleep(1)
    assert command.poll() is None
    assert node.read(f"{DIRECTORY}/{SEEN}").startswith(SEEN)
    node.run(["umount", DIRECTORY])
    assert command.wait(15) == 0
    assert not is_mounted(node)


def test_an_empty_file_is_on_s3_some_time_after_it_was_closed(
    cluster: Cluster, node: Node, foreground: Start
) -> None:
    foreground("--allow-delete")
    path = f"{DIRECTORY}/empty"
    node.run(["touch", path])
    assert eventually(lambda: "empty" in cluster.s3.keys(SECOND), 15)
    # It exists now, and nothing that exists is opened for writing.
    again = node.run(["touch", path], check=False)
    assert again.returncode == 1
    assert "Operation not permitted" in again.stderr
    node.run(["rm", path])
    node.run(["sh", "-c", 'printf x > "$0"', path])
    assert cluster.s3.get(SECOND, "empty") == b"x"  # what is not empty is there at once
    node.run(["rm", path])


def test_a_memory_target_needs_its_version(cluster: Cluster, mount_s3: Run) -> None:
    assert mount_s3("--memory-target=511", SECOND, DIRECTORY).returncode == 2
    answer = mount_s3("--memory-target=512", "--read-part-size=402653185", SECOND, DIRECTORY)
    if version_of(cluster) < (1, 24):
        assert answer.returncode == 2
        assert "unexpected argument '--memory-target'" in answer.stderr
    else:
        assert answer.returncode == 1
        assert "read part size" in answer.stderr
    assert problem(answer) is Problem.MOUNT_REFUSED


def arrived(cluster: Cluster, keys: set[str]) -> bool:
    """Whether files are on S3."""
    return keys <= set(cluster.s3.keys(SECOND))


def test_files_open_for_writing_are_limited_by_the_memory_target(
    cluster: Cluster, node: Node, foreground: Start
) -> None:
    if version_of(cluster) < (1, 24):
        pytest.skip("before 1.24 nothing limits them")
    # Few, by a large part: (512 - 128 - 8) / 94 = 4.
    flags = ("--memory-target=512", "--write-part-size=98566144", "--allow-delete")
    most = Options.of(flags).write_files
    assert most == 4
    command = foreground(*flags)
    for count, expected in ((most, ""), (most + 1, "Cannot allocate memory")):
        paths = [f"{DIRECTORY}/{count}-{n}" for n in range(count)]
        told = node.run(["python3", "-c", OPEN_ALL, *paths], check=False)
        assert expected in told.stderr
        assert (told.returncode == 0) is (expected == "")
        # A file counts until it is on S3.
        written = {f"{count}-{n}" for n in range(most)}
        assert eventually(functools.partial(arrived, cluster, written), 15)
    lines = node.run(["journalctl", "-q", "-o", "cat", "-p", "warning", "-t", "mount-s3"]).stdout
    told_last = explain(lines.splitlines()[-1], bucket=SECOND, directory=DIRECTORY)
    assert told_last.problem is Problem.WRITE_LIMIT
    assert command.poll() is None
    node.run(["sh", "-c", f"rm {DIRECTORY}/[45]-[0-3]"])


READ = "import sys; file = open(sys.argv[1], 'rb')\nwhile file.read(1 << 20): pass"
LARGE = 1536 << 20
# What earlier versions of the agent set on a compute node, and what it sets now.
DEADLY, NET = "539M", "1024M"


@pytest.mark.parametrize("limit", [DEADLY, NET, "infinity"])
def test_a_limit_that_it_was_not_told_of_kills_it(
    cluster: Cluster, node: Node, settings: dict[str, str], limit: str
) -> None:
    group = node.run(["systemctl", "show", "--property=ControlGroup", "--value", "dbus"]).stdout
    controlled = node.exists(f"/sys/fs/cgroup{group.strip()}/memory.max")
    if not controlled and not node.read("/opt/aws/mountpoint-s3/bin/mount-s3").startswith("#!"):
        pytest.skip("this machine gives nodes no memory controller, so that nothing is limited")
    cluster.s3.put_zeros(SECOND, "large", LARGE)
    knows = version_of(cluster) >= (1, 24)
    told = ["--memory-target=512"] if knows else []
    variables = [f"--setenv={name}={value}" for name, value in settings.items()]
    unit = f"limited-to-{limit}"  # one that was killed goes later
    runner = ["systemd-run", "--quiet", f"--unit={unit}", f"--property=MemoryMax={limit}"]
    command = ["mount-s3", "--foreground", *told, SECOND, DIRECTORY]
    node.run([*runner, "--service-type=exec", *variables, *command])
    try:
        assert eventually(lambda: is_mounted(node), 15)
        reader = node.run(
            ["timeout", "6", "python3", "-c", READ, f"{DIRECTORY}/large"], check=False
        )
        killed = limit == DEADLY and not knows
        assert (NOT_CONNECTED in reader.stderr) is killed
        assert (show(node, unit, "ActiveState") == "active") is not killed
    finally:
        node.run(["systemctl", "kill", "--signal=KILL", unit], check=False)
        node.run(["systemctl", "reset-failed", unit], check=False)


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
