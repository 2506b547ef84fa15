"""Nodes that reach nothing but S3, or not even that, and install from a bundle.

The bundle is a real one: FUSE from this machine's own repository, as the distribution signed it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cluster import rpms
from cluster.s3 import REGION, SECRET
from cluster.signing import Signer
from node.article import COMPUTE, ENVIRONMENT, READONLY, WRITABLE, listed, states
from node.conftest import REPOSITORY, NewNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.cluster import Cluster
    from cluster.node import Node

pytestmark = pytest.mark.node

PLACE = "/srv/bundle"
BUCKET = "site-of-the-cluster"
SOURCE = f"s3://{BUCKET}/offline"
DOCUMENT = "/root/offline.yaml"


def make_bundle(cluster: Cluster, systems: str, place: str, **more: str) -> None:
    """`make bundle`, of the mount-s3 that the cluster's mirror has."""
    given = {
        **more,
        "PYTHONPATH": str(REPOSITORY / "agent"),
        "S3MOUNT_RELEASE_URL": f"{cluster.mirror.url}/mountpoint-s3-release",
        "S3MOUNT_RELEASE_FINGERPRINTS": cluster.mirror.fingerprint,
        "S3MOUNT_RELEASE_VERSION": cluster.version,
        "AWS_ENDPOINT_URL": cluster.s3.url,
        "AWS_ACCESS_KEY_ID": "SIMULATIONADMINISTRATOR",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
    }
    script = REPOSITORY / "packaging/build_bundle.py"
    subprocess.run(
        [sys.executable, str(script), f"--systems={systems}", f"--to={place}"],
        env={**os.environ, **given},
        check=True,
    )


def offline(node: Node, source: str) -> None:
    """Takes from a node whatever names another place than a bundle, and writes what names that."""
    node.write("/etc/apt/sources.list", "")
    lines = node.read(ENVIRONMENT).splitlines()
    kept = [line for line in lines if not line.startswith("S3MOUNT_RELEASE_URL=")]
    node.write(ENVIRONMENT, "\n".join([*kept, ""]), mode=0o600)
    node.write(DOCUMENT, document(source))


def document(source: str) -> str:
    rows = zip(COMPUTE[::3], COMPUTE[1::3], COMPUTE[2::3])
    mounts = [{"bucket": b, "directory": d, "options": o} for b, d, o in rows]
    return json.dumps({"install": {"source": source}, "mounts": mounts})


def installed(node: Node) -> str:
    return node.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]).stdout


def test_a_node_that_reaches_s3_alone_gets_all_from_a_bundle(
    cluster: Cluster, new_node: NewNode
) -> None:
    cluster.s3.create_bucket(BUCKET)
    make_bundle(cluster, "debian12,debian13", SOURCE)
    node = new_node("compute", system="debian13")
    offline(node, SOURCE)
    asked = len(cluster.mirror.requests)
    script = f"{SOURCE}/s3mount-bootstrap"
    action = cluster.custom_action(node, ["--config", DOCUMENT], script)
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert states(node, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
    assert listed(node, WRITABLE)
    assert cluster.mirror.requests[asked:] == []
    assert not node.exists("/var/lib/s3mount-agent/downloads")
    before = node.run(["ls", "-A", "/var/lib/apt/lists", "/var/cache/apt"]).stdout
    node.run(["s3mount-agent", "uninstall"])
    assert "libfuse2" not in installed(node)
    assert node.run(["ls", "-A", "/var/lib/apt/lists", "/var/cache/apt"]).stdout == before


@pytest.fixture(scope="module")
def isolated(
    cluster: Cluster, new_module_node: NewNode, tmp_path_factory: pytest.TempPathFactory
) -> Node:
    """A node with a bundle on a disk of its own, and no other place to install from."""
    node = new_module_node("compute")
    made = tmp_path_factory.mktemp("made") / "bundle"
    make_bundle(cluster, "debian12", str(made))
    shutil.copytree(made, node.root / PLACE.lstrip("/"))
    offline(node, PLACE)
    return node


@contextlib.contextmanager
def somebody() -> Iterator[tuple[Signer, Path]]:
    """Somebody with a key of his own, and where that is."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    signer = Signer(home / "key", "somebody@example.com")
    try:
        yield signer, home / "key"
    finally:
        signer.close()
        shutil.rmtree(home)


def bundle_of(node: Node) -> Path:
    return node.root / PLACE.lstrip("/")


def one(node: Node, pattern: str) -> Path:
    (found,) = bundle_of(node).rglob(pattern)
    return found


def another_system(node: Node) -> None:
    """The bundle is another system's, as its manifest says."""
    file = bundle_of(node) / "manifest.json"
    file.write_text(file.read_text().replace("debian12", "ubuntu2204"))


def another_architecture(node: Node) -> None:
    file = bundle_of(node) / "manifest.json"
    file.write_text(file.read_text().replace("debian12:x86_64", "debian12:arm64"))
    file.write_text(file.read_text().replace("debian12/x86_64", "debian12/arm64"))


def a_lost_file(node: Node) -> None:
    one(node, "libfuse2_*.deb").unlink()


def another_library(node: Node) -> None:
    package = one(node, "libfuse2_*.deb")
    package.write_bytes(package.read_bytes()[:-1] + b"?")


def another_mount_s3(node: Node) -> None:
    package = one(node, "mount-s3-*.deb")
    package.write_bytes(package.read_bytes() + b"?")


def another_release(node: Node) -> None:
    release = one(node, "InRelease")
    release.write_text(release.read_text().replace("Origin: Debian", "Origin: Debiam"))


def another_distribution(node: Node) -> None:
    """Whoever may write the bundle puts a library of his own there, with all that fits it."""
    folder = bundle_of(node) / "fuse/debian12/x86_64/dists/bookworm"
    package, index = one(node, "libfuse2_*.deb"), one(node, "Packages.xz")
    shutil.copyfile(one(node, "libfuse3-3_*.deb"), package)
    data = package.read_bytes()
    digest, size = hashlib.sha256(data).hexdigest(), len(data)
    name = package.relative_to(bundle_of(node) / "fuse/debian12/x86_64")
    stanza = (
        "Package: libfuse2\nVersion: 99\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
        f"Filename: {name}\nSize: {size}\nSHA256: {digest}\n"
    )
    packed = lzma.compress(stanza.encode())
    index.write_bytes(packed)
    row = f" {hashlib.sha256(packed).hexdigest()} {len(packed)} main/binary-amd64/Packages.xz\n"
    release = node.root / "root/Release"
    release.write_text(f"Codename: bookworm\nComponents: main\nSHA256:\n{row}")
    with somebody() as (signer, _):
        signer.clearsign(release, folder / "InRelease")
    list_all(bundle_of(node))


MADE_FOR = "has no libfuse2 for it: it was made for "


@pytest.mark.parametrize(
    ("broken", "code", "told"),
    [
        (another_system, "bundle-incomplete", f"{MADE_FOR}ubuntu2204:x86_64"),
        (another_architecture, "bundle-incomplete", f"{MADE_FOR}debian12:arm64"),
        (a_lost_file, "bundle-incomplete", "x86_64/pool/main/f/fuse/libfuse2_"),
        (another_library, "bundle-refused", "Hash Sum mismatch"),
        (another_mount_s3, "signature-bad", "does not fit the file"),
        (another_release, "bundle-refused", "BADSIG"),
        (another_distribution, "bundle-refused", "NO_PUBKEY"),
    ],
)
def test_what_is_missing_or_not_signed_is_named_and_nothing_installed(
    isolated: Node, cluster: Cluster, broken: Callable[[Node], None], code: str, told: str
) -> None:
    place, kept = bundle_of(isolated), isolated.root / "srv/kept"
    before = installed(isolated)
    shutil.copytree(place, kept)
    try:
        broken(isolated)
        action = cluster.custom_action(isolated, ["--config", DOCUMENT])
    finally:
        shutil.rmtree(place)
        kept.rename(place)
    assert action.returncode == 1
    assert action.stderr.startswith(f"s3mount-agent: error [{code}]: "), action.stderr
    assert told in action.stderr
    assert len(action.stderr) < 4000
    assert installed(isolated) == before
    if code == "bundle-incomplete":
        assert "`make bundle SYSTEMS=" in action.stderr


def test_a_node_installs_from_a_path(isolated: Node, cluster: Cluster) -> None:
    """After all that was wrong with the bundle."""
    asked = len(cluster.mirror.requests)
    action = cluster.custom_action(isolated, ["--config", DOCUMENT])
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert states(isolated, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
    assert cluster.mirror.requests[asked:] == []


def test_rpms_come_from_a_bundle_if_the_distribution_has_signed_them(
    cluster: Cluster, new_node: NewNode, tmp_path: Path
) -> None:
    node = new_node("compute", system="al2023")
    place = bundle_of(node)
    distribution = {"MIRROR_al2023": f"{cluster.mirror.url}/rpm"}
    make_bundle(cluster, "al2023", str(tmp_path / "bundle"), **distribution)
    shutil.copytree(tmp_path / "bundle", place)
    node.run(["sh", "-c", "rm /etc/yum.repos.d/*"])
    offline(node, PLACE)
    before = node.run(["rpm", "-qa"]).stdout
    piece = place / "fuse/al2023/x86_64"
    other = rpms.pack("fuse-libs", "99", tmp_path)
    genuine = one(node, "fuse-libs-*.rpm")
    kept = genuine.read_bytes()
    for signed in (False, True):
        if signed:
            with somebody() as (signer, key):
                rpms.sign(other, key, signer.fingerprint)
        shutil.copyfile(other, genuine)
        rpms.index(piece)
        list_all(place)
        action = cluster.custom_action(node, ["--config", DOCUMENT])
        assert action.returncode == 1
        assert "error [bundle-refused]" in action.stderr
        assert "GPG check FAILED" in action.stderr
        assert "fuse-libs-" in action.stderr
        assert node.run(["rpm", "-qa"]).stdout == before
    genuine.write_bytes(kept)
    rpms.index(piece)
    list_all(place)
    asked = len(cluster.mirror.requests)
    action = cluster.custom_action(node, ["--config", DOCUMENT])
    assert (action.returncode, action.stderr) == (0, ""), action.stdout
    assert states(node, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
    assert cluster.mirror.requests[asked:] == []


def list_all(place: Path) -> None:
    """Has the manifest name whatever lies there."""
    file = place / "manifest.json"
    told = json.loads(file.read_text())
    paths = [path for path in place.rglob("*") if path.is_file() and path != file]
    told["files"] = {
        str(path.relative_to(place)): {"size": path.stat().st_size, "sha256": ""} for path in paths
    }
    file.write_text(json.dumps(told))
