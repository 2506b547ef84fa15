"""Several programs that want to change a node's mounts at once: one does, the others wait."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from cluster.cluster import Cluster
from node.article import mounted
from node.conftest import NewNode
from node.live_site import LOCK, SEEN, Site, document, locked, until

pytestmark = pytest.mark.node

KEPT, FIRST, SECOND, THIRD = "/mnt/kept", "/mnt/first", "/mnt/second", "/mnt/third"
# As an agent that does not want to wait for minutes.
IMPATIENT = """
import sys
sys.path.insert(0, "/opt/s3mount-agent/current/lib")
from s3mount_agent.filesystem import lock
from s3mount_agent import cli
def work():
    with lock.hold("a test", timeout=0.2):
        return 0
sys.exit(cli.guarded(work))
"""


@pytest.fixture(scope="module", params=["head", "compute"])
def site(cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest) -> Site:
    """A node of each role with one mount."""
    site = Site(cluster, new_ready_module_node(request.param))
    site.bootstrap(document(site.row(KEPT)))
    return site


def test_applies_at_once_end_as_one(site: Site) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    pids, mark = site.pids(), site.mark()
    site.source.put(document(*(site.row(each) for each in (KEPT, FIRST, SECOND, THIRD))))
    argv = ["s3mount-agent", "apply", "--now"]
    running = [site.node.popen(argv) for _ in range(3)]
    site.node.run(["systemctl", "reload", "s3mount-agent"])  # and the daemon, too
    for each in running:
        stdout, stderr = each.communicate(timeout=200)
        assert each.returncode == 0, stdout
        assert all("lock: another program" in line for line in stderr.splitlines()), stderr
        assert "4 of 4 mounts are up" in stdout
    site.await_mounts(KEPT, FIRST, SECOND, THIRD)
    now = site.pids()
    assert now[KEPT] == pids[KEPT]
    events = [event for event in site.events(mark) if event[0] != "refresh"]
    assert sorted(events) == [("start", each, "done") for each in (FIRST, SECOND, THIRD)]
    started = site.node.run(
        ["journalctl", "--no-pager", "-o", "json", "-u", site.unit(FIRST), "_PID=1"]
    ).stdout
    messages = [json.loads(line)["MESSAGE"] for line in started.splitlines()]
    assert len([message for message in messages if message.startswith("Started ")]) == 1
    assert site.agent("plan").stdout.startswith("Nothing to change")
    assert site.node.read(f"{THIRD}/{SEEN}") == "seen\n"


def test_who_has_to_wait_is_told_for_whom(site: Site) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    pids = site.pids()
    with contextlib.ExitStack() as stack:
        with locked(site.node):
            holder = site.node.read(LOCK).strip()
            assert re.fullmatch(r"a test, pid \d+, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", holder)
            gave_up = site.node.run(["python3", "-I", "-c", IMPATIENT], check=False)
            assert gave_up.returncode == 1
            assert gave_up.stderr.splitlines() == [
                f"s3mount-agent: error [locked]: another program changes the mounts: {holder}",
                f"  cause: {LOCK} is locked",
                "  hint: wait for it to end, then run again",
            ]
            waiting = stack.enter_context(site.node.popen(["s3mount-agent", "apply"]))
            assert waiting.stdout is not None
            told = next(iter(waiting.stdout.readline, ""), "")
            assert "[ wait ] lock: " in told
            assert f"another program changes the mounts: {holder} (until " in told
        stdout, stderr = waiting.communicate(timeout=200)
        assert (waiting.returncode, stderr) == (0, ""), stdout
    assert site.pids() == pids
    until(lambda: site.node.read(LOCK) == "", lambda: site.node.read(LOCK))


def test_a_dead_mount_is_back_while_apply_waits_for_another_one(
    site: Site, cluster: Cluster
) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    before, away = site.pids()[KEPT], "live-away"
    cluster.s3.create_bucket(away)
    cluster.s3.fault(away, status=503)
    row = {"bucket": away, "directory": FIRST, "options": "--allow-other"}
    site.source.put(document(site.row(KEPT), row))
    with site.node.popen(["s3mount-agent", "apply", "--now"]) as apply:
        assert apply.stdout is not None
        lines = iter(apply.stdout.readline, "")
        assert any(f"[ wait ] {FIRST}: " in line for line in lines)
        site.node.run(["kill", "-KILL", str(before)])
        until(lambda: (site.mount(KEPT).get("pid") or before) != before)
        until(lambda: site.mount(KEPT).get("state") == "ok")
        assert apply.poll() is None  # it still waits
        waits = ["s3mount-agent", "status", "--json", "--wait", "4"]
        late = site.node.run(waits, check=False)
        assert late.returncode == 4
        states = {each["path"]: each["state"] for each in json.loads(late.stdout)["mounts"]}
        assert (states[KEPT], states[FIRST] in ("retrying", "starting")) == ("ok", True)
        told = rf"s3mount-agent: waiting for {FIRST} \((retrying|starting)\) \(until "
        assert re.match(told, late.stderr)
        cluster.s3.heal(away)
        stdout, stderr = apply.communicate(timeout=200)
        assert (apply.returncode, stderr) == (0, ""), stdout
    assert f"{FIRST} <- s3://{away}  mounted rw" in stdout
    site.await_mounts(KEPT, FIRST)


def test_what_was_taken_down_meanwhile_is_not_started_again(site: Site, cluster: Cluster) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    away = "live-away-too"
    cluster.s3.create_bucket(away)
    cluster.s3.fault(away, status=503)
    row = {"bucket": away, "directory": SECOND, "options": "--allow-other"}
    site.source.put(document(site.row(KEPT), row))
    with site.node.popen(["s3mount-agent", "apply", "--now"]) as apply:
        assert apply.stdout is not None
        lines = iter(apply.stdout.readline, "")
        assert any(f"[ wait ] {SECOND}: " in line for line in lines)
        site.agent("unmount", SECOND)
        cluster.s3.heal(away)
        stderr = apply.communicate(timeout=200)[1]
        assert apply.returncode == 1
    assert f"{SECOND} was changed by another program before it was up" in stderr
    assert site.mount(SECOND)["reason"] == "an administrator unmounted it"
    assert SECOND not in mounted(site.node)


def test_what_ctrl_c_leaves_to_the_agent_is_brought_up_by_it(site: Site, cluster: Cluster) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    away = "live-away-at-last"
    cluster.s3.create_bucket(away)
    cluster.s3.fault(away, status=503)
    row = {"bucket": away, "directory": THIRD, "options": "--allow-other"}
    site.source.put(document(site.row(KEPT), row))
    impatient = ["timeout", "-s", "INT", "8", "s3mount-agent", "apply", "--now"]
    answer = site.node.run(impatient, check=False)
    assert "; Ctrl-C leaves it to the agent)" in answer.stdout
    assert "interrupted: the agent's service goes on with it" in answer.stderr
    cluster.s3.heal(away)
    site.await_mounts(KEPT, THIRD)


def test_the_lock_of_a_killed_apply_is_free(site: Site, cluster: Cluster) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    with site.node.popen(["s3mount-agent", "apply"]) as killed:
        until(lambda: "apply, pid " in site.node.read(LOCK) or killed.poll() is not None)
        killed.kill()
    site.set(document(site.row(KEPT), site.row(SECOND)))
    site.await_mounts(KEPT, SECOND)


def test_apply_waits_for_a_mount_that_the_daemon_has_begun_to_start(
    site: Site, cluster: Cluster
) -> None:
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    slow = "live-slowest"
    cluster.s3.create_bucket(slow)
    cluster.s3.fault(slow, status=200, delay=6)
    row = {"bucket": slow, "directory": THIRD, "options": "--allow-other"}
    site.edit(document(site.row(KEPT), row))
    until(lambda: site.mount(THIRD).get("state") == "starting", lambda: site.mount(THIRD))
    answer = site.agent("apply")
    cluster.s3.heal(slow)
    assert THIRD in mounted(site.node), answer.stdout  # it is there when apply says so
    assert f"{THIRD} <- s3://{slow}  mounted rw" in answer.stdout
    assert f"[ wait ] {THIRD}: mount-s3 is starting (attempt 1, until " in answer.stdout
    pids = site.pids()
    site.await_mounts(KEPT, THIRD)
    assert site.pids() == pids


def test_an_older_answer_never_replaces_a_newer_configuration(site: Site) -> None:
    """A bootstrap has asked the source, and waits for the lock; it goes on after somebody else."""
    site.set(document(site.row(KEPT)))
    site.await_mounts(KEPT)
    unit = "asking.service"

    def asking(what: str) -> str:
        shown = site.node.run(["systemctl", "show", f"--property={what}", "--value", unit])
        return shown.stdout.strip()

    def told() -> str:
        return site.node.run(["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout

    with locked(site.node):
        command = ["s3mount-agent", "bootstrap", "--config", site.source.url]
        site.node.run(["systemd-run", f"--unit={unit}", "--remain-after-exit", *command])
        until(lambda: "[ wait ] lock: " in told(), told)
        site.node.run(["systemctl", "kill", "--signal=STOP", unit])
    version = site.set(document(site.row(KEPT), site.row(FIRST)))
    site.node.run(["systemctl", "kill", "--signal=CONT", unit])
    until(lambda: asking("SubState") != "running", told)
    assert (asking("Result"), site.config()["version"]) == ("success", version), told()
    assert f"{FIRST} <- s3://{site.bucket}  mounted rw" in told()
    assert FIRST in mounted(site.node)
    site.node.run(["systemctl", "stop", unit])
