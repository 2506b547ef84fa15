"""A real Slurm: no job starts before its data are there, also after a reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from cluster.cluster import Cluster
from cluster.slurm import SYSTEM, Slurm
from node.article import COMPUTE, READONLY, SECOND, SEEN, WRITABLE
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
