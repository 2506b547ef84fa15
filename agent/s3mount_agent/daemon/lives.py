"""The lives of the mounts as the service remembers them, and what it tells of them.

What happens to a mount is here found in what was seen and done on the node; what follows from it
for what is remembered, decide/lifecycle.py decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from s3mount_agent.core.states import State
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide import lifecycle
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.lifecycle import (
    Chance,
    Happening,
    Judged,
    Looked,
    Recalled,
    Record,
    Story,
    Tried,
)
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Kind, Observed, Placed, Plan, Standing, Wanted
from s3mount_agent.decide.retry_policy import Wake
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.state import status_file


class Lives:
    """What is remembered of each mount, by its id; ``longest_pause`` is the configuration's, in
    seconds."""

    def __init__(self, around: Surroundings) -> None:
        self.longest_pause = Chance().longest_pause
        self._around = around
        self._records: dict[str, Record] = {}
        self._begun: frozenset[str] = frozenset()
        self._newly_begun: frozenset[str] = frozenset()

    def failures(self) -> Failures:
        """Why mounts failed, of those that did."""
        errors = {mount_id: record.error for mount_id, record in self._records.items()}
        return {mount_id: error for mount_id, error in errors.items() if error is not None}

    def stories(self) -> dict[str, Story]:
        """What figures tell of each."""
        return {mount_id: record.story for mount_id, record in self._records.items()}

    def standings(self, conditions: Mapping[str, Condition]) -> dict[str, Standing]:
        """What the plan has to know of each."""
        now = self._around.now()
        return {
            mount_id: lifecycle.standing(record, conditions.get(mount_id), now)
            for mount_id, record in self._records.items()
        }

    def pause(self, longest: float) -> float:
        """Seconds until one of them should be looked at for the sake of its next attempt."""
        now = self._around.now()
        return min([longest, *(record.pause(now) for record in self._records.values())])

    def is_unexplained(self, mount: MountStatus) -> bool:
        """Whether a mount that has just been begun is down already: what it needs may have failed
        before it could be seen on its way."""
        return mount.id in self._newly_begun and mount.state is State.MISSING

    def keep_only(self, ids: Collection[str], context: Context) -> None:
        """Forgets mounts that are no longer wanted, and what befell those that are held down."""
        known = {*ids, *(mount.id for mount in context.mounts)}
        self._records = {
            mount_id: record if mount_id in ids else record.at_rest()
            for mount_id, record in self._records.items()
            if mount_id in known
        }

    def look(
        self, placed: Placed, observed: Observed, context: Context, condition: Condition
    ) -> None:
        """Takes in how a mount is, and why it failed where that is news."""
        failure = None
        if self._record(placed.id).wants_reason(placed):
            failure = context.supervisor.failure(placed)
            self._around.notify("WATCHDOG=1")  # the journal may take its time
        seen = Looked(placed, observed.on(placed.definition.directory), condition, failure)
        self._step(placed.id, seen, placed.definition.directory, placed.definition.bucket)

    def learn(
        self,
        todo: Plan,
        wanted: tuple[Wanted, ...],
        observed: Observed,
        failures: Failures,
    ) -> None:
        """Takes note of what was done, and how that went."""
        planned = {action.id for action in todo.actions}
        for want in wanted:
            if want.mount.id not in planned and observed.is_up(want):
                record = self._record(want.mount.id)
                self._records[want.mount.id] = record.settled()
        begun = {each.id for each in todo.of(Kind.START) if each.id not in failures}
        # Where nobody can find out why, once is enough.
        self._newly_begun, self._begun = frozenset(begun - self._begun), frozenset(begun)
        stops = todo.of(Kind.STOP)
        # Their starts were not tried, for the same reason.
        unstopped = {action.id for action in stops if action.id in failures}
        definitions = {want.mount.id: want.definition for want in wanted}
        for action in todo.actions:
            if action.kind is Kind.WAIT:
                continue
            error = failures.get(action.id)
            here = observed.placed.get(action.id)
            # Not changed, but to be as it was.
            new = definitions.get(action.id)
            repair = here is not None and new is not None and here.definition.runs_as(new)
            if action.kind is Kind.START and action.id in unstopped:
                continue
            tried = Tried(action.kind, error, repair)
            self._step(action.id, tried, action.directory, action.bucket)

    def judge(self, mount: MountStatus) -> None:
        """Takes in the state that a mount was found to be in."""
        failure = mount.s3 if mount.state is State.DEGRADED else None
        problem = status_file.error_of(failure).problem if failure else None
        reason = mount.reason or ""
        seen = Judged(mount.state, mount.path, reason, problem, mount.pid, mount.held, mount.mends)
        self._step(mount.id, seen, mount.path, mount.bucket)

    def recall(self, known: Collection[MountStatus], *, first: bool) -> None:
        """What a service before this one has told (``first``) need not be told again, nor need what
        made a mount fail before the eyes of who asks."""
        for each in known:
            error = status_file.error_of(each.failure) if each.failure else None
            seen = Recalled(error, each.state if first else State.FAILED)
            self._step(each.id, seen, each.path, each.bucket)

    def wake(self, why: Wake) -> None:
        """Gives each a new chance."""
        for mount_id in self._records:
            self._step(mount_id, why, "", "")

    def _step(self, mount_id: str, seen: Happening, directory: str, bucket: str) -> None:
        chance = Chance(self.longest_pause, self._around.luck())
        record, told = lifecycle.step(self._record(mount_id), seen, self._around.now(), chance)
        self._records[mount_id] = record
        for each in told:
            self._around.tell(each.event, each.message, each.error, mount=directory, bucket=bucket)

    def _record(self, mount_id: str) -> Record:
        return self._records.get(mount_id, Record())
