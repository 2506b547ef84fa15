"""What the machine says of itself: ParallelCluster's files, users, processor."""

from __future__ import annotations

import json
import os
import platform
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Owner
from s3mount_agent.core.roles import NodeType
from s3mount_agent.system import files

# ParallelCluster writes both before any custom action runs; the second is not a promise of theirs.
DNA = Path("/etc/chef/dna.json")
CFNCONFIG = Path("/etc/parallelcluster/cfnconfig")


@dataclass(frozen=True)
class NodeFacts:
    """What ParallelCluster's files tell; empty on a node that is not of a cluster."""

    node_types: list[NodeType] = field(default_factory=list)
    cluster: str = ""
    queue: str = ""
    user: str = ""


def read(dna: Path = DNA, cfnconfig: Path = CFNCONFIG) -> NodeFacts:
    """Reads the node's facts; raises ``node-type`` for a file that cannot be understood."""
    chef = _read_dna(dna)
    shell = _read_cfnconfig(cfnconfig)
    node_types = []
    if chef:
        node_types.append(NodeType(chef.get("node_type", ""), str(dna)))
    if shell.get("cfn_node_type"):
        node_types.append(NodeType(shell["cfn_node_type"], str(cfnconfig)))
    return NodeFacts(
        node_types=node_types,
        cluster=chef.get("cluster_name") or chef.get("stack_name") or shell.get("stack_name") or "",
        queue=chef.get("scheduler_queue_name") or chef.get("pool_name") or "",
        user=chef.get("cluster_user") or shell.get("cfn_cluster_user") or "",
    )


def owner(user: str) -> Owner | None:
    """The ids of a user of this node, or None if there is no such user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    return Owner(entry.pw_uid, entry.pw_gid)


def architecture() -> str:
    """The processor as AWS names it in its releases: x86_64 or arm64."""
    machine = platform.machine()
    return {"aarch64": "arm64", "amd64": "x86_64"}.get(machine, machine)


def require_root() -> None:
    """Raises ``not-root``."""
    if os.geteuid() != 0:
        raise AgentError(Problem.NOT_ROOT, "only root may change the mounts of a node")


def _read_dna(path: Path) -> dict[str, str]:
    text = files.read(path)
    if text is None:
        return {}
    try:
        cluster = json.loads(text)["cluster"]
        found = {key: value for key, value in cluster.items() if isinstance(value, str)}
        return {"node_type": str(cluster.get("node_type", "")), **found}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            Problem.NODE_TYPE,
            f"{path} is not JSON with an object 'cluster'",
            cause=f"{type(error).__name__}: {error}",
        ) from None


def _read_cfnconfig(path: Path) -> dict[str, str]:
    """Reads ``name=value`` lines; a shell sources this file, but we never run it."""
    values: dict[str, str] = {}
    for line in (files.read(path) or "").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            values[name] = value.strip().strip("\"'")
    return values
