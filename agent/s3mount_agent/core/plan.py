"""The one function that decides what changes on a node: bootstrap, the daemon, unmount and
uninstall all go through it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from s3mount_agent.core.definition import Definition
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence

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
    ``ending``: what ended its process, where that was not the process itself.
    """

    id: str
    definition: Definition
    text: str
    active: bool = False
    starting: bool = False
    pid: int | None = None
    settled: bool = True
    ending: str = ""

    def ended(self) -> AgentError:
        """Why it is down that had been up: its process has gone, by itself or by ``ending``."""
        how = f"was {self.ending}" if self.ending else "has ended by itself"
        return AgentError(Problem.MOUNT_ENDED, f"mount-s3 of {self.definition.directory} {how}")


@dataclass(frozen=True)
class Observed:
    """The node as it is: what the agent placed, and what the mount table has on each directory."""

    placed: Mapping[str, Placed]
    presence: Mapping[str, Presence]

    def on(self, directory: str) -> Presence:
        """What is mounted on a directory."""
        return self.presence.get(directory, Presence.ABSENT)


class Kind(str, Enum):
    """What is done to a mount, in the order in which it is done."""

    STOP = "stop"
    WRITE = "write"
    START = "start"


@dataclass(frozen=True)
class Action:
    """One change: ``stop`` takes a mount down and forgets it, ``write`` puts its definition on the
    node without disturbing it, ``start`` makes it (writing first)."""

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
    """Directories on which a mount is wanted but something else is mounted."""
    write_files: tuple[tuple[str, int], ...] = ()
    """How many files may be open for writing at once, by the directories of mounts for which
    something limits that."""
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)

    def of(self, kind: Kind) -> tuple[Action, ...]:
        """The actions of one kind."""
        return tuple(action for action in self.actions if action.kind is kind)


def plan(wanted: Iterable[Wanted], observed: Observed, *, keep: Collection[str] = ()) -> Plan:
    """What to do so that the node has exactly the wanted mounts; nothing if it has.

    A mount that runs with the wanted command is never restarted, whatever else differs. ``keep``
    are the ids of mounts that are wanted, but cannot be made as they are wanted now: what is there
    of them stays.
    """
    wanted = tuple(wanted)
    ids = {want.mount.id for want in wanted}
    actions: list[Action] = []
    foreign: list[str] = []
    for placed in observed.placed.values():
        if placed.id in ids or placed.id in keep:
            continue
        directory = placed.definition.directory
        if (placed.active or placed.starting) and observed.on(directory) is Presence.OTHER:
            # On its way out mount-s3 would unmount what lies uppermost, which is not ours.
            foreign.append(directory)
        else:
            actions.append(_stop(placed, "it is no longer wanted"))
    for want in wanted:
        here = observed.placed.get(want.mount.id)
        presence = observed.on(want.mount.directory)
        # Who mounted there, if not the agent? Another bucket's mount of ours is about to go.
        ours = any(
            placed.definition.directory == want.mount.directory
            for placed in observed.placed.values()
        )
        if presence is Presence.OTHER or (presence is not Presence.ABSENT and not ours):
            foreign.append(want.mount.directory)
        else:
            actions += _converge(want, here, presence)
    return Plan(tuple(actions), tuple(foreign))


def _converge(want: Wanted, here: Placed | None, presence: Presence) -> list[Action]:
    if here is None:
        return [_start(want, "it is new")]
    if here.definition.essence != want.definition.essence:
        because = f"it changed: {difference(here.definition, want.definition)}"
        return [_stop(here, because), _start(want, because)]
    if here.active and presence is Presence.ABSENT:
        return [_stop(here, "its mount is gone"), _start(want, "its mount is gone")]
    if not here.active and not here.starting:
        stale = presence is Presence.MOUNTPOINT_S3
        return [_start(want, "its process has ended" if stale else "it is not running")]
    if here.text != want.text or not here.settled:
        mount = want.mount
        shares = here.definition.share, here.definition.memory_max
        same = shares == (want.definition.share, want.definition.memory_max)
        what = "its unit" if same else "its share of the node"
        because = f"{what} changes, without a new mount"
        return [Action(Kind.WRITE, mount.id, mount.directory, str(mount.bucket), because)]
    return []


def difference(old: Definition, new: Definition) -> str:
    """What has to be different, as words taken away and added."""
    gone = [f"-[{word}]" for word in old.essence if word not in new.essence]
    come = [f"+[{word}]" for word in new.essence if word not in old.essence]
    return " ".join(gone + come) or "the order of its options"


def _start(want: Wanted, because: str) -> Action:
    mount = want.mount
    return Action(Kind.START, mount.id, mount.directory, str(mount.bucket), because)


def _stop(placed: Placed, because: str) -> Action:
    definition = placed.definition
    return Action(Kind.STOP, placed.id, definition.directory, definition.bucket, because)
