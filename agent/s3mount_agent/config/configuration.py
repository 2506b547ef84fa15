"""The desired state of a cluster's nodes: which mounts, where, and how the agent is to behave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.mounts import Mount, colliding, require_consistent, unsound
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.options import Options
from s3mount_agent.core.versions import Install
from s3mount_agent.mountpoint import flag_check


class WhenBusy(str, Enum):
    """What to do about a mount that must change while programs use it."""

    WAIT = "wait"
    LAZY = "lazy"
    FAIL = "fail"


Flags = Mapping[str, "str | bool | tuple[str | bool, ...]"]
"""Named flags: by mount-s3's long name; False takes a flag away."""


@dataclass(frozen=True)
class Layer:
    """Options as given in one place: a string, and flags by name that add to it."""

    options: Options | None = None
    flags: Flags = field(default_factory=dict)

    def over(self, below: Options) -> Options:
        """The options of this layer upon those below: a string replaces them, flags change them."""
        result = below if self.options is None else self.options
        for name, value in self.flags.items():
            result = result.without(name)
            if isinstance(value, tuple):
                given = tuple((name, str(each)) for each in value if each is not False)
                result = Options(result.flags + given)
            elif value is not False:
                result = Options((*result.flags, (name, None if value is True else str(value))))
        return result


@dataclass(frozen=True)
class Row:
    """A mount in the configuration, for those nodes that it is meant for.

    ``on`` and ``queues`` choose nodes (empty: all); ``by_role`` changes the options on a role.
    """

    bucket: Bucket
    directory: str
    base: Layer = field(default_factory=Layer)
    by_role: Mapping[Role, Layer] = field(default_factory=dict)
    on: tuple[Role, ...] = ()
    queues: tuple[str, ...] = ()
    owner: str | None = None
    weight: int = 1
    when_busy: WhenBusy | None = None
    on_failure: OnFailure | None = None

    def is_for(self, role: Role, queue: str) -> bool:
        """Whether a node in this role and queue (or login pool) shall have it."""
        return (not self.on or role in self.on) and (not self.queues or queue in self.queues)

    def mount(self, role: Role) -> Mount:
        """The mount as nodes in a role shall have it."""
        options = self.base.over(Options())
        if role in self.by_role:
            options = self.by_role[role].over(options)
        return Mount(
            self.bucket,
            self.directory,
            options,
            owner=self.owner,
            weight=self.weight,
        )


@dataclass(frozen=True)
class Metrics:
    """Which figures to publish: a file for Prometheus, lines in the journal for CloudWatch."""

    prometheus: str | None = None
    cloudwatch: bool = False
    namespace: str = "S3Mount"


@dataclass(frozen=True)
class Configuration:
    """What a configuration says; times in seconds, None for the default of the node's role."""

    rows: tuple[Row, ...] = ()
    role: Role | None = None
    mode: Mode | None = None
    on_failure: OnFailure | None = None
    when_busy: WhenBusy = WhenBusy.WAIT
    busy_deadline: int = 3600
    refresh: int = 300
    look_every: int = 60
    check_s3_every: int = 300
    hung_after: int = 30
    retry_at_most_every: int = 30
    memory_percent: int | None = None
    bandwidth_gbps: int | None = None
    install: Install = field(default_factory=Install)
    metrics: Metrics = field(default_factory=Metrics)
    environment: Mapping[str, str] = field(default_factory=dict)

    def mounts(self, role: Role, queue: str) -> tuple[Mount, ...]:
        """The mounts of a node; raises where they get in each other's way."""
        chosen = (row.mount(role) for row in self.rows if row.is_for(role, queue))
        return require_consistent(tuple(chosen))

    def queues(self) -> set[str]:
        """The queues and login pools that it names."""
        return {queue for row in self.rows for queue in row.queues}

    def busy_policy(self, directory: str, role: Role, queue: str) -> WhenBusy:
        """What to do about a mount of a node that must change while it is used."""
        row = self._row(directory, role, queue)
        return (row.when_busy if row else None) or self.when_busy

    def failure_policy(self, directory: str, role: Role, queue: str) -> OnFailure | None:
        """What a bootstrap does if a mount of a node fails; None: by the node's role."""
        row = self._row(directory, role, queue)
        return row.on_failure if row else None

    def _row(self, directory: str, role: Role, queue: str) -> Row | None:
        """One directory may belong to different mounts on different nodes."""
        found = (e for e in self.rows if e.directory == directory and e.is_for(role, queue))
        return next(found, None)


def conflicts(rows: Sequence[Row | None]) -> Iterator[tuple[int, AgentError]]:
    """What is wrong with mounts, each alone and all together on a node of any role and queue: once
    each, with the number of the row. None stands for a row of which that cannot be said."""
    told: set[tuple[int, str]] = set()
    for role in Role:
        numbered = [(n, e) for n, e in enumerate(rows) if e and (not e.on or role in e.on)]
        for place, error in _conflicts([row for _, row in numbered], role):
            number = numbered[place][0]
            if (number, error.message) not in told:
                told.add((number, error.message))
                yield number, error


def _conflicts(rows: Sequence[Row], role: Role) -> Iterator[tuple[int, AgentError]]:
    queues = [frozenset(row.queues) for row in rows]
    mounts = [row.mount(role) for row in rows]

    def meet(one: int, other: int) -> bool:
        mine, theirs = queues[one], queues[other]
        return not mine or not theirs or not mine.isdisjoint(theirs)

    for place, mount in enumerate(mounts):
        for error in (*flag_check.conflicts(mount.options), *unsound(mount)):
            yield place, error
    yield from colliding(mounts, meet)


def of_mounts(
    mounts: tuple[Mount, ...],
    *,
    role: Role | None = None,
    mode: Mode | None = None,
    on_failure: OnFailure | None = None,
) -> Configuration:
    """The configuration that a list of mounts amounts to, as the Args give it."""
    rows = tuple(Row(m.bucket, m.directory, Layer(m.options)) for m in mounts)
    return Configuration(rows, role, mode, on_failure)
