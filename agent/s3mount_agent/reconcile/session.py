"""Changing a node: take its lock, then look, once. What was checked is what is carried out.

Whatever is read before the lock is held may be old by then: another program may have put another
configuration in force meanwhile, or changed what is on the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from s3mount_agent.config import desired, environment
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.plan import Observed, Placed, Wanted
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.filesystem import leftovers, lock
from s3mount_agent.reconcile import directories
from s3mount_agent.reconcile.context import Context, gather
from s3mount_agent.reconcile.observe import look_at
from s3mount_agent.state import held_down, in_force
from s3mount_agent.state.timeline import Waiting, clock_after
from s3mount_agent.system import journal, node
from s3mount_agent.system.retry import patiently

_PATIENCE_SECONDS = 300.0
# Another program that asks a source at the same time may be the first to put its answer in force.
_ATTEMPTS = 3
# What is done while others wait for nothing but this.
_MOMENT_SECONDS = 60.0


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
    leftovers.keep_build()
    for _ in range(_ATTEMPTS):
        with lock.hold(by, timeout=timeout, on_wait=partial(tell_wait, timeout)):
            environment.load()  # who asked a source before has read it once already
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


@contextlib.contextmanager
def still_in_force(wanted: Desired, by: str) -> Iterator[bool]:
    """The node's lock once more, for a moment; whether what was put in force with it still is."""
    with lock.hold(by, timeout=_MOMENT_SECONDS):
        kept = in_force.load()
        yield kept is not None and kept.text == wanted.text


def tell_wait(seconds: float, holder: str, *, say: Callable[[str], object] = journal.say) -> None:
    """Says for whom the node's lock is waited, for so many seconds."""
    say(
        f"[ wait ] lock: another program changes the mounts: {holder} (until "
        f"{clock_after(seconds)} at most; Ctrl-C ends this one and leaves it to the other)"
    )


class Patience:
    """Waits for mounts that have been begun to start, and has them start again for at most
    ``budget`` seconds. Only for that it takes the node's lock, as ``by``: meanwhile others may
    change the node. ``unbegun`` says why a start could not even be begun."""

    def __init__(
        self, context: Context, by: str, budget: float, unbegun: dict[str, AgentError]
    ) -> None:
        self.first: set[str] = set()
        """The directories whose first attempt is under way."""
        self._supervisor = context.supervisor
        self._by = by
        self._budget = budget
        self._unbegun = unbegun

    def __call__(self, want: Wanted) -> None:
        """Returns when a mount is up; raises why it is not."""
        directory = want.mount.directory
        waiting = Waiting(directory, self._budget)
        self.first.add(directory)

        def attempt() -> None:
            if directory not in self.first:
                self._again(want)
            try:
                if want.mount.id in self._unbegun:
                    raise self._unbegun.pop(want.mount.id)
                self._supervisor.await_start(want)
            finally:
                self.first.discard(directory)

        try:
            patiently(attempt, budget=self._budget, on_retry=waiting)
        except AgentError as error:
            if is_lasting(error):
                self._give_up(want)
            raise

    def _again(self, want: Wanted) -> None:
        with lock.hold(self._by, timeout=_MOMENT_SECONDS):
            here = self._here(want)
            if here is None:
                raise AgentError(
                    Problem.MOUNT_NOT_READY,
                    f"{want.mount.directory} was changed by another program before it was up",
                    hint="`s3mount-agent status` tells how it is now",
                    retry_for=0,
                )
            if not (here.active or here.starting):
                # The last start may have mounted a disk on the way, over what was made.
                directories.make(want.mount.directory)
                self._supervisor.start_later(want)

    def _give_up(self, want: Wanted) -> None:
        """systemd would go on in vain."""
        with contextlib.suppress(AgentError), lock.hold(self._by, timeout=_MOMENT_SECONDS):
            here = self._here(want)
            if here is not None and here.starting:
                self._supervisor.stop(here)

    def _here(self, want: Wanted) -> Placed | None:
        """The mount as it is placed, unless somebody else has changed it since it was written."""
        here = self._supervisor.placed().get(want.mount.id)
        same = here is not None and here.text == want.text and want.mount.id not in held_down.load()
        return here if same else None
