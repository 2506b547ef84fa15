"""A real Slurm: no job starts before its data are there, also after a reboot."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

import pytest

from cluster.cluster import Cluster
from cluster.slurm import SYSTEM, Slurm
from node.article import COMPUTE, READONLY, SECOND, SEEN, WRITABLE, show
from node.article import UNIT as MOUNT_UNIT
from node.conftest import NewNode
from node.live_site import until

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

# As examples/slurm/ has them, but that the check comes more often.
EXAMPLES = Path(__file__).parents[2] / "examples/slurm"
SCRIPTS = "/opt/slurm/etc/scripts"
HEALTH_CHECK, PROLOG = f"{SCRIPTS}/s3mount-health-check", f"{SCRIPTS}/prolog.d/50_s3mount"
SETTINGS = f"""\
HealthCheckProgram={HEALTH_CHECK}
HealthCheckInterval=2
HealthCheckNodeState=ANY
Prolog={SCRIPTS}/prolog.d/*
"""
JOB = f"""\
#!/bin/sh
s3mount-agent check {READONLY} {WRITABLE} || exit 9
cat {READONLY}/{SEEN} && cat {WRITABLE}/{SEEN} && id -un > {WRITABLE}/result-$SLURM_JOB_ID
"""


class Site(NamedTuple):
    """A cluster with its scheduler and one compute node, which takes jobs."""

    cluster: Cluster
    slurm: Slurm
    node: Node


@pytest.fixture(scope="module")
def site(cluster: Cluster, new_module_node: NewNode, new_ready_module_node: NewNode) -> Site:
    """The compute node has the article's mounts, and joined once its bootstrap had ended."""
    head = new_module_node("head", system=SYSTEM)
    node = new_ready_module_node("compute", system=SYSTEM)
    slurm = Slurm(head, node, settings=SETTINGS)
    for path in (HEALTH_CHECK, PROLOG):
        text = (EXAMPLES / Path(path).name).read_text(encoding="utf-8")
        node.write(path, text, mode=0o755)
    action = cluster.custom_action(node, COMPUTE)
    assert action.returncode == 0, action.stdout + action.stderr
    slurm.finalize(node)
    until(lambda: slurm.state(node) == "idle", lambda: slurm.state(node))
    return Site(cluster, slurm, node)


def run(site: Site, number: str, output: str) -> str:
    """Waits for a job's end; returns what it has said."""
    slurm = site.slurm
    until(lambda: slurm.job(number) in ("COMPLETED", "FAILED"), lambda: slurm.job(number))
    return site.node.read(output)


def test_a_job_of_an_ordinary_user_reads_and_writes(site: Site) -> None:
    number = site.slurm.submit(JOB, "/tmp/first.out")
    said = run(site, number, "/tmp/first.out")
    assert site.slurm.job(number) == "COMPLETED", said
    assert said.startswith(f"ok: {READONLY}, {WRITABLE} are up\n{SEEN} of ")
    assert site.cluster.s3.get(SECOND, f"result-{number}") == b"ubuntu\n"


# cloud-init's units as they are ordered on Ubuntu, where the last one comes after everything: what
# a node's boot must not wait for in a circle. Its per-boot script starts slurmd, as finalize does.
CLOUD_INIT = {
    "cloud-init-local.service": "Before=network-pre.target",
    "cloud-init.service": "After=cloud-init-local.service\nBefore=network-online.target",
    "cloud-config.service": "After=network-online.target cloud-init.service",
    "cloud-final.service": "After=network-online.target cloud-config.service multi-user.target",
}
UNIT = """\
[Unit]
{order}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command}

[Install]
WantedBy=multi-user.target
"""


def with_cloud_init(node: Node) -> None:
    """Has a node boot with cloud-init's units, and with a remote file system."""
    for name, order in CLOUD_INIT.items():
        last = name == "cloud-final.service"
        command = "/usr/bin/systemctl start slurmd" if last else "/bin/true"
        text = UNIT.format(order=order, command=command)
        if last:  # which nothing waits for
            text = text.replace("WantedBy=multi-user.target", "WantedBy=cloud-init.target")
        node.write(f"/etc/systemd/system/{name}", text)
    target = "[Unit]\nAfter=multi-user.target\n[Install]\nWantedBy=multi-user.target\n"
    node.write("/etc/systemd/system/cloud-init.target", target)
    node.write("/etc/fstab", "tmpfs /opt/remote tmpfs _netdev 0 0\n")
    node.run(["systemctl", "enable", "--quiet", *CLOUD_INIT, "cloud-init.target"])


def at(node: Node, *matches: str) -> list[int]:
    """When (microseconds) something was told in this boot, oldest first."""
    words = ["journalctl", "--no-pager", "-b", "-o", "json", *matches]
    lines = node.run(words).stdout.splitlines()
    return [int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) for line in lines]


def test_after_a_reboot_a_job_waits_for_its_mounts_and_the_reason_can_be_read(
    site: Site, break_s3: Callable[..., None]
) -> None:
    cluster, slurm, node = site
    with_cloud_init(node)
    slurm.power_off(node)
    number = slurm.submit(JOB, "/tmp/second.out")
    break_s3(SECOND, status=404, code="NoSuchBucket")
    asked = cluster.s3.requests(SECOND)
    with ThreadPoolExecutor() as pool:
        boot = pool.submit(node.boot)
        # Somebody has to act by then: the first failure is told, and others follow.
        until(lambda: cluster.s3.requests(SECOND) > asked + 2)
        assert (slurm.job(number), slurm.state(node)) == ("PENDING", "down")
        cluster.s3.heal(SECOND)
        boot.result()
    assert run(site, number, "/tmp/second.out").startswith("ok: ")
    assert slurm.job(number) == "COMPLETED"
    failed = at(node, "S3MOUNT_ACTION=start", "S3MOUNT_RESULT=failed", f"S3MOUNT_MOUNT={WRITABLE}")
    mounted, slurmd = (
        at(node, f"UNIT={unit}", "JOB_TYPE=start", "JOB_RESULT=done")
        for unit in (MOUNT_UNIT[WRITABLE], "slurmd.service")
    )
    assert failed[0] < mounted[-1] < slurmd[0]
    assert at(node, "S3MOUNT_ACTION=boot") == []  # it was in time
    told = node.run(["journalctl", "--no-pager", "-b", "_PID=1"]).stdout
    assert "cycle" not in told
    until(lambda: show(node, "cloud-final.service", "ActiveState") == "active")
    units = ("s3mount-agent.service", "slurmd.service", "cloud-final.service")
    verified = node.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    assert "cycle" not in verified.stderr


def take_down(site: Site) -> None:
    """An administrator's unmount: the node lacks a mount until `apply`."""
    site.node.run(["s3mount-agent", "unmount", WRITABLE])


def apply(site: Site) -> None:
    """Has the node as its configuration says."""
    site.node.run(["s3mount-agent", "apply"])


def test_a_node_that_lacks_a_mount_is_drained_with_the_reason_until_it_is_well(site: Site) -> None:
    _, slurm, node = site
    take_down(site)
    until(lambda: slurm.state(node) == "drained", lambda: slurm.state(node))
    reason = slurm.reason(node)
    assert reason.startswith(f"s3mount-agent: failed on {node.name}: {WRITABLE} (s3://{SECOND})")
    assert "an administrator unmounted it; `s3mount-agent apply`" in reason
    number = slurm.submit(JOB, "/tmp/third.out")
    apply(site)
    assert run(site, number, "/tmp/third.out").startswith("ok: ")
    assert slurm.job(number, "Restarts") == "0"
    assert slurm.reason(node) == ""


def test_an_administrators_own_drain_is_never_touched(site: Site) -> None:
    _, slurm, node = site
    mine = ("scontrol", "update", f"NodeName={node.name}", "State=DRAIN", "Reason=a new disk")
    slurm.ask(*mine)
    for change in (take_down, apply):
        change(site)
        node.run([HEALTH_CHECK])
        assert (slurm.state(node), slurm.reason(node)) == ("drained", "a new disk")
    slurm.ask("scontrol", "update", f"NodeName={node.name}", "State=RESUME")
    until(lambda: slurm.state(node) == "idle")


def test_the_prolog_keeps_a_job_away_where_nobody_has_looked_yet(site: Site) -> None:
    _, slurm, node = site
    node.run(["mv", HEALTH_CHECK, f"{HEALTH_CHECK}.away"])
    until(lambda: node.run(["pgrep", "-f", HEALTH_CHECK], check=False).returncode == 1)
    take_down(site)
    number = slurm.submit(JOB, "/tmp/fourth.out")
    until(lambda: "Prolog error" in slurm.reason(node), lambda: slurm.reason(node))
    assert (slurm.job(number), slurm.job(number, "Restarts")) == ("PENDING", "1")
    slurm.ask("scancel", number)
    apply(site)
    # Where nobody knows better a job starts: one that is stricter would say so.
    node.run(["systemctl", "stop", "s3mount-agent"])
    slurm.ask("scontrol", "update", f"NodeName={node.name}", "State=RESUME")
    number = slurm.submit(JOB, "/tmp/fifth.out")
    assert run(site, number, "/tmp/fifth.out").startswith("s3mount-agent: warning on ")
    assert slurm.job(number) == "COMPLETED"
    node.run(["systemctl", "start", "s3mount-agent"])
    node.run(["mv", f"{HEALTH_CHECK}.away", HEALTH_CHECK])


def test_slurm_out_of_reach_is_no_failure_of_the_check(site: Site) -> None:
    site.slurm.head.run(["systemctl", "stop", "slurmctld"])
    take_down(site)
    assert site.node.run([HEALTH_CHECK], check=False).returncode == 0
    apply(site)
    site.slurm.head.run(["systemctl", "start", "slurmctld"])
