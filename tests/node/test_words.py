"""The words of the commands, on a node: what people ask, where they look, what they are told."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import ONE, SECOND, WRITABLE, listed, states
from node.conftest import BOOTSTRAP, NewNode

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

OLD = "Lab_Archive.2013"
SCRIPT = "/root/s3mount-bootstrap"
LINES = "--allow-delete\n--allow-other\n"


@pytest.fixture(scope="module")
def node(cluster: Cluster, new_ready_module_node: NewNode) -> Node:
    """A head node with two mounts: one of a bucket of before 2018, its options in two lines."""
    node = new_ready_module_node("head")
    (node.root / SCRIPT.lstrip("/")).write_bytes(BOOTSTRAP.read_bytes())
    node.run(["chmod", "755", SCRIPT, "/root"])
    cluster.s3.create_bucket(OLD)
    cluster.s3.put(OLD, "sequence.fa", b"ACGT")
    action = cluster.custom_action(node, [*ONE, OLD, "/mnt/old", LINES])
    assert action.returncode == 0, action.stdout + action.stderr
    return node


def agent(
    node: Node, *words: str, code: int = 0, user: str | None = None
) -> subprocess.CompletedProcess[str]:
    answer = node.run(["s3mount-agent", *words], check=False, user=user)
    assert answer.returncode == code, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer


def test_a_bucket_of_before_2018_is_mounted(node: Node) -> None:
    assert listed(node, "/mnt/old") == ["sequence.fa"]
    assert states(node) == {WRITABLE: "ok", "/mnt/old": "ok"}


def test_status_of_one_directory(node: Node) -> None:
    answer = agent(node, "status", "--json", "/mnt/old/", "--wait", "5m")
    assert [mount["path"] for mount in json.loads(answer.stdout)["mounts"]] == ["/mnt/old"]
    refused = agent(node, "status", "/mnt/other", code=2).stderr
    assert "error [mount-unknown]: /mnt/other is not the directory of a mount" in refused
    assert "s3mount-agent status" not in refused


def test_help_of_the_hidden_commands_runs_nothing(node: Node) -> None:
    before = node.run(["journalctl", "-q", "-n1", "--output=export"]).stdout
    for name in ("refresh", "unit-hook", "daemon"):
        assert agent(node, name, "--help").stdout.startswith(f"usage: s3mount-agent {name}")
    told = node.run(["journalctl", "-q", "-n1", "--output=export"]).stdout
    assert ("s3mount" in told) <= ("s3mount" in before)


def test_what_was_unmounted_is_not_called_new(node: Node) -> None:
    agent(node, "unmount", "/mnt/old")
    told = agent(node, "plan", code=4).stdout
    assert "  + /mnt/old  s3://Lab_Archive.2013  (it was unmounted by hand" in told
    assert "new" not in told
    assert "wanted" not in told
    agent(node, "apply")
    assert agent(node, "plan").stdout.startswith("Nothing to change")


def test_who_is_not_root_is_told_so(node: Node) -> None:
    for words in (("plan",), ("apply",), ("unmount", "--all"), ("refresh",)):
        assert (
            "error [not-root]: only root may " in agent(node, *words, code=1, user="ubuntu").stderr
        )
    assert agent(node, "status", user="ubuntu").stdout.startswith("ok: ")


def test_a_check_says_good_to_everybody_and_changes_nothing(node: Node) -> None:
    before = node.read("/etc/s3mount-agent/config.yaml")
    for user in (None, "ubuntu"):
        answer = node.run([SCRIPT, "--check", SECOND, "/mnt/new", ""], user=user)
        assert "The arguments are good. Nothing was changed; " in answer.stdout
        assert f"  /mnt/new <- s3://{SECOND}  rw" in answer.stdout
        assert answer.stderr == ""
    assert "this node (role head, mode systemd) would mount" in (
        node.run([SCRIPT, "--check", SECOND, "/mnt/new", ""]).stdout
    )
    assert node.read("/etc/s3mount-agent/config.yaml") == before


def test_the_hint_for_the_log_finds_what_a_bootstrap_failed_at(
    cluster: Cluster, node: Node
) -> None:
    action = cluster.custom_action(node, [SECOND, WRITABLE, "--alow-other"])
    assert action.returncode == 2
    shown = re.search(r"journalctl _UID=0 -t s3mount-agent(?= )", agent(node, "help").stdout)
    assert shown is not None
    told = node.run([*shown[0].split(), "-q", "-p", "err", "-o", "cat", "-n", "1"]).stdout
    assert told == "argument 3: mount-s3 has no option '--alow-other'\n"


def test_a_plan_for_a_dead_address_is_not_silent(node: Node) -> None:
    """10.255.0.0/16 leads nowhere here: nobody answers, or nobody can be asked."""
    url = "https://10.255.255.1/s3mount.yaml"
    command = ["timeout", "-s", "INT", "8", "s3mount-agent", "plan", "--config", url]
    answer = node.run(command, check=False)
    assert answer.stdout == ""
    first, *rest = answer.stderr.splitlines()
    assert first.startswith(f"s3mount-agent: asking {url}")
    assert "s3mount-agent: interrupted: nothing was changed" in rest


def test_the_documents_that_systemctl_names_are_on_the_node(node: Node) -> None:
    units = [
        "s3mount-agent.service",
        *node.run(["sh", "-c", "cd /etc/systemd/system; ls mountpoint-s3-*"]).stdout.split(),
    ]
    assert len(units) == 3
    for unit in units:
        told = node.run(["systemctl", "show", "--property=Documentation", "--value", unit]).stdout
        files = re.findall(r"file:(\S+)", told)
        assert files
        for path in files:
            assert node.read(path).startswith("# ")
