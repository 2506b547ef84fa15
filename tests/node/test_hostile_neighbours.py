"""What an ordinary user of a node does with file systems and namespaces of his own, and what a node
has lost, keeps nobody else's mount from coming back, and no command from answering."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node import strange_fuse
from node.article import AGENT_UNIT, mounted, show, states
from node.conftest import NewNode
from node.live_site import SEEN, Site, document, until

if TYPE_CHECKING:
    from cluster.command import Command
    from cluster.node import Node

pytestmark = pytest.mark.node

USER, HOME = "ubuntu", "/home/ubuntu"
USED, OTHER = "/mnt/used", "/mnt/other"
CONF = "/etc/fuse.conf"
QUICK = {"look_every": "5s", "hung_after": "10s", "retry_at_most_every": "5s"}
# A site's own choice, which stays: no other user sees what he mounts.
CHOSEN = "# user_allow_other is not wanted here\nmount_max = 100\n"
# Two thousand mounts below one, which go with it.
MANY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for number in range(2000):
    place = f"/srv/many/{number}"
    os.mkdir(place)
    if libc.mount(b"many", place.encode(), b"tmpfs", 0, b"size=4k,nr_inodes=2"):
        raise OSError(ctypes.get_errno(), place)
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_ready_module_node: NewNode) -> Site:
    """A head node with two mounts whose site keeps its own /etc/fuse.conf."""
    site = Site(cluster, new_ready_module_node("head"))
    site.node.write(CONF, CHOSEN)
    site.bootstrap(text(site))
    return site


def text(site: Site, *more: str) -> str:
    rows = [site.row(directory) for directory in (USED, OTHER, *more)]
    return document(*rows, health=QUICK, install={"fuse_conf": "leave"})


@pytest.fixture
def node(site: Site) -> Iterator[Node]:
    """The node, on which from here on users may show their mounts to others; afterwards all is well
    again by itself, and the mount that was used was never started anew."""
    site.node.write(CONF, "user_allow_other\n")
    before = site.mount(USED)["pid"]
    yield site.node
    site.await_mounts(USED, OTHER)
    assert site.mount(USED)["pid"] == before


@contextlib.contextmanager
def covered(node: Node, directory: str, *how: str) -> Iterator[Command]:
    """A user's own file system lies on a directory and hangs for as long as this lasts."""
    line = ["python3", "-c", strange_fuse.USERS, directory, ",allow_other", *how]
    with node.popen(line, user=USER, stdin=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "mounted\n", server.communicate()
        try:
            yield server
        finally:
            node.run(["umount", "-l", directory])
            server.kill()


def await_other(site: Site) -> None:
    """Kills the mount that nobody touches, and waits until it is back."""
    before = site.mount(OTHER)["pid"]
    site.node.run(["kill", f"-{signal.SIGKILL}", str(before)])

    def back() -> bool:
        now = site.mount(OTHER)
        return now["state"] == "ok" and now["pid"] not in (None, before)

    until(back, lambda: (site.mount(OTHER), site.told()[-5:]))
    assert site.node.run(["cat", f"{OTHER}/{SEEN}"]).stdout == "seen\n"


def require_answers(site: Site, *commands: str) -> None:
    """Each command answers, with whatever it has to say; node.run() waits for a minute at most."""
    for command in commands:
        answer = site.node.run(["s3mount-agent", *command.split()], check=False)
        assert answer.returncode in (0, 1, 2, 3, 4), (command, answer.stderr)
        assert "[internal]" not in answer.stderr


def waiting(node: Node) -> list[str]:
    """The programs that wait for a file system."""
    lines = node.run(["ps", "-eo", "state,wchan:30,args"]).stdout.splitlines()
    return [line for line in lines if line.startswith("D") or "fuse" in line.split()[1]]


def test_a_site_that_keeps_its_own_fuse_conf_has_the_same_mounts(site: Site) -> None:
    assert site.node.read(CONF) == CHOSEN
    site.await_mounts(USED, OTHER)
    assert site.node.run(["cat", f"{USED}/{SEEN}"], user=USER).stdout == "seen\n"
    site.agent("apply")
    site.node.run(["systemctl", "restart", AGENT_UNIT])
    site.await_mounts(USED, OTHER)
    assert site.node.read(CONF) == CHOSEN


def test_a_home_that_hangs_keeps_nobody_waiting(site: Site, node: Node) -> None:
    below = f"{HOME}/data"
    with covered(node, HOME):
        site.source.put(text(site, below))
        answer = node.run(["s3mount-agent", "apply", "--now"], check=False)
        assert answer.returncode == 2
        assert "[path-unsafe]" in answer.stderr
        assert HOME in answer.stderr
        for hook in ("prepare", "clean", "stop"):
            node.run(["s3mount-agent", "unit-hook", hook, below], check=False)
        require_answers(site, "apply", "plan", "status", "status --json")
        await_other(site)
        site.source.put(text(site))
        require_answers(site, "apply --now")
        ours = [line for line in waiting(node) if "s3mount-agent" in line]
        assert len(ours) <= 1, ours


def test_three_covers_that_hang_cost_the_mount_beneath_nothing(site: Site, node: Node) -> None:
    """It was ended as hung, and `unmount` took 81 s, ended it, and said that all was well."""
    before = site.mount(USED)["pid"]
    with contextlib.ExitStack() as covers:
        for _ in range(3):  # each answers the fusermount of the next
            covers.enter_context(covered(node, USED, "answering"))
        node.run(["pkill", "-STOP", "-u", USER, "-x", "python3"])
        until(lambda: site.mount(USED)["state"] == "foreign", lambda: site.mount(USED))
        require_answers(site, "plan", "apply", "status", "status --json")
        answer = site.agent("unmount", USED, code=1)
        assert "something else is mounted on" in answer.stderr
        await_other(site)
        node.run(["sleep", "20"])  # longer than a hang is watched
        assert site.mount(USED)["state"] == "foreign"
    site.agent("apply")
    assert site.mount(USED)["pid"] == before


def test_who_waits_for_a_cover_that_has_gone_says_nothing_of_ours(site: Site, node: Node) -> None:
    """The daemon's own look went into it, and hangs on when the cover is mounted no more."""
    before = site.mount(USED)["pid"]
    daemon = show(node, AGENT_UNIT, "MainPID")
    line = ["python3", "-c", strange_fuse.USERS, USED, ",allow_other"]
    with node.popen(line, user=USER, stdin=subprocess.PIPE) as server:
        assert server.stdout is not None
        # It looks first when it goes on, and sees then what lies there now.
        node.run(["kill", "-STOP", daemon])
        assert server.stdout.readline() == "mounted\n"
        node.run(["sleep", "6"])
        node.run(["kill", "-CONT", daemon])
        until(lambda: any("s3mount-agent" in line for line in waiting(node)))
        node.run(["umount", "-l", USED])
        node.run(["sleep", "15"])  # longer than a hang is watched
        assert (site.mount(USED)["state"], site.mount(USED)["pid"]) == ("ok", before)
        await_other(site)
        server.kill()


def test_a_copy_in_a_users_namespace_is_told_at_once(site: Site, node: Node) -> None:
    """`unmount` took 81 s, and then killed mount-s3."""
    line = ["unshare", "--user", "--map-root-user", "--mount", "sleep", "600"]
    with node.popen(line, user=USER) as idle:
        until(lambda: "sleep 600" in node.run(["ps", "-eo", "args"]).stdout)
        answer = site.agent("unmount", USED, code=1)
        assert re.search(r"sleep \(pid \d+\), in a mount namespace of its own", answer.stderr)
        assert USED in mounted(node)
        await_other(site)
        idle.kill()
    site.agent("apply")


def test_without_dbus_all_goes_on(site: Site, node: Node) -> None:
    node.run(["systemctl", "mask", "--runtime", "--now", "dbus.socket", "dbus.service"])
    try:
        await_other(site)
        require_answers(site, "status", "plan")
        site.agent("apply")
        site.agent("unmount", OTHER)
        site.agent("apply")
        site.await_mounts(USED, OTHER)
    finally:
        node.run(["systemctl", "unmask", "--runtime", "dbus.socket", "dbus.service"])
        node.run(["systemctl", "start", "dbus.socket"])


def test_where_nobody_sees_others_processes_all_goes_on(site: Site, node: Node) -> None:
    node.run(["mount", "-o", "remount,hidepid=2", "/proc"])
    try:
        assert node.run(["ls", "-d", "/proc/1"], user=USER, check=False).returncode != 0
        await_other(site)
        site.agent("apply")
        as_user = node.run(["s3mount-agent", "status", "--json"], user=USER, check=False)
        shown = json.loads(as_user.stdout)
        assert {each["path"]: each["state"] for each in shown["mounts"]} == states(node)
    finally:
        node.run(["mount", "-o", "remount,hidepid=0", "/proc"])


def test_a_run_without_inodes_keeps_no_mount_down(site: Site, node: Node) -> None:
    used = node.run(["df", "--output=iused", "/run"]).stdout.split()[-1]
    node.run(["mount", "-o", f"remount,nr_inodes={used}", "/run"])
    try:
        assert node.run(["touch", "/run/one-more"], check=False).returncode != 0
        before = site.mount(OTHER)["pid"]
        node.run(["kill", f"-{signal.SIGKILL}", str(before)])

        def back() -> bool:
            running = node.run(["pgrep", "-x", "mount-s3"], check=False).stdout.split()
            return len(running) == 2 and str(before) not in running and OTHER in mounted(node)

        until(back, lambda: (node.run(["ps", "-ef"]).stdout, site.told()[-5:]))
        require_answers(site, "status", "plan")
    finally:
        node.run(["mount", "-o", "remount,nr_inodes=800000", "/run"])


def test_two_thousand_mounts_elsewhere_delay_nothing(site: Site, node: Node) -> None:
    node.run(["mkdir", "-p", "/srv/many"])
    node.run(["mount", "-t", "tmpfs", "many", "/srv/many"])
    try:
        node.run(["python3", "-c", MANY])
        assert node.run(["cat", "/proc/self/mountinfo"]).stdout.count(" /srv/many/") == 2000
        await_other(site)
        require_answers(site, "status", "plan", "apply")
        assert show(node, AGENT_UNIT, "ActiveState") == "active"
    finally:
        node.run(["umount", "-l", "/srv/many"])
