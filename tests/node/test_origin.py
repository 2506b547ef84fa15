"""Which mount-s3 a node gets, where from, and over which lines; what runs meanwhile runs on."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from cluster import mount_s3_rpm
from cluster.cluster import Cluster
from cluster.mirror import Trouble
from node.article import ONE, WRITABLE, pids, set_environment, states, status
from node.conftest import NewNode
from node.live_site import Site, document, until
from node.test_install import COUNTED, MADE, booked
from standin.package import RELEASES, build_package

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.node import Node

pytestmark = pytest.mark.node

OFFLINE = "offline"


def installed(node: Node) -> str:
    return node.run(["dpkg-query", "-W", "-f", "${Version}", "mount-s3"]).stdout


def test_a_line_on_which_all_goes_wrong_once_is_good_enough(
    cluster: Cluster, new_node: NewNode, package: Path
) -> None:
    """503, then a redirect, then slowly, broken off in the middle; and /tmp is full."""
    release = cluster.version
    node = new_node("compute")
    half = package.stat().st_size // 2
    trouble = Trouble(refusals=1, moved=True, cut=half, pieces=4)
    cluster.mirror.behave(release, dataclasses.replace(trouble))
    node.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/tmp"])
    node.run(["sh", "-c", "cat /dev/zero > /tmp/full 2>/dev/null || true"])
    try:
        action = cluster.custom_action(node, ONE)
    finally:
        cluster.mirror.behave(release, Trouble())
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert "[ wait ] mount-s3: " in action.stdout
    assert "503" in action.stdout or "could not be downloaded" in action.stdout
    told = [line for line in action.stdout.splitlines() if "kB/s" in line or "MB/s" in line]
    assert told, action.stdout
    assert told[0].startswith(f"[ wait ] mount-s3-{release}-")
    assert states(node) == {WRITABLE: "ok"}
    assert node.run(["ls", "-A", "/var/lib/s3mount-agent"]).stdout.split().count("downloads") == 0


def test_another_version_is_installed_where_it_is_asked_for_and_no_mount_feels_it(
    cluster: Cluster, new_ready_node: NewNode, tmp_path: Path
) -> None:
    site = Site(cluster, new_ready_node("head"))
    node, here = site.node, cluster.version
    other = next(version for version in RELEASES if version != here)
    cluster.mirror.publish(build_package(tmp_path, other), other)
    cluster.s3.create_bucket(OFFLINE)
    cluster.mirror.put_into(
        lambda name, content: cluster.s3.put(OFFLINE, f"releases/{name}", content)
    )
    # What the node is told is in the file alone; nothing of it is on the mirror.
    set_environment(node, S3MOUNT_RELEASE_VERSION="", S3MOUNT_RELEASE_URL="")
    node.run(["mv", "/usr/bin/apt-get", "/usr/bin/apt-get.real"])
    node.write("/usr/bin/apt-get", COUNTED, mode=0o755)
    row = site.row("/mnt/one")
    source = f"s3://{OFFLINE}/releases"

    site.bootstrap(document(row, install={"source": source}))
    assert installed(node) == here, "nobody has asked for another one"
    before = pids(node)

    site.source.put(document(row, install={"source": source, "version": other}))
    plan = site.agent("plan", "--config", site.source.url, code=4)
    assert f"  ~ mount-s3 {other}  (in the place of {here}; " in plan.stdout
    told = site.agent("apply", "--now").stdout
    assert f"mount-s3 {other} in the place of {here}" in told
    assert installed(node).startswith(other)
    assert pids(node) == before
    sentence = f"running {here}, installed {other}: takes effect at the next mount"
    assert sentence in site.agent("status").stdout
    seen = status(node)
    assert (seen["node"]["mount_s3"], seen["mounts"][0]["mount_s3"]) == (other, here)
    assert "Nothing to change" in site.agent("plan").stdout

    node.run(["systemctl", "restart", site.unit("/mnt/one")])
    site.await_mounts("/mnt/one")
    assert sentence not in site.agent("status").stdout
    assert "mount_s3" not in status(node)["mounts"][0]

    # Back again, from a folder on the node, as the service has it done.
    folder = node.root / "srv/releases"
    cluster.mirror.put_into(lambda name, content: put(folder / name, content))
    site.source.put(document(row, install={"source": "/srv/releases", "version": here}))
    site.agent("refresh")
    site.agent("install-mount-s3")
    assert installed(node).startswith(here)
    until(lambda: status(node)["node"]["mount_s3"] == here, lambda: status(node))
    back = f"running {other}, installed {here}: takes effect at the next mount"
    assert back in site.agent("status").stdout

    # The power went while dpkg was at work on another one. It is made good, and not ours by that.
    node.write(MADE, json.dumps({**json.loads(node.read(MADE)), "installing": True}), mode=0o600)
    lying = [path for path in folder.rglob(f"mount-s3-{other}-*.deb") if path.is_file()]
    node.run(["dpkg", "--unpack", "/" + str(lying[0].relative_to(node.root))])
    site.agent("apply")
    assert installed(node).startswith(here)
    assert node.run(["dpkg", "--audit"]).stdout == ""
    assert booked(node) == set()

    # Nothing was missing, so that nobody was asked what there is.
    assert "update" not in node.read("/var/log/apt-get.count").split()
    # It was there before us; which version it has now is what was asked for.
    site.agent("uninstall")
    assert installed(node).startswith(here)


def test_rpm_takes_a_later_and_an_earlier_one_where_it_is_asked_for(
    cluster: Cluster, new_node: NewNode, tmp_path: Path
) -> None:
    node, here = new_node("compute", system="rocky9"), cluster.version
    other = next(version for version in RELEASES if version != here)
    deb = build_package(tmp_path, other)
    cluster.mirror.publish(mount_s3_rpm.like_aws(deb, tmp_path), other)
    assert cluster.custom_action(node, ONE).returncode == 0
    before = pids(node)
    mine = booked(node)
    for version, left in ((other, here), (here, other)):
        set_environment(node, S3MOUNT_RELEASE_VERSION=version)
        action = cluster.custom_action(node, ONE)
        assert (action.returncode, action.stderr) == (0, ""), action.stdout
        assert f"mount-s3 {version} in the place of {left}" in action.stdout
        assert node.run(["rpm", "--query", "mount-s3"]).stdout.startswith(f"mount-s3-{version}-")
        assert pids(node) == before
        told = node.run(["s3mount-agent", "status"]).stdout
        assert (f"running {here}, installed {other}: takes effect" in told) == (version == other)
    # What was ours stays ours, in whatever version.
    assert booked(node) == mine
    assert "mount-s3" in mine
    node.run(["s3mount-agent", "uninstall"])
    assert node.run(["rpm", "--query", "mount-s3"], check=False).returncode == 1


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
