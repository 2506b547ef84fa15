"""Who runs mount-s3: what every way of running it can do, and which way a node takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.decide.plan import Placed, Wanted
from s3mount_agent.system import systemd


class Supervisor(Protocol):
    """Runs the mounts of a node, each on its own, so that the agent's end is not theirs."""

    def text(self, definition: Definition) -> str:
        """A definition as this supervisor keeps it on the node."""

    def placed(self) -> dict[str, Placed]:
        """The agent's mounts as they stand, by id."""

    def foreign(self) -> dict[str, str]:
        """Files that stand where mounts of ours would, by the mount's id."""

    def write(self, wanted: Sequence[Wanted]) -> dict[str, AgentError]:
        """Puts definitions on the node and disturbs nothing that runs; returns why some could not
        be put there, by the mount's id."""

    def start_later(self, want: Wanted) -> None:
        """Has a written mount started and does not wait."""

    def await_start(self, want: Wanted) -> None:
        """Returns when a mount that is being started is up; raises what mount-s3 said."""

    def failure(self, placed: Placed) -> AgentError | None:
        """Why a mount that is down failed, or None if it did not."""

    def stop(self, placed: Placed, *, force: bool = False, patient: bool = True) -> None:
        """Takes a mount down and waits until its process is gone.

        A mount in use raises ``mount-busy``, unless it is torn away by ``force``. Who is not
        ``patient`` waits for a moment only: ``mount-ending`` says that it goes on by itself.
        """

    def end(self, placed: Placed) -> None:
        """Kills a process that hangs, and sets free who waits for it; it may be started again."""

    def remove(self, placed: Sequence[Placed]) -> dict[str, AgentError]:
        """Forgets mounts that have been stopped; returns why some could not be, by id."""


def supervisor(mode: Mode) -> Supervisor:
    """The way of running mount-s3 on this node."""
    if systemd.runs():
        from s3mount_agent.supervisor.units import Units

        return Units(mode)
    from s3mount_agent.supervisor.direct import Processes

    return Processes()
