"""A node that says that SELinux enforces contexts, and a restorecon that writes down what is asked.

This machine has no SELinux, so that the real restorecon would label nothing: what is proven here is
what it is called with, when, and that a node without it, or with one that fails, has its mounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from node.article import COMPUTE, READONLY, UNITS, WRITABLE, states
from node.conftest import NewNode
from node.test_install import SCRIPT, put_script

if TYPE_CHECKING:
    import subprocess

    from cluster.node import Node

pytestmark = pytest.mark.node

# What a kernel with SELinux shows, for one command and what it starts.
ENFORCING = """
mount --rbind /sys/fs /mnt
mount -t tmpfs tmpfs /sys/fs
mkdir /sys/fs/cgroup /sys/fs/fuse /sys/fs/selinux
mount --rbind /mnt/cgroup /sys/fs/cgroup
mount --rbind /mnt/fuse /sys/fs/fuse
umount -l /mnt
echo 1 >/sys/fs/selinux/enforce
exec "$@"
"""
RECORDER = '#!/bin/sh\necho "$*" >>/var/log/restorecon.calls\nexec %s\n'
CALLS = "/var/log/restorecon.calls"


@pytest.fixture(scope="module")
def node(new_ready_module_node: NewNode) -> Node:
    node = new_ready_module_node("compute")
    put_script(node)
    return node


def enforced(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return node.run(
        ["unshare", "--mount", "--propagation=slave", "sh", "-ec", ENFORCING, "sh", *words]
    )


def test_the_contexts_of_what_is_put_in_place_are_restored_once(node: Node) -> None:
    node.write("/usr/sbin/restorecon", RECORDER % "true", mode=0o755)
    told = enforced(node, SCRIPT, *COMPUTE).stdout
    assert "2 of 2 mounts are up" in told
    assert "SELinux" not in told
    own, link, units = node.read(CALLS).splitlines()
    assert own.split() == [
        *("-R", "--", "/opt/s3mount-agent", "/etc/s3mount-agent"),
        "/etc/systemd/system/s3mount-agent.service",
        "/etc/systemd/system/s3mount.target",
        "/etc/systemd/system/s3mount-wait.service",
    ]
    assert link == "-R -- /usr/local/bin/s3mount-agent"
    assert set(units.split()[2:]) == {f"/run/systemd/system/{unit}" for unit in UNITS}
    # Nothing is new, so that nothing has another context; and on a node that does not enforce any,
    # nothing is ever asked.
    enforced(node, SCRIPT, *COMPUTE)
    node.run(["s3mount-agent", "uninstall"])
    node.run([SCRIPT, *COMPUTE])
    assert len(node.read(CALLS).splitlines()) == 3
    node.run(["s3mount-agent", "uninstall"])


@pytest.mark.parametrize("restorecon", [None, "false"])
def test_what_cannot_be_restored_is_told_and_keeps_no_mount_down(
    node: Node, restorecon: str | None
) -> None:
    node.run(["rm", "-f", "/usr/sbin/restorecon"])
    if restorecon is not None:
        node.write("/usr/sbin/restorecon", RECORDER % restorecon, mode=0o755)
    told = enforced(node, SCRIPT, *COMPUTE).stdout
    assert "SELinux: the contexts of /opt/s3mount-agent, " in told
    assert ("has no restorecon" in told) == (restorecon is None)
    assert states(node, wait=20) == {READONLY: "ok", WRITABLE: "ok"}
    node.run(["s3mount-agent", "uninstall"])
