"""The main job on Debian 13: Ubuntu 24.04's ways (libfuse2t64, a new systemd, Python 3.13)."""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster
from node.article import COMPUTE, HEAD, READONLY, SECOND, WRITABLE, mounted, states
from node.conftest import NewNode
from node.listing import difference, whole, written
from node.test_install import booked
from node.test_rpm import lose_process
from node.test_uninstall import BUT, packages

pytestmark = pytest.mark.node


def test_a_compute_node_of_debian_13_and_a_head_of_debian_12(
    cluster: Cluster, new_node: NewNode
) -> None:
    """Bootstrap, a job, health, a reboot, a second bootstrap, uninstall."""
    head, node = new_node("head"), new_node("compute", system="debian13")
    disk, known = whole(node, ignoring=BUT), packages(node)
    for each, arguments in ((head, HEAD), (node, COMPUTE)):
        action = cluster.custom_action(each, arguments)
        assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert booked(node) == {"libfuse2t64", "mount-s3"}
    node.run(["sh", "-c", f"echo 13 >{WRITABLE}/debian"], user="ubuntu")
    assert cluster.s3.get(SECOND, "debian") == b"13\n"
    assert head.run(["cat", f"{WRITABLE}/debian"], user="ubuntu").stdout == "13\n"
    lose_process(node)
    node.reboot()
    assert states(node, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
    before, log = written(node), node.read("/var/log/dpkg.log")
    again = cluster.custom_action(node, COMPUTE)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to change" in again.stdout
    assert difference(before, written(node)) == {}
    assert node.read("/var/log/dpkg.log") == log
    told = node.run(["s3mount-agent", "uninstall"]).stdout
    assert "took back the packages libfuse2t64, mount-s3\n" in told
    assert mounted(node) == {}
    assert difference(disk, whole(node, ignoring=BUT)) == {}
    assert packages(node) == known
