"""A mount that must change, or go, while a program uses it: wait, lazy and fail."""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster
from node.article import main_pid, mounted
from node.conftest import NewNode
from node.live_site import Site, document, until

pytestmark = pytest.mark.node

USED, OTHER = "/mnt/used", "/mnt/other"
RO, RW = "--read-only --allow-other", "--allow-delete --allow-other"
BUSY = f"{USED} is in use"


@pytest.fixture(scope="module", params=["head", "compute"])
def site(cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest) -> Site:
    """A node of each role."""
    site = Site(cluster, new_ready_module_node(request.param))
    site.bootstrap(document(site.row(USED, RO), site.row(OTHER)))
    return site


def start(site: Site, **top: object) -> tuple[int, int]:
    """Two mounts, one of them read-only; returns their processes."""
    site.set(document(site.row(USED, RO), site.row(OTHER), **top))
    site.await_mounts(USED, OTHER)
    pids = site.pids()
    return pids[USED], pids[OTHER]


def is_writable(site: Site) -> bool:
    """Whether the new options are in force: the kernel's own word."""
    return "rw" in mounted(site.node).get(USED, "").split(",")


def test_wait_is_pending_until_the_mount_is_free(site: Site) -> None:
    used, other = start(site)
    with site.in_use(USED) as reader:
        site.source.put(document(site.row(USED, RW), site.row(OTHER)))
        answer = site.agent("apply", "--now", code=4)
        assert "error [mount-busy]" in answer.stderr
        assert "sh (pid " in answer.stderr  # who uses it
        assert f"{USED} <- s3://{site.bucket}  pending: " in answer.stdout
        assert f" of {site.source.url} is in force\n" in answer.stdout
        assert "2 of 2 mounts answer" in answer.stdout
        assert BUSY in site.mount(USED)["pending"]
        assert (site.mount(USED)["state"], site.mount(USED)["pid"]) == ("ok", used)
        assert f"pending: its new options wait: {BUSY}" in site.agent("status", code=3).stdout
        assert site.agent("plan", code=4).stdout.startswith(f"  ~ {USED} ")
        assert not is_writable(site)
        assert reader.communicate("\n")[0] == "seen\n"  # it felt nothing, and ends now
    site.await_mounts(USED, OTHER)
    until(lambda: is_writable(site))
    assert site.pids()[OTHER] == other
    assert site.pids()[USED] != used
    site.agent("plan")


def test_wait_is_the_daemons_way_too_and_is_told_once(site: Site) -> None:
    used, other = start(site, health={"retry_at_most_every": "5s"})
    mark = site.mark()
    with site.in_use(USED):
        site.edit(
            document(site.row(USED, RW), site.row(OTHER), health={"retry_at_most_every": "5s"})
        )
        until(lambda: BUSY in site.mount(USED).get("pending", ""), lambda: site.mount(USED))
        for _ in range(4):  # each wakes the daemon, which looks at everything again
            site.ask()
        assert main_pid(site.node, site.unit(USED)) == used
    site.await_mounts(USED, OTHER)
    until(lambda: is_writable(site))
    assert site.pids()[OTHER] == other
    busy = [e for e in site.told(mark) if e["MESSAGE"] == BUSY]
    assert len(busy) == 1, f"told {len(busy)} times"
    assert ("start", USED, "done") in site.events(mark)


def test_lazy_tears_the_mount_away_at_once(site: Site) -> None:
    used, other = start(site)
    with site.in_use(USED) as reader:
        site.source.put(document(site.row(USED, RW, when_busy="lazy"), site.row(OTHER)))
        site.agent("apply", "--now")
        site.await_mounts(USED, OTHER)
        assert is_writable(site)
        assert "pending" not in site.mount(USED)
        assert site.pids()[OTHER] == other
        assert site.pids()[USED] != used
        stdout, stderr = reader.communicate("\n")
        assert stdout == ""
        assert reader.returncode != 0
        assert "cat: -: " in stderr
    assert site.pids()[USED] != used


def test_lazy_by_the_daemon(site: Site) -> None:
    used, other = start(site)
    with site.in_use(USED) as reader:
        site.edit(document(site.row(USED, RW), site.row(OTHER), when_busy="lazy"))
        until(lambda: is_writable(site))
        site.await_mounts(USED, OTHER)
        assert site.pids()[OTHER] == other
        assert site.pids()[USED] != used
        assert reader.communicate("\n")[0] == ""
        assert reader.returncode != 0


def test_fail_leaves_the_mount_and_says_so(site: Site) -> None:
    used, other = start(site)
    with site.in_use(USED) as reader:
        site.source.put(document(site.row(USED, RW, when_busy="fail"), site.row(OTHER)))
        answer = site.agent("apply", "--now", code=1)
        assert f"error [mount-busy]: {BUSY}" in answer.stderr
        assert site.pids() == {USED: used, OTHER: other}
        assert BUSY in site.mount(USED)["pending"]
        assert not is_writable(site)
        assert reader.communicate("\n")[0] == "seen\n"
    # Nothing waits for it; whoever asked asks again.
    site.agent("apply")
    assert is_writable(site)
    assert site.pids()[OTHER] == other


def test_a_removal_waits_too_and_shows_as_pending(site: Site) -> None:
    used, other = start(site)
    unit_file = site.unit_file(USED)
    with site.in_use(USED) as reader:
        site.edit(document(site.row(OTHER)))
        until(lambda: "removed" in site.mount(USED).get("pending", ""), lambda: site.mount(USED))
        assert site.mount(USED)["state"] == "ok"
        assert site.mount(USED)["read_only"] is True
        assert "pending: it is to be removed" in site.agent("status", code=3).stdout
        assert f"  - {USED}" in site.agent("plan", code=4).stdout
        # It is no longer configured, and yet it is a mount of this node.
        assert f"{USED} is in use" in site.agent("unmount", USED, code=1).stderr
        assert main_pid(site.node, site.unit(USED)) == used
        assert reader.communicate("\n")[0] == "seen\n"
    site.await_mounts(OTHER)
    assert site.pids() == {OTHER: other}
    site.require_gone(USED, unit_file)


def test_a_working_directory_is_a_use_and_a_change_taken_back_is_forgotten(site: Site) -> None:
    used, other = start(site)
    with site.node.popen(["sleep", "600"], cwd=USED) as inside:
        site.source.put(document(site.row(USED, RW), site.row(OTHER)))
        assert "sleep (pid " in site.agent("apply", "--now", code=4).stderr
        site.set(document(site.row(USED, RO), site.row(OTHER)))
        site.await_mounts(USED, OTHER)  # nothing waits any more
        inside.kill()
    site.agent("apply")
    assert site.pids() == {USED: used, OTHER: other}
