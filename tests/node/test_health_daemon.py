"""The daemon is killed, stopped, upgraded and made to hang: its mounts and who uses them feel
nothing of it, and status stays right."""

from __future__ import annotations

import io
import re
import signal
import zipfile
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import BOOTSTRAP, Cluster
from node.article import AGENT_UNIT, main_pid, mounted, show, states, status
from node.conftest import NewNode
from node.live_site import PATIENCE, Site, until
from node.scene import OTHER, VICTIM, Scene
from node.witness import require_tidy, undisturbed

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

DROP_IN = f"/run/systemd/system/{AGENT_UNIT}.d/test.conf"
# Kills the daemon as soon as there is a new one, or while it works, or (now and then) once it looks
# after its mounts; as often as it is told to.
KILLER = """
import os, random, subprocess, sys, time
times, unit, last = int(sys.argv[1]), "s3mount-agent", 0
def main_pid():
    show = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return int(subprocess.run(show, stdout=subprocess.PIPE, text=True).stdout)
for number in range(times):
    while (pid := main_pid()) in (0, last):
        time.sleep(0.02)
    time.sleep(random.uniform(4, 6) if number % 20 == 10 else random.uniform(0, 0.8))
    os.kill(pid, 9)
    last = pid
"""
# The capabilities that the daemon may have, by their numbers in linux/capability.h: CHOWN,
# DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL, LINUX_IMMUTABLE, SYS_PTRACE.
CAPABILITIES = {0, 1, 2, 3, 5, 9, 19}


@pytest.fixture(scope="module", params=["head", "compute"])
def scene(
    cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest
) -> Scene:
    """A node of each role, on which the daemon comes back more quickly than it otherwise does."""
    scene = Scene(Site(cluster, new_ready_module_node(request.param)))
    scene.node.write(DROP_IN, "[Service]\nRestartSec=100ms\nWatchdogSec=15s\n")
    scene.site.bootstrap(scene.text())
    scene.site.await_mounts(VICTIM, OTHER)
    return scene


def daemon(scene: Scene) -> int:
    """The daemon's process."""
    return main_pid(scene.node, AGENT_UNIT)


def await_new_daemon(scene: Scene, old: int) -> None:
    """Waits until there is another one, and it is up."""
    until(lambda: daemon(scene) not in (0, old))
    until(lambda: show(scene.node, AGENT_UNIT, "ActiveState") == "active")


def heals_alone(scene: Scene) -> bool:
    """Whether mounts come back without the daemon: in mode systemd."""
    mode: str = status(scene.node)["node"]["mode"]
    return mode == "systemd"


def test_a_daemon_that_is_killed_a_hundred_times_disturbs_no_mount(scene: Scene) -> None:
    # It is the daemon of a compute node on which the mounts' lives depend most.
    times = 20 if heals_alone(scene) else 100
    before, old = scene.site.pids(), daemon(scene)
    with undisturbed(scene.node, VICTIM, OTHER), scene.site.in_use(VICTIM) as reader:
        killer = ["python3", "-c", KILLER, str(times)]
        scene.node.run(killer, timeout=times * 10)
        assert reader.communicate("\n", timeout=PATIENCE) == ("seen\n", "")
        await_new_daemon(scene, old)
        scene.site.await_mounts(VICTIM, OTHER)
    assert scene.site.pids() == before
    require_tidy(scene.node, VICTIM, OTHER)
    assert int(show(scene.node, AGENT_UNIT, "NRestarts")) >= times


def test_a_mount_comes_back_though_the_daemon_is_killed_while_it_mounts(scene: Scene) -> None:
    for _ in range(2):
        old = daemon(scene)
        with scene.comes_back() as told:
            scene.send(signal.SIGKILL, scene.pid())
            scene.node.run(["python3", "-c", KILLER, "2"], timeout=PATIENCE)
            await_new_daemon(scene, old)
        scene.require_on_the_way(told)


def test_a_mount_that_hangs_is_ended_though_the_daemon_ends_meanwhile(scene: Scene) -> None:
    def looks() -> bool:
        """Whether the daemon has a child, which is looking at a mount."""
        return scene.node.run(["pgrep", "-P", str(daemon(scene))], check=False).returncode == 0

    with scene.comes_back() as told:
        scene.send(signal.SIGSTOP, scene.pid())
        until(lambda: scene.site.mount(VICTIM)["state"] == "hung")
        assert looks()
        old = daemon(scene)
        if heals_alone(scene):
            scene.node.run(["systemctl", "stop", AGENT_UNIT])
            scene.node.run(["systemctl", "start", AGENT_UNIT])
        else:
            scene.send(signal.SIGKILL, old)
        await_new_daemon(scene, old)
    scene.require_on_the_way(told, "hung", "ok")


def test_status_is_right_while_the_daemon_is_down(scene: Scene) -> None:
    with scene.comes_back() as told:
        scene.node.run(["systemctl", "stop", AGENT_UNIT])
        assert states(scene.node) == {VICTIM: "ok", OTHER: "ok"}
        lost = scene.pid()
        scene.send(signal.SIGKILL, lost)
        if heals_alone(scene):
            until(lambda: scene.site.mount(VICTIM)["pid"] not in (None, lost))
            scene.site.await_mounts(VICTIM, OTHER)
        else:
            until(lambda: scene.site.mount(VICTIM)["state"] == "missing")
            assert mounted(scene.node).keys() == {OTHER}
        assert status(scene.node)["daemon"] == "down"
        answer = scene.node.run(["s3mount-agent", "status"], check=False)
        assert "the agent's service is down" in answer.stdout
        assert daemon(scene) == 0
        scene.node.run(["systemctl", "start", AGENT_UNIT])
    scene.require_on_the_way(told)
    assert "daemon" not in status(scene.node)


def test_restarts_stops_and_upgrades_of_the_agent_disturb_no_mount(scene: Scene) -> None:
    node, site = scene.node, scene.site
    before = site.pids()

    def expect_new_daemon(old: int) -> None:
        await_new_daemon(scene, old)
        assert site.pids() == before

    with undisturbed(node, VICTIM, OTHER):
        old = daemon(scene)
        node.run(["systemctl", "restart", AGENT_UNIT])
        expect_new_daemon(old)
        old = daemon(scene)
        node.run(["systemctl", "stop", AGENT_UNIT])
        assert site.pids() == before
        node.run(["systemctl", "start", AGENT_UNIT])
        expect_new_daemon(old)
        old = daemon(scene)
        site.bootstrap(scene.text())  # the same once more: not even the daemon is a new one
        assert daemon(scene) == old
        for version in ("9.8.7", "9.8.6"):
            bootstrap_with(scene, version)
            expect_new_daemon(old)
            assert status(node)["node"]["agent"] == version
            old = daemon(scene)
        site.bootstrap(scene.text())  # and back
        expect_new_daemon(old)
    require_tidy(node, VICTIM, OTHER)


def bootstrap_with(scene: Scene, version: str) -> None:
    """ParallelCluster runs a bootstrap file of another version."""
    bucket, _, key = BOOTSTRAP.removeprefix("s3://").partition("/")
    scene.s3.put(bucket, version, of_version(scene.s3.get(bucket, key), version))
    action = scene.site.cluster.custom_action(
        scene.node, ["--config", scene.site.source.url], script=f"s3://{bucket}/{version}"
    )
    assert (action.returncode, action.stderr) == (0, ""), action.stdout + action.stderr


def of_version(bootstrap: bytes, version: str) -> bytes:
    """The same bootstrap file of another version: a head that knows the size, and an archive."""
    head = bootstrap[: bootstrap.index(b"PK\x03\x04")].decode()
    archive = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bootstrap)) as old, zipfile.ZipFile(archive, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == "payload/lib/s3mount_agent/__init__.py":
                data = re.sub(rb'(?<=__version__ = ")[^"]+', version.encode(), data)
            if entry.filename == "payload/payload.sha256":
                data = f"{version}\n".encode()
            new.writestr(entry, data, zipfile.ZIP_DEFLATED)
    # As many digits as before, so that the head's own size stays.
    digits = len(str(len(bootstrap)))
    size = f"{len(head.encode()) + len(archive.getvalue()):0{digits}d}"
    return head.replace(str(len(bootstrap)), size).encode() + archive.getvalue()


def test_a_daemon_that_hangs_is_replaced_and_sees_to_what_has_happened_since(scene: Scene) -> None:
    old = daemon(scene)
    with scene.comes_back() as told:
        scene.send(signal.SIGSTOP, old)
        assert states(scene.node) == {VICTIM: "ok", OTHER: "ok"}
        scene.send(signal.SIGKILL, scene.pid())
        await_new_daemon(scene, old)
    scene.require_on_the_way(told)
    story = scene.node.run(["journalctl", "--no-pager", "-o", "cat", "-u", AGENT_UNIT]).stdout
    assert "Watchdog timeout" in story


def make_directory(node: Node, pid: int, parent: str) -> str:
    """Makes a directory and removes it, on the file system as a process sees it; returns why that
    cannot be."""
    make = ["sh", "-c", 'mkdir "$0/of-a-test" && rmdir "$0/of-a-test"', parent]
    return node.run(["nsenter", f"--target={pid}", "--mount", *make], check=False).stderr


def test_the_daemon_has_few_rights_and_its_mounts_are_everybodys(scene: Scene) -> None:
    node, pid = scene.node, daemon(scene)
    told = dict(line.split(":\t", 1) for line in node.read(f"/proc/{pid}/status").splitlines())
    for name in ("CapBnd", "CapPrm", "CapEff"):
        bits = int(told[name], 16)
        assert {number for number in range(64) if bits >> number & 1} == CAPABILITIES
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    for path in ("/usr", "/boot", "/etc", "/sys/fs/cgroup"):
        assert make_directory(node, 1, path) == "", path
        assert "Read-only file system" in make_directory(node, pid, path), path
    for path in ("/etc/s3mount-agent", "/etc/systemd/system", "/run/systemd/system", "/run"):
        assert make_directory(node, pid, path) == "", path
    namespace = [node.run(["readlink", f"/proc/{each}/ns/mnt"]).stdout for each in (1, pid)]
    assert namespace[0] != namespace[1]
    # What it mounts is mounted where everybody sees it, and it sees what everybody sees.
    with scene.comes_back():
        scene.send(signal.SIGKILL, scene.pid())
    for each in scene.site.pids().values():
        assert node.run(["readlink", f"/proc/{each}/ns/mnt"]).stdout == namespace[0]
    for table in ("/proc/1/mounts", f"/proc/{pid}/mounts"):
        assert node.run(["grep", "-c", "^mountpoint-s3 ", table]).stdout == "2\n"
