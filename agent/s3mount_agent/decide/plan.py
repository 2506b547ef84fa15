"""The one function that decides what changes on a node: bootstrap, the daemon, unmount and
uninstall all go through it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.states import Presence, Stranger

if TYPE_CHECKING:  # it would bring all of mount-s3's flags to `status`, which needs none
    from s3mount_agent.core.mounts import Mount


@dataclass(frozen=True)
class Wanted:
    """A mount that shall be there, with the definition it must run with."""

    mount: Mount
    definition: Definition
    text: str
    """The definition as it shall stand on the node (a unit's text)."""


@dataclass(frozen=True)
class Placed:
    """A mount that the agent put on the node, as it stands there now.

    ``active``: it is up, its process ``pid`` alive and past its start; ``starting``: on its way;
    ``settled``: systemd knows the text as it is on disk and will start it at boot if it should;
    ``ending``: what ended its process, where that was not the process itself; ``leaving``: it is
    being taken down, but its process lives, because somebody still uses what it serves; ``lost``:
    its definition has been deleted under it, and is known from the agent's own record;
    ``invocation`` is systemd's name for its run.
    """

    id: str
    definition: Definition
    text: str
    active: bool = False
    starting: bool = False
    pid: int | None = None
    settled: bool = True
    ending: str = ""
    leaving: bool = False
    lost: bool = False
    invocation: str = ""

    @property
    def serves(self) -> bool:
        """Whether its process is there and past its start."""
        return self.active or self.leaving

    def ended(self) -> AgentError:
        """Why it is down that had been up: its process has gone, by itself or by ``ending``."""
        how = f"was {self.ending}" if self.ending else "has ended by itself"
        return AgentError(Problem.MOUNT_ENDED, f"mount-s3 of {self.definition.directory} {how}")


@dataclass(frozen=True)
class Observed:
    """The node as it is: what the agent placed, and what the mount table has on each directory.

    ``strangers`` are the mounts of others that are in the way, by our directory; ``dead_binds`` the
    bind mounts of a connection of ours that has ended, as (where, what of it) by our directory;
    ``waiting`` says for whom the end of a mount waits, by its directory.
    """

    placed: Mapping[str, Placed]
    presence: Mapping[str, Presence]
    strangers: Mapping[str, Stranger] = field(default_factory=dict)
    dead_binds: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)

    def on(self, directory: str) -> Presence:
        """What is mounted on a directory."""
        return self.presence.get(directory, Presence.ABSENT)

    def is_ours(self, directory: str) -> bool:
        """Whether a path to a directory leads into our own process's mount: only then is a hang or
        an error there our mount's."""
        return self.on(directory) is Presence.OURS

    def is_useful(self, placed: Placed) -> bool:
        """Whether a mount's process is up, and its mount where it belongs."""
        return placed.active and self.is_ours(placed.definition.directory)

    def is_detached(self, placed: Placed) -> bool:
        """Whether a mount's process serves on though its mount is gone: somebody has unmounted it
        under who uses it."""
        return placed.serves and self.on(placed.definition.directory) is Presence.ABSENT

    def is_up(self, want: Wanted) -> bool:
        """Whether a mount can be used where it is wanted."""
        return self.is_ours(want.mount.directory)


@dataclass(frozen=True)
class Standing:
    """What is remembered of a mount and cannot be seen on the node: ``hung``, it does not answer,
    which is certain; ``waits``, why it is not to be tried yet; ``busy``, that it is up, but in use
    and so in the way of a change."""

    hung: bool = False
    waits: str | None = None
    busy: bool = False


class Kind(str, Enum):
    """What is done to a mount, in the order in which it is done."""

    KILL = "kill"
    STOP = "stop"
    WRITE = "write"
    START = "start"
    WAIT = "wait"


@dataclass(frozen=True)
class Action:
    """One change: ``kill`` ends a process that hangs, ``stop`` takes a mount down and forgets it,
    ``write`` puts its definition on the node without disturbing it, ``start`` makes it (writing
    first), and ``wait`` leaves it alone until its next attempt is due."""

    kind: Kind
    id: str
    directory: str
    bucket: str
    because: str


@dataclass(frozen=True)
class Plan:
    """All that is to change, and what stays in the way."""

    actions: tuple[Action, ...] = ()
    foreign: tuple[str, ...] = ()
    """Directories on which a mount is wanted, or has to go, but something else is mounted."""
    write_files: tuple[tuple[str, int], ...] = ()
    """How many files may be open for writing at once, by the directories of mounts for which
    something limits that."""
    warnings: tuple[str, ...] = ()
    installs: tuple[str, str] | None = None
    """The version of mount-s3 that is to be installed, and the one that it takes the place of."""
    strangers: tuple[Stranger, ...] = field(default=(), compare=False)
    """What lies on those directories, as far as it is known."""

    def __bool__(self) -> bool:
        acts = any(action.kind is not Kind.WAIT for action in self.actions)
        return acts or self.installs is not None

    def of(self, kind: Kind) -> tuple[Action, ...]:
        """The actions of one kind."""
        return tuple(action for action in self.actions if action.kind is kind)


def plan(
    wanted: Iterable[Wanted],
    observed: Observed,
    *,
    keep: Collection[str] = (),
    held: Collection[str] = (),
    records: Mapping[str, Standing] | None = None,
) -> Plan:
    """What to do so that the node has exactly the wanted mounts; nothing if it has.

    A mount that runs with the wanted command is never restarted, whatever else differs. ``keep``
    are the ids of mounts that are wanted, but cannot be made as they are wanted now: what is there
    of them stays; ``held`` those that are not wanted because an administrator took them down.
    ``records`` are what is remembered of mounts by those who look again and again: one that hangs
    is ended first of all, and one that failed is not tried before its time.
    """
    wanted = tuple(wanted)
    ids = {want.mount.id for want in wanted}
    set_aside = _set_aside(wanted, observed, records or {})
    actions = list(set_aside.values())
    foreign: list[str] = []
    for placed in observed.placed.values():
        if placed.id in ids or placed.id in keep or placed.id in set_aside:
            continue
        directory = placed.definition.directory
        alive = placed.serves or placed.starting
        if alive and observed.on(directory).is_in_the_way:
            # On its way out mount-s3 would unmount what lies uppermost, which is not ours.
            foreign.append(directory)
        else:
            by_hand = placed.id in held
            because = "an administrator takes it down" if by_hand else "it is no longer wanted"
            actions.append(_stop(placed, because))
    for want in wanted:
        if want.mount.id in set_aside:
            continue
        here = observed.placed.get(want.mount.id)
        presence = observed.on(want.mount.directory)
        # Who mounted there, if not the agent? Another bucket's mount of ours is about to go.
        ours = any(
            placed.definition.directory == want.mount.directory
            for placed in observed.placed.values()
        )
        if presence.is_in_the_way or (presence is Presence.OURS and not ours):
            foreign.append(want.mount.directory)
        else:
            actions += _converge(want, here, presence)
    known = observed.strangers
    strangers = tuple(known[directory] for directory in foreign if directory in known)
    return Plan(tuple(actions), tuple(foreign), strangers=strangers)


def _set_aside(
    wanted: Sequence[Wanted], observed: Observed, records: Mapping[str, Standing]
) -> dict[str, Action]:
    """What to do about mounts that are not dealt with by what can be seen alone, by id."""
    found: dict[str, Action] = {}
    unknown = Standing()
    ids = {want.mount.id for want in wanted}
    taken: dict[str, str] = {}
    for placed in observed.placed.values():
        known = records.get(placed.id, unknown)
        directory = placed.definition.directory
        ours = observed.is_useful(placed) or observed.is_detached(placed)
        if known.hung and ours:
            found[placed.id] = _of(Kind.KILL, placed, "it does not answer")
        elif known.waits and (known.busy or placed.id in ids):
            # Whatever else failed, what is no longer wanted can go; only who uses it is waited for.
            found[placed.id] = _of(Kind.WAIT, placed, known.waits)
        else:
            continue
        taken[directory] = found[placed.id].because
    for want in wanted:
        mount = want.mount
        # What lies on a directory must be gone before another bucket is mounted there.
        why = records.get(mount.id, unknown).waits or taken.get(mount.directory)
        if why and mount.id not in found:
            found[mount.id] = _for(Kind.WAIT, want, why)
    return found


def _converge(want: Wanted, here: Placed | None, presence: Presence) -> list[Action]:
    if here is None:
        return [_start(want, "it is new")]
    if not here.definition.runs_as(want.definition):
        because = f"it changed: {difference(here.definition, want.definition)}"
        return [_stop(here, because), _start(want, because)]
    if here.leaving:
        return []  # started again when its process has gone
    if here.active and presence is Presence.ABSENT:
        return [_stop(here, "its mount is gone"), _start(want, "its mount is gone")]
    if not here.active and not here.starting:
        stale = presence is Presence.OURS
        return [_start(want, "its process has ended" if stale else "it is not running")]
    if here.text != want.text or not here.settled:
        shares = here.definition.share, here.definition.memory_max
        same = shares == (want.definition.share, want.definition.memory_max)
        what = "its unit" if same else "its share of the node"
        because = f"{what} changes, without a new mount"
        if here.lost:
            because = "its unit had been deleted while it runs"
        return [_for(Kind.WRITE, want, because)]
    return []


def difference(old: Definition, new: Definition) -> str:
    """What has to be different, as words taken away and added."""
    before, after = old.essence(new), new.essence(old)
    gone = [f"-[{word}]" for word in before if word not in after]
    come = [f"+[{word}]" for word in after if word not in before]
    return " ".join(gone + come) or "the order of its options"


def _start(want: Wanted, because: str) -> Action:
    return _for(Kind.START, want, because)


def _stop(placed: Placed, because: str) -> Action:
    return _of(Kind.STOP, placed, because)


def _for(kind: Kind, want: Wanted, because: str) -> Action:
    mount = want.mount
    return Action(kind, mount.id, mount.directory, str(mount.bucket), because)


def _of(kind: Kind, placed: Placed, because: str) -> Action:
    definition = placed.definition
    return Action(kind, placed.id, definition.directory, definition.bucket, because)
