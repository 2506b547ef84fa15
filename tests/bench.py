"""`make bench`: how long things take, each beside what it replaces, in the same run.

Prints medians and ratios, and beside them what was aimed at. Words choose what is measured:
`bench.py looks idle`. There is no latency between the nodes and what they download from, so
that the ratios of a bootstrap are worse than on a real network, where downloads that run at the
same time save more.

What an idle node costs is measured beside monit, an ordinary daemon (in C) that has to do with file
systems and can be installed: it looks at the same 32 directories, in its packaged settings. The
watchdogs of other mount helpers are in no distribution's packages.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from cluster.cluster import Cluster
from cluster.node import Node
from mount_s3_package import choose
from node.live_site import Site, document
from s3mount_agent.config.configuration import Configuration

BOOTSTRAP = Path(__file__).parents[1] / "dist/s3mount-bootstrap"
ROUNDS = 5
LOOKS = 20
CHANGES = 7
MANY = 8
DELAY_SECONDS = 0.5
IDLE = [f"/mnt/idle/{number}" for number in range(32)]
# From half a minute after its start on, the daemon does each thing that it does of itself at least
# once in this time, five looks at all mounts, one at S3 and one at the node.
SETTLE_SECONDS = 30
IDLE_SECONDS = 300
ASK_EVERY_SECONDS = Configuration().refresh
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

PASS = ["/usr/bin/python3", "-I", "-c", "pass"]
# Runs each of some commands once, as often as it is told, and prints their times.
IN_TURN = """
import json, subprocess, sys, time
rounds, commands = int(sys.argv[1]), json.loads(sys.argv[2])
times = [[] for _ in commands]
for _ in range(rounds):
    for row, command in zip(times, commands):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        row.append(time.monotonic() - began)
print(json.dumps(times))
"""

# Of a unit: the processor time of all that ever ran in it, and the memory of what runs (PSS, RSS).
COST = """
group=/sys/fs/cgroup$(systemctl show --property=ControlGroup --value "$1")
sed -n 's/usage_usec //p' "$group/cpu.stat"
for pid in $(cat "$group/cgroup.procs"); do cat "/proc/$pid/smaps_rollup"; done |
    awk '/^Pss:/ { pss += $2 } /^Rss:/ { rss += $2 } END { print pss; print rss }'
"""

# What the daemon's child takes to ask the source.
ASKING = [
    "python3",
    "-c",
    "import resource as r, subprocess as s; s.run(['s3mount-agent', 'refresh'], check=True); "
    "used = r.getrusage(r.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)",
]


def main(words: list[str]) -> int:
    """Measures what was asked for, or everything, and prints a table."""
    unknown = set(words) - ROWS.keys()
    if unknown:
        sys.exit(f"bench.py measures {', '.join(ROWS)}, not {min(unknown)}")
    with tempfile.TemporaryDirectory(prefix="s3mount-bench-") as scratch:
        chosen = choose(Path(scratch))
        print(chosen.sentence, flush=True)
        with Cluster(chosen.path, BOOTSTRAP) as cluster:
            cluster.seed_article()
            for word in words or ROWS:
                ROWS[word](cluster, Path(scratch))
    return 0


def bench_bootstrap(cluster: Cluster, scratch: Path) -> None:
    """A bare node until two mounts can be used."""
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(on_new_node(cluster, f"agent{number}", lambda n: run_agent(cluster, n, TWO)))
        theirs.append(on_new_node(cluster, f"hand{number}", lambda n: by_hand(cluster, n, TWO)))
    aim = "a ratio of 1.5"
    told("bare node to two mounts", "s3mount-bootstrap", ours, "scripts by hand", theirs, aim)


def bench_parallel(cluster: Cluster, scratch: Path) -> None:
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


def bench_again(cluster: Cluster, scratch: Path) -> None:
    """The article's two mounts, with nothing to change. Beside a Python that does nothing."""
    node = cluster.node("again", "compute")
    node.boot()
    run_agent(cluster, node, TWO)
    script = shutil.copyfile(BOOTSTRAP, node.root / "root/s3mount-bootstrap")
    script.chmod(0o755)
    again = {
        "apply, nothing to do": ["s3mount-agent", "apply"],
        "bootstrap again, nothing to do": ["/root/s3mount-bootstrap", *arguments(TWO)],
        "python3 -I -c pass": PASS,
    }
    side_by_side(node, "with two mounts", again, CHANGES, ["0.19 s", "0.27 s"])


def bench_looks(cluster: Cluster, scratch: Path) -> None:
    """What costs nothing to change: a look at 32 mounts while one hangs, and, with all well, an
    apply and a second bootstrap. Each beside a Python that does nothing, on the node itself."""
    node = cluster.node("looks", "compute")
    node.boot()
    site = Site(cluster, node)
    site.bootstrap(document(*map(site.row, IDLE), refresh="1d"))
    script = shutil.copyfile(BOOTSTRAP, node.root / "root/s3mount-bootstrap")
    script.chmod(0o755)
    config = ["--config", site.source.url]
    looks = {
        "apply, nothing to do": ["s3mount-agent", "apply"],
        "bootstrap again, nothing to do": ["/root/s3mount-bootstrap", *config],
        "python3 -I -c pass": PASS,
    }
    side_by_side(node, f"with {len(IDLE)} mounts", looks, CHANGES, ["0.19 s", "0.27 s"])
    node.run(["pkill", "-STOP", "--oldest", "-x", "mount-s3"])
    looks = {
        "s3mount-agent status --json": ["s3mount-agent", "status", "--json"],
        "s3mount-agent status": ["s3mount-agent", "status"],
        "systemctl list-units": ["systemctl", "list-units", "mountpoint-s3-*"],
        "python3 -I -c pass": PASS,
    }
    aims = ["a ratio of 5", "a ratio of 5"]
    side_by_side(node, f"one look at {len(IDLE)} mounts, one of which hangs", looks, LOOKS, aims)


def side_by_side(
    node: Node, what: str, commands: dict[str, list[str]], rounds: int, aims: list[str]
) -> None:
    """Runs commands in turn, on the node; the first ones are compared with the last one, and with
    what was aimed at."""
    argv = ["python3", "-I", "-c", IN_TURN, str(rounds), json.dumps(list(commands.values()))]
    times = json.loads(node.run(argv, timeout=600).stdout)
    *names, last = commands
    for name, took, aim in zip_longest(names, times[:-1], aims):
        told(f"{what}: {name}", name, took, last, times[-1], aim)


def bench_idle(cluster: Cluster, scratch: Path) -> None:
    """What the daemon costs while nothing happens: processor time and memory."""
    node = cluster.node("idle", "compute")
    node.boot()
    site = Site(cluster, node)
    # The source is not asked meanwhile: that is measured by itself.
    site.bootstrap(document(*map(site.row, IDLE), refresh="1d"))
    units = ["s3mount-agent.service", *(["monit.service"] if with_monit(node, scratch) else [])]
    time.sleep(SETTLE_SECONDS)
    before = {unit: cost(node, unit) for unit in units}
    time.sleep(IDLE_SECONDS)
    after = {unit: cost(node, unit) for unit in units}
    for unit in units:
        share = (after[unit][0] - before[unit][0]) / IDLE_SECONDS
        pss, rss = (size / 1024 for size in after[unit][1:])
        print(
            f"idle with {len(IDLE)} mounts: {unit} takes {share:.3%} of one core; "
            f"PSS {pss:.1f} MiB, RSS {rss:.1f} MiB",
            flush=True,
        )
    asking = statistics.median(float(node.run(ASKING).stdout) for _ in range(ROUNDS))
    print(
        f"asking a source on S3, without news: {asking:.3f} s of processor time, "
        f"{asking / ASK_EVERY_SECONDS:.3%} of one core at the default of {ASK_EVERY_SECONDS} s",
        flush=True,
    )


def with_monit(node: Node, scratch: Path) -> bool:
    """Has monit look at the mounts, if this machine can download it."""
    fetched = subprocess.run(
        ["apt-get", "--quiet", "--quiet", "download", "monit"],
        cwd=scratch,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if fetched.returncode:
        print(f"monit cannot be measured: {fetched.stderr.strip()}", flush=True)
        return False
    (package,) = scratch.glob("monit_*.deb")
    shutil.copyfile(package, node.root / "root/monit.deb")
    checks = (f'check filesystem "{Path(path).name}" with path {path}\n' for path in IDLE)
    node.write("/etc/monit/conf.d/idle", "".join(checks))
    node.run(["dpkg", "--force-unsafe-io", "--install", "/root/monit.deb"])
    return True


def cost(node: Node, unit: str) -> tuple[float, int, int]:
    """Seconds of processor time that a unit has used, and its KiB of PSS and RSS."""
    used, pss, rss = node.run(["sh", "-c", COST, "sh", unit]).stdout.split()
    return int(used) / 1e6, int(pss), int(rss)


def arguments(mounts: dict[str, str]) -> list[str]:
    """The Args of some mounts."""
    return [word for bucket, directory in mounts.items() for word in (bucket, directory, OPTIONS)]


def run_agent(cluster: Cluster, node: Node, mounts: dict[str, str]) -> None:
    """The bootstrap file, as ParallelCluster calls it."""
    result = cluster.custom_action(node, arguments(mounts))
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


def told(
    what: str, a: str, times: list[float], b: str, others: list[float], aim: str | None = None
) -> None:
    """One line: both medians, the median of the ratios pair by pair, and what was aimed at."""
    ratio = statistics.median(x / y for x, y in zip(times, others))
    print(
        f"{what}: {a} {statistics.median(times):.3f} s, {b} {statistics.median(others):.3f} s, "
        f"ratio {ratio:.2f} (median of {len(times)} pairs)" + (f"; aim: {aim}" if aim else ""),
        flush=True,
    )


ROWS = {
    "bootstrap": bench_bootstrap,
    "again": bench_again,
    "parallel": bench_parallel,
    "looks": bench_looks,
    "idle": bench_idle,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
