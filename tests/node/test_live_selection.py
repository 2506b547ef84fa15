"""One file for all nodes: which node gets what, as whose, with which share, and what is literal."""

from __future__ import annotations

import os

import pytest

from cluster.cluster import Cluster
from cluster.parallelcluster import LOGIN_POOL, QUEUE
from node.article import main_pid, mounted, show
from node.conftest import NewNode
from node.live_site import Row, Site, Source, document

pytestmark = pytest.mark.node

RW = "--allow-delete --allow-other"
RESEARCHER = "researcher"


@pytest.fixture(scope="module")
def sites(cluster: Cluster, new_ready_module_node: NewNode) -> dict[str, Site]:
    """A node of each role; all follow one file."""
    source = Source(cluster)
    sites = {
        role: Site(cluster, new_ready_module_node(role), source)
        for role in ("head", "compute", "login")
    }
    for site in sites.values():
        site.node.run(["useradd", "--uid=4321", "--user-group", RESEARCHER])
        site.bucket = sites["head"].bucket
        site.bootstrap(document(site.row("/mnt/everywhere")))
    return sites


@pytest.fixture(params=["head", "compute"])
def site(sites: dict[str, Site], request: pytest.FixtureRequest) -> Site:
    """One of them."""
    return sites[request.param]


def words(site: Site, row: Row) -> list[str]:
    """The command line of a mount's process."""
    pid = main_pid(site.node, site.unit(str(row["directory"])))
    return site.node.read(f"/proc/{pid}/cmdline").split("\0")[:-1]


def test_the_same_file_gives_each_node_its_own_mounts(sites: dict[str, Site]) -> None:
    row = sites["head"].row
    text = document(
        row("/mnt/everywhere"),
        # The article's case: the same bucket, read-only on compute nodes and writable on the head.
        row("/mnt/article", roles={"compute": {"read_only": True}, "head": {"options": RW}}),
        row("/mnt/head", on="head"),
        row("/mnt/queue", on=["compute", "login"], queues=[QUEUE, "another"]),
        row("/mnt/pool", on="login", queues=LOGIN_POOL),
        row("/mnt/another", queues="another"),
    )
    version = sites["head"].source.put(text)
    expected = {
        "head": {"/mnt/everywhere", "/mnt/article", "/mnt/head"},
        "compute": {"/mnt/everywhere", "/mnt/article", "/mnt/queue"},
        "login": {"/mnt/everywhere", "/mnt/article", "/mnt/pool"},
    }
    for role, site in sites.items():
        site.agent("apply", "--now")
        site.await_mounts(*expected[role])
        site.await_version(version)
        access = mounted(site.node)["/mnt/article"].split(",")[0]
        assert access == ("ro" if role == "compute" else "rw")
        command = words(site, row("/mnt/article"))
        assert ("--allow-delete" in command) is (role == "head")
        assert ("--read-only" in command) is (role == "compute")
    # validate, anywhere, says the same.
    head = sites["head"]
    head.node.write("/root/all.yaml", text)
    told = head.agent("validate", "/root/all.yaml").stdout
    for role, directories in expected.items():
        where = {"head": "head", "compute": f"compute {QUEUE}", "login": f"login {LOGIN_POOL}"}
        for directory in directories:
            assert f"  {where[role]}: {directory} <- s3://{head.bucket}" in told


def test_files_belong_to_the_owner_that_is_named(site: Site) -> None:
    ours, theirs = site.row("/mnt/ours", RW), site.row("/mnt/theirs", RW, owner=RESEARCHER)
    site.set(document(ours, theirs))
    site.await_mounts("/mnt/ours", "/mnt/theirs")
    for directory, user in ("/mnt/ours", "ubuntu"), ("/mnt/theirs", RESEARCHER):
        owner = site.node.run(["stat", "-c", "%U %G", f"{directory}/seen.txt"]).stdout
        assert owner == f"{user} {user}\n"
        site.node.run(["touch", f"{directory}/{site.node.name}-{user}.txt"], user=user)
    pids = site.pids()
    # A user that this node does not have (a directory service may be out of order) is that mount's
    # trouble alone, and no reason to take it down.
    site.source.put(document(ours, site.row("/mnt/theirs", RW, owner="nobody-knows")))
    answer = site.agent("apply", "--now", code=1)
    assert "error [owner-unknown]: this node has no user 'nobody-knows'" in answer.stderr
    assert site.pids() == pids
    site.agent("apply", code=1)
    site.node.run(["systemctl", "restart", "s3mount-agent"])
    site.agent("status", "--wait", "60")
    assert site.pids() == pids
    site.set(document(ours))
    site.await_mounts("/mnt/ours")


def test_the_environment_reaches_mount_s3_and_only_what_may(site: Site) -> None:
    row = site.row("/mnt/everywhere")
    site.set(document(row))
    site.await_mounts("/mnt/everywhere")
    site.set(document(row, environment={"AWS_MAX_ATTEMPTS": 7, "NO_PROXY": "a b,$HOME,%n,'\""}))
    site.await_mounts("/mnt/everywhere")
    pid = main_pid(site.node, site.unit("/mnt/everywhere"))
    variables = dict(
        entry.split("=", 1) for entry in site.node.read(f"/proc/{pid}/environ").split("\0")[:-1]
    )
    assert variables["AWS_MAX_ATTEMPTS"] == "7"
    assert variables["NO_PROXY"] == "a b,$HOME,%n,'\""
    assert "LD_PRELOAD" not in variables
    pids = site.pids()
    for name in ("LD_PRELOAD", "PATH", "AWS_SECRET_ACCESS_KEY", "AWS_MAX_ATTEMPTS=1 LD_PRELOAD"):
        site.source.put(document(row, environment={name: "/tmp/evil.so"}))
        site.agent("apply", "--now", code=2)
        problem = site.config()["problem"]
        assert "one of AWS_REGION, " in problem or f"{name} is a secret" in problem
    assert site.pids() == pids


def memory_max(site: Site, directory: str) -> int | None:
    """The limit of a mount in MiB, None for none: systemd's word, and the kernel's."""
    told = show(site.node, site.unit(directory), "MemoryMax")
    limit = None if told == "infinity" else int(told) >> 20
    group = show(site.node, site.unit(directory), "ControlGroup")
    path = f"/sys/fs/cgroup{group}/memory.max"
    if site.node.exists(path):  # not where this machine keeps the controller to itself
        real = site.node.read(path).strip()
        assert real == ("max" if limit is None else str(limit << 20))
    return limit


def knows_targets(cluster: Cluster) -> bool:
    """Whether the mount-s3 of this run can be told what memory to aim at."""
    return tuple(map(int, cluster.version.split(".")[:2])) >= (1, 24)


def targets(site: Site, weights: dict[str, int], percent: int) -> dict[str, int | None]:
    """What each mount should aim at in MiB, None where it cannot be told."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    budget, total = memory * percent // 100, sum(weights.values())
    if not knows_targets(site.cluster):
        return dict.fromkeys(weights)
    found = {directory: budget * weight // total for directory, weight in weights.items()}
    assert min(found.values()) >= 512, "this machine is too small for this test"
    return dict(found)


def target(site: Site, directory: str) -> int | None:
    """What a mount's process was told to aim at, in MiB."""
    told = [w for w in words(site, site.row(directory)) if w.startswith("--memory-target=")]
    return int(told[0].partition("=")[2]) if told else None


def net(mib: int | None) -> int | None:
    """The limit that goes with a target."""
    return None if mib is None else mib + max(512, mib // 2)


def test_memory_is_divided_by_weight_and_a_running_process_keeps_its_limit(site: Site) -> None:
    def text(weights: dict[str, int]) -> str:
        rows = (site.row(directory, weight=weight) for directory, weight in weights.items())
        return document(*rows, memory_percent=60)

    two, three = {"/mnt/light": 1, "/mnt/heavy": 3}, {"/mnt/light": 1, "/mnt/heavy": 3, "/mnt/x": 4}
    site.set(text(two))
    site.await_mounts(*two)
    told = targets(site, two, 60)
    assert {each: target(site, each) for each in two} == told
    before = {each: memory_max(site, each) for each in two}
    assert before == {each: net(mib) for each, mib in told.items()}
    pids = site.pids()
    site.edit(text(three))
    site.await_mounts(*three)
    assert memory_max(site, "/mnt/x") == net(targets(site, three, 60)["/mnt/x"])
    # It has fitted its buffers into the old limit, and would be killed by a lower one.
    assert {each: memory_max(site, each) for each in two} == before
    now = site.pids()
    assert {each: now[each] for each in two} == pids


def test_bandwidth_is_divided_and_does_not_restart_what_runs(site: Site) -> None:
    one, two = site.row("/mnt/one"), site.row("/mnt/two")
    site.set(document(one, bandwidth_gbps=10))
    site.await_mounts("/mnt/one")
    assert "--maximum-throughput-gbps=10" in words(site, one)
    pid = site.pids()["/mnt/one"]
    site.set(document(one, two, bandwidth_gbps=10))
    site.await_mounts("/mnt/one", "/mnt/two")
    assert "--maximum-throughput-gbps=5" in words(site, two)
    assert site.pids()["/mnt/one"] == pid
    assert site.agent("plan").stdout.startswith("Nothing to change")


def test_more_mounts_than_memory_are_refused_with_the_arithmetic(
    site: Site, cluster: Cluster
) -> None:
    site.node.write(
        "/root/many.yaml", document(site.row("/mnt/a"), site.row("/mnt/b"), memory_percent=1)
    )
    answer = cluster.custom_action(site.node, ["--config", "/root/many.yaml"])
    assert answer.returncode == 2
    assert "[shares-impossible]: 2 mounts need 2 x 512 = 1024 MiB, but may have" in answer.stderr
    assert "(1 % of " in answer.stderr


HOSTILE = (
    "/mnt/with a space",
    "/mnt/$HOME ${PATH} $(id) `id`",
    "/mnt/%n%i%%h",
    "/mnt/'single' \"double\"",
    "/mnt/a;b & c | d > e",
    "/mnt/#hash: {a: b} [*?] @COMMAND@ é",
)


def test_hostile_names_are_taken_as_they_are(site: Site, cluster: Cluster) -> None:
    prefix = "a b/$HOME %n;'\"/"
    cluster.s3.put(site.bucket, f"{prefix}deep.txt", b"deep\n")
    rows = [site.row(directory) for directory in HOSTILE]
    rows[0] = site.row(HOSTILE[0], options="--allow-other", prefix=prefix)
    pids_before = site.node.run(["ls", "/"]).stdout
    site.set(document(*rows))
    site.await_mounts(*HOSTILE)
    assert site.node.read(f"{HOSTILE[0]}/deep.txt") == "deep\n"
    for directory, row in zip(HOSTILE[1:], rows[1:]):
        assert site.node.read(f"{directory}/seen.txt") == "seen\n"
        command = words(site, row)
        assert command[-1] == directory
        assert command[-2] == site.bucket
    assert f"--prefix={prefix}" in words(site, rows[0])
    described = show(site.node, site.unit(HOSTILE[2]), "Description")
    assert described == f"Mount s3://{site.bucket} at {HOSTILE[2]}"
    units = [site.unit_file(directory) for directory in HOSTILE]
    quiet = site.node.run(["systemd-analyze", "verify", *units], check=False)
    assert [line for line in quiet.stderr.splitlines() if "mountpoint-s3-" in line] == []
    # After a reboot, too; and they go as they came.
    site.node.reboot()
    site.agent("status", "--wait", "60")
    site.await_mounts(*HOSTILE)
    site.set(document(site.row("/mnt/everywhere")))
    site.await_mounts("/mnt/everywhere")
    for directory, unit in zip(HOSTILE, units):
        site.require_gone(directory, unit)
    assert site.node.run(["ls", "/"]).stdout == pids_before
