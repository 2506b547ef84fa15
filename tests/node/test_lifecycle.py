"""Mounts taken down, lost, killed, hung and found in foreign hands, and the agent's own end."""

from __future__ import annotations

import re
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
    SECOND,
    SEEN,
    UNIT,
    WRITABLE,
    eventually,
    listed,
    main_pid,
    mounted,
    pids,
    show,
    states,
    status,
)
from node.conftest import NewNode

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

BOTH_OK = {WRITABLE: "ok", READONLY: "ok"}


@pytest.fixture(scope="module", params=["head", "compute"])
def node(request: pytest.FixtureRequest, cluster: Cluster, new_ready_module_node: NewNode) -> Node:
    """A node in each mode: a head runs its mounts with systemd, a compute node directly."""
    node = new_ready_module_node(request.param)
    action = cluster.custom_action(node, HEAD if request.param == "head" else COMPUTE)
    assert action.returncode == 0, action.stderr
    return node


@pytest.fixture(autouse=True)
def all_is_well(node: Node) -> None:
    """Each test begins with both mounts up, whatever the one before has left."""
    if states(node) != BOTH_OK:
        node.run(["s3mount-agent", "apply"])
    assert states(node, wait=15) == BOTH_OK


def signal(node: Node, name: str, unit: str) -> None:
    """Sends a signal to a unit's main process only."""
    pid = main_pid(node, unit)
    assert pid > 1
    node.run(["kill", f"-{name}", str(pid)])


def test_an_unmounted_mount_stays_down_while_the_other_is_not_touched(node: Node) -> None:
    before, daemon = pids(node), main_pid(node, AGENT_UNIT)
    assert node.run(["s3mount-agent", "unmount", WRITABLE]).stderr == ""
    assert mounted(node).keys() == {READONLY}
    time.sleep(2)
    # Whatever wakes the daemon, it must not bring the mount back.
    node.run(["systemctl", "kill", "--signal=HUP", "--kill-whom=main", AGENT_UNIT])
    time.sleep(1)
    assert mounted(node).keys() == {READONLY}
    assert states(node) == {READONLY: "ok", WRITABLE: "missing"}
    assert pids(node)[READONLY] == before[READONLY]
    assert main_pid(node, AGENT_UNIT) == daemon


def test_a_restart_of_the_daemon_does_not_bring_an_unmounted_mount_back(node: Node) -> None:
    node.run(["s3mount-agent", "unmount", WRITABLE])
    node.run(["systemctl", "restart", AGENT_UNIT])
    time.sleep(1)
    assert states(node) == {READONLY: "ok", WRITABLE: "missing"}


def test_where_a_mount_is_missing_nobody_fills_the_disk_beneath_it_not_even_root(
    node: Node,
) -> None:
    for _ in range(2):
        node.run(["systemctl", "stop", AGENT_UNIT, UNIT[WRITABLE]])
        for user in ("root", "ubuntu"):
            refused = node.run(["cp", "/bin/ls", f"{WRITABLE}/result"], user=user, check=False)
            assert (refused.returncode, listed(node, WRITABLE)) == (1, [])
        # Open, as an older agent has left it: the daemon closes it with the next start.
        node.run(["chattr", "-i", WRITABLE])
        node.run(["systemctl", "start", AGENT_UNIT])
        assert states(node, wait=15) == BOTH_OK


def test_apply_brings_an_unmounted_mount_back(node: Node) -> None:
    before = pids(node)
    node.run(["s3mount-agent", "unmount", WRITABLE])
    node.run(["s3mount-agent", "apply"])
    assert states(node) == BOTH_OK
    assert pids(node)[READONLY] == before[READONLY]


def test_a_reboot_brings_unmounted_mounts_back(node: Node) -> None:
    node.run(["s3mount-agent", "unmount", "--all"])
    assert mounted(node) == {}
    assert set(states(node).values()) == {"missing"}
    node.reboot()
    assert states(node, wait=20) == BOTH_OK


def test_status_of_an_unmounted_mount_says_who_did_it_and_what_brings_it_back(node: Node) -> None:
    node.run(["s3mount-agent", "unmount", WRITABLE])
    answer = node.run(["s3mount-agent", "status"], check=False)
    assert answer.returncode == 3
    assert "an administrator unmounted it" in answer.stdout
    assert "s3mount-agent apply" in answer.stdout


def test_a_mount_in_use_is_not_unmounted_and_stays_usable(node: Node) -> None:
    before = pids(node)
    with node.popen(["tail", "-f", f"{WRITABLE}/{SEEN}"]) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().startswith(SEEN)
        answer = node.run(["s3mount-agent", "unmount", WRITABLE], check=False)
        assert answer.returncode == 1
        assert "[mount-busy]" in answer.stderr
        assert "hint:" in answer.stderr
        assert states(node) == BOTH_OK
        assert pids(node) == before
        assert node.read(f"{WRITABLE}/{SEEN}").startswith(SEEN)
        time.sleep(1)
        assert states(node) == BOTH_OK
        reader.kill()
    assert node.run(["s3mount-agent", "unmount", WRITABLE]).returncode == 0


def test_unmount_all_takes_down_what_it_can(node: Node) -> None:
    with node.popen(["sleep", "60"], cwd=READONLY) as inside:
        answer = node.run(["s3mount-agent", "unmount", "--all"], check=False)
        assert answer.returncode == 1
        assert mounted(node).keys() == {READONLY}
        assert states(node) == {READONLY: "ok", WRITABLE: "missing"}
        inside.kill()


@pytest.mark.parametrize("path", ["/mnt/other", "/mnt", f"{WRITABLE}/images", "/proc", "relative"])
def test_unmounting_what_is_no_mount_of_ours_is_refused(node: Node, path: str) -> None:
    answer = node.run(["s3mount-agent", "unmount", path], check=False)
    assert answer.returncode == 2
    assert re.match(r"s3mount-agent: error \[[a-z-]+\]: .*\n  hint: .", answer.stderr)
    assert states(node) == BOTH_OK


def test_a_killed_mount_s3_is_back_within_seconds(node: Node) -> None:
    before = pids(node)
    signal(node, "KILL", UNIT[WRITABLE])
    assert eventually(lambda: pids(node)[WRITABLE] not in (None, before[WRITABLE]), 10)
    assert states(node, wait=5) == BOTH_OK
    assert SEEN in listed(node, WRITABLE)
    assert list(mounted(node)).count(WRITABLE) == 1
    assert pids(node)[READONLY] == before[READONLY]
    assert node.run(["grep", "-c", f" {WRITABLE} ", "/proc/mounts"]).stdout == "1\n"


def test_a_mount_s3_killed_while_in_use_is_back_within_seconds(node: Node) -> None:
    before = pids(node)[WRITABLE]
    with node.popen(["sleep", "60"], cwd=WRITABLE) as inside:
        signal(node, "KILL", UNIT[WRITABLE])
        assert eventually(lambda: pids(node)[WRITABLE] not in (None, before), 10)
        assert states(node, wait=5) == BOTH_OK
        assert SEEN in listed(node, WRITABLE)
        inside.kill()


def test_a_mount_that_somebody_else_unmounts_is_back_within_seconds(node: Node) -> None:
    before = pids(node)[WRITABLE]
    node.run(["umount", WRITABLE])
    assert eventually(lambda: pids(node)[WRITABLE] not in (None, before), 10)
    assert states(node, wait=5) == BOTH_OK
    assert SEEN in listed(node, WRITABLE)


@pytest.mark.parametrize("how", ["killed", "restarted", "stopped and started"])
def test_the_end_of_the_daemon_disturbs_no_mount(node: Node, how: str) -> None:
    before, daemon = pids(node), main_pid(node, AGENT_UNIT)
    if how == "killed":
        signal(node, "KILL", AGENT_UNIT)
    elif how == "restarted":
        node.run(["systemctl", "restart", AGENT_UNIT])
    else:
        node.run(["systemctl", "stop", AGENT_UNIT])
        assert states(node) == BOTH_OK
        node.run(["systemctl", "start", AGENT_UNIT])
    assert eventually(lambda: main_pid(node, AGENT_UNIT) not in (0, daemon), 10)
    assert eventually(lambda: show(node, AGENT_UNIT, "ActiveState") == "active", 10)
    assert pids(node) == before
    assert show(node, AGENT_UNIT, "StatusText") == "2 of 2 mounts are up"


def test_a_mount_lost_while_the_daemon_was_away_is_noticed_when_it_is_back(node: Node) -> None:
    node.run(["systemctl", "stop", AGENT_UNIT])
    signal(node, "KILL", UNIT[WRITABLE])
    node.run(["systemctl", "start", AGENT_UNIT])
    assert states(node, wait=15) == BOTH_OK
    assert SEEN in listed(node, WRITABLE)


def test_status_answers_while_a_mount_hangs(node: Node) -> None:
    before, daemon = pids(node), main_pid(node, AGENT_UNIT)
    signal(node, "STOP", UNIT[WRITABLE])
    try:
        with node.popen(["ls", f"{WRITABLE}/images"]) as waiting:
            for _ in range(3):
                began = time.monotonic()
                told = status(node)
                assert time.monotonic() - began < 30  # it hangs until it is set free
                assert [mount["path"] for mount in told["mounts"]] == [READONLY, WRITABLE]
            node.run(["systemctl", "kill", "--signal=HUP", "--kill-whom=main", AGENT_UNIT])
            time.sleep(2)
            assert main_pid(node, AGENT_UNIT) == daemon
            assert SEEN in listed(node, READONLY)
            signal(node, "CONT", UNIT[WRITABLE])
            waiting.communicate(timeout=10)
    finally:
        node.run(["systemctl", "kill", "--signal=CONT", UNIT[WRITABLE]], check=False)
    assert states(node, wait=45) == BOTH_OK
    assert SEEN in listed(node, WRITABLE)
    assert pids(node) == before


def check(node: Node, *words: str) -> tuple[int, str]:
    """The exit code of `check`, as an ordinary user's job calls it, and the one line it says."""
    answer = node.run(["s3mount-agent", "check", *words], user="ubuntu", check=False)
    line = answer.stdout + answer.stderr
    assert line.count("\n") == 1, line
    return answer.returncode, line


def test_a_job_asks_for_its_own_mount_only(node: Node) -> None:
    assert check(node) == (0, f"ok: {READONLY}, {WRITABLE} are up\n")
    node.run(["ln", "-sfn", READONLY, "/home/ubuntu/data"])
    node.run(["s3mount-agent", "unmount", WRITABLE])
    assert check(node, f"/home/ubuntu/data/{SEEN}") == (0, f"ok: {READONLY} is up\n")
    for words in ([], [f"{WRITABLE}/not/there/yet"], ["--strict"]):
        code, line = check(node, *words)
        assert code == 1
        assert line.startswith(f"s3mount-agent: failed on {node.name}: {WRITABLE} (s3://")
        assert "an administrator unmounted it" in line


def test_a_silent_daemon_keeps_no_job_away_unless_a_mount_is_gone(node: Node) -> None:
    node.run(["systemctl", "stop", AGENT_UNIT])
    try:
        code, line = check(node)
        assert (code, line.split(":")[1]) == (0, f" warning on {node.name}")
        assert "the agent's service is down" in line
        assert check(node, "--strict", WRITABLE)[0] == 1
        node.run(["systemctl", "stop", UNIT[WRITABLE]])
        code, line = check(node)
        assert (code, line.split(":")[1]) == (1, f" failed on {node.name}")
        assert check(node, READONLY)[0] == 0
    finally:
        node.run(["systemctl", "start", AGENT_UNIT])


def test_bad_commands_are_refused_with_a_hint(node: Node) -> None:
    for words in (
        ["statsu"],
        ["unmount"],
        ["unmount", "--al"],
        ["apply", "now"],
        ["uninstall", "x"],
    ):
        answer = node.run(["s3mount-agent", *words], check=False)
        assert answer.returncode == 2, words
        assert "hint: " in answer.stderr
        assert "Traceback" not in answer.stderr


def test_only_root_may_change_mounts_and_everybody_may_look(node: Node) -> None:
    for words in (["unmount", "--all"], ["uninstall"], ["apply"], ["bootstrap", *ONE]):
        answer = node.run(["s3mount-agent", *words], user="ubuntu", check=False)
        assert answer.returncode == 1, words
        assert "[not-root]" in answer.stderr
    looked = node.run(["s3mount-agent", "status"], user="ubuntu")
    assert looked.stdout.startswith("ok: ")


def test_help_and_version_are_there_for_newcomers(node: Node) -> None:
    assert re.fullmatch(
        r"s3mount-agent \d+\.\d+\.\d+\n", node.run(["s3mount-agent", "--version"]).stdout
    )
    text = node.run(["s3mount-agent", "--help"]).stdout
    for word in ("bootstrap", "status", "apply", "unmount", "uninstall", "exit codes"):
        assert word in text
    for command in ("bootstrap", "status", "unmount", "uninstall", "apply"):
        assert "usage:" in node.run(["s3mount-agent", command, "--help"]).stdout


def test_the_journal_tells_the_story_of_one_mount(node: Node) -> None:
    node.run(["s3mount-agent", "unmount", WRITABLE])
    story = node.run(
        ["journalctl", "-b", "-o", "cat", f"S3MOUNT_MOUNT={WRITABLE}", f"S3MOUNT_BUCKET={SECOND}"]
    ).stdout
    assert f"took down {WRITABLE}" in story
    assert READONLY not in story
