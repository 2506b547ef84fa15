"""The main job on nodes that get their packages from dnf, and one cluster of several systems."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cluster import mount_s3_rpm, rpms
from cluster.cluster import Cluster
from node.article import (
    COMPUTE,
    HEAD,
    ONE,
    READONLY,
    SECOND,
    WRITABLE,
    mounted,
    pids,
    set_environment,
    states,
)
from node.conftest import NewNode
from node.listing import difference, whole, written
from node.live_site import until
from standin.package import RELEASES, build_package

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.node import Node

pytestmark = pytest.mark.node

# What rpm, dnf and ldconfig keep of work that has been undone.
BUT = ("/var/lib/rpm", "/var/lib/dnf", "/var/cache", "/etc/ld.so.cache")


BROKEN = """\
[theirs]
name=theirs
baseurl=http://127.0.0.1:9/
metadata_expire=1
skip_if_unavailable=False
"""


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
    # A repository of somebody else's does not answer; on another node all is known already.
    compute["rhel8"].write("/etc/yum.repos.d/theirs.repo", BROKEN)
    compute["rocky9"].run(["dnf", "makecache"])
    found = {node.name: (whole(node, ignoring=BUT), packages(node)) for node in compute.values()}
    for node in (head, *compute.values()):
        asked = len(cluster.mirror.requests)
        action = cluster.custom_action(node, HEAD if node is head else COMPUTE)
        assert (action.returncode, action.stderr) == (0, ""), action.stdout
        assert "ended with" not in action.stdout
        lists = [path for path in cluster.mirror.requests[asked:] if "repodata" in path]
        assert bool(lists) == (node is not compute["rocky9"])
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


def test_what_somebody_else_needs_or_wants_stays(
    cluster: Cluster, new_node: NewNode, tmp_path: Path
) -> None:
    node = new_node("compute", system="rocky8")
    assert cluster.custom_action(node, ONE).returncode == 0
    site = rpms.pack("site-tool", "1", tmp_path, requires=("fuse-libs >= 2.9",))
    shutil.copy(site, node.root / "root")
    node.run(["rpm", "--install", f"/root/{site.name}"])
    node.run(["dnf", "mark", "install", "fuse-common"])
    told = node.run(["s3mount-agent", "uninstall", "--dry-run"]).stdout
    assert "remove the packages fuse, mount-s3\n" in told
    assert "fuse-libs stays: site-tool needs it" in told
    assert "fuse-common stays: somebody has asked for it by name since" in told
    before = packages(node)
    node.run(["s3mount-agent", "uninstall"])
    gone = {name.rsplit("-", 2)[0] for name in set(before).difference(packages(node))}
    assert gone == {"fuse", "mount-s3"}


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_interrupted_transaction_is_made_good(
    cluster: Cluster, new_node: NewNode, package: Path, tmp_path: Path, upgrade: bool
) -> None:
    """The power goes while a script of mount-s3's package runs: rpm knows it already. An upgrade
    of what was there does not make that ours."""
    node = new_node("compute", system="rhel9")
    if upgrade:
        other = next(version for version in RELEASES if version != cluster.version)
        theirs = mount_s3_rpm.like_aws(build_package(tmp_path, other), tmp_path)
        shutil.copy(theirs, node.root / "root")
        node.run(["dnf", "--assumeyes", "install", f"/root/{theirs.name}"])
        set_environment(node, S3MOUNT_RELEASE_VERSION=cluster.version)
    before = packages(node)
    hang = "if test -e /root/hang; then touch /root/hangs; sleep 60; fi; touch /root/has-run"
    slow = mount_s3_rpm.like_aws(package, tmp_path, first=hang)
    cluster.mirror.publish(slow, cluster.version)
    try:
        node.write("/root/hang", "")
        with cluster.start_custom_action(node, ONE) as command:
            until(lambda: node.exists("/root/hangs"))
            node.kill()
            command.kill()
        node.boot()
        assert "mount-s3" in " ".join(packages(node))
        # Python takes what it has compiled of a file for that of another one as old and as large.
        node.run(["sh", "-c", "rm -rf /root/hang /opt/aws/mountpoint-s3/lib/*/__pycache__"])
        action = cluster.custom_action(node, ONE)
    finally:
        cluster.mirror.publish(cluster.rpm, cluster.version)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout + action.stderr
    assert node.exists("/root/has-run")
    assert states(node) == {WRITABLE: "ok"}
    node.run(["rpm", "--verify", "mount-s3", "fuse", "fuse-libs"])
    node.run(["s3mount-agent", "uninstall"])
    left = packages(node)
    if upgrade:
        assert {name.rsplit("-", 2)[0] for name in left} == {
            name.rsplit("-", 2)[0] for name in before
        }
        assert any(name.startswith(f"mount-s3-{cluster.version}-") for name in left)
    else:
        assert left == before


def test_amazon_linux_has_a_mount_s3_of_its_own(
    cluster: Cluster, new_node: NewNode, tmp_path: Path
) -> None:
    """It comes first, if nothing is wrong with it; another version comes from AWS."""
    node = new_node("compute", system="al2023")
    own = "1.24.0" if cluster.version == "1.23.0" else "1.23.0"
    deb = build_package(tmp_path, own, "+1.amzn2023")
    rpm, recipe = mount_s3_rpm.like_amazon_linux(deb, tmp_path), node.system.recipe
    mirror = f"{cluster.mirror.url}/mountpoint-s3-release"
    set_environment(node, S3MOUNT_RELEASE_URL="", S3MOUNT_RELEASE_VERSION="")
    before = packages(node)
    listed = "/etc/yum.repos.d/own.repo"
    for text, code in (
        (cluster.offer_rpms("unsigned", [rpm], recipe, signed=False), "signature-bad"),
        (
            cluster.offer_rpms("own", [rpm], recipe).replace("gpgcheck=1", "gpgcheck=0"),
            "repository-unchecked",
        ),
    ):
        node.write(listed, text)
        node.run(["dnf", "clean", "all"])
        action = cluster.custom_action(node, ONE)
        assert f"error [{code}]" in action.stderr, action.stdout + action.stderr
        assert packages(node) == before
    node.write(listed, node.read(listed).replace("gpgcheck=0", "gpgcheck=1"))
    action = cluster.custom_action(node, ONE)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert f"mount-s3 {own}\n" in action.stdout
    told = node.run(["mount-s3", "--version"]).stdout
    assert told == f"mount-s3 {own}+1.amzn2023\n"
    assert not node.exists("/opt/aws/mountpoint-s3/bin")
    set_environment(node, S3MOUNT_RELEASE_URL=mirror, S3MOUNT_RELEASE_VERSION=cluster.version)
    assert f"mount-s3 {cluster.version}\n" in cluster.custom_action(node, ONE).stdout
    assert node.run(["readlink", "-f", "/usr/bin/mount-s3"]).stdout.startswith("/opt/aws/")
    # Back again, when it is named.
    set_environment(node, S3MOUNT_RELEASE_URL="", S3MOUNT_RELEASE_VERSION=own)
    assert f"mount-s3 {own}\n" in cluster.custom_action(node, ONE).stdout
    assert node.run(["mount-s3", "--version"]).stdout == told
    node.run(["s3mount-agent", "uninstall"])
    assert packages(node) == before
