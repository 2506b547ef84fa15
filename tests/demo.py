"""`make demo`: the article's verification, on two simulated nodes, before your eyes.

Every command is run on a real systemd node and its output shown as it is; every line that the
article shows is checked, and the exit code is 0 only if all of them were there.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.cluster import Cluster
from cluster.node import Node
from cluster.systems import DEFAULT, SYSTEMS
from mount_s3_package import choose

BOOTSTRAP = Path(__file__).parents[1] / "dist/s3mount-bootstrap"
# The article's own arguments: section "クラスターのサンプルコンフィグ", head node and queue p1.
READ_ONLY = ["hpc-dev-mountpoint-sample-1", "/mnt/s3-readonly"]
WRITABLE = ["hpc-dev-mountpoint-sample-2", "/mnt/s3", "--allow-delete --allow-other"]
ARGS = {
    "head": [*READ_ONLY, "--allow-delete --allow-other", *WRITABLE],
    "compute": [*READ_ONLY, "--read-only --allow-other", *WRITABLE],
}
ACCESS = {"head": ("rw", "rw"), "compute": ("ro", "rw")}
UNITS = [
    r"mountpoint-s3-585e79a6\.service +loaded active running "
    r"Mount s3://hpc-dev-mountpoint-sample-2 at /mnt/s3$",
    r"mountpoint-s3-91ef1212\.service +loaded active running "
    r"Mount s3://hpc-dev-mountpoint-sample-1 at /mnt/s3-readonly$",
]
LISTINGS = {"/mnt/s3": ["YouCanLookThisFileFromS3.txt"]}
LISTINGS["/mnt/s3-readonly"] = ["YouCanLookThisFileFromS3.txt", "images", "reads"]
READY_SECONDS = "30"


class Show:
    """Runs commands on nodes before an audience, checks what they print, and keeps the time."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.checked = 0
        self._times: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def act(self, title: str) -> Iterator[None]:
        """Announces what comes, and takes its time."""
        print(f"\n== {title}", flush=True)
        began = time.monotonic()
        yield
        self._times.append((title, time.monotonic() - began))

    def run(self, node: Node, command: str, *expected: str, user: str | None = None) -> str:
        """Runs a command on a node, shows it, and checks that each pattern is on some line."""
        prompt = "#" if user is None else "$"
        print(f"\n{user or 'root'}@{node.name}:~{prompt} {command}", flush=True)
        result = node.run(["sh", "-c", command], user=user, check=False)
        print(result.stdout + result.stderr, end="", flush=True)
        self.check(
            f"`{command}` on {node.name} ended with {result.returncode}", result.returncode == 0
        )
        for pattern in expected:
            found = re.search(pattern, result.stdout, re.MULTILINE) is not None
            self.check(f"`{command}` on {node.name} shows {pattern}", found)
        return result.stdout

    def check(self, what: str, true: object) -> None:
        """Counts a check, and says at once if it fails."""
        self.checked += 1
        if not true:
            self.missing.append(what)
            print(f"!! NOT SO: {what}", flush=True)

    def close(self) -> int:
        """Prints the times and the verdict; the exit code."""
        print("\n== Timings")
        for title, seconds in self._times:
            print(f"{seconds:7.1f} s  {title}")
        for what in self.missing:
            print(f"not so: {what}")
        print(f"\n{self.checked - len(self.missing)} of {self.checked} checks passed")
        return 1 if self.missing else 0


def main(system: str = DEFAULT) -> int:
    """Plays the whole article on nodes of a system."""
    if system not in SYSTEMS:
        print(f"there is no {system}, only {', '.join(SYSTEMS)}", file=sys.stderr)
        return 2
    show = Show()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3mount-demo-")))
        chosen = choose(scratch)
        print(chosen.sentence, flush=True)
        print(f"nodes: {SYSTEMS[system].told}", flush=True)
        with show.act("A simulated cluster: an image (made once), a network, S3, a package mirror"):
            cluster = stack.enter_context(Cluster(chosen.path, BOOTSTRAP))
            cluster.seed_article()
        head, compute = (boot(show, cluster, role, system) for role in ("head", "compute"))
        with show.act("The head node's mounts"):
            verify(show, head, "head")
        with show.act("The compute node's mounts"):
            verify(show, compute, "compute")
        with show.act("An ordinary user writes on the compute node, the head reads it through S3"):
            exchange(show, cluster, head, compute)
        with show.act("The head node is stopped and started"):
            head.power_off()
            head.boot()
            verify(show, head, "head")
        with show.act("The compute node is rebooted"):
            compute.reboot()
            verify(show, compute, "compute")
    return show.close()


def boot(show: Show, cluster: Cluster, role: str, system: str) -> Node:
    """Boots a node and runs the bootstrap file on it as ParallelCluster does."""
    with show.act(f"The {role} node boots and runs s3mount-bootstrap"):
        node = cluster.node(role, role, system=system)
        node.boot()
        result = cluster.custom_action(node, ARGS[role])
        print(result.stdout + result.stderr, end="")
        show.check(f"s3mount-bootstrap ended with 0 on {role}", result.returncode == 0)
        return node


def verify(show: Show, node: Node, role: str) -> None:
    """What the article shows of a node: units, directories, mount table. And our own status."""
    wait = f"s3mount-agent status --wait {READY_SECONDS}"
    show.run(node, wait, "^ok: ", *(f"^  ok +{path} " for path in LISTINGS))
    show.run(node, "systemctl --no-pager --no-legend list-units 'mountpoint-s3-*'", *UNITS)
    for directory, names in LISTINGS.items():
        show.run(node, f"ls {directory}", *(f"^{name}$" for name in names))
    read_only, writable = ACCESS[role]
    show.run(
        node,
        "mount | grep mountpoint-s3",
        rf"^mountpoint-s3 on /mnt/s3-readonly type fuse \({read_only},.*allow_other",
        rf"^mountpoint-s3 on /mnt/s3 type fuse \({writable},.*allow_other",
    )


def exchange(show: Show, cluster: Cluster, head: Node, compute: Node) -> None:
    """A job's result, from a user's hands on one node to another node."""
    show.run(compute, "echo 'written by a job' > /mnt/s3/result.txt", user=head.system.user)
    stored = cluster.s3.get("hpc-dev-mountpoint-sample-2", "result.txt")
    show.check("the object is in the bucket", stored == b"written by a job\n")
    show.run(head, "cat /mnt/s3/result.txt", "^written by a job$", user=head.system.user)
    show.run(head, "rm /mnt/s3/result.txt", user=head.system.user)
    show.check(
        "the object is gone", "result.txt" not in cluster.s3.keys("hpc-dev-mountpoint-sample-2")
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
