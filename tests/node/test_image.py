"""An image that is made by `s3mount-bootstrap install`, and the nodes that are booted of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.imds import Imds
from cluster.systems import DEFAULT
from node.article import (
    COMPUTE,
    ENVIRONMENT,
    FIRST,
    HEAD,
    READONLY,
    SECOND,
    UNITS,
    WRITABLE,
    mounted,
    states,
    status,
)
from node.conftest import NUMBERS, REPOSITORY, NewNode
from node.listing import Listing, difference, processes, whole, written
from node.test_install import SCRIPT, booked, packages, put_script

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.node import Node

pytestmark = pytest.mark.node

CACHES = ("/var/lib/apt/lists", "/var/cache/apt")
# Where the agent looks for programs first.
COUNTER = '#!/bin/sh\necho "$0 $*" >>/var/log/packages.count\nexec "/usr/bin/${0##*/}" "$@"\n'
COUNTED = ("apt-get", "apt-cache", "apt-mark", "dpkg", "dpkg-query", "dpkg-deb", "gpgv")


class Built:
    """A machine on which an image was built, which is off; what was there before, and what it says
    of itself."""

    def __init__(self, node: Node) -> None:
        self.before = packages(node)
        disk, running = caches(node), processes(node)
        node.run(["mkdir", "-p", "/etc/needrestart/conf.d"])
        # As EC2 Image Builder does with the component in examples/.
        node.run(["cp", SCRIPT, "/tmp/s3mount-bootstrap"])
        self.told = commanded(node, "build")
        commanded(node, "validate")
        self.caches = difference(disk, caches(node))
        self.running = processes(node) - running
        once = written(node)
        self.told_again = node.run([SCRIPT, "install"]).stdout
        self.changed_again = difference(once, written(node))
        self.identity = node.read("/etc/machine-id").strip(), node.name, node.address
        self.node = node
        node.power_off()


def commanded(node: Node, phase: str) -> str:
    """What the commands of a phase of the component say; none of them may fail."""
    document = yaml.safe_load((REPOSITORY / "examples/ami/component.yaml").read_text())
    steps = next(each["steps"] for each in document["phases"] if each["name"] == phase)
    shell = [step["inputs"]["commands"] for step in steps if step["action"] == "ExecuteBash"]
    lines = [line for lines in shell for line in lines]
    return "".join(node.run(["bash", "-c", line]).stdout for line in lines)


def caches(node: Node) -> Listing:
    return everything_below(node, *CACHES)


def everything_below(node: Node, *places: str) -> Listing:
    return {path: entry for path, entry in whole(node).items() if path.startswith(places)}


@pytest.fixture(scope="module")
def built(new_module_node: NewNode) -> Built:
    """A machine of no cluster, as Packer and ParallelCluster's build-image have it."""
    node = new_module_node("standalone")
    node.write("/etc/apt/apt.conf.d/99keep", 'APT::Keep-Downloaded-Packages "true";\n')
    put_script(node)
    return Built(node)


@pytest.fixture
def new_of_image(cluster: Cluster, built: Built) -> Iterator[NewNode]:
    """Boots nodes of the image."""
    made: list[Node] = []

    def new(role: str, disk: str | None = None, system: str = DEFAULT) -> Node:
        node = cluster.node(f"{role}-{next(NUMBERS)}", role, disk, system, of=built.node)
        made.append(node)
        node.boot()
        return node

    yield new
    for node in made:
        node.close()


def test_an_image_has_all_that_mounts_need_and_nothing_of_the_machine_that_built_it(
    built: Built,
) -> None:
    lines = [line.split()[3] for line in built.told.splitlines() if line.startswith("[  ok  ]")]
    assert lines == ["install", "fuse.conf", "service"]
    assert "this machine can become an image: mount-s3 " in built.told
    root = built.node.written
    assert (root / "opt/s3mount-agent/current/bin/s3mount-agent").exists()
    assert (root / "usr/local/bin/s3mount-agent").is_symlink()
    assert (root / "etc/systemd/system/multi-user.target.wants/s3mount-agent.service").is_symlink()
    assert (root / "etc/needrestart/conf.d/s3mount-agent.conf").exists()
    # What was installed, so that it can be taken back.
    state = root / "var/lib/s3mount-agent"
    assert [path.name for path in state.iterdir()] == ["made.json"]
    made = json.loads((state / "made.json").read_text())
    assert set(made["packages"]) == {"libfuse2", "mount-s3"}
    assert not (root / "etc/s3mount-agent/config.yaml").exists()
    assert built.caches == {}
    assert built.running == set()
    assert (built.changed_again, built.told_again.count("already there")) == ({}, 2)
    assert naming(built.identity, root) == []


def naming(identity: tuple[str, ...], root: Path) -> list[str]:
    """The files that name a machine, but for those by which it was given its name."""
    own = ("etc/machine-id", "etc/hostname", "etc/hosts", "var/log/", "var/lib/systemd/")
    names = [name.encode() for name in identity]
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return [
        at
        for path in found
        if not (at := str(path.relative_to(root))).startswith((*own, "root/", "tmp/"))
        and any(name in path.read_bytes() for name in names)
    ]


@pytest.mark.parametrize(("role", "arguments"), [("head", HEAD), ("compute", COMPUTE)])
def test_a_node_of_the_image_installs_nothing(
    cluster: Cluster, built: Built, new_of_image: NewNode, role: str, arguments: tuple[str, ...]
) -> None:
    node = new_of_image(role)
    assert node.run(["systemctl", "--failed", "--no-legend"]).stdout == ""
    assert node.run(["systemctl", "is-active", "s3mount-agent"], check=False).stdout == "inactive\n"
    assert mounted(node) == {}
    commanded(node, "test")
    for name in COUNTED:
        node.write(f"/usr/sbin/{name}", COUNTER, mode=0o755)
    asked = len(cluster.mirror.requests)
    action = cluster.custom_action(node, arguments)
    assert (action.returncode, action.stderr) == (0, "")
    assert states(node, wait=20) == {READONLY: "ok", WRITABLE: "ok"}
    assert status(node)["node"]["role"] == role
    assert not node.exists("/var/log/packages.count")
    assert cluster.mirror.requests[asked:] == []
    units = node.run(["systemctl", "list-units", "--no-legend", "--plain", "mountpoint-s3-*"])
    assert {line.split()[0] for line in units.stdout.splitlines()} == set(UNITS)
    assert node.read("/var/lib/s3mount-agent/machine.json") != ""
    if role == "head":
        node.reboot()
        assert states(node, wait=20) == {READONLY: "ok", WRITABLE: "ok"}
        return
    node.run(["s3mount-agent", "uninstall"])
    # What the image was given goes, too: nothing of the agent is left on this node.
    assert packages(node) == built.before
    assert not node.exists("/opt/s3mount-agent")


TWO = f"""\
refresh: 1d
environment: {{AWS_PROFILE: mounts}}
mounts:
- {{bucket: {FIRST}, directory: {READONLY}, read_only: true}}
- {{bucket: {SECOND}, directory: {WRITABLE}, allow_delete: true}}
"""
CONFIG = "hpc-custom-boostrap-files"
KEYS = "[mounts]\naws_access_key_id = SIMULATIONNODE\naws_secret_access_key = simulation\n"


def test_an_image_is_built_in_a_chroot_too(cluster: Cluster) -> None:
    """Without systemd, /proc and /dev/fuse, and with a /run that is on the image's disk."""
    with contextlib.closing(cluster.node(f"chroot-{next(NUMBERS)}", "standalone")) as node:
        put_script(node)
        answer = node.run([SCRIPT, "install"])
        assert answer.stderr == ""
        assert "[ skip ] service" in answer.stdout
        assert "this machine can become an image" in answer.stdout
        state = node.root / "var/lib/s3mount-agent"
        assert [path.name for path in state.iterdir()] == ["made.json"]
        assert not (node.root / "run/s3mount-agent").exists()
        assert naming((node.name, node.address), node.written) == []


def test_what_one_boot_asks_for(cluster: Cluster, new_node: NewNode, new_of_image: NewNode) -> None:
    """The figures of docs/scale.md, and of the simulation in tests/herd.py."""
    mounts = {FIRST: 2, SECOND: 2}
    assert asked(cluster, new_of_image("compute")) == ({"imds": 3, CONFIG: 1, **mounts}, [])
    # A bootstrap that puts an agent in place checks the configuration first, out of its archive.
    counted, mirror = asked(cluster, new_node("compute"))
    assert counted == {"imds": 6, CONFIG: 2, **mounts}
    names = [path.rpartition("/")[2] for path in mirror if path.startswith("/mountpoint-s3")]
    package = f"mount-s3-{cluster.version}-{os.uname().machine}.deb".replace("aarch64", "arm64")
    assert sorted(names) == ["KEYS", "manifest.json", package, f"{package}.asc"]
    assert len([path for path in mirror if path.endswith(".deb")]) == 2  # and libfuse2


def asked(cluster: Cluster, node: Node) -> tuple[dict[str, int], list[str]]:
    """How often a node's bootstrap asks IMDS and S3, by bucket, and what it asks the mirror for.

    The agent's credentials are those of IMDS. mount-s3's stand-in knows no IMDS, and has others.
    """
    put_script(node)
    cluster.s3.put(CONFIG, "two.yaml", TWO.encode())
    for home in ("", "/root"):
        node.write(f"{home}/.aws/credentials", KEYS)
    counted = (CONFIG, FIRST, SECOND)
    with Imds(cluster.network.address) as imds:
        own = [line for line in node.read(ENVIRONMENT).splitlines() if "_KEY" not in line]
        own += ["AWS_EC2_METADATA_DISABLED=false", f"AWS_EC2_METADATA_SERVICE_ENDPOINT={imds.url}"]
        own.remove("AWS_EC2_METADATA_DISABLED=true")
        node.write(ENVIRONMENT, "\n".join(own) + "\n", mode=0o600)
        mirror = len(cluster.mirror.requests)
        before = {bucket: cluster.s3.requests(bucket) for bucket in counted}
        node.run([SCRIPT, "--config", f"s3://{CONFIG}/two.yaml"])
        s3 = {bucket: cluster.s3.requests(bucket) - before[bucket] for bucket in counted}
        return {"imds": len(imds.requests), **s3}, cluster.mirror.requests[mirror:]


def test_an_image_of_amazon_linux_keeps_what_dnf_had(cluster: Cluster, new_node: NewNode) -> None:
    node = new_node("standalone", system="al2023")
    put_script(node)
    before = everything_below(node, "/var/cache/dnf")
    assert "this machine can become an image" in node.run([SCRIPT, "install"]).stdout
    assert everything_below(node, "/var/cache/dnf") == before
    assert {"mount-s3", "fuse-libs"} <= booked(node)
    assert not node.exists("/var/lib/s3mount-agent/machine.json")
    node.run(["rm", "/etc/yum.repos.d/base.repo"])
    told = node.run([SCRIPT, *COMPUTE]).stdout
    assert ", already there" in told
    assert "2 of 2 mounts are up" in told


def test_a_node_with_mounts_is_no_image(cluster: Cluster, new_ready_node: NewNode) -> None:
    node = new_ready_node("compute")
    put_script(node)
    # It is a bucket where a directory follows, also as the first word.
    cluster.s3.create_bucket("install")
    action = cluster.custom_action(node, ("install", "/mnt/s3", "--allow-other"))
    assert (action.returncode, action.stderr) == (0, "")
    assert status(node, wait=20)["mounts"][0]["bucket"] == "install"
    before = written(node)
    answer = node.run([SCRIPT, "install"], check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("s3mount-agent: error [already-configured]: ")
    assert difference(before, written(node)) == {}


OTHER = 'ID=void\nPRETTY_NAME="Void Linux"\n'


def test_a_system_that_nobody_knows_is_refused_or_taken_for_another(new_node: NewNode) -> None:
    node = new_node("standalone")
    put_script(node)
    node.run(["rm", "/etc/os-release"])
    node.write("/etc/os-release", OTHER)
    before = written(node)
    answer = node.run([SCRIPT, "install"], check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("s3mount-agent: error [node-unsupported]: ")
    assert "this node is Void Linux" in answer.stderr
    assert "--assume-family deb" in answer.stderr
    assert "libfuse2" in answer.stderr
    assert difference(before, written(node)) == {}
    # And it is remembered for who installs later, such as the daemon.
    told = node.run([SCRIPT, "--assume-family", "deb", *COMPUTE]).stdout
    assert "2 of 2 mounts are up" in told
    assert "family: deb" in node.read("/etc/s3mount-agent/config.yaml")
    node.run(["apt-get", "-qq", "--yes", "purge", "mount-s3"])
    node.run(["s3mount-agent", "install-mount-s3"])
    assert states(node, wait=30) == {READONLY: "ok", WRITABLE: "ok"}
