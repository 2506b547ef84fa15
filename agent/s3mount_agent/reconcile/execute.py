"""What is wanted of each mount, and carrying out a plan: stops, then writes, then starts, each for
all mounts at the same time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from s3mount_agent.config.configuration import WhenBusy
from s3mount_agent.core import errors
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.resources import divide
from s3mount_agent.core.states import few_files
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.plan import Action, Kind, Observed, Placed, Plan, Wanted
from s3mount_agent.filesystem import mountinfo, procfs
from s3mount_agent.mountpoint import choice
from s3mount_agent.mountpoint.flag_check import require_known_to
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import directories
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.state import secrets
from s3mount_agent.supervisor.interface import Supervisor
from s3mount_agent.system import capacity, journal
from s3mount_agent.system.threads import together

Failures = dict[str, AgentError]
"""Why mounts could not be made or taken down, by mount id."""

_AT_ONCE = 16
_DONE = {
    Kind.STOP: (Event.STOPPED, "took down"),
    Kind.WRITE: (Event.REWRITTEN, "wrote again the unit of"),
    Kind.START: (Event.STARTED, "started"),
}
_FAILED = {Kind.STOP: Event.STOP_FAILED, Kind.START: Event.START_FAILED}


def want(
    context: Context, installed: Installed, observed: Observed
) -> tuple[tuple[Wanted, ...], Failures]:
    """The node's mounts as they shall run on it, and those that this node cannot have, with why.

    Raises ``shares-impossible``.
    """
    configuration = context.configuration
    shares = divide(
        context.mounts,
        capacity.read(),
        installed.version,
        percent=configuration.memory_percent,
        gbps=configuration.bandwidth_gbps,
    )
    # Of a secret the unit, which everybody may read, has no more than what tells it from others.
    variables = sorted(configuration.environment.items())
    wanted: list[Wanted] = []
    failures: Failures = {}
    for mount in context.mounts:
        share = shares[mount.id]
        try:
            require_known_to(installed.version, mount.options)
            own = mount.arguments(context.owner_of(mount))
        except AgentError as error:
            failures[mount.id] = error
            continue
        definition = Definition(
            bucket=str(mount.bucket),
            directory=mount.directory,
            command=(installed.program, *share.arguments, *own),
            mode=context.conduct.mode,
            read_only=mount.read_only,
            share=share.arguments,
            memory_max=share.memory_max,
            environment=tuple(each for each in variables if not is_secret(each[1])),
            secrets=tuple(
                (name, secrets.fingerprint(value)) for name, value in variables if is_secret(value)
            ),
            lazy=context.busy_policy(mount.directory) is WhenBusy.LAZY,
        )
        definition = _not_lowered(definition, observed.placed.get(mount.id))
        wanted.append(Wanted(mount, definition, context.supervisor.text(definition)))
    return tuple(wanted), failures


def warnings(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """What jobs on this node may run into, a sentence each."""
    cpus = capacity.read().cpus
    definitions = (each.definition for each in wanted)
    sentences = (few_files(each.directory, each.options.write_files, cpus) for each in definitions)
    return tuple(sentence for sentence in sentences if sentence)


def _not_lowered(new: Definition, placed: Placed | None) -> Definition:
    """The limit of a process that runs on is never lowered: it has fitted its buffers into the old
    one and would be killed.

    One that was started without a target knows of no limit at all and would be killed by any: so
    did earlier versions of the agent, and so are they healed.
    """
    if placed is None or not (placed.active or placed.starting) or new.memory_max is None:
        return new
    old = placed.definition
    if not old.runs_as(new):
        return new  # it is started anew
    target = next((word for word in new.command if word.startswith("--memory-target=")), "")
    if old.memory_max is None and target in procfs.arguments(placed.pid or 0):
        return new  # started by a newer mount-s3, it knows by now what to aim at
    if old.memory_max is None or "memory-target" not in old.options:
        return dataclasses.replace(new, memory_max=None)
    return dataclasses.replace(new, memory_max=max(old.memory_max, new.memory_max))


def require_possible(context: Context, observed: Observed) -> None:
    """Refuses mounts that this node has no room for, all at once, before anything is changed."""
    found = impossible(context, observed)
    if found:
        raise errors.together(found)


def impossible(
    context: Context, observed: Observed, *, ignoring: Collection[str] = ()
) -> list[AgentError]:
    """What is in the way of the mounts on this node; ``ignoring`` are directories that are
    not looked at. Raises ``shares-impossible``."""
    require_divisible(context)
    own = {
        placed.definition.directory
        for placed in observed.placed.values()
        if observed.is_ours(placed.definition.directory)
    }
    foreign = context.supervisor.foreign()
    table = mountinfo.read()

    def refusal(mount: Mount) -> AgentError | None:
        if mount.id in foreign:
            return AgentError(
                Problem.UNIT_FOREIGN, f"{foreign[mount.id]} was not made by the agent"
            )
        try:
            directories.require_usable(mount.directory, table, own=mount.directory in own)
        except AgentError as error:
            if observe(context.supervisor).is_ours(mount.directory):
                return None  # it has come up since we looked: what was seen there is in the mount
            # A file system that hangs is one mount's trouble, and no reason to refuse all.
            return None if error.problem is Problem.PATH_SILENT else error
        return None

    asked = [
        mount for mount in context.mounts if mount.id in foreign or mount.directory not in ignoring
    ]
    found = together([partial(refusal, mount) for mount in asked], at_once=_AT_ONCE)
    return [error for error in found if error is not None]


def require_divisible(context: Context) -> None:
    """Refuses mounts that this node has not enough memory for; raises ``shares-impossible``."""
    configuration = context.configuration
    divide(
        context.mounts,
        capacity.read(),
        choice.version_to_be(configuration.install),
        percent=configuration.memory_percent,
        gbps=configuration.bandwidth_gbps,
    )


class Hands:
    """What the plan does beside the supervisor: to directories, and to the journal."""

    def make(self, want: Wanted) -> None:
        """Makes a mount's directory, and those that it stores in."""
        directories.make(want.mount.directory)
        directories.make_stores(want.definition)

    def remove(self, gone: Iterable[str]) -> None:
        """Removes the directories of mounts that have gone, if the agent made them."""
        directories.remove(gone)

    def tell(self, event: Event, message: str, **fields: str) -> None:
        """Writes an entry into the journal."""
        journal.event(event, message, **fields)


def carry_out(
    todo: Plan,
    wanted: Sequence[Wanted],
    observed: Observed,
    context: Context,
    *,
    start: Callable[[Wanted], None],
    told: Failures | None = None,
    hands: Hands | None = None,
    patient: bool = True,
) -> Failures:
    """Does what the plan says, in waves; within a wave all mounts go at the same time.

    ``start`` starts one mount; ``patient``: a stop is waited for, however long it takes. A mount
    that fails fails alone; what is in ``told`` is not told again. That one which hangs was ended is
    told by who found that it hangs.
    """
    starts = prepare(todo, wanted, observed, context, told=told, hands=hands, patient=patient)
    return starts.carry_out(start)


@dataclasses.dataclass(frozen=True)
class Starts:
    """What is left of a plan once all else is carried out: the mounts to start, all written;
    ``failures`` are what went wrong before."""

    actions: Sequence[Action]
    wanted: Mapping[str, Wanted]
    failures: Failures
    reporter: _Reporter
    silent: Collection[str]

    def begin(self, supervisor: Supervisor) -> Failures:
        """Has them start, without waiting; returns those for which even that failed."""
        return _each(self.actions, lambda action: supervisor.start_later(self.wanted[action.id]))

    def carry_out(self, start: Callable[[Wanted], None]) -> Failures:
        """Has each started by ``start``; returns all that went wrong."""
        started = _each(self.actions, lambda action: start(self.wanted[action.id]), self.reporter)
        told = [action for action in self.actions if action.id not in self.silent]
        self.reporter.done(told, started)
        return {**self.failures, **started}


def prepare(
    todo: Plan,
    wanted: Sequence[Wanted],
    observed: Observed,
    context: Context,
    *,
    told: Failures | None = None,
    hands: Hands | None = None,
    patient: bool = True,
) -> Starts:
    """The first waves of :func:`carry_out`: all but the starts."""
    supervisor = context.supervisor
    by_id = {each.mount.id: each for each in wanted}
    hands = hands or Hands()
    reporter = _Reporter(hands, told or {})

    unkilled = _each(todo.of(Kind.KILL), lambda each: supervisor.end(observed.placed[each.id]))
    stops = todo.of(Kind.STOP)
    failures = _each(stops, partial(_stop, observed, context, patient=patient), reporter)
    reporter.done(stops, failures)
    stopped = [action for action in stops if action.id not in failures]
    unremoved = _remove(stopped, by_id, observed, supervisor, reporter)

    # What lies on a directory must be gone before another bucket is mounted there.
    busy = {action.directory: failures[action.id] for action in stops if action.id in failures}
    failures.update(unremoved)
    for action in todo.of(Kind.START):
        if action.directory in busy:
            failures.setdefault(action.id, busy[action.directory])
    starts = [action for action in todo.of(Kind.START) if action.id not in failures]
    failures.update(_each(starts, lambda action: hands.make(by_id[action.id]), reporter))
    starts = [action for action in starts if action.id not in failures]
    unwritten = _write([*todo.of(Kind.WRITE), *starts], by_id, supervisor, reporter)
    failures.update(unwritten)
    # Of other changes without a new mount nobody need know.
    lost = [action for action in todo.of(Kind.WRITE) if observed.placed[action.id].lost]
    reporter.done(lost, unwritten)
    starts = [action for action in starts if action.id not in unwritten]

    # Of one that only came down by itself it is told when it is up.
    again = reporter.told.keys() - {action.id for action in stopped}
    return Starts(starts, by_id, {**unkilled, **failures}, reporter, again)


def _write(
    actions: Sequence[Action],
    wanted: Mapping[str, Wanted],
    supervisor: Supervisor,
    reporter: _Reporter,
) -> Failures:
    unwritten = supervisor.write([wanted[action.id] for action in actions]) if actions else {}
    for action in actions:
        if action.id in unwritten:
            reporter.failed(action, Event.WRITE_FAILED, unwritten[action.id])
    return unwritten


def _remove(
    stopped: Sequence[Action],
    wanted: Collection[str],
    observed: Observed,
    supervisor: Supervisor,
    reporter: _Reporter,
) -> Failures:
    """Forgets mounts that have been stopped; returns what of those that are not to start again
    could not be removed. What is to start again is written anew, which fails or mends it."""
    if not stopped:
        return {}
    unremoved = supervisor.remove([observed.placed[action.id] for action in stopped])
    leaving = [action for action in stopped if action.id not in wanted]
    failures = {action.id: unremoved[action.id] for action in leaving if action.id in unremoved}
    for action in leaving:
        if action.id in failures:
            reporter.failed(action, Event.STOP_FAILED, failures[action.id])
    reporter.hands.remove(action.directory for action in leaving)
    return failures


def await_started(
    todo: Plan,
    wanted: Sequence[Wanted],
    observed: Observed,
    *,
    start: Callable[[Wanted], None],
) -> Failures:
    """Waits for mounts that somebody else has begun to start, such as the daemon."""
    planned = {action.id for action in todo.actions}
    by_id = {each.mount.id: each for each in wanted}
    begun = [
        Action(Kind.START, each.id, each.definition.directory, each.definition.bucket, "")
        for each in observed.placed.values()
        if each.starting and each.id in by_id and each.id not in planned
    ]
    return _each(begun, lambda action: start(by_id[action.id]), _Reporter(Hands(), {}))


def _stop(observed: Observed, context: Context, action: Action, *, patient: bool) -> None:
    """Takes one mount down, by the policy for those in use."""
    placed = observed.placed[action.id]
    policy = context.busy_policy(placed.definition.directory)
    try:
        context.supervisor.stop(placed, force=policy is WhenBusy.LAZY, patient=patient)
    except AgentError as error:
        if error.problem is Problem.MOUNT_BUSY and policy is WhenBusy.WAIT:
            raise error.retried_for(context.configuration.busy_deadline) from None
        raise


def _each(
    actions: Sequence[Action],
    do: Callable[[Action], None],
    reporter: _Reporter | None = None,
) -> Failures:
    def attempt(action: Action) -> AgentError | None:
        try:
            do(action)
        except AgentError as error:
            if reporter is not None:
                reporter.failed(action, _FAILED[action.kind], error)
            return error
        return None

    if not actions:
        return {}
    results = together([partial(attempt, action) for action in actions], at_once=_AT_ONCE)
    return {action.id: error for action, error in zip(actions, results) if error is not None}


class _Reporter:
    """Tells what is done and what failed, but not what is in ``told`` already."""

    def __init__(self, hands: Hands, told: Failures) -> None:
        self.hands = hands
        self.told = told

    def failed(self, action: Action, event: Event, error: AgentError) -> None:
        """An action failed."""
        known = self.told.get(action.id)
        if error.problem is Problem.MOUNT_ENDING:
            return  # it goes as it should
        if known is None or known.problem is not error.problem:
            self.hands.tell(
                event,
                error.message,
                mount=action.directory,
                bucket=action.bucket,
                error_code=error.problem.code,
                cause=error.cause or "",
            )

    def done(self, actions: Sequence[Action], failures: Failures) -> None:
        """Actions were carried out, but for those that failed."""
        for action in actions:
            if action.id not in failures:
                event, verb = _DONE[action.kind]
                self.hands.tell(
                    event,
                    f"{verb} {action.directory}, because {action.because}",
                    mount=action.directory,
                    bucket=action.bucket,
                )
