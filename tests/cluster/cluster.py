"""A whole simulated ParallelCluster: a network, S3, a mirror and as many nodes as a test wants."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster import mount_s3_rpm, parallelcluster, rpms
from cluster.image import FIRST_USER, Image, ensure_image
from cluster.leftovers import Claim, sweep
from cluster.mirror import Mirror, package_version
from cluster.network import Network
from cluster.node import Node
from cluster.s3 import REGION, S3, SECRET
from cluster.signing import Signer
from cluster.systems import DEFAULT, SYSTEMS, Recipe, System

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from cluster.command import Command

BOOTSTRAP = "s3://hpc-custom-boostrap-files/s3mount-bootstrap"  # the article's own spelling
EXECUTOR = "/opt/parallelcluster/scripts/custom_action_executor.py"
FUSE = Path("/dev/fuse")
ARTICLE = {
    "hpc-dev-mountpoint-sample-1": (
        "YouCanLookThisFileFromS3.txt",
        "images/sample.png",
        "reads/sample_R1.fastq",
        "reads/sample_R2.fastq",
    ),
    "hpc-dev-mountpoint-sample-2": ("YouCanLookThisFileFromS3.txt",),
}


class ActionResult(NamedTuple):
    """What became of a custom action.

    stdout: what reaches the node's cloud-init-output.log. stderr: what ParallelCluster captured.
    seconds: from the start of the download to the end of the script.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float


class Cluster:
    """A cluster without nodes at first; a context manager that takes down all it has set up.

    s3, mirror, network: its parts. version: that of the mount-s3 package on the mirror.
    """

    def __init__(self, package: Path, bootstrap: Path | None) -> None:
        """Start S3 and a mirror that offers `package` (a mount-s3 .deb).

        `bootstrap` is uploaded as the custom action's script; with None there is none. Needs root.
        """
        self.version = package_version(package)
        self._package = package
        self._roles: dict[str, str] = {}
        self._images: dict[str, Image] = {}
        with contextlib.ExitStack() as undo:
            sweep()
            claim = Claim()
            undo.callback(claim.close)
            self._folder = claim.folder
            self.network = Network()
            undo.callback(self.network.close)
            claim.name_network(self.network.name)
            address = self.network.address
            self._head = parallelcluster.Head("head", address)
            self.s3 = S3(address, self._folder / "s3.log")
            undo.callback(self.s3.close)
            self.mirror = Mirror(address, self._folder / "mirror")
            undo.callback(self.mirror.close)
            self.mirror.publish(package, self.version)
            if bootstrap is not None:
                script = urllib.parse.urlsplit(BOOTSTRAP)
                self.s3.create_bucket(script.netloc)
                self.s3.put(script.netloc, script.path.lstrip("/"), bootstrap.read_bytes())
            # udev gives it this mode on a real node, and nspawn takes it from here. It is left so:
            # it is any Linux machine's default, and another cluster may still be at work.
            FUSE.chmod(0o666)
            self._undo = undo.pop_all()

    def __enter__(self) -> Cluster:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; trouble in doing so is only told where it would hide the error in the body."""
        try:
            self.close()
        except Exception as trouble:
            if error is None:
                raise
            sys.stderr.write(f"and the cluster was not taken down well: {trouble}\n")

    def close(self) -> None:
        """Take everything down, last things first; twice is once."""
        self._undo.close()

    def node(
        self,
        name: str,
        role: str,
        disk: str | None = None,
        system: str = DEFAULT,
        of: Node | None = None,
    ) -> Node:
        """Return a new node, powered off, with all that ParallelCluster and the test put there.

        `role` is one of head, compute, login, standalone. Nodes are told of the head that was made
        before them; where there is none, of one at the bridge's address. `disk` limits what can be
        written to its root file system, for example to "256m". `system` is one of systems.SYSTEMS;
        the first node of a kind waits until its image is made. `of` is a node that is off, and
        stays so, whose disk is the image of this one.
        """
        if role not in parallelcluster.ROLES:
            raise ValueError(f"no such role: {role}")
        kind = SYSTEMS[system]
        image = self._image(kind)
        link = self.network.attach()
        node = Node(name, kind, image, link, self._folder / name, disk, of)
        self._undo.callback(node.close)
        if role == "head":
            self._head = parallelcluster.Head(name, node.address)
        parallelcluster.install(node, role, self._head, kind)
        self._dress(node, kind)
        node.write("/etc/s3mount-agent/environment", self._environment(), mode=0o600)
        executor = Path(__file__).with_name("executor.py")
        node.write(EXECUTOR, executor.read_text(encoding="utf-8"), mode=0o755)
        self._roles[name] = role
        return node

    def _image(self, system: System) -> Image:
        recipe = system.recipe
        if recipe.name not in self._images:
            image = self._images[recipe.name] = ensure_image(recipe)
            self.mirror.offer(recipe.name, image.later)
            if recipe.rpm:
                self.mirror.publish(self.rpm, self.version)
        return self._images[recipe.name]

    @functools.cached_property
    def rpm(self) -> Path:
        """The same mount-s3 as AWS's rpm."""
        return mount_s3_rpm.like_aws(self._package, self._folder)

    def offer_rpms(
        self, name: str, packages: Sequence[Path], recipe: Recipe, *, signed: bool = True
    ) -> str:
        """Sign packages as an image's distribution, and offer them; return what a node has to have
        in /etc/yum.repos.d to get them."""
        folder, key = self._folder / name, self._folder / f"{name}.key"
        folder.mkdir()
        signer = Signer(shutil.copytree(ensure_image(recipe).key, key))
        for package in packages:
            copy = Path(shutil.copy(package, folder))
            if signed:
                rpms.sign(copy, key, signer.fingerprint)
        signer.close()
        rpms.index(folder)
        self.mirror.offer(name, folder)
        return rpms.REPOSITORY.format(name=name, url=f"{self.mirror.url}/{name}")

    def _dress(self, node: Node, system: System) -> None:
        """Make a node of a recipe one of a system: what it is called, its user, its repository."""
        offered = f"{self.mirror.url}/{system.recipe.name}"
        if not system.recipe.rpm:
            node.write("/etc/apt/sources.list", f"deb [trusted=yes] {offered} ./\n")
            return
        node.write("/etc/yum.repos.d/base.repo", rpms.REPOSITORY.format(name="base", url=offered))
        release = "".join(f'{name}="{value}"\n' for name, value in system.os_release)
        node.write("/usr/lib/os-release", release)  # /etc/os-release is a link to it
        if system.user != FIRST_USER:
            home = f"/home/{system.user}"
            node.run(["usermod", "--login", system.user, "--home", home, FIRST_USER])
            node.run(["groupmod", "--new-name", system.user, FIRST_USER])
            node.run(["mv", f"/home/{FIRST_USER}", home])

    def _environment(self) -> str:
        variables = {
            "AWS_ACCESS_KEY_ID": "SIMULATIONNODE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.s3.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "S3MOUNT_RELEASE_URL": f"{self.mirror.url}/mountpoint-s3-release",
            "S3MOUNT_RELEASE_FINGERPRINTS": self.mirror.fingerprint,
            "S3MOUNT_RELEASE_VERSION": self.version,
        }
        return "".join(f"{name}={value}\n" for name, value in variables.items())

    def start_custom_action(
        self, node: Node, args: Sequence[str], script: str = BOOTSTRAP
    ) -> Command:
        """Start a custom action on a node that is on, and return at once.

        Reading the lines of the result's stdout follows it; kill() kills it with everything that
        it has started and systemd has not taken over.
        """
        # Outside of a cluster somebody runs it by hand, most likely as the head node would.
        node_type = parallelcluster.NODE_TYPES.get(self._roles[node.name], "HeadNode")
        argv = ["python3", EXECUTOR, node_type, script, *args]
        return node.popen(argv, env={"AWS_ENDPOINT_URL": self.s3.url})

    def custom_action(
        self, node: Node, args: Sequence[str], script: str = BOOTSTRAP, timeout: float = 300.0
    ) -> ActionResult:
        """Run a custom action as ParallelCluster does; after `timeout` seconds it is killed.

        Like ParallelCluster it waits for the ends of stdout and stderr, and so for a background
        process that keeps one of them open. Raises subprocess.TimeoutExpired.
        """
        started = time.monotonic()
        with self.start_custom_action(node, args, script) as command:
            try:
                stdout, stderr = command.communicate(timeout=timeout)
            except BaseException:
                command.kill()
                raise
        return ActionResult(command.returncode, stdout, stderr, time.monotonic() - started)

    def seed_article(self) -> None:
        """Create the article's two buckets with the files that it shows in them."""
        for bucket, keys in ARTICLE.items():
            self.s3.create_bucket(bucket)
            for key in keys:
                self.s3.put(bucket, key, f"{key} of {bucket}\n".encode())
