"""What is in force, whatever happens to the files: edits by hand, damage, and others at the same
time."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import main_pid, mounted, show, status
from node.conftest import NewNode
from node.live_site import CONFIG, Site, document, locked, until

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.node

ONE, TWO, NEW = "/mnt/one", "/mnt/two", "/mnt/new"
STATE, RUN = "/var/lib/s3mount-agent", "/run/s3mount-agent"


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_ready_module_node: NewNode) -> Site:
    """A compute node, on which nothing but the agent brings a mount back, with two mounts."""
    site = Site(cluster, new_ready_module_node("compute"))
    site.bootstrap(two(site))
    return site


def two(site: Site) -> str:
    return document(site.row(ONE), site.row(TWO))


def three(site: Site) -> str:
    return document(site.row(ONE), site.row(TWO), site.row(NEW))


def begin(site: Site) -> None:
    site.set(two(site))
    site.await_mounts(ONE, TWO)


def pending(site: Site) -> str:
    told: str = status(site.node).get("config", {}).get("pending", "")
    return told


def test_an_edit_waits_is_told_and_is_carried_out_by_nothing_in_passing(site: Site) -> None:
    begin(site)
    mark = site.mark()
    site.node.write(CONFIG, three(site))
    assert pending(site) == f"{CONFIG} was edited: `s3mount-agent apply` puts it in force"
    assert pending(site) in " ".join(site.agent("status").stdout.split())
    site.agent("refresh")  # nothing is new: it stays an edit
    site.agent("unmount", TWO)
    assert mounted(site.node).keys() == {ONE}
    assert site.agent("plan", code=4).stdout.count("  + ") == 2
    until(lambda: ("configuration", "", "edited") in site.events(mark), lambda: site.events(mark))
    assert NEW not in mounted(site.node)
    site.agent("apply")
    site.await_mounts(ONE, TWO, NEW)
    assert pending(site) == ""
    # By a restart of the service, too.
    site.node.write(CONFIG, two(site))
    site.node.run(["systemctl", "restart", "s3mount-agent"])
    site.await_mounts(ONE, TWO)
    assert pending(site) == ""


def test_with_a_broken_file_the_service_starts_at_once_with_the_last_good_one(site: Site) -> None:
    begin(site)
    pids, mark = site.pids(), site.mark()
    site.node.write(CONFIG, two(site) + "  quues: [p1]\n")
    wrong = f"{CONFIG}:{len(two(site).splitlines()) + 1}:3: "
    # It returns when the service says that it is ready, or after two minutes.
    with site.source.cut_off():  # or else it is taken for damaged, and fetched again
        site.node.run(["systemctl", "restart", "s3mount-agent"], timeout=60)
        assert show(site.node, "s3mount-agent", "ActiveState") == "active"
        assert wrong in pending(site)
        assert site.pids() == pids
        pid = str(main_pid(site.node, "s3mount-agent.service"))
        (told,) = (e for e in site.told(mark) if wrong in e["MESSAGE"] and e["_PID"] == pid)
        assert told["S3MOUNT_RESULT"] == "refused"
        refused = site.agent("apply", code=2)
        assert wrong in refused.stderr
        # A command that has nothing to do with it works by what is in force.
        site.agent("unmount", TWO)
        site.node.write(CONFIG, two(site))
        site.agent("apply")
    site.await_mounts(ONE, TWO)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted"])
def test_a_damaged_configuration_is_fetched_again_though_nothing_is_new(
    site: Site, damage: str
) -> None:
    begin(site)
    pids, mark = site.pids(), site.mark()
    text = site.node.read(CONFIG)
    if damage == "deleted":
        site.node.run(["rm", CONFIG])
    else:
        site.node.write(CONFIG, text[: len(text) // 2] if damage == "truncated" else "")
    assert pending(site)
    site.node.run(["systemctl", "reload", "s3mount-agent"])
    until(lambda: site.node.exists(CONFIG) and site.node.read(CONFIG) == text)
    assert pending(site) == ""
    assert site.pids() == pids
    assert any("was damaged" in e["MESSAGE"] for e in site.told(mark)) or damage == "deleted"


def test_a_damaged_configuration_is_no_news_to_apply_now(site: Site) -> None:
    begin(site)
    site.node.write(CONFIG, "mounts:\n- {bucket: b")
    site.agent("apply", "--now")
    assert site.node.read(CONFIG) == two(site)
    site.node.write(CONFIG, "mounts:\n- {bucket: b")
    with site.source.cut_off():
        refused = site.agent("apply", "--now", code=1)
    assert "could not be read: 403 AccessDenied; version " in refused.stderr
    site.agent("apply", "--now")


def test_damaged_state_ends_no_command_and_not_the_following_of_the_source(site: Site) -> None:
    begin(site)
    pids = site.pids()
    files = {
        f"{STATE}/origin.json": '{"url": 5}',
        f"{STATE}/made.json": '{"directories": 5}',
        f"{RUN}/status.json": '{"schema": 1, "at": 5, "node": [], "mounts": {}}',
        f"{RUN}/held.json": '{"a": 1}',
    }
    for path, text in files.items():
        site.node.write(path, text)
        for words in (["status"], ["status", "--json"], ["plan"], ["apply"]):
            answer = site.agent(*words)
            assert "internal" not in answer.stdout + answer.stderr
        assert not site.node.exists(path) or site.node.read(path) != text
        assert site.node.exists(f"{path}.bad") or path.endswith("held.json")  # apply clears it
    version = site.edit(two(site) + "# edited\n")
    site.await_version(version)
    # All of it is truncated, as after a bad day of the disk.
    for path in files:
        site.node.write(path, '{"')
    site.node.run(["systemctl", "restart", "s3mount-agent"])
    site.await_version(site.edit(two(site) + "# edited again\n"))
    site.await_mounts(ONE, TWO)
    assert site.pids() == pids
    json.loads(site.node.read(f"{STATE}/origin.json"))


def test_what_is_put_in_force_while_apply_waits_is_what_it_carries_out(site: Site) -> None:
    begin(site)
    with contextlib.ExitStack() as stack:
        with locked(site.node):
            waiting = stack.enter_context(site.node.popen(["s3mount-agent", "apply"]))
            assert waiting.stdout is not None
            assert waiting.stdout.readline().startswith("[ wait ] lock")
            site.node.write(CONFIG, three(site))
        stdout, stderr = waiting.communicate(timeout=120)
    assert (waiting.returncode, stderr) == (0, ""), stdout
    assert site.node.read(CONFIG) == three(site)
    site.await_mounts(ONE, TWO, NEW)


def test_a_slow_source_keeps_no_dead_mount_down(site: Site, cluster: Cluster) -> None:
    begin(site)
    before = site.pids()[ONE]
    cluster.s3.fault(site.source.bucket, status=200, delay=60)
    try:
        site.node.run(["systemctl", "reload", "s3mount-agent"])
        asking = ["pgrep", "-f", "s3mount-agent refresh"]
        until(lambda: site.node.run(asking, check=False).returncode == 0)
        site.node.run(["kill", "-KILL", str(before)])
        until(lambda: (site.mount(ONE).get("pid") or before) != before)
        until(lambda: site.mount(ONE).get("state") == "ok")
        assert site.node.run(asking, check=False).returncode == 0  # it asks still
    finally:
        cluster.s3.heal(site.source.bucket)


def test_apply_and_status_say_the_same_of_the_same_moment(site: Site, cluster: Cluster) -> None:
    begin(site)
    cluster.s3.fault(site.bucket)
    try:
        refused = site.agent("apply", code=1)
        now = site.mount(ONE)
        assert now["state"] == "degraded"
        assert now["reason"] in refused.stderr
        assert "[access-denied]" in refused.stderr
        # The service, which has been woken, says nothing else.
        time.sleep(2)
        assert site.mount(ONE)["reason"] == now["reason"]
    finally:
        cluster.s3.heal(site.bucket)
    site.agent("apply")
    until(lambda: site.mount(ONE)["state"] == "ok")


def test_why_a_mount_did_not_come_up_is_the_same_for_apply_and_status(site: Site) -> None:
    begin(site)
    row = {"bucket": "live-no-such-bucket", "directory": NEW, "options": "--allow-other"}
    site.source.put(document(site.row(ONE), site.row(TWO), row))
    refused = site.agent("apply", "--now", code=1)
    assert "[bucket-missing]" in refused.stderr
    for _ in range(8):  # the service has been woken, and tries at once
        now = site.mount(NEW)
        assert now["state"] == "failed"
        assert now["reason"] in refused.stderr
        time.sleep(0.25)
    begin(site)
