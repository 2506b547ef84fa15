"""What an ordinary user of a node, or a configuration, tries with paths: he gains nothing, and
nobody else's mount is delayed.

Each of these gave root, or files of root's, at 12edeff.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from node.article import eventually, mounted, show, states
from node.live_site import PATIENCE, SEEN, Site, document, until

if TYPE_CHECKING:
    from cluster.cluster import Cluster
    from cluster.node import Node
    from node.conftest import NewNode

pytestmark = pytest.mark.node

PAGE = Path(__file__).parents[2] / "docs/security.md"
USER = "ubuntu"
OTHER = "/mnt/s3"
PRECIOUS = "/root/precious"
FIGURES = "/var/lib/collector/s3mount.prom"
# As fast as it can, a name is a directory of the user's, nothing, and a link to root's home.
RACE = """
cd "$(dirname "$1")" || exit
while :; do
    mv -T "$1" "$1.away"; ln -s "$2" "$1"; rm -f "$1"; mkdir "$1"; rm -rf "$1.away"; rmdir "$1"
done 2>/dev/null
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_ready_module_node: NewNode) -> Site:
    """A head node with one mount, which nothing here may disturb, and what ParallelCluster shares:
    a directory in which everybody may make his own."""
    site = Site(cluster, new_ready_module_node("head"))
    site.node.run(["mkdir", "-p", "/scratch", "/data/project"])
    site.node.run(["chmod", "1777", "/scratch"])
    site.node.run(["chmod", "0700", "/root"])
    site.node.write(PRECIOUS, "keep\n", mode=0o600)
    site.bootstrap(document(site.row(OTHER)))
    site.await_mounts(OTHER)
    return site


@pytest.fixture
def node(site: Site) -> Iterator[Node]:
    """The node; afterwards root's files are what they were, and the other mount never left."""
    before = site.mount(OTHER)["pid"]
    yield site.node
    site.set(document(site.row(OTHER)))
    site.await_mounts(OTHER)
    assert site.mount(OTHER)["pid"] == before
    assert site.node.read(PRECIOUS) == "keep\n"
    assert site.node.run(["stat", "-c", "%a", "/root", PRECIOUS]).stdout.split() == ["700", "600"]
    site.node.run(["sh", "-c", "rm -rf /scratch/* /data/project/*"])


@contextlib.contextmanager
def racing(node: Node, path: str, target: str) -> Iterator[None]:
    """A user's program that exchanges a name for a link for as long as this lasts."""
    with node.popen(["sh", "-c", RACE, "race", path, target], user=USER) as command:
        try:
            yield
        finally:
            command.kill()


def refused(site: Site, text: str, code: str, *words: str) -> str:
    """A configuration that is not taken, and for what reason; returns the hint."""
    site.source.put(text)
    action = site.cluster.custom_action(site.node, ["--config", site.source.url])
    first, last = action.stderr.splitlines()[0], action.stderr.splitlines()[-1]
    assert action.returncode == 2, action.stderr
    assert first.startswith(f"s3mount-agent: error [{code}]: ")
    assert all(word in first for word in words), first
    assert last.startswith("  hint: ")
    return last


def require_nothing_mounted_but(node: Node, *directories: str) -> None:
    assert mounted(node).keys() == set(directories)


def test_a_directory_that_a_user_can_exchange_is_no_place_for_a_mount(
    site: Site, node: Node
) -> None:
    """His home, and one that he made himself in /scratch: told with its owner and what to do."""
    node.run(["mkdir", "-p", "/home/ubuntu/data", "/scratch/s3"], user=USER)
    for directory in ("/home/ubuntu/data", "/home/ubuntu/new", "/scratch/s3", "/scratch/s3/x"):
        text = document(site.row(OTHER), site.row(directory))
        hint = refused(site, text, "path-unsafe", directory, f"belongs to {USER}")
        assert "/mnt/s3" in hint
    require_nothing_mounted_but(node, OTHER)
    node.run(["rm", "-r", "/scratch/s3"])
    site.set(document(site.row(OTHER), site.row("/scratch/s3")))
    site.await_mounts(OTHER, "/scratch/s3")  # root's own in the same place is fine


def test_a_way_that_becomes_a_users_is_not_taken_at_the_next_start(site: Site, node: Node) -> None:
    """He waits for mount-s3 to be killed, and has root mount his bucket over root's home."""
    victim = "/data/project/s3"
    site.set(document(site.row(OTHER), site.row(victim)))
    site.await_mounts(OTHER, victim)
    node.run(["chown", USER, "/data/project"])
    with racing(node, victim, "/root"):
        node.run(["kill", f"-{signal.SIGKILL}", str(site.mount(victim)["pid"])])
        until(lambda: states(node)[victim] == "failed", lambda: site.told()[-9:])
        assert "belongs to ubuntu" in site.mount(victim)["reason"]
        # Closed, it could not be renamed. As one that the agent has not made:
        node.run(["chattr", "-i", victim])
        node.run(["s3mount-agent", "apply", "--now"], check=False, timeout=PATIENCE)
        require_nothing_mounted_but(node, OTHER)
    # In this order: what he does last may come after his program's end.
    node.run(["sh", "-c", "chown root /data/project; rm -rf /data/project/*"])
    site.agent("apply", "--now")
    site.await_mounts(OTHER, victim)
    assert node.run(["cat", f"{victim}/{SEEN}"]).stdout == "seen\n"


def test_who_is_quicker_with_a_name_gains_nothing(site: Site, node: Node) -> None:
    """/root became 0755 when a directory was made by its name."""
    target = "/scratch/new"
    site.source.put(document(site.row(OTHER), site.row(target)))
    with racing(node, target, "/root"):
        for _ in range(5):
            node.run(["s3mount-agent", "apply", "--now"], check=False, timeout=PATIENCE)
            assert node.run(["stat", "-c", "%a", "/root"]).stdout == "700\n"
            assert mounted(node).keys() <= {OTHER, target}
            if target in mounted(node):
                break


def test_who_is_quicker_than_a_start_by_systemd_gains_nothing(site: Site, node: Node) -> None:
    """At a boot /tmp and /scratch may be blank, and it is systemd that starts the unit: his link to
    a directory of root's PATH was mounted over, and with it what is run there next."""
    target, victim = "/scratch/s3", "/root/empty"
    site.set(document(site.row(OTHER), site.row(target)))
    site.await_mounts(OTHER, target)
    unit = site.unit(target)
    start = f"systemctl reset-failed {unit}; systemctl start {unit}"
    node.run(["mkdir", "-p", victim])
    node.run(["systemctl", "stop", "s3mount-agent", unit])
    node.run(["chattr", "-i", target])
    node.run(["rmdir", target])
    node.run(["sh", "-c", start], check=False)
    journal = ["journalctl", "--no-pager", "-u", unit, "-n", "30"]
    until(lambda: f"there is no directory {target}" in node.run(journal).stdout)
    assert not node.exists(target)  # and nothing that a link could take the place of
    with racing(node, target, victim):
        for _ in range(10):
            node.run(["sh", "-c", start], check=False)
            assert mounted(node).keys() == {OTHER}
    # What he does last may come after his program's end.
    node.run(["sh", "-c", f"sleep 0.5; rm -rf {target} {target}.away"])
    node.run(["systemctl", "start", "s3mount-agent"])
    site.await_mounts(OTHER, target)  # the daemon makes it, and writes that down
    node.run(["rmdir", victim])


def test_what_the_system_searches_is_never_mounted_over(site: Site, node: Node) -> None:
    """Our own next `systemctl` came from the bucket."""
    node.run(["mkdir", "-p", "/srv/bound"])
    node.run(["mount", "--bind", "/usr/local", "/srv/bound"])
    try:
        rows = {
            "/usr/local/sbin": "belongs to the system",
            "/srv/bound/sbin": "/usr/local/sbin",
            "/home/ubuntu/.ssh": "belongs to the system",
        }
        for directory, words in rows.items():
            text = document(site.row(OTHER), site.row(directory))
            refused(site, text, "directory-reserved", directory, words)
        for options in ("--cache //etc/cron.d", "--log-directory /./etc/zz"):
            refused(site, document(site.row(OTHER, options)), "option-value")
        require_nothing_mounted_but(node, OTHER)
        assert not node.exists("/etc/cron.d/mountpoint-cache")
        assert not node.exists("/etc/zz")
    finally:
        node.run(["umount", "/srv/bound"])


def test_what_lies_beside_the_system_is_never_run(site: Site, node: Node) -> None:
    """A .pth file in a site directory ran at the next `status`, /usr/local/sbin/systemctl at the
    next `apply`: as root, and a bucket could be mounted on both."""
    pth = "/usr/local/lib/python3.11/dist-packages/evil.pth"
    module = "import sys; print(sys.argv, file=open('/var/pwned', 'a'))\n"
    programs = [f"/usr/local/sbin/{name}" for name in ("systemctl", "journalctl", "mount-s3")]
    planted = {pth: module, "/usr/lib/python3/dist-packages/evil.pth": module}
    planted.update(dict.fromkeys(programs, "#!/bin/sh\necho $0 >> /var/pwned\n"))
    for path, text in planted.items():
        node.write(path, text, mode=0o755)
    try:
        site.set(document(site.row(OTHER), site.row("/mnt/second")))
        site.await_mounts(OTHER, "/mnt/second")
        node.run(["s3mount-agent", "plan"])
        node.run(["/usr/bin/systemctl", "restart", "s3mount-agent"])  # our own PATH begins there
        site.await_mounts(OTHER, "/mnt/second")
        assert not node.exists("/var/pwned"), node.read("/var/pwned")
    finally:
        node.run(["rm", *planted])


def test_the_daemon_is_no_more_exposed_than_the_page_says(node: Node) -> None:
    told = re.search(r"level for s3mount-agent.service: (\d+\.\d+)", PAGE.read_text())
    assert told
    answer = node.run(["systemd-analyze", "security", "--no-pager", "s3mount-agent.service"])
    found = re.search(r"level for s3mount-agent.service: (\d+\.\d+)", answer.stdout)
    assert found, answer.stdout
    assert float(found[1]) <= float(told[1])


@pytest.mark.parametrize("trap", ["ln -s /root/precious", "mkfifo"])
def test_the_file_of_figures_is_no_trap(site: Site, node: Node, trap: str) -> None:
    """A link had the daemon overwrite a file of root's; a FIFO stopped it for ever."""
    folder = FIGURES.rpartition("/")[0]
    node.run(["mkdir", "-p", folder])
    node.run(["chmod", "1777", folder])
    node.run(["sh", "-c", f"{trap} {FIGURES}"], user=USER)
    site.set(document(site.row(OTHER), site.row("/mnt/second"), metrics={"prometheus": FIGURES}))
    site.await_mounts(OTHER, "/mnt/second")
    until(lambda: any("path-unsafe" in str(entry) for entry in site.told()))
    before = site.mount("/mnt/second")["pid"]
    node.run(["kill", f"-{signal.SIGKILL}", str(before)])
    until(lambda: site.mount("/mnt/second").get("pid") not in (None, 0, before))
    site.await_mounts(OTHER, "/mnt/second")
    node.run(["rm", "-r", folder])
    until(lambda: "s3mount_up" in (node.read(FIGURES) if node.exists(FIGURES) else ""))


def test_cache_and_logs_are_made_each_time_and_only_where_nobody_else_writes(
    site: Site, node: Node
) -> None:
    """A disk that is blank at every start: 57 s of "could not mount", for ever after."""
    mount = "/mnt/second"
    options = "--allow-other --cache /scratch/{0} --log-directory /var/log/s3/{0}"
    row = site.row(mount, options.format("one"))
    site.set(document(site.row(OTHER), row))
    site.await_mounts(OTHER, mount)
    seen = node.run(["stat", "-c", "%U %a", "/scratch/one", "/var/log/s3/one"]).stdout
    assert seen.splitlines() == ["root 700", "root 750"]
    disks = show(node, site.unit(mount), "RequiresMountsFor").split()
    assert {"/mnt", "/scratch/one", "/var/log/s3/one"} <= set(disks)
    before = site.mount(mount)["pid"]
    node.run(["systemctl", "stop", site.unit(mount)])
    node.run(["rm", "-rf", "/scratch/one", "/var/log/s3"])
    node.run(["systemctl", "start", site.unit(mount)])
    until(lambda: site.mount(mount).get("pid") not in (None, 0, before))
    assert node.run(["stat", "-c", "%U %a", "/scratch/one"]).stdout == "root 700\n"
    # A user who was there first would write what root then takes for its cache.
    node.run(["mkdir", "/scratch/two"], user=USER)
    site.source.put(document(site.row(OTHER), site.row(mount, options.format("two"))))
    node.run(["s3mount-agent", "apply", "--now"], check=False, timeout=PATIENCE)
    assert eventually(lambda: "belongs to ubuntu" in site.mount(mount).get("reason", ""), 30)
    assert not node.exists("/scratch/two/mountpoint-cache")


@pytest.mark.parametrize("place", ["/etc", "/var"])
def test_nothing_is_begun_that_cannot_be_ended(site: Site, node: Node, place: str) -> None:
    """Where nothing can be written, both took the mounts down and failed then."""
    before = site.mount(OTHER)["pid"]
    node.run(["mount", "--bind", place, place])
    try:
        node.run(["mount", "-o", "remount,bind,ro", place])
        for command in (["unmount", "--all"], ["uninstall"]):
            answer = node.run(["s3mount-agent", *command], check=False)
            assert answer.returncode == 1
            assert f"[file-failed]: {place}/" in answer.stderr
        assert site.mount(OTHER)["pid"] == before
        assert site.mount(OTHER)["state"] == "ok"
    finally:
        node.run(["umount", "-l", place])


def test_a_disk_that_cannot_be_mounted_is_named(site: Site) -> None:
    """systemd then does not start what needs it, and no log of mount-s3's says why."""
    node, mount = site.node, "/broken/data"
    node.run(["mkdir", "-p", "/broken"])
    node.write("/etc/fstab", "tmpfs /broken tmpfs size=nonsense 0 0\n")
    node.run(["systemctl", "daemon-reload"])
    before = site.mount(OTHER)["pid"]
    site.edit(document(site.row(OTHER), site.row(mount)))
    site.ask()
    until(lambda: "/broken, which" in (site.mount(mount).get("reason") or ""), site.told)
    assert site.mount(mount)["state"] in ("failed", "retrying")
    assert "systemctl status /broken" in site.mount(mount)["hint"]
    assert site.mount(OTHER)["pid"] == before
    node.write("/etc/fstab", "tmpfs /broken tmpfs mode=0755 0 0\n")
    node.run(["systemctl", "daemon-reload"])
    site.agent("apply")
    site.await_mounts(OTHER, mount)
    site.set(document(site.row(OTHER)))
    node.write("/etc/fstab", "")
    node.run(["umount", "/broken"])


def test_a_disk_that_comes_late_and_is_blank_is_waited_for(site: Site) -> None:
    """Cache and logs filled the root disk beneath it, and a mount below a shared file system was
    covered by that. The last test: it boots the node anew."""
    node, mount, below = site.node, "/mnt/second", "/shared/third"
    options = "--allow-other --cache /scratch/cache --log-directory /scratch/logs"
    late = "tmpfs {} tmpfs mode={},x-systemd.requires=late.service 0 0\n"
    node.write("/etc/fstab", late.format("/scratch", "1777") + late.format("/shared", "0755"))
    wait = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 3\n"
    node.write("/etc/systemd/system/late.service", wait)
    site.set(document(site.row(OTHER), site.row(mount, options), site.row(below)))
    site.await_mounts(OTHER, mount, below)
    node.reboot()
    site.await_mounts(OTHER, mount, below)
    assert node.run(["findmnt", "-n", "-o", "FSTYPE", "/shared"]).stdout == "tmpfs\n"
    assert not [event for event in site.events() if event[1:] == (below, "foreign")]
    assert node.run(["stat", "-f", "-c", "%T", "/scratch/cache"]).stdout == "tmpfs\n"
    assert node.run(["ls", "/scratch/cache"]).stdout == "mountpoint-cache\n"
    assert node.run(["sh", "-c", "ls /scratch/logs/*.log"]).returncode == 0
    node.run(["s3mount-agent", "unmount", "--all"])
    node.run(["umount", "/scratch", "/shared"])
    assert node.run(["ls", "-A", "/scratch"]).stdout == ""
