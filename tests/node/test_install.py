"""What gets in the way of an installation on nodes as they are, and what does not."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import COMPUTE, ONE, WRITABLE, pids, set_environment, states
from node.conftest import BOOTSTRAP, NewNode
from node.live_site import until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cluster.node import Node

pytestmark = pytest.mark.node

BROKEN = "deb [trusted=yes] http://127.0.0.1:9/third-party ./\n"
COUNTED = '#!/bin/sh\necho "$@" >> /var/log/apt-get.count\nexec /usr/bin/apt-get.real "$@"\n'
SOURCES = "/etc/apt/sources.list"
MADE = "/var/lib/s3mount-agent/made.json"
SCRIPT = "/root/s3mount-bootstrap"


def put_script(node: Node) -> None:
    node.write(SCRIPT, "", mode=0o755)
    (node.root / SCRIPT.lstrip("/")).write_bytes(BOOTSTRAP.read_bytes())


def packages(node: Node) -> set[str]:
    rows = node.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]).stdout
    return {row.split()[0] for row in rows.splitlines() if row.endswith(" installed")}


def booked(node: Node) -> set[str]:
    return set(json.loads(node.read(MADE)).get("packages", []))


def test_what_has_nothing_to_do_with_the_mounts_is_no_reason_to_fail(
    cluster: Cluster, new_node: NewNode
) -> None:
    """Another repository is broken, fuse.conf cannot be written, /usr/local leads to nowhere."""
    node = new_node("compute")
    node.write(SOURCES, BROKEN + node.read(SOURCES))
    node.run(["mv", "/usr/bin/apt-get", "/usr/bin/apt-get.real"])
    node.write("/usr/bin/apt-get", COUNTED, mode=0o755)
    conf = node.read("/etc/fuse.conf")
    node.run(["mount", "--bind", "-o", "ro", "/etc/fuse.conf", "/etc/fuse.conf"])
    node.run(["mount", "-o", "remount,ro,bind", "/etc/fuse.conf"])
    node.run(["rm", "-r", "/usr/local"])
    node.run(["ln", "-s", "/shared/not/mounted/yet", "/usr/local"])
    action = cluster.custom_action(node, COMPUTE)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert "warning: /usr/local/bin/s3mount-agent could not be made" in action.stdout
    told = next(line for line in action.stdout.splitlines() if "fuse.conf" in line)
    assert told.startswith("[ warn ] fuse.conf")
    assert node.read("/etc/fuse.conf") == conf
    # Nor is it tried for long: the lists that could be read are enough.
    assert node.read("/var/log/apt-get.count").split().count("update") == 1
    command = "/opt/s3mount-agent/current/bin/s3mount-agent"
    node.run([command, "status", "--wait", "20"])
    # And it is booked what came, no more.
    assert booked(node) == {"libfuse2", "mount-s3"}
    node.run([command, "uninstall"])
    assert node.read("/etc/fuse.conf") == conf


@pytest.fixture(scope="module")
def ready(new_ready_module_node: NewNode) -> Node:
    """A node with mount-s3 and the bootstrap file."""
    node = new_ready_module_node("compute")
    put_script(node)
    return node


@pytest.mark.parametrize(("options", "style"), [("noexec,nosuid,nodev", ">"), ("size=4m", "|")])
def test_neither_a_noexec_nor_a_tiny_tmp_matters(
    cluster: Cluster, ready: Node, options: str, style: str
) -> None:
    """Nor in which way of YAML's the options are written."""
    cluster.s3.put("hpc-custom-boostrap-files", "two.yaml", document(style))
    source = "s3://hpc-custom-boostrap-files/two.yaml"
    before = ready.run(["ls", "-A", "/opt"]).stdout
    ready.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "/tmp"])
    try:
        check = ready.run(["sh", SCRIPT, "--check", "--config", source], check=False)
        assert (check.returncode, check.stderr) == (0, "")
        assert ready.run(["ls", "-A", "/opt"]).stdout == before
        answer = ready.run(["sh", SCRIPT, "--config", source], check=False)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert ready.run(["ls", "-A", "/tmp"]).stdout == ""
    finally:
        ready.run(["umount", "/tmp"])
    assert states(ready, wait=20) == {WRITABLE: "ok"}
    ready.run(["s3mount-agent", "uninstall"])


def test_bootstrapped_in_a_virtual_environment_it_outlives_it(ready: Node) -> None:
    ready.run(["python3", "-m", "venv", "--without-pip", "/root/venv"])
    path = "/root/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    answer = ready.run(["/root/venv/bin/python3", SCRIPT, *ONE], env={"PATH": path})
    assert answer.stderr == ""
    ready.run(["rm", "-r", "/root/venv"])
    # A hook of the mount is what would fail.
    ready.run(["pkill", "-KILL", "-x", "mount-s3"], check=False)
    ready.run(["systemctl", "restart", "s3mount-agent"])
    assert states(ready, wait=45) == {WRITABLE: "ok"}
    again = ready.run([SCRIPT, *ONE], env={"PATH": "/usr/bin:/bin"})
    assert "nothing to change" in again.stdout


def test_an_agent_whose_python_is_gone_is_told_by_status_and_brings_mounts_back(
    ready: Node,
) -> None:
    ready.run([SCRIPT, *ONE])
    launcher = "/opt/s3mount-agent/current/bin/s3mount-agent"
    text = ready.read(launcher)
    own = text.partition("exec '")[2].partition("'")[0]
    # What somebody does who cleans up: hooks, daemon and commands are run by a Python that is gone.
    ready.write(launcher, text.replace(own, "/usr/bin/gone3"), mode=0o755)
    lost = pids(ready)[WRITABLE]
    ready.run(["systemctl", "restart", "s3mount-agent"])
    ready.run(["kill", "-KILL", str(lost)])
    until(lambda: pids(ready)[WRITABLE] not in (None, lost))
    answer: subprocess.CompletedProcess[str] = ready.run(["s3mount-agent", "status"], check=False)
    assert answer.returncode != 0
    assert "/usr/bin/gone3" in answer.stdout
    assert "s3mount-bootstrap" in answer.stdout
    repaired = ready.run([SCRIPT, *ONE])
    assert "1 of 1 mounts are up" in repaired.stdout
    assert ready.read(launcher) == text
    ready.run(["s3mount-agent", "status", "--wait", "20"])


def document(style: str) -> bytes:
    bucket, directory, options = ONE
    lines = "\n    ".join(options.split())  # as people write them who have many
    block = f"  options: {style}\n    {lines}\n"
    return f"mounts:\n- bucket: {bucket}\n  directory: {directory}\n{block}".encode()


def test_only_what_the_agent_installed_is_taken_back(cluster: Cluster, new_node: NewNode) -> None:
    """After an installation that failed somebody installs something; it is his."""
    node = new_node("compute")
    set_environment(node, S3MOUNT_RELEASE_URL=f"{cluster.mirror.url}/nothing-here")
    assert cluster.custom_action(node, ONE).returncode == 1
    node.run(["apt-get", "-qq", "update"])
    node.run(["apt-get", "-qq", "--yes", "install", "libfuse2"])
    theirs = packages(node)
    good = f"{cluster.mirror.url}/mountpoint-s3-release"
    set_environment(node, S3MOUNT_RELEASE_URL=good)
    assert cluster.custom_action(node, ONE).returncode == 0
    assert booked(node) == {"mount-s3"}
    node.run(["s3mount-agent", "uninstall"])
    assert packages(node) == theirs


def test_what_somebody_installs_after_a_transaction_that_failed_is_his(
    cluster: Cluster, new_node: NewNode, package: Path
) -> None:
    node = new_node("compute")
    broken = "/etc/apt/apt.conf.d/99broken"
    node.write(broken, 'DPkg::Pre-Invoke {"false";};\n')
    with cluster.start_custom_action(node, ONE) as command:
        assert command.stdout is not None
        assert any("[ wait ] mount-s3: `apt-get install` ended" in line for line in command.stdout)
        command.kill()
    node.run(["rm", broken])
    shutil.copyfile(package, node.root / "root/mount-s3.deb")
    quick = ["apt-get", "-qq", "--yes", "-o", "Dpkg::Options::=--force-unsafe-io"]
    node.run([*quick, "install", "libfuse2", "/root/mount-s3.deb"])
    theirs, log = packages(node), node.read("/var/log/dpkg.log")
    assert cluster.custom_action(node, ONE).returncode == 0
    assert states(node) == {WRITABLE: "ok"}
    assert node.read("/var/log/dpkg.log") == log, "it was there, and is left alone"
    assert booked(node) == set()
    node.run(["s3mount-agent", "uninstall"])
    assert packages(node) == theirs


def test_what_another_package_needs_stays(cluster: Cluster, new_node: NewNode) -> None:
    node = new_node("compute")
    assert cluster.custom_action(node, ONE).returncode == 0
    assert booked(node) == {"libfuse2", "mount-s3"}
    # A package of the site's, which came later and stands upon one of ours.
    fields = ("Package: site-tool", "Version: 1", "Architecture: all", "Maintainer: x")
    control = (*fields, "Depends: libfuse2", "Description: x", "")
    node.write("/root/site/DEBIAN/control", "\n".join(control))
    node.run(["dpkg-deb", "--build", "/root/site", "/root/site.deb"])
    node.run(["dpkg", "--install", "/root/site.deb"])
    answer = node.run(["s3mount-agent", "uninstall", "--dry-run"])
    assert "mount-s3" in answer.stdout
    assert "libfuse2 stays: site-tool needs it" in answer.stdout
    assert states(node) == {WRITABLE: "ok"}
    # Nobody else changes the node before all is done.
    unlocked = "flock --nonblock /run/s3mount-agent/lock touch /root/unlocked || true"
    node.write("/etc/apt/apt.conf.d/99look", f'DPkg::Pre-Invoke {{"{unlocked}";}};\n')
    told = node.run(["s3mount-agent", "uninstall"]).stdout
    assert not node.exists("/root/unlocked")
    assert "took back the packages mount-s3; the package libfuse2 stays: site-tool needs it" in told
    left = packages(node)
    assert {"libfuse2", "site-tool"} <= left
    assert "mount-s3" not in left
