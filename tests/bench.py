"""`make bench`: how long things take, each beside what it replaces, in the same run.

Prints medians and ratios. There is no latency between the nodes and what they download from, so
that the ratios of a bootstrap are worse than on a real network, where downloads that run at the
same time save more.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cluster.cluster import Cluster
from cluster.node import Node
from mount_s3_package import choose

BOOTSTRAP = Path(__file__).parents[1] / "dist/s3mount-bootstrap"
ROUNDS = 5
LOOKS = 20
MANY = 8
DELAY_SECONDS = 0.5
OPTIONS = "--allow-delete --allow-other"
TWO = {"hpc-dev-mountpoint-sample-1": "/mnt/s3-readonly", "hpc-dev-mountpoint-sample-2": "/mnt/s3"}
# What the scripts before us do on a node, one after the other, for the mounts in "$@".
BY_HAND = """
set -e
apt-get -qq update
apt-get -qq install --yes libfuse2 >/dev/null
python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' "$1" /tmp/mount-s3.deb
apt-get -qq install --yes /tmp/mount-s3.deb >/dev/null
shift
while [ $# -gt 0 ]; do
    mkdir -p "$2" && mount-s3 --allow-delete --allow-other "$1" "$2" >/dev/null && shift 2
done
"""


def main() -> int:
    """Measures everything and prints a table."""
    with tempfile.TemporaryDirectory(prefix="s3mount-bench-") as scratch:
        chosen = choose(Path(scratch))
        print(chosen.sentence, flush=True)
        with Cluster(chosen.path, BOOTSTRAP) as cluster:
            cluster.seed_article()
            bench_bootstrap(cluster)
            bench_parallel(cluster)
            bench_status(cluster)
    return 0


def bench_bootstrap(cluster: Cluster) -> None:
    """A bare node until two mounts can be used."""
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(on_new_node(cluster, f"agent{number}", lambda n: run_agent(cluster, n, TWO)))
        theirs.append(on_new_node(cluster, f"hand{number}", lambda n: by_hand(cluster, n, TWO)))
    told("bare node to two mounts", "s3mount-bootstrap", ours, "scripts by hand", theirs)


def bench_parallel(cluster: Cluster) -> None:
    """Several mounts while S3 takes its time, with everything installed."""
    mounts = {f"bench-bucket-{number}": f"/mnt/bench/{number}" for number in range(MANY)}
    for bucket in mounts:
        cluster.s3.create_bucket(bucket)
        cluster.s3.fault(bucket, status=200, delay=DELAY_SECONDS)
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        ours.append(on_new_node(cluster, f"a{number}", lambda n: run_agent(cluster, n, mounts)))
        theirs.append(on_new_node(cluster, f"h{number}", lambda n: by_hand(cluster, n, mounts)))
    cluster.s3.heal()
    what = f"bare node to {MANY} mounts, S3 answers after {DELAY_SECONDS} s"
    told(what, "s3mount-bootstrap", ours, "scripts by hand", theirs)


def bench_status(cluster: Cluster) -> None:
    """One look at a node's mounts."""
    node = cluster.node("status", "compute")
    node.boot()
    run_agent(cluster, node, TWO)
    commands = {
        "s3mount-agent status": ["s3mount-agent", "status", "--json"],
        "systemctl list-units": ["systemctl", "list-units", "mountpoint-s3-*"],
        "python3 -c pass": ["python3", "-I", "-c", "pass"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    nothing = []
    for _ in range(LOOKS):
        nothing.append(timed(lambda: node.run(["true"])))
        for name, command in commands.items():
            times[name].append(timed(functools.partial(node.run, command)))
    # Getting into the node costs the same for all: it is taken off.
    entering = statistics.median(nothing)
    ours, *others = ([each - entering for each in column] for column in times.values())
    for name, column in zip(list(commands)[1:], others):
        told("one look at two mounts", "s3mount-agent status", ours, name, column)


def run_agent(cluster: Cluster, node: Node, mounts: dict[str, str]) -> None:
    """The bootstrap file, as ParallelCluster calls it."""
    args = [word for bucket, directory in mounts.items() for word in (bucket, directory, OPTIONS)]
    result = cluster.custom_action(node, args)
    if result.returncode:
        raise RuntimeError(result.stdout + result.stderr)


def by_hand(cluster: Cluster, node: Node, mounts: dict[str, str]) -> None:
    """What was done before: no signature, no service, one mount after the other."""
    machine = node.run(["uname", "-m"]).stdout.strip()
    architecture = {"aarch64": "arm64"}.get(machine, machine)
    package = f"{cluster.mirror.url}/mountpoint-s3-release/latest/{architecture}/mount-s3.deb"
    settings = dict(
        line.split("=", 1) for line in node.read("/etc/s3mount-agent/environment").splitlines()
    )
    words = [word for pair in mounts.items() for word in pair]
    node.run(["sh", "-c", BY_HAND, "sh", package, *words], env=settings, timeout=300)


def on_new_node(cluster: Cluster, name: str, work: Callable[[Node], None]) -> float:
    """Seconds that some work takes on a node that has just booted."""
    node = cluster.node(name, "compute")
    try:
        node.boot()
        return timed(lambda: work(node))
    finally:
        node.close()


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def told(what: str, a: str, times: list[float], b: str, others: list[float]) -> None:
    """One line: both medians, and the median of the ratios pair by pair."""
    ratio = statistics.median(x / y for x, y in zip(times, others))
    print(
        f"{what}: {a} {statistics.median(times):.3f} s, {b} {statistics.median(others):.3f} s, "
        f"ratio {ratio:.2f} (median of {len(times)} pairs)",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
