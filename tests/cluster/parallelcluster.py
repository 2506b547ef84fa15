"""The files by which AWS ParallelCluster tells a node what it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cluster.node import Node
    from cluster.systems import System

VERSION = "3.13.0"
REGION = "us-east-1"
STACK = "hpc-dev"
QUEUE = "queue-1"
COMPUTE_RESOURCE = "queue-1-cr1"
LOGIN_POOL = "login"

# What dna.json says of a role; a machine outside of any cluster ("standalone") has no such file.
NODE_TYPES = {"head": "HeadNode", "compute": "ComputeFleet", "login": "LoginNode"}
ROLES = (*NODE_TYPES, "standalone")

CFNCONFIG = "/etc/parallelcluster/cfnconfig"


class Head(NamedTuple):
    """What compute and login nodes are told of the head node."""

    name: str
    address: str


def install(node: Node, role: str, head: Head, system: System) -> None:
    """Write ParallelCluster's files into a node that is off; nothing for the role standalone.

    Raises KeyError for a role that is not one of ROLES.
    """
    if role == "standalone":
        return
    facts = _dna(role, head, system)
    node.write("/etc/chef/dna.json", json.dumps({"cluster": facts}, indent=2) + "\n")
    cfnconfig = _cfnconfig(role, head, system)
    node.write(CFNCONFIG, "".join(f"{name}={value}\n" for name, value in cfnconfig.items()))
    node.write("/opt/parallelcluster/.bootstrapped", f"aws-parallelcluster-cookbook-{VERSION}\n")
    node.run(["mkdir", "-p", "/opt/parallelcluster/shared", "/var/log/parallelcluster"])
    node.run(["ln", "-s", CFNCONFIG, "/opt/parallelcluster/cfnconfig"])


def _dna(role: str, head: Head, system: System) -> dict[str, str]:
    facts = {
        "node_type": NODE_TYPES[role],
        "region": REGION,
        "stack_name": STACK,
        "scheduler": "slurm",
        "base_os": system.base_os,
        "cluster_user": system.user,
        "log_group_name": f"/aws/parallelcluster/{STACK}-202611230000",
        "proxy": "NONE",
        "ephemeral_dir": "/scratch",
        "ebs_shared_dirs": "",
    }
    if role == "head":
        return {**facts, "head_node_imds_secured": "true"}
    facts.update(cluster_name=STACK, head_node_private_ip=head.address)
    if role == "login":
        return {**facts, "pool_name": LOGIN_POOL}
    return {
        **facts,
        "scheduler_queue_name": QUEUE,
        "scheduler_compute_resource_name": COMPUTE_RESOURCE,
    }


def _cfnconfig(role: str, head: Head, system: System) -> dict[str, str]:
    settings = {
        "stack_name": STACK,
        "cfn_region": REGION,
        "cfn_scheduler": "slurm",
        "cfn_node_type": NODE_TYPES[role],
        "cfn_cluster_user": system.user,
        "cfn_ephemeral_dir": "/scratch",
        "cfn_ebs_shared_dirs": "",
        "cfn_proxy": "NONE",
        "cfn_instance_slots": "2",
    }
    if role == "compute":
        settings.update(
            cfn_head_node=head.name,
            cfn_head_node_private_ip=head.address,
            cfn_scheduler_queue_name=QUEUE,
        )
    return settings
