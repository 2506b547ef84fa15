"""One cluster for all node tests, and nodes that live as long as a test or a module needs them."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol

import pytest

from cluster.cluster import Cluster
from cluster.systems import DEFAULT, SYSTEMS
from mount_s3_package import Chosen, choose
from node.article import COMPUTE, HEAD, ONE, WRITABLE
from node.patient import DENIED, Patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

REPOSITORY = Path(__file__).resolve().parents[2]
BOOTSTRAP = REPOSITORY / "dist/s3mount-bootstrap"
NUMBERS = itertools.count(1)


class NewNode(Protocol):
    """Boots a node of a role and system, with a disk of a size if it is to be a small one."""

    def __call__(self, role: str, disk: str | None = None, system: str = DEFAULT) -> Node: ...


@functools.cache
def chosen() -> Chosen:
    """The mount-s3 of this run; built or downloaded once, and removed with this process."""
    directory = Path(tempfile.mkdtemp(prefix="mount-s3-"))
    atexit.register(shutil.rmtree, directory)
    return choose(directory)


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str | None:
    """Says which mount-s3 is in use, before the first test.

    Not pytest_report_header, which is asked of a conftest.py down here only when the tests of this
    directory alone are run.
    """
    return chosen().sentence if any(item.get_closest_marker("node") for item in items) else None


@pytest.fixture(scope="session")
def package() -> Path:
    """The mount-s3 package that the mirror offers."""
    return chosen().path


@pytest.fixture(scope="session")
def cluster(package: Path) -> Iterator[Cluster]:
    """A cluster with the article's buckets and the bootstrap file, built from what is here now."""
    if os.geteuid() != 0:
        pytest.fail("node tests boot systemd nodes: run them as root", pytrace=False)
    if not Path("/dev/fuse").is_char_device():
        pytest.fail("node tests mount through FUSE: this machine has no /dev/fuse", pytrace=False)
    subprocess.run([sys.executable, str(REPOSITORY / "packaging/build_bootstrap.py")], check=True)
    with Cluster(package, BOOTSTRAP) as running:
        running.seed_article()
        yield running


@pytest.fixture
def break_s3(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Makes S3 answer with errors for a bucket, as cluster.s3.fault(), until the test ends."""
    broken: list[str] = []

    def break_bucket(bucket: str, **fault: Any) -> None:
        broken.append(bucket)
        cluster.s3.fault(bucket, **fault)

    yield break_bucket
    for bucket in broken:
        cluster.s3.heal(bucket)


@pytest.fixture(scope="session", autouse=True)
def early_start(request: pytest.FixtureRequest) -> None:
    """Starts at once what takes minutes, if a test of this run waits for its end.

    Of several processes only the one that comes to that test needs it; it comes to it first.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if "patient" in wanted:
        request.getfixturevalue("patient")


@pytest.fixture(scope="session")
def patient(cluster: Cluster, package: Path) -> Iterator[dict[str, Patient]]:
    """Bootstraps that try for a long time, by role: S3 cannot be reached, or denies access."""
    cluster.s3.create_bucket(DENIED)
    cluster.s3.fault(DENIED)
    running: dict[str, Patient] = {}
    with contextmanager(_nodes)(cluster) as new:
        for role in ("compute", "head"):
            running[f"{role} denied"] = Patient.start(
                cluster, _ready(new, package, role), (DENIED, WRITABLE, "--allow-other")
            )
            running[f"{role} cut off"] = Patient.start(
                cluster, _ready(new, package, role), ONE, cut=True
            )
        yield running
        for each in running.values():
            each.end()


def _nodes(cluster: Cluster) -> Iterator[NewNode]:
    made: list[Node] = []

    def new(role: str, disk: str | None = None, system: str = DEFAULT) -> Node:
        node = cluster.node(f"{role}-{next(NUMBERS)}", role, disk, system)
        made.append(node)
        node.boot()
        return node

    yield new
    for node in made:
        node.close()


@pytest.fixture
def new_node(cluster: Cluster) -> Iterator[NewNode]:
    """Boots fresh nodes, which are gone after the test."""
    yield from _nodes(cluster)


@pytest.fixture(scope="module")
def new_module_node(cluster: Cluster) -> Iterator[NewNode]:
    """Boots fresh nodes, which are gone after the module."""
    yield from _nodes(cluster)


@pytest.fixture
def new_ready_node(new_node: NewNode, package: Path) -> NewNode:
    """Boots nodes of an image that has mount-s3 already, without the agent."""
    return functools.partial(_ready, new_node, package)


@pytest.fixture(scope="module")
def new_ready_module_node(new_module_node: NewNode, package: Path) -> NewNode:
    """The same for a module."""
    return functools.partial(_ready, new_module_node, package)


def _ready(
    new: NewNode, package: Path, role: str, disk: str | None = None, system: str = DEFAULT
) -> Node:
    node = new(role, disk, system)
    shutil.copyfile(package, node.root / "root/mount-s3.deb")
    quick = ["-qq", "--yes", "-o", "Dpkg::Options::=--force-unsafe-io"]
    node.run(["apt-get", *quick, "update"])
    node.run(
        ["apt-get", *quick, "install", *SYSTEMS[system].recipe.later[:2], "/root/mount-s3.deb"],
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
    return node


@pytest.fixture
def head(cluster: Cluster, new_ready_node: NewNode) -> Node:
    """A head node on which the article's bootstrap has succeeded."""
    return _bootstrapped(cluster, new_ready_node("head"), HEAD)


@pytest.fixture
def compute(cluster: Cluster, new_ready_node: NewNode) -> Node:
    """A compute node on which the article's bootstrap has succeeded."""
    return _bootstrapped(cluster, new_ready_node("compute"), COMPUTE)


@pytest.fixture(scope="module")
def module_head(cluster: Cluster, new_ready_module_node: NewNode) -> Node:
    """A head node on which the article's bootstrap has succeeded, for tests that leave it so."""
    return _bootstrapped(cluster, new_ready_module_node("head"), HEAD)


def _bootstrapped(cluster: Cluster, node: Node, arguments: tuple[str, ...]) -> Node:
    action = cluster.custom_action(node, arguments)
    assert action.returncode == 0, action.stdout + action.stderr
    return node
