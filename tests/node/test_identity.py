"""What is ours and what is not: mounts of others on, over and of our directories, and those who use
ours where the node's own mount table does not show it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node import strange_fuse
from node.article import mounted
from node.conftest import NewNode
from node.live_site import PATIENCE, Site, document, until

if TYPE_CHECKING:
    from cluster.command import Command

pytestmark = pytest.mark.node

USED, OTHER = "/shared/used", "/mnt/other"
RW, CHANGED = "--allow-delete --allow-other", "--allow-delete --allow-overwrite --allow-other"
QUICK = {"retry_at_most_every": "5s"}
# Opens a file to be written, says so, and writes to it and closes it when it is told to.
WRITER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"first\\n")
    print("open", flush=True)
    sys.stdin.readline()
    file.write(b"second\\n")
print("closed")
"""


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_ready_module_node: NewNode) -> Site:
    """A head node with two mounts, one of them below a directory where others may mount."""
    site = Site(cluster, new_ready_module_node("head"))
    site.bootstrap(text(site))
    return site


@pytest.fixture
def calm(site: Site) -> Iterator[Site]:
    """The same, as it was: also after the test."""
    site.set(text(site))
    site.await_mounts(USED, OTHER)
    yield site
    site.set(text(site))
    site.await_mounts(USED, OTHER)


def text(site: Site, options: str = RW, *, without: str = "") -> str:
    rows = [site.row(USED, options), site.row(OTHER)]
    return document(*(row for row in rows if row["directory"] != without), health=QUICK)


@contextlib.contextmanager
def writing(site: Site, name: str, *around: str, user: str | None = None) -> Iterator[Command]:
    """A program that writes an object, in whatever ``around`` makes for it."""
    line = [*around, "python3", "-c", WRITER, f"{USED}/{name}"]
    with site.node.popen(line, stdin=subprocess.PIPE, user=user) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n", writer.communicate()
            yield writer
        finally:
            writer.kill()


def finish(site: Site, writer: Command, name: str) -> None:
    """It feels nothing of what goes on, and what it wrote is on S3, whole."""
    assert writer.communicate("\n", timeout=PATIENCE) == ("closed\n", "")
    until(lambda: site.cluster.s3.get(site.bucket, name) == b"first\nsecond\n")


@pytest.mark.parametrize(
    ("around", "user"),
    [
        (["unshare", "--mount"], None),
        (["unshare", "--user", "--map-root-user", "--mount"], "ubuntu"),
    ],
    ids=["root", "user"],
)
def test_a_change_waits_for_who_writes_in_a_mount_namespace_of_his_own(
    calm: Site, around: list[str], user: str | None
) -> None:
    before = calm.pids()
    name = f"from-{user}"
    with writing(calm, name, *around, user=user) as writer:
        calm.source.put(text(calm, CHANGED))
        answer = calm.agent("apply", "--now", code=4)
        assert "error [mount-busy]" in answer.stderr
        assert "python3 (pid " in answer.stderr
        waits = calm.mount(USED)
        assert (waits["state"], waits["pid"]) == ("ok", before[USED])
        assert "python3 (pid " in waits["pending"]
        assert " at the longest" in waits["pending"]
        assert calm.agent("status", "--wait", "1", code=4)
        # Nor does anybody else wait for that.
        calm.node.run(["kill", "-KILL", str(before[OTHER])])
        until(lambda: calm.mount(OTHER)["pid"] not in (None, before[OTHER]))
        answer = calm.agent("unmount", USED, code=1)
        assert "python3 (pid " in answer.stderr
        assert USED in mounted(calm.node)
        finish(calm, writer, name)
    until(lambda: calm.mount(USED)["pid"] not in (None, before[USED]))
    calm.await_mounts(USED, OTHER)


def test_a_copy_that_goes_with_the_mount_keeps_nothing(calm: Site) -> None:
    """What systemd gives its services: a table of their own in which our unmounts happen, too."""
    before = calm.pids()
    with calm.node.popen(["unshare", "--mount", "--propagation=slave", "sleep", "600"]) as idle:
        until(lambda: "sleep" in calm.node.run(["ps", "-e", "-o", "comm"]).stdout)
        calm.source.put(text(calm, CHANGED))
        calm.agent("apply", "--now")
        assert calm.pids()[USED] != before[USED]
        idle.kill()


def test_who_is_found_late_is_waited_for_too(calm: Site) -> None:
    """Unmounted here by somebody, while a program elsewhere writes."""
    before = calm.pids()
    with writing(calm, "late", "unshare", "--mount") as writer:
        calm.node.run(["umount", USED])
        until(lambda: "python3 (pid " in calm.mount(USED).get("pending", ""))
        assert calm.mount(USED)["state"] != "ok"
        finish(calm, writer, "late")
    calm.await_mounts(USED, OTHER)
    assert calm.pids()[USED] != before[USED]


def test_a_restart_by_hand_waits_for_a_writer(calm: Site) -> None:
    before = calm.pids()[USED]
    with writing(calm, "restarted") as writer:
        restart = ["systemctl", "restart", calm.unit(USED)]
        with calm.node.popen(restart) as hasty:
            waits = "its unit is being stopped, which waits for python3 (pid "
            until(lambda: waits in calm.mount(USED).get("pending", ""), lambda: calm.mount(USED))
            assert hasty.poll() is None
            assert calm.mount(USED)["state"] == "ok"
            finish(calm, writer, "restarted")
            assert hasty.wait(PATIENCE) == 0
    calm.await_mounts(USED, OTHER)
    assert calm.pids()[USED] != before


def test_a_bind_mount_that_a_recovery_leaves_dead_is_named_with_its_mend(calm: Site) -> None:
    bound = "/data/project"
    calm.node.run(["mkdir", "-p", bound, f"{USED}/images"])
    calm.node.run(["mount", "--bind", f"{USED}", bound])
    before = calm.pids()[USED]
    answer = calm.agent("unmount", USED, code=1)  # alive, it is a use like any other
    assert f"the bind mount on {bound}" in answer.stderr
    calm.node.run(["kill", "-KILL", str(before)])
    until(lambda: calm.mount(USED)["pid"] not in (None, before))
    assert calm.mount(USED)["dead_binds"] == [bound]
    shown = " ".join(calm.agent("status").stdout.split())  # its lines are short
    mend = f"umount {bound} && mount --bind {USED} {bound}"
    assert f"dead bind: {mend}" in shown
    until(lambda: any(bound in entry["MESSAGE"] for entry in calm.told()))
    calm.node.run(["sh", "-c", mend])
    assert "dead_binds" not in calm.mount(USED)
    calm.node.run(["umount", bound])


def credentials(site: Site) -> dict[str, str]:
    """What a mount-s3 needs that somebody starts by hand."""
    lines = site.node.read("/etc/s3mount-agent/environment").splitlines()
    return dict(line.split("=", 1) for line in lines)


@contextlib.contextmanager
def by_hand(site: Site, directory: str) -> Iterator[str]:
    """Somebody's own mount-s3, in which an object is being written; gives its pid."""
    command = ["mount-s3", "--allow-delete", "--allow-other", site.bucket, directory]
    site.node.run(["mkdir", "-p", directory])  # the agent takes its directory away
    site.node.run(command, env=credentials(site))
    pid = site.node.run(["pgrep", "-n", "-x", "mount-s3"]).stdout.strip()
    with writing(site, "by-hand") as writer:
        yield pid
        assert writer.poll() is None
        finish(site, writer, "by-hand")
    assert site.node.run(["pgrep", "-n", "-x", "mount-s3"]).stdout.strip() == pid
    site.node.run(["umount", directory])


def test_a_healthy_mount_s3_of_somebody_else_is_foreign_and_stays(calm: Site) -> None:
    calm.agent("unmount", USED)
    with by_hand(calm, USED) as pid:
        shown = calm.mount(USED)
        assert shown["state"] == "foreign"
        assert f"served by pid {pid}: " in shown["reason"]
        assert f"mount-s3 --allow-delete --allow-other {calm.bucket} {USED}" in shown["reason"]
        planned = calm.agent("plan").stdout
        assert f"  ! {USED}  (something else is mounted there: not touched)\n" in planned
        assert "Nothing to change" not in planned
        assert f"pid {pid}" in planned
        assert "[directory-in-use]" in calm.agent("apply", code=2).stderr
        calm.agent("unmount", USED)
        # Nor is it started over and over again.
        calm.node.run(["systemctl", "start", calm.unit(USED)], check=False)
        calm.edit(text(calm, without=USED))
        until(lambda: calm.mount(USED) == {})
        # Nor does a new version come into force that would lie over it.
        calm.edit(text(calm))
        until(lambda: "already a mount of mountpoint-s3" in calm.config().get("problem", ""))


def test_a_mount_of_fstab_on_the_same_directory_is_named_and_the_boot_does_not_wait(
    calm: Site,
) -> None:
    fstab = calm.node.read("/etc/fstab") if calm.node.exists("/etc/fstab") else ""
    line = f"tmpfs {USED} tmpfs nofail,x-systemd.before={calm.unit(USED)} 0 0\n"
    calm.node.write("/etc/fstab", fstab + line)
    calm.node.reboot()
    calm.node.run(["systemctl", "is-system-running", "--wait"], check=False)
    shown = calm.mount(USED)
    assert shown["state"] == "foreign"
    assert "which /etc/fstab mounts there" in shown["reason"]
    assert f"take {USED} out of /etc/fstab" in shown["hint"]
    unit = calm.unit(USED)
    assert calm.node.run(["systemctl", "is-active", unit], check=False).stdout == "failed\n"
    calm.node.write("/etc/fstab", fstab)
    calm.node.run(["systemctl", "daemon-reload"])
    calm.node.run(["umount", USED])
    calm.await_mounts(USED, OTHER)


def test_a_mount_over_the_parent_is_named_and_nothing_is_done_meanwhile(calm: Site) -> None:
    before, mark = calm.pids(), calm.mark()
    calm.node.run(["mount", "-t", "tmpfs", "late-share", "/shared"])
    calm.node.run(["mkdir", USED])
    until(lambda: calm.mount(USED)["state"] == "foreign", lambda: calm.mount(USED))
    shown = calm.mount(USED)
    assert (
        "something else is mounted on /shared, over the agent's mount: late-share"
        in shown["reason"]
    )
    since = shown["since"]
    calm.ask()
    calm.ask()
    assert f"  ! {USED}  " in calm.agent("plan").stdout
    assert "/shared" in calm.agent("unmount", USED, code=1).stderr
    assert calm.mount(USED)["since"] == since
    assert [e for e in calm.events(mark) if e[1] == USED] == [("health", USED, "foreign")]
    calm.node.run(["umount", "/shared"])
    calm.await_mounts(USED, OTHER)
    assert calm.pids() == before


def test_what_a_user_mounts_over_ours_is_his_whatever_it_is_called(calm: Site) -> None:
    """It hangs, and is not taken for ours that hangs; nor does anything wait for it."""
    before = calm.pids()
    health = {**QUICK, "look_every": "5s", "hung_after": "10s"}
    calm.set(document(calm.row(USED, RW), calm.row(OTHER), health=health))
    line = ["python3", "-c", strange_fuse.USERS, USED, ""]
    with calm.node.popen(line, user="ubuntu", stdin=subprocess.PIPE) as cover:
        assert cover.stdout is not None
        assert cover.stdout.readline() == "mounted\n"
        until(lambda: calm.mount(USED)["state"] == "foreign", lambda: calm.mount(USED))
        assert "mounted by user 1000" in calm.mount(USED)["reason"]
        calm.node.run(["sleep", "20"])  # longer than a hang is watched
        assert calm.pids() == before
        answer = calm.agent("unmount", USED, code=1)
        assert "mounted by user 1000" in answer.stderr
        assert calm.pids() == before
        calm.node.run(["sh", "-c", f"umount -l {USED}"])
        cover.kill()
    calm.await_mounts(USED, OTHER)
    assert calm.pids() == before


def test_a_unit_that_somebody_deletes_is_told_and_written_again(calm: Site) -> None:
    before = calm.pids()
    path = calm.unit_file(USED)
    calm.node.run(["systemctl", "stop", "s3mount-agent"])
    calm.node.run(["rm", path])
    calm.node.run(["systemctl", "daemon-reload"])
    assert (calm.mount(USED)["state"], calm.mount(USED)["pid"]) == ("ok", before[USED])
    assert "its unit was deleted" in calm.mount(USED)["reason"]
    planned = calm.agent("plan", code=4).stdout
    assert "its unit had been deleted while it runs" in planned
    calm.agent("apply")
    assert calm.node.exists(path)
    assert calm.pids() == before
    calm.agent("plan")
    # And it can be taken down without it.
    calm.node.run(["rm", path])
    calm.node.run(["systemctl", "daemon-reload"])
    assert f"{USED}: unmounted" in calm.agent("unmount", USED).stdout
    assert USED not in mounted(calm.node)


def test_the_end_of_the_node_waits_for_nobody_for_long(calm: Site) -> None:
    """Last: the writer loses what a shutdown cannot give it the time for."""
    with calm.node.popen(
        ["unshare", "--mount", "python3", "-c", WRITER, f"{USED}/lost"], stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        calm.node.power_off()  # raises TimeoutError
    calm.node.boot()
    calm.await_mounts(USED, OTHER)
