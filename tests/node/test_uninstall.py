"""The agent taken off a node, and what on a node is not the agent's to touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import COMPUTE, HEAD, ONE, READONLY, SECOND, SEEN, UNIT, WRITABLE, mounted, states
from node.conftest import NewNode
from node.listing import difference, whole, written

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

# What dpkg, apt and ldconfig keep of work that has been undone.
BUT = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/etc/ld.so.cache")
# The unit that the article's own mount-headnode.sh writes.
ARTICLES_UNIT = f"""\
[Unit]
Description=Mount s3://{SECOND} at {WRITABLE}
Wants=network.target
AssertPathIsDirectory={WRITABLE}

[Service]
Type=forking
User=ubuntu
Group=ubuntu
ExecStart=/usr/bin/mount-s3 --allow-delete --allow-other {SECOND} {WRITABLE}
ExecStop=/usr/bin/fusermount -u {WRITABLE}

[Install]
WantedBy=remote-fs.target
"""


def packages(node: Node) -> str:
    """Every package that dpkg knows of, with its status."""
    return node.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${Version} ${Status}\n"]
    ).stdout


def units(node: Node) -> str:
    """Every unit file, and whether it is enabled."""
    return node.run(["systemctl", "list-unit-files", "--no-pager", "--no-legend"]).stdout


@pytest.mark.parametrize("role", ["head", "compute"])
def test_uninstall_leaves_the_node_as_it_was_found(
    cluster: Cluster, new_node: NewNode, role: str
) -> None:
    node = new_node(role)
    disk, known, files = whole(node, ignoring=BUT), packages(node), units(node)
    conf = node.read("/etc/fuse.conf")
    assert cluster.custom_action(node, HEAD if role == "head" else COMPUTE).returncode == 0
    assert node.read("/etc/fuse.conf") != conf
    answer = node.run(["s3mount-agent", "uninstall"])
    assert "error" not in answer.stderr
    assert mounted(node) == {}
    assert difference(disk, whole(node, ignoring=BUT)) == {}
    assert (packages(node), units(node), node.read("/etc/fuse.conf")) == (known, files, conf)
    found = node.run(["find", "/run", "-xdev", "-name", "*s3mount*", "-o", "-name", "*mountpoint*"])
    assert found.stdout == ""
    assert node.run(["pgrep", "-f", "s3mount|mount-s3"], check=False).stdout == ""
    node.reboot()
    assert mounted(node) == {}
    # And it can be done all over again.
    assert cluster.custom_action(node, HEAD).returncode == 0


def test_uninstall_refuses_while_a_mount_is_in_use(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("head")
    assert cluster.custom_action(node, HEAD).returncode == 0
    with node.popen(["tail", "-f", f"{WRITABLE}/{SEEN}"]) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        answer = node.run(["s3mount-agent", "uninstall"], check=False)
        assert answer.returncode == 1
        assert "[mount-busy]" in answer.stderr
        assert states(node)[WRITABLE] == "ok"
        assert node.read(f"{WRITABLE}/{SEEN}").startswith(SEEN)
        reader.kill()
    # Nor does what somebody has deleted, or written badly, leave something behind.
    node.run(["rm", f"/etc/systemd/system/{UNIT[READONLY]}"])
    node.write("/etc/s3mount-agent/config.yaml.bad", "mounts: }\n")
    node.run(["s3mount-agent", "uninstall"])
    assert not node.exists("/opt/s3mount-agent")
    assert node.run(["find", "/etc/systemd", "-name", "*s3*"]).stdout == ""
    # What the administrator gave it is his.
    assert node.run(["ls", "/etc/s3mount-agent"]).stdout == "environment\n"


def test_uninstall_leaves_what_the_agent_did_not_bring(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("compute")
    node.run(["mkdir", "-m", "2770", WRITABLE])
    node.write("/etc/fuse.conf", "user_allow_other\n")
    disk, known = whole(node, ignoring=BUT), packages(node)
    stores = "--cache /srv/s3-cache --log-directory /srv/s3-log"
    arguments = [*COMPUTE[:-1], f"{COMPUTE[-1]} {stores}"]
    assert cluster.custom_action(node, arguments).returncode == 0
    assert node.exists("/srv/s3-cache")
    node.run(["s3mount-agent", "unmount", "--all"])
    node.run(["find", "/srv/s3-log", "-type", "f", "-delete"])  # else there is something in it
    node.write(f"{READONLY}/mine", "put here while nothing was mounted\n")
    node.run(["s3mount-agent", "uninstall"])
    assert packages(node) == known
    changed = difference(disk, whole(node, ignoring=BUT))
    assert changed.keys() == {READONLY, f"{READONLY}/mine"}


@pytest.mark.parametrize("before", [None, "", "mount_max = 9", "# user_allow_other\n"])
def test_uninstall_gives_fuse_conf_its_bytes_back(
    cluster: Cluster, new_ready_node: NewNode, before: str | None
) -> None:
    node = new_ready_node("compute")
    if before is None:
        node.run(["rm", "/etc/fuse.conf"])
    else:
        node.write("/etc/fuse.conf", before)
    assert cluster.custom_action(node, ONE).returncode == 0
    node.run(["s3mount-agent", "uninstall"])
    assert (node.read("/etc/fuse.conf") if node.exists("/etc/fuse.conf") else None) == before


def test_uninstall_keeps_a_fuse_conf_that_was_changed_since(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("compute")
    assert cluster.custom_action(node, ONE).returncode == 0
    mine = node.read("/etc/fuse.conf") + "mount_max = 7\n"
    node.write("/etc/fuse.conf", mine)
    told = node.run(["s3mount-agent", "uninstall"]).stdout.splitlines()
    assert "/etc/fuse.conf stays: somebody else has changed it since" in told
    assert "took back no package" in told
    assert node.read("/etc/fuse.conf") == mine


@pytest.fixture(scope="module")
def occupied(new_ready_module_node: NewNode) -> Node:
    """A head node on which others were before us."""
    return new_ready_module_node("head")


def test_a_foreign_mount_is_refused_and_left_alone(cluster: Cluster, occupied: Node) -> None:
    occupied.run(["mkdir", "-p", WRITABLE])
    occupied.run(["mount", "-t", "tmpfs", "theirs", WRITABLE])
    occupied.write(f"{WRITABLE}/file", "theirs\n")
    before = written(occupied)
    action = cluster.custom_action(occupied, HEAD)
    assert action.returncode == 2
    assert "[directory-in-use]" in action.stderr
    assert "theirs (tmpfs)" in action.stderr
    assert occupied.read(f"{WRITABLE}/file") == "theirs\n"
    assert difference(before, written(occupied)) == {}
    occupied.run(["umount", WRITABLE])


def test_a_mount_that_the_articles_scripts_made_is_refused_and_left_alone(
    cluster: Cluster, occupied: Node
) -> None:
    environment = dict(
        line.split("=", 1) for line in occupied.read("/etc/s3mount-agent/environment").splitlines()
    )
    occupied.run(["mkdir", "-p", WRITABLE])
    occupied.run(["mount-s3", "--allow-other", SECOND, WRITABLE], env=environment)
    before = written(occupied)
    action = cluster.custom_action(occupied, HEAD)
    assert action.returncode == 2
    assert "[directory-in-use]" in action.stderr
    assert mounted(occupied).keys() == {WRITABLE}
    assert difference(before, written(occupied)) == {}
    occupied.run(["umount", WRITABLE])


def test_a_unit_that_the_articles_scripts_wrote_is_refused_and_left_alone(
    cluster: Cluster, occupied: Node
) -> None:
    path = f"/etc/systemd/system/{UNIT[WRITABLE]}"
    occupied.write(path, ARTICLES_UNIT)
    before = written(occupied)
    action = cluster.custom_action(occupied, HEAD)
    assert action.returncode == 2
    assert "[unit-foreign]" in action.stderr
    assert path in action.stderr
    assert occupied.read(path) == ARTICLES_UNIT
    assert difference(before, written(occupied)) == {}
    occupied.run(["rm", path])


def test_a_mount_that_somebody_lays_over_ours_is_told_and_not_touched(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("head")
    assert cluster.custom_action(node, HEAD).returncode == 0
    node.run(["mount", "-t", "tmpfs", "theirs", WRITABLE])
    assert states(node)[WRITABLE] == "foreign"
    answer = node.run(["s3mount-agent", "unmount", WRITABLE], check=False)
    assert answer.returncode == 1
    # The uppermost is the last one.
    sources = node.run(["findmnt", "-n", "-o", "SOURCE", WRITABLE]).stdout.split()
    assert sources == ["mountpoint-s3", "theirs"]
    node.run(["umount", WRITABLE])
    assert states(node, wait=45) == {WRITABLE: "ok", READONLY: "ok"}
