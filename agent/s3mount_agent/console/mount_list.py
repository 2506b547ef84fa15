"""Which node will mount what, as ``validate`` and ``bootstrap --check`` show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from s3mount_agent.config.configuration import Configuration, Row
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.node_roles import Role
from s3mount_agent.core.versions import MEMORY_TARGET, Version

_OF_A_CLUSTER = (Role.HEAD, Role.COMPUTE, Role.LOGIN)


def every_node(configuration: Configuration) -> Iterator[str]:
    """The mounts of each kind of node that the configuration tells apart, a line each."""
    roles = (configuration.role,) if configuration.role else _OF_A_CLUSTER
    if not any(row.on or row.queues or row.by_role for row in configuration.rows):
        roles = roles[:1]
    for role in roles:
        groups = sorted(_groups(configuration.rows, role))
        for group in [*groups, ""]:
            mounts = configuration.mounts(role, group)
            yield from lines(mounts, _who(role, group, groups, alone=len(roles) == 1))


def lines(mounts: Iterable[Mount], who: str) -> Iterator[str]:
    """A line for each mount of some nodes, or one that there is none."""
    before = f"  {who}: " if who else "  "
    nothing = True
    for mount in mounts:
        access = "ro" if mount.read_only else "rw"
        yield f"{before}{mount.directory} <- s3://{mount.bucket}  {access}"
        nothing = False
    if nothing:
        yield f"{before}nothing"


def notes(configuration: Configuration, version: Version | None = None) -> Iterator[str]:
    """What is not wrong, but may not be meant, or is good to know.

    ``version`` is that of the node's mount-s3, where there is a node.
    """
    version = version or configuration.install.version_to_be
    files = _write_files(configuration.rows) if version >= MEMORY_TARGET else {}
    if files:
        limits = ", ".join(f"at least {least} on {directory}" for directory, least in files.items())
        yield f"files that can be open for writing at once: {limits}"
    if not configuration.rows:
        yield "it names no mounts: a node that follows it takes down all that it has"
    for name in sorted({e.bucket.name for e in configuration.rows if e.bucket.is_old}):
        yield f"{name}: only a bucket of before 2018 can have this name"
    for name, value in configuration.environment.items():
        if is_secret(value):
            yield (
                f"environment: {name} holds a password or a token, which everybody can read here: "
                "/etc/s3mount-agent/environment on the node is for that"
            )


def _write_files(rows: Iterable[Row]) -> dict[str, int]:
    """How many files may be open for writing at once, by directory: the least of all its nodes."""
    found: dict[str, int] = {}
    for row in rows:
        for role in row.on or Role:
            least = row.mount(role).options.least_write_files
            if least is not None:
                found[row.directory] = min(least, found.get(row.directory, least))
    return found


def _groups(rows: Iterable[Row], role: Role) -> set[str]:
    """The queues, or login pools, that are told apart among the nodes of a role.

    A name without ``on`` is a queue's: a pool is one only where its row is for login nodes.
    """
    if role is Role.COMPUTE:
        chosen = [row for row in rows if not row.on or role in row.on]
    elif role is Role.LOGIN:
        chosen = [row for row in rows if role in row.on]
    else:
        chosen = []
    return {queue for row in chosen for queue in row.queues}


def _who(role: Role, group: str, groups: list[str], *, alone: bool) -> str:
    if group:
        return f"{role.value} {group}"
    if groups:
        return f"{role.value}, other {'queues' if role is Role.COMPUTE else 'pools'}"
    return "" if alone else role.value
