"""A real Slurm: no job starts before its data are there, also after a reboot."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
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
    slurm = Slurm(head, node)
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
