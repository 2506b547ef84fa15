"""Nodes whose python3 is not where it usually is."""

from __future__ import annotations

import json
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from cluster.executor import environment
from node.article import COMPUTE, READONLY, SECOND, WRITABLE, pids, states
from node.conftest import BOOTSTRAP, NewNode
from node.listing import difference, written
from node.live_site import until

if TYPE_CHECKING:
    import subprocess

    from cluster.node import Node

pytestmark = pytest.mark.node

SCRIPT = "/root/s3mount-bootstrap"
PYENV = "/opt/parallelcluster/pyenv/versions/3.12.8"
# So that names with a version lead to it no more than the plain one.
HIDE = "mkdir /usr/elsewhere && mv /usr/bin/python3* /usr/elsewhere/"


@pytest.fixture
def node(new_ready_node: NewNode) -> Node:
    """A compute node with mount-s3 and without any python3 on its PATH."""
    node = new_ready_node("compute")
    node.write(SCRIPT, "", mode=0o755)
    (node.root / SCRIPT.lstrip("/")).write_bytes(BOOTSTRAP.read_bytes())
    node.run(["sh", "-c", HIDE])
    return node


def bootstrap(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the executor, which is itself written in the Python that this node has not got."""
    variables = [f"{name}={value}" for name, value in environment(SCRIPT, list(arguments)).items()]
    argv = ["env", "-i", *variables, SCRIPT, *arguments]
    return node.run(argv, cwd="/etc/chef", check=False)


def test_a_node_without_python_is_told_in_one_sentence(node: Node) -> None:
    before = written(node)
    answer = bootstrap(node, *COMPUTE)
    assert answer.returncode == 1
    first, second = answer.stderr.splitlines()
    assert first.startswith("s3mount-agent: error [python-missing]: this node has no python3")
    assert second.startswith("  hint: ")
    assert answer.stdout == ""
    assert difference(before, written(node)) == {}


def test_a_python_that_is_too_old_is_not_taken(node: Node) -> None:
    node.write("/usr/bin/python3", '#!/bin/sh\necho "Python 3.6.8"\nexit 1\n', mode=0o755)
    answer = bootstrap(node, *COMPUTE)
    assert answer.returncode == 1
    assert "[python-missing]" in answer.stderr


@pytest.mark.parametrize("place", [f"{PYENV}/bin", f"{PYENV}/envs/cookbook_virtualenv/bin"])
def test_parallelclusters_own_python_is_good_enough(node: Node, place: str) -> None:
    node.run(["mkdir", "-p", place])
    node.run(["ln", "-s", "/usr/elsewhere/python3", f"{place}/python3"])
    # The stand-in for mount-s3 is Python, too; the real one has no use for this.
    node.run(["sed", "-i", "1s,/usr/bin/,/usr/elsewhere/,", "/opt/aws/mountpoint-s3/bin/mount-s3"])
    answer = bootstrap(node, *COMPUTE)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert states(node, wait=5) == {READONLY: "ok", WRITABLE: "ok"}
    # By its real name: a virtual environment may be gone tomorrow.
    launcher = node.read("/usr/local/bin/s3mount-agent")
    real = node.run(["readlink", "-f", f"{place}/python3"]).stdout.strip()
    assert f"exec '{real}' -ISXutf8" in launcher
    node.reboot()
    assert states(node, wait=20) == {READONLY: "ok", WRITABLE: "ok"}
    again = bootstrap(node, *COMPUTE)
    assert "nothing to change" in again.stdout
    assert "error" not in node.run(["s3mount-agent", "uninstall"]).stderr


def test_what_is_compiled_is_there_for_both_processors(cluster: Cluster) -> None:
    """By the machine that stands in the head of each file (e_machine in elf.h)."""
    with zipfile.ZipFile(BOOTSTRAP) as archive:
        compiled = [name for name in archive.namelist() if name.endswith(".so")]
        found = {name.split("/")[1]: archive.read(name)[:20] for name in compiled}
    machines = {place: struct.unpack("<16xHH", head)[1] for place, head in found.items()}
    assert machines == {"lib-x86_64": 62, "lib-aarch64": 183}
    assert all(".abi3.so" in name for name in compiled), "one file for every Python"


def test_on_el8_the_agent_goes_with_parallelcluster_from_one_python_to_the_next(
    node: Node,
) -> None:
    """python3 is 3.6 there, and an upgrade of ParallelCluster brings another interpreter."""
    node.write("/usr/bin/python3", "#!/bin/sh\nexit 1\n", mode=0o755)
    node.run(["mkdir", "-p", f"{PYENV}/bin"])
    real = node.run(["readlink", "-f", "/usr/elsewhere/python3"]).stdout.strip()
    node.run(["cp", real, f"{PYENV}/bin/python3"])
    node.run(["sed", "-i", "1s,/usr/bin/,/usr/elsewhere/,", "/opt/aws/mountpoint-s3/bin/mount-s3"])
    answer = bootstrap(node, *COMPUTE)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert states(node, wait=5) == {READONLY: "ok", WRITABLE: "ok"}
    node.run(["mv", PYENV, "/opt/parallelcluster/pyenv/versions/3.14.10"])
    lost = pids(node)[WRITABLE]
    node.run(["systemctl", "restart", "s3mount-agent"])
    node.run(["kill", "-KILL", str(lost)])
    until(lambda: pids(node)[WRITABLE] not in (None, lost))
    told = node.run(["s3mount-agent", "status"], check=False).stdout
    gone = f"is to be run by {PYENV}/bin/python3, which is not there any more"
    assert gone in " ".join(told.split())
    assert bootstrap(node, *COMPUTE).returncode == 0
    node.reboot()
    assert states(node, wait=20) == {READONLY: "ok", WRITABLE: "ok"}
    # This python has no systemd-python, and the journal has every field all the same.
    python = "/opt/parallelcluster/pyenv/versions/3.14.10/bin/python3"
    without = node.run([python, "-ISc", "import systemd.journal"], check=False)
    assert "ModuleNotFoundError" in without.stderr
    told = node.run(["journalctl", "_UID=0", f"S3MOUNT_MOUNT={WRITABLE}", "--output=json"]).stdout
    ended = [entry for entry in map(json.loads, told.splitlines()) if is_end(entry)]
    assert [entry["S3MOUNT_BUCKET"] for entry in ended] == [SECOND]


def is_end(entry: dict[str, str]) -> bool:
    return (entry["S3MOUNT_ACTION"], entry["S3MOUNT_RESULT"]) == ("health", "ended")


def test_the_bootstrap_file_says_when_it_arrived_damaged(
    cluster: Cluster, new_node: NewNode
) -> None:
    node = new_node("compute")
    cluster.s3.put("hpc-custom-boostrap-files", "half", BOOTSTRAP.read_bytes()[:1_000_000])
    before = written(node)
    action = cluster.custom_action(node, COMPUTE, script="s3://hpc-custom-boostrap-files/half")
    assert action.returncode == 1
    assert "[bootstrap-damaged]" in action.stderr
    assert difference(before, written(node)) == {}
