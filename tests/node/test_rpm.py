"""The main job on nodes that get their packages from dnf, and one cluster of several systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import COMPUTE, HEAD, READONLY, SECOND, WRITABLE, mounted, pids, states
from node.conftest import NewNode
from node.listing import difference, whole, written
from node.live_site import until

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

# What rpm, dnf and ldconfig keep of work that has been undone.
BUT = ("/var/lib/rpm", "/var/lib/dnf", "/var/cache", "/etc/ld.so.cache")


def packages(node: Node) -> list[str]:
    """Every package that rpm knows of, with its version."""
    return sorted(node.run(["rpm", "--query", "--all"]).stdout.split())


def lose_process(node: Node) -> None:
    """Kills a mount's process, and waits for another one."""
    lost = pids(node)[WRITABLE]
    node.run(["kill", "-KILL", str(lost)])
    until(lambda: pids(node)[WRITABLE] not in (None, lost))


def test_a_head_of_one_system_serves_compute_nodes_of_others(
    cluster: Cluster, new_node: NewNode
) -> None:
    """Bootstrap, a job, health, a reboot, a second bootstrap, uninstall: on each of them."""
    head = new_node("head", system="al2023")
    compute = {name: new_node("compute", system=name) for name in ("rhel8", "rocky9")}
    found = {node.name: (whole(node, ignoring=BUT), packages(node)) for node in compute.values()}
    for node in (head, *compute.values()):
        action = cluster.custom_action(node, HEAD if node is head else COMPUTE)
        assert (action.returncode, action.stderr) == (0, ""), action.stdout
    for name, node in compute.items():
        user = node.system.user
        node.run(["sh", "-c", f"echo {name} > {WRITABLE}/{name}"], user=user)
        assert cluster.s3.get(SECOND, name) == f"{name}\n".encode()
        assert head.run(["cat", f"{WRITABLE}/{name}"], user="ec2-user").stdout == f"{name}\n"
    for node in (head, *compute.values()):
        lose_process(node)
    compute["rhel8"].reboot()
    for name, node in compute.items():
        assert states(node, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
        before, log = written(node), node.read("/var/log/dnf.log")
        again = cluster.custom_action(node, COMPUTE)
        assert (again.returncode, again.stderr) == (0, "")
        assert "nothing to change" in again.stdout
        assert difference(before, written(node)) == {}
        assert node.read("/var/log/dnf.log") == log, "dnf is not even asked"
        told = node.run(["s3mount-agent", "uninstall"]).stdout
        assert "took back the packages fuse, fuse-common, fuse-libs, mount-s3\n" in told
        assert mounted(node) == {}
        disk, known = found[node.name]
        assert difference(disk, whole(node, ignoring=BUT)) == {}, name
        assert packages(node) == known
