"""What the machine says of itself: ParallelCluster's files, users, processor."""

from __future__ import annotations

import json
import math
import os
import pwd
import time
from dataclasses import dataclass, field
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Owner
from s3mount_agent.core.node_roles import NodeType
from s3mount_agent.filesystem import files, json_codec
from s3mount_agent.system import probe

# ParallelCluster writes both before any custom action runs; the second is not a promise of theirs.
DNA = Path("/etc/chef/dna.json")
CFNCONFIG = Path("/etc/parallelcluster/cfnconfig")
_PASSWD = Path("/etc/passwd")
# A directory service (LDAP, sssd) may take its time, or never answer.
_SERVICE_SECONDS = 5.0
# For how long it is not asked again about who is unknown, and by whom nothing is said.
_UNKNOWN_SECONDS = 5.0
_SILENT_SECONDS = 60.0


@dataclass(frozen=True)
class NodeFacts:
    """What ParallelCluster's files tell; empty on a node that is not of a cluster."""

    node_types: list[NodeType] = field(default_factory=list)
    cluster: str = ""
    queue: str = ""
    user: str = ""
    proxy: str = ""


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
        proxy=_proxy(chef.get("proxy"), shell.get("cfn_proxy")),
    )


def _proxy(*given: str | None) -> str:
    """ParallelCluster's HttpProxyAddress; without one its files say NONE."""
    return next((each for each in given if each and each.upper() != "NONE"), "")


def owner(user: str) -> Owner | None:
    """The ids of a user of this node, or None if there is no such user.

    Raises ``owner-unknown`` where nobody can tell now: neither /etc/passwd nor, within seconds, a
    directory service. What one has said of a user is remembered for as long as this process lives.
    """
    local = _in_passwd(user)
    if local is not None:
        return local
    until, known = _remembered.get(user, (-math.inf, None))
    if time.monotonic() >= until:
        until, known = _remembered[user] = _ask_service(user)
    if isinstance(known, AgentError):
        # Errors are told with a traceback of their own.
        raise known.retried_for(math.inf)
    return known


# What the directory service said of a user, and until when that holds (monotonic seconds).
_remembered: dict[str, tuple[float, Owner | AgentError | None]] = {}


def _ask_service(user: str) -> tuple[float, Owner | AgentError | None]:
    try:
        ids = probe.ask(_look_up, user, timeout=_SERVICE_SECONDS, place="users")
    except OSError as error:
        silence = AgentError(
            Problem.OWNER_UNKNOWN,
            f"nobody tells who {user!r} is: /etc/passwd has no such user, and a directory service "
            "does not answer",
            cause=error.strerror,
        )
        return time.monotonic() + _SILENT_SECONDS, silence
    if ids is None:
        return time.monotonic() + _UNKNOWN_SECONDS, None
    return math.inf, Owner(*ids)


def _look_up(user: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _in_passwd(user: str, path: Path = _PASSWD) -> Owner | None:
    """What passwd(5) itself says, which waits for nobody."""
    for line in (files.read(path) or "").splitlines():
        fields = line.split(":")
        if fields[0] == user and len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            return Owner(int(fields[2]), int(fields[3]))
    return None


def architecture() -> str:
    """The processor as AWS names it in its releases: x86_64 or arm64."""
    machine = os.uname().machine
    return {"aarch64": "arm64", "amd64": "x86_64"}.get(machine, machine)


def is_root() -> bool:
    """Whether we may do what only root may."""
    return os.geteuid() == 0


def require_root(why: str = "only root may change the mounts of a node") -> None:
    """Raises ``not-root``."""
    if not is_root():
        raise AgentError(Problem.NOT_ROOT, why)


def _read_dna(path: Path) -> dict[str, str]:
    text = files.read(path)
    if text is None:
        return {}
    try:
        cluster = json.loads(text)["cluster"]
        found = {key: value for key, value in cluster.items() if isinstance(value, str)}
        return {"node_type": str(cluster.get("node_type", "")), **found}
    except json_codec.WRONG as error:
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
