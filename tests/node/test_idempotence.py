"""The bootstrap run again: changes nothing when all is well, and repairs whatever was cut short."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import (
    AGENT_UNIT,
    COMPUTE,
    HEAD,
    ONE,
    READONLY,
    UNITS,
    WRITABLE,
    listed,
    main_pid,
    pids,
    set_environment,
    states,
)
from node.conftest import NewNode
from node.listing import difference, written

if TYPE_CHECKING:
    from cluster.command import Command
    from cluster.node import Node

pytestmark = pytest.mark.node

STEPS = ("facts", "install", "fuse.conf", "config", "mounts", "daemon", "verify")
# Seconds after the start of the custom action: from the download of the script over the unpacking
# of the agent into the installation of the packages.
MOMENTS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3)
MADE = "/var/lib/s3mount-agent/made.json"
# What apt keeps of its own work depends on how far it came; a timeline is kept of a run that
# changed something only.
BUT = (
    *("/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg/updates"),
    "/var/lib/s3mount-agent/timeline.json",
)

FUSE_CONF = {
    "commented as Debian does": (
        "# comments\n\n#user_allow_other\n\n#mount_max = 1000\n",
        "# comments\n\nuser_allow_other\n\n#mount_max = 1000\n",
    ),
    "commented with a space": ("# user_allow_other\n", "user_allow_other\n"),
    "missing": (None, "user_allow_other\n"),
    "empty": ("", "user_allow_other\n"),
    "without a final newline": ("mount_max = 9", "mount_max = 9\nuser_allow_other\n"),
    "already there": ("a = 1\nuser_allow_other\nb = 2\n", "a = 1\nuser_allow_other\nb = 2\n"),
    "already there, no newline": ("user_allow_other", "user_allow_other"),
    "named in a sentence only": (
        "# set user_allow_other to allow it\n",
        "# set user_allow_other to allow it\nuser_allow_other\n",
    ),
}


@pytest.fixture(scope="module")
def reference(cluster: Cluster, new_module_node: NewNode) -> Node:
    """A compute node whose only bootstrap was never disturbed."""
    node = new_module_node("compute")
    assert cluster.custom_action(node, COMPUTE).returncode == 0
    return node


@pytest.mark.parametrize("role", ["head", "compute"])
def test_a_second_run_changes_nothing(cluster: Cluster, new_node: NewNode, role: str) -> None:
    node = new_node(role)
    arguments = HEAD if role == "head" else COMPUTE
    assert cluster.custom_action(node, arguments).returncode == 0
    assert states(node, wait=5) == {WRITABLE: "ok", READONLY: "ok"}
    disk, mounts, daemon = written(node), pids(node), main_pid(node, AGENT_UNIT)
    asked = len(cluster.mirror.requests)
    again = cluster.custom_action(node, arguments)
    assert (again.returncode, again.stderr) == (0, "")
    assert difference(disk, written(node)) == {}
    assert (pids(node), main_pid(node, AGENT_UNIT)) == (mounts, daemon)
    assert cluster.mirror.requests[asked:] == []
    for words in ("already there", "unchanged", "nothing to change", "already running"):
        assert words in again.stdout
    # Each program takes as long as half of the agent's own work, and the daemon is not woken.
    told = node.run(["s3mount-agent", "--debug", "apply"]).stderr
    programs = [line.split()[1:3] for line in told.splitlines() if line.startswith("+ ")]
    show = ["systemctl", "show"]
    assert programs == [show, ["/usr/bin/mount-s3", "--version"], show]


def test_a_run_without_network_leaves_the_mounts_alone(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("head")
    set_environment(node, AWS_MAX_ATTEMPTS="1")
    assert cluster.custom_action(node, HEAD).returncode == 0
    before, disk = pids(node), written(node)
    node.cut()
    again = node.run(["s3mount-agent", "bootstrap", *HEAD], check=False)
    node.reconnect()
    assert again.returncode == 0, again.stderr
    assert pids(node) == before
    assert states(node, wait=45) == {WRITABLE: "ok", READONLY: "ok"}
    assert listed(node, WRITABLE) != []
    assert difference(disk, written(node)) == {}


def test_changed_arguments_change_only_what_they_are_about(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("compute")
    assert cluster.custom_action(node, COMPUTE).returncode == 0
    before = pids(node)
    other = tuple(word.replace("--read-only", "--debug") for word in COMPUTE)
    assert cluster.custom_action(node, other).returncode == 0
    after = pids(node)
    assert after[WRITABLE] == before[WRITABLE]
    assert after[READONLY] != before[READONLY]
    assert cluster.custom_action(node, ONE).returncode == 0
    assert pids(node) == {WRITABLE: before[WRITABLE]}
    assert not node.exists(READONLY)


def interrupt_at_line(command: Command, step: str) -> None:
    """Reads the bootstrap's output until a step is done."""
    assert command.stdout is not None
    for line in command.stdout:
        if line.startswith("[") and line.split("]")[1].split()[0] == step:
            return
    raise AssertionError(f"there was no step {step}")


def require_convergence(cluster: Cluster, node: Node, reference: Node) -> None:
    """Runs the bootstrap on what an interrupted one has left."""
    action = cluster.custom_action(node, COMPUTE)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert states(node, wait=45) == {WRITABLE: "ok", READONLY: "ok"}
    assert node.run(["dpkg", "--audit"]).stdout == ""
    assert written(node, ignoring=BUT).keys() ^ written(reference, ignoring=BUT).keys() == set()
    assert json.loads(node.read(MADE)) == json.loads(reference.read(MADE))
    assert node.read("/etc/fuse.conf") == reference.read("/etc/fuse.conf")
    left = node.run(["find", "/tmp", "/run", "-name", "s3mount-agent-*", "-o", "-name", ".*.*.*"])
    assert left.stdout == ""
    assert set(listed(node, "/run/systemd/system")) >= set(UNITS)


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_a_step_the_next_run_converges(
    cluster: Cluster, new_node: NewNode, reference: Node, step: str
) -> None:
    node = new_node("compute")
    with cluster.start_custom_action(node, COMPUTE) as command:
        interrupt_at_line(command, step)
        command.kill()
    require_convergence(cluster, node, reference)


@pytest.mark.parametrize("seconds", MOMENTS)
def test_killed_at_any_moment_the_next_run_converges(
    cluster: Cluster, new_node: NewNode, reference: Node, seconds: float
) -> None:
    node = new_node("compute")
    with cluster.start_custom_action(node, COMPUTE) as command:
        time.sleep(seconds)
        command.kill()
    require_convergence(cluster, node, reference)


@pytest.mark.parametrize("step", ["install", "config", "mounts"])
def test_after_a_loss_of_power_the_next_run_converges(
    cluster: Cluster, new_node: NewNode, reference: Node, step: str
) -> None:
    node = new_node("compute")
    with cluster.start_custom_action(node, COMPUTE) as command:
        interrupt_at_line(command, step)
        node.kill()
        command.wait()
    node.boot()
    require_convergence(cluster, node, reference)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["libfuse2", "mount-s3"])
def test_after_a_loss_of_power_while_a_package_is_unpacked_the_next_run_converges(
    cluster: Cluster, new_node: NewNode, reference: Node, name: str
) -> None:
    node = new_node("compute")
    known = node.root / "var/lib/dpkg/info"
    with cluster.start_custom_action(node, COMPUTE) as command:
        # From out here, without a pause: dpkg leaves this state again within milliseconds.
        while not any(known.glob(f"{name}*.list")):
            assert command.poll() is None
        node.kill()
        command.wait()
    node.boot()
    require_convergence(cluster, node, reference)


def test_after_a_loss_of_power_with_everything_up_the_mounts_come_back_alone(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    for role, arguments in (("head", HEAD), ("compute", COMPUTE)):
        node = new_ready_node(role)
        assert cluster.custom_action(node, arguments).returncode == 0
        node.kill()
        node.boot()
        assert states(node, wait=20) == {WRITABLE: "ok", READONLY: "ok"}


@pytest.fixture(scope="module")
def fuse_node(new_ready_module_node: NewNode) -> Node:
    """A node for all kinds of fuse.conf."""
    return new_ready_module_node("compute")


@pytest.mark.parametrize(("before", "after"), FUSE_CONF.values(), ids=FUSE_CONF.keys())
def test_fuse_conf_gets_its_line_once(
    cluster: Cluster, fuse_node: Node, before: str | None, after: str
) -> None:
    if before is None:
        fuse_node.run(["rm", "/etc/fuse.conf"])
    else:
        fuse_node.write("/etc/fuse.conf", before)
    for _ in range(2):
        assert cluster.custom_action(fuse_node, ONE).returncode == 0
        assert fuse_node.read("/etc/fuse.conf") == after


def test_two_bootstraps_at_once_end_as_one(cluster: Cluster, new_node: NewNode) -> None:
    node = new_node("compute")
    with (
        cluster.start_custom_action(node, COMPUTE) as first,
        cluster.start_custom_action(node, COMPUTE) as second,
    ):
        for command in (first, second):
            stdout, stderr = command.communicate(timeout=120)
            assert command.returncode == 0, stdout + stderr
    assert states(node) == {WRITABLE: "ok", READONLY: "ok"}
    assert node.run(["pgrep", "-c", "-f", "mount-s3 .*--foreground"]).stdout == "2\n"
