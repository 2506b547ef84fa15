"""Mounts added, changed and removed on a living node by an edit of one object on S3."""

from __future__ import annotations

import itertools

import pytest

from cluster.cluster import Cluster
from node.article import main_pid, mounted, status
from node.conftest import NewNode
from node.live_site import CONFIG, SEEN, Site, document, until

pytestmark = pytest.mark.node

KEPT, CHANGED, OLD, NEW = "/mnt/kept", "/mnt/changed", "/mnt/old/deep", "/mnt/new/deep"
NUMBERS = itertools.count()
RO, RW = "--allow-other --read-only", "--allow-delete --allow-other"


@pytest.fixture(scope="module", params=["head", "compute"])
def site(cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest) -> Site:
    """A node of each role with three mounts."""
    site = Site(cluster, new_ready_module_node(request.param))
    site.bootstrap(before(site, refresh="1d"))
    site.await_mounts(KEPT, CHANGED, OLD)
    return site


def before(site: Site, **top: object) -> str:
    """Where each test starts from."""
    return document(site.row(KEPT), site.row(CHANGED, RO), site.row(OLD), **top)


def after(site: Site, **top: object) -> str:
    """One mount is added, one changed, and one removed."""
    return document(site.row(KEPT), site.row(CHANGED, RW), site.row(NEW), **top)


def writable(site: Site, directory: str) -> bool:
    """Whether the cluster's user can write there, and it arrives.

    Each time another file, which is not empty: a second one of a name is refused, and an empty one
    arrives some time after it was closed.
    """
    name = f"written-{next(NUMBERS)}.txt"
    done = site.node.run(["tee", f"{directory}/{name}"], user="ubuntu", input="x", check=False)
    return done.returncode == 0 and name in site.cluster.s3.keys(site.bucket)


def test_an_edit_adds_changes_and_removes_in_time_by_itself(site: Site) -> None:
    # Asked once a day until now; from here on every ten seconds, and not a day later.
    site.await_version(site.edit(before(site, refresh="10s")))
    old_file, pids, mark = site.unit_file(OLD), site.pids(), site.mark()
    assert "ro" in mounted(site.node)[CHANGED].split(",")
    assert not writable(site, CHANGED)
    version = site.source.put(after(site))  # and nobody tells the node
    site.await_version(version)
    site.await_mounts(KEPT, CHANGED, NEW)
    now = site.pids()
    assert now[KEPT] == pids[KEPT]
    assert now[CHANGED] != pids[CHANGED]
    until(lambda: writable(site, CHANGED))
    assert site.node.read(f"{NEW}/{SEEN}") == "seen\n"
    site.require_gone(OLD, old_file)
    assert not site.node.exists("/mnt/old")  # the agent made that one, too
    assert site.node.exists("/mnt")
    # Each is told once, and nothing else is.
    assert sorted(site.events(mark)) == [
        ("refresh", "", "done"),
        ("start", CHANGED, "done"),
        ("start", NEW, "done"),
        ("stop", CHANGED, "done"),
        ("stop", OLD, "done"),
    ]


def test_each_kind_of_edit_on_its_own_when_the_service_is_reloaded(site: Site) -> None:
    site.set(document(site.row(KEPT), site.row(CHANGED, RO)))
    site.await_mounts(KEPT, CHANGED)
    pids = site.pids()
    site.edit(document(site.row(KEPT), site.row(CHANGED, RO), site.row(NEW)))
    site.await_mounts(KEPT, CHANGED, NEW)
    added = site.pids()
    assert (added[KEPT], added[CHANGED]) == (pids[KEPT], pids[CHANGED])
    site.edit(document(site.row(KEPT), site.row(CHANGED, RW), site.row(NEW)))
    until(lambda: not site.mount(CHANGED).get("read_only", True))
    site.await_mounts(KEPT, CHANGED, NEW)
    changed = site.pids()
    assert (changed[KEPT], changed[NEW]) == (pids[KEPT], added[NEW])
    unit_file = site.unit_file(NEW)
    version = site.edit(document(site.row(KEPT), site.row(CHANGED, RW)))
    site.await_mounts(KEPT, CHANGED)
    removed = site.pids()
    assert (removed[KEPT], removed[CHANGED]) == (pids[KEPT], changed[CHANGED])
    site.require_gone(NEW, unit_file)
    assert site.config() == {"source": site.source.url, "version": version}
    assert site.agent("plan").stdout.startswith("Nothing to change")


def test_an_edit_that_changes_no_mount_touches_none(site: Site) -> None:
    """Comments, the order of mounts and keys, another way to write the same options."""
    site.set(before(site))
    site.await_mounts(KEPT, CHANGED, OLD)
    pids, mark = site.pids(), site.mark()
    same = "# reviewed\n" + document(
        {"directory": OLD, "bucket": site.bucket, "allow_other": True},
        {"directory": CHANGED, "bucket": site.bucket, "read_only": True, "options": "--allow-other",
         "roles": {"login": {"read_only": False, "allow_delete": True}}},
        site.row(KEPT, on=["head", "compute"]),
    )  # fmt: skip
    site.await_version(site.edit(same))
    site.agent("apply")
    assert site.node.read(CONFIG) == same
    assert site.pids() == pids
    assert site.events(mark) == [("refresh", "", "done")]


def test_an_edit_during_a_crash_of_the_daemon_is_not_lost(site: Site) -> None:
    site.set(before(site))
    site.await_mounts(KEPT, CHANGED, OLD)
    pids = site.pids()
    site.node.run(["systemctl", "stop", "s3mount-agent"])
    version = site.source.put(after(site))
    site.agent("apply", "--now")  # which starts it again
    site.await_mounts(KEPT, CHANGED, NEW)
    assert site.pids()[KEPT] == pids[KEPT]
    assert main_pid(site.node, "s3mount-agent.service") > 0
    site.await_version(version)


def test_a_bucket_exchanged_for_another_on_the_same_directory(site: Site, cluster: Cluster) -> None:
    site.set(before(site))
    site.await_mounts(KEPT, CHANGED, OLD)
    pids = site.pids()
    cluster.s3.create_bucket("live-other")
    cluster.s3.put("live-other", "other.txt", b"other\n")
    other = {"bucket": "live-other", "directory": CHANGED, "options": RW}
    site.edit(document(site.row(KEPT), other, site.row(OLD)))
    until(lambda: site.mount(CHANGED).get("bucket") == "live-other", lambda: status(site.node))
    site.await_mounts(KEPT, CHANGED, OLD)
    assert site.node.read(f"{CHANGED}/other.txt") == "other\n"
    now = site.pids()
    assert (now[KEPT], now[OLD]) == (pids[KEPT], pids[OLD])
    units = site.node.run(["systemctl", "list-units", "--plain", "--no-legend", "mountpoint-s3-*"])
    assert len(units.stdout.splitlines()) == 3
