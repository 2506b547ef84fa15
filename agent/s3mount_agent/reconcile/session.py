"""Changing a node: take its lock, then look, once. What was checked is what is carried out.

Whatever is read before the lock is held may be old by then: another program may have put another
configuration in force meanwhile, or changed what is on the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from s3mount_agent.config import desired
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.plan import Observed
from s3mount_agent.filesystem import lock
from s3mount_agent.reconcile.context import Context, gather
from s3mount_agent.reconcile.observe import look_at
from s3mount_agent.state.timeline import clock_after
from s3mount_agent.system import journal, node

_PATIENCE_SECONDS = 300.0
# Another program that asks a source at the same time may be the first to put its answer in force.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Session:
    """A node that nobody else changes: what it shall be, its facts, and how it was found."""

    desired: Desired
    context: Context
    observed: Observed


@contextlib.contextmanager
def node_session(
    by: str,
    read: Callable[[], Desired | None] | None = None,
    *,
    timeout: float = _PATIENCE_SECONDS,
    again: Callable[[], None] | None = None,
) -> Iterator[Session]:
    """Holds the node's lock; ``by`` is who holds it, as those are told who must wait.

    ``read`` says, once the lock is held, what the node shall be (default: what is in force). Where
    it returns None, because what it knows is outdated by now, ``again`` has it find out anew,
    without the lock. Raises ``not-root``, ``locked`` after ``timeout`` seconds, what ``read`` and
    ``again`` raise, and what is wrong with the node's facts.
    """
    node.require_root()
    for _ in range(_ATTEMPTS):
        with lock.hold(by, timeout=timeout, on_wait=partial(_tell_wait, timeout)):
            wanted = (read or desired.in_force)()
            if wanted is not None:
                yield read_node(wanted)
                return
        if again is not None:
            again()
    raise AgentError(
        Problem.LOCKED, "other programs put one configuration after the other in force"
    )


def read_node(wanted: Desired) -> Session:
    """The node as it is; for who holds its lock. Raises what its facts and its mounts raise."""
    context = gather(wanted.configuration)
    return Session(wanted, context, look_at(context))


def _tell_wait(seconds: float, holder: str) -> None:
    journal.say(
        f"[ wait ] lock: another program changes the mounts: {holder} (until "
        f"{clock_after(seconds)} at most; Ctrl-C ends this one and leaves it to the other)"
    )
