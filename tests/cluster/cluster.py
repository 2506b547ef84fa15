"""A whole simulated ParallelCluster: a network, S3, a mirror and as many nodes as a test wants."""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster import parallelcluster
from cluster.image import ensure_image
from cluster.leftovers import Claim, sweep
from cluster.mirror import Mirror, package_version
from cluster.network import Network
from cluster.node import Node
from cluster.s3 import REGION, S3, SECRET

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
        self._roles: dict[str, str] = {}
        with contextlib.ExitStack() as undo:
            self._image = ensure_image()
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
            self.mirror = Mirror(address, self._image.apt, self._folder / "mirror")
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

    def node(self, name: str, role: str, disk: str | None = None) -> Node:
        """Return a new node, powered off, with all that ParallelCluster and the test put there.

        `role` is one of head, compute, login, standalone. Nodes are told of the head that was made
        before them; where there is none, of one at the bridge's address. `disk` limits what can be
        written to its root file system, for example to "256m".
        """
        if role not in parallelcluster.ROLES:
            raise ValueError(f"no such role: {role}")
        link = self.network.attach()
        node = Node(name, self._image, link, self._folder / name, disk)
        self._undo.callback(node.close)
        if role == "head":
            self._head = parallelcluster.Head(name, node.address)
        parallelcluster.install(node, role, self._head)
        node.write("/etc/apt/sources.list", f"deb [trusted=yes] {self.mirror.url}/apt ./\n")
        node.write("/etc/s3mount-agent/environment", self._environment(), mode=0o600)
        executor = Path(__file__).with_name("executor.py")
        node.write(EXECUTOR, executor.read_text(encoding="utf-8"), mode=0o755)
        self._roles[name] = role
        return node

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
