"""The OnNodeConfigured action: from a bare node to mounts that answer, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from s3mount_agent.config import config_file
from s3mount_agent.config.desired import Desired
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import OnFailure
from s3mount_agent.core.states import State
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Observed, Plan, Wanted, plan
from s3mount_agent.filesystem import leftovers
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.mountpoint import install_steps, program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import directories, execute, preview, reasons
from s3mount_agent.reconcile.context import Context
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.observe import judge_table, look_at, remember
from s3mount_agent.reconcile.session import Patience, Session, node_session, still_in_force
from s3mount_agent.state import held_down
from s3mount_agent.state.timeline import (
    LEAVES,
    LEFT,
    Step,
    Timeline,
    clock_after,
    waiting_for,
)
from s3mount_agent.supervisor import agent_service, crawlers, fuse_connections, needrestart, selinux
from s3mount_agent.system import capacity, journal, probe
from s3mount_agent.system.probe import Answer
from s3mount_agent.system.threads import if_it_lasts

_PROBE_SECONDS = 30.0
# A mount whose mount-s3 does not end is left to the agent after that.
_STOP_SECONDS = 60.0
# How long mount-s3's installation and the mounts are tried for: a head node must not keep the whole
# stack waiting, since the daemon goes on trying; a compute node has no better use for its time,
# within ParallelCluster's own limit of half an hour.
_INSTALL_SECONDS = {OnFailure.CONTINUE: 180.0, OnFailure.FAIL: 600.0}
# As long as mounts may be left alone for another mount-s3.
_MOMENT_SECONDS = 60.0
_BUDGET_SECONDS = {OnFailure.CONTINUE: 60.0, OnFailure.FAIL: 300.0}


@dataclass
class _Begun:
    """What is under way when the lock is given back: ``failures`` are known by then, ``starts``
    are left, the first attempts of all begun but those in ``unbegun``. ``since`` is when the mounts
    were begun with, ``new_service`` whether the service's unit is, ``called`` whether it was
    started, ``observed`` and ``mounts`` how all was found in the end."""

    session: Session
    installed: Installed | None
    since: float
    new_service: bool
    failures: Failures
    observed: Observed
    todo: Plan = field(default_factory=Plan)
    wanted: tuple[Wanted, ...] = ()
    starts: execute.Starts | None = None
    unbegun: Failures = field(default_factory=dict)
    called: bool = False
    mounts: tuple[MountStatus, ...] = ()

    @property
    def has_to_wait(self) -> bool:
        """Whether a mount is on its way."""
        starting = any(each.starting for each in self.session.observed.placed.values())
        return self.starts is not None and (bool(self.starts.actions) or starting)

    def record(self) -> None:
        """Writes down how the mounts are; the lock is held."""
        context = self.session.context
        self.mounts = remember(context, self.installed, self.failures, observed=self.observed)

    def call_service(self) -> bool:
        """Has the service run, and returns whether it did not before all this."""
        self.called |= agent_service.ensure_running(new=self.new_service)
        self.new_service = False
        return self.called


def bootstrap(
    read: Callable[[], Desired | None],
    by: str = "bootstrap",
    *,
    again: Callable[[], None] | None = None,
    news: str = "",
) -> tuple[Failures, Context]:
    """Brings the node to what is desired and returns what is wrong with its mounts, by id.

    Raises an AgentError where nothing could be done at all. Run again, it changes nothing.
    ``read``, ``by`` and ``again`` are those of :func:`node_session`; ``news`` is a sentence about
    what was put in force just before.
    """
    timeline, ahead = Timeline(), probe.Listing(())
    try:
        slurm = capacity.ask_slurm()  # outside of the lock: it may be silent
        with node_session(by, read, again=again) as session:
            context, ahead = session.context, _list_ahead(session)
            with timeline.step("facts") as step:
                preview.require_doable(context, session.observed)
                step.result = "; ".join(filter(None, [context.words, slurm]))
            try:
                begun = _begin(session, timeline, news)
            except KeyboardInterrupt:
                _leave_to_agent(session)
                raise KeyboardInterrupt(LEFT) from None
        try:
            _await(begun, by, timeline)
            _call_service(begun, timeline)
            failures = begun.failures
            failures.update(_verify(context, begun, ahead, timeline))
        except KeyboardInterrupt:
            with contextlib.suppress(AgentError):
                if not begun.call_service():
                    agent_service.wake()
            raise KeyboardInterrupt(LEFT) from None
        leftovers.sweep_builds()
        _summarise(context, failures, begun.installed)
    finally:
        ahead.wait(0)
        timeline.save()
    return failures, context


def _list_ahead(session: Session) -> probe.Listing:
    """Begins to verify what is up already: nearly always all of it stays as it is."""
    directories = (mount.directory for mount in session.context.mounts)
    here = [each for each in directories if session.observed.is_ours(each)]
    return probe.Listing(here, fuse_connections.whose)


def _leave_to_agent(session: Session) -> None:
    """What every long wait promises for the case of Ctrl-C: the service goes on with it."""
    with contextlib.suppress(AgentError):
        session.desired.save()
        if not agent_service.ensure_running(new=agent_service.put_in_place()):
            agent_service.wake()


def _begin(session: Session, timeline: Timeline, news: str) -> _Begun:
    """All that is done under the lock."""
    context = session.context
    leftovers.sweep_files()
    budget = _INSTALL_SECONDS[context.conduct.on_failure]
    installed, missing = _install(context, timeline, budget)
    with timeline.step("config") as step:
        changed = session.desired.save()
        held_down.save(())
        # With those of the mounts, so that systemd need not read its units more than once.
        new = agent_service.put_in_place()
        before = news or f"{config_file.PATH} unchanged"
        step.result = f"{config_file.PATH} is now in force" if changed else before
        timeline.changed |= changed or bool(news)
        if changed or new:
            selinux.restore_all()
    failures = {mount.id: missing for mount in context.mounts if missing}
    begun = _Begun(session, installed, timeline.elapsed, new, failures, session.observed)
    if installed is not None:
        _begin_mounts(begun, installed, timeline)
    if not begun.has_to_wait:
        begun.record()
    return begun


def _install(
    context: Context, timeline: Timeline, budget: float
) -> tuple[Installed | None, AgentError | None]:
    """The node's mount-s3; on a node that continues, why there is none: the agent tries again."""
    source = context.configuration.install
    try:
        installed = install_steps.bring_mount_s3(source, timeline, budget=budget)
    except AgentError as error:
        here = program.find()
        if context.conduct.on_failure is OnFailure.FAIL:
            raise
        if here is None:
            return None, error
        journal.say(f"         mount-s3 {here} stays for now: {error.message}")
        installed = here
    install_steps.allow_other(source, timeline)
    return installed, None


def install_only() -> None:
    """Installs mount-s3 if it is missing, and changes nothing else: what an administrator holds
    down stays down, and his edit of config.yaml waits. Raises why it failed, and writes it down."""
    with node_session("install-mount-s3") as session:
        context = session.context
        # Where there is none nobody waits for it, and the line may be slow. Else the service does,
        # which looks after the mounts.
        budget = _MOMENT_SECONDS if program.find() else max(_INSTALL_SECONDS.values())
        installed, missing = _install(context, Timeline(), budget)
        failures = {mount.id: missing for mount in context.mounts if missing}
        remember(context, installed, failures, tried=failures, observed=session.observed)
        if missing is not None:
            raise missing


def _begin_mounts(begun: _Begun, installed: Installed, timeline: Timeline) -> None:
    """Stops, writes and begins to start what the plan says."""
    context, observed = begun.session.context, begun.session.observed
    begun.wanted, begun.failures = execute.want(context, installed, observed)
    begun.todo = plan(begun.wanted, observed, keep=begun.failures)
    with waiting_for("mounts: those that are to change are taken down", _STOP_SECONDS):
        begun.starts = execute.prepare(begun.todo, begun.wanted, observed, context)
    begun.unbegun = begun.starts.begin(context.supervisor)
    begun.failures.update(begun.starts.failures)
    directories.tidy(context.mounts)
    _tell_neighbours(context, timeline)
    if begun.todo:
        begun.observed = look_at(context)
        timeline.changed = True


def _await(begun: _Begun, by: str, timeline: Timeline) -> None:
    """Waits for the mounts that have been begun, while others may change the node, and writes down
    what came of them."""
    context = begun.session.context
    with timeline.step("mounts", since=begun.since) as step:
        if begun.has_to_wait:
            _await_mounts(begun, by)
        done = [
            f"{action.kind.value} {action.directory}"
            for action in begun.todo.actions
            if action.id not in begun.failures
        ]
        step.result = ", ".join(done) or "nothing to change"
        _tell_what_failed(step, context, begun.failures)
        if begun.installed is None:
            step.fail("none: there is no mount-s3 yet")
    for sentence in execute.warnings(begun.wanted):
        journal.say(f"         warning: {sentence}")
    if begun.has_to_wait:
        try:
            with still_in_force(begun.session.desired, by) as same:
                begun.observed = look_at(context)
                # Where another configuration is in force by now, the service knows better. It is
                # woken first: once it has the lock it writes nothing over this that it knew before.
                if same:
                    agent_service.wake()
                    begun.record()
        except AgentError:  # the lock is not to be had, or there is no space to write it down
            begun.observed = look_at(context)


def _await_mounts(begun: _Begun, by: str) -> None:
    context, starts = begun.session.context, begun.starts
    budget = _BUDGET_SECONDS[context.conduct.on_failure]
    patience = Patience(context, by, budget, begun.unbegun)
    with if_it_lasts(partial(_leave_rest, begun, patience, clock_after(budget))):
        if starts is not None:
            begun.failures.update(starts.carry_out(patience))
        begun.failures.update(
            execute.await_started(begun.todo, begun.wanted, begun.session.observed, start=patience)
        )


def _leave_rest(begun: _Begun, patience: Patience, until: str) -> None:
    """Somebody has to wait: the service is to look after all the other mounts, and he is told."""
    with contextlib.suppress(AgentError):
        begun.call_service()
    if patience.first:
        directories = ", ".join(sorted(patience.first))
        journal.say(
            f"[ wait ] {directories}: mount-s3 is starting (attempt 1, until {until}; {LEAVES})"
        )


def _call_service(begun: _Begun, timeline: Timeline) -> None:
    with timeline.step("daemon") as step:
        started = begun.call_service()
        well = all(mount.state is State.OK for mount in begun.mounts)
        woken = begun.has_to_wait and begun.mounts
        if not started and not woken and (timeline.changed or not well):
            agent_service.wake()  # there is something that it has not seen, or could try
        step.result = "is starting" if started else "already running"
        timeline.changed |= started
        if not agent_service.comes_up():
            step.fail(f"the agent's service is down: `{agent_service.how_to_start()}`")


def _tell_neighbours(context: Context, timeline: Timeline) -> None:
    """What cannot be written costs requests, or a wait, but no mount."""
    try:
        timeline.changed |= crawlers.keep_out([mount.directory for mount in context.mounts])
    except AgentError as error:
        journal.say(f"         updatedb will walk the mounts: {error.message}: {error.cause}")
    try:
        timeline.changed |= needrestart.leave_mounts_alone()
    except AgentError as error:
        journal.say(f"         needrestart may stop the mounts: {error.message}: {error.cause}")


def _tell_what_failed(step: Step, context: Context, failures: Failures) -> None:
    """A mount that failed, or whose change waits, is in the line of its step."""
    waits: list[str] = []
    fails: list[str] = []
    for mount in context.mounts:
        if mount.id in failures:
            busy = failures[mount.id].problem is Problem.MOUNT_BUSY
            (waits if busy else fails).append(mount.directory)
    also = [step.result] if step.result != "nothing to change" else []
    if waits:
        also.insert(0, f"in use: {', '.join(waits)}")
        step.wait("; ".join(also))
    if fails:
        step.fail("; ".join([f"failed: {', '.join(fails)}", *also]))


def _waiting(failures: Failures) -> Failures:
    """Those that are no failures: the mount is up, and in use, and its change waits."""
    return {key: error for key, error in failures.items() if error.problem is Problem.MOUNT_BUSY}


def _verify(context: Context, begun: _Begun, ahead: probe.Listing, timeline: Timeline) -> Failures:
    """Lists each directory once: that takes the mount, the credentials and S3. What was found
    ``ahead`` holds where nothing was changed since. A mount whose change waits is up, too."""
    waits = _waiting(begun.failures)
    failed = begun.failures.keys() - waits.keys()
    up = [mount for mount in context.mounts if mount.id not in failed]
    listing = waiting_for("verify: all mounts are listed", _PROBE_SECONDS)
    with timeline.step("verify") as step, listing:
        directories = [mount.directory for mount in up]
        moved = begun.observed is not begun.session.observed
        findings = {} if moved else ahead.wait(_PROBE_SECONDS)
        new = [each for each in directories if each not in findings]
        findings.update(probe.Listing(new, fuse_connections.whose).wait(_PROBE_SECONDS))
        found = {mount.id: findings.get(mount.directory, reasons.ANOTHER) for mount in up}
        # Last: a directory without a mount answers, too. Whether it is ours, the table alone says;
        # of what does not answer, systemd is asked which process that is by now.
        if all(each.answer is Answer.ANSWERS for each in found.values()):
            observed = judge_table(begun.observed.placed, Table.read(), also=directories)
        else:
            observed = look_at(context)
        silent, refused = reasons.unanswered(up, observed, found, waits)
        answer = len(up) - len(silent)
        step.result = f"{answer} of {len(context.mounts)} mounts answer"
        if not up:
            step.skip("no mount is up" if context.mounts else "there are no mounts")
        elif answer < len(context.mounts):
            step.fail(step.result)
    if refused:
        # What we have seen is what status says, and the service goes on from there.
        reasons.remember(refused)
    if silent:
        agent_service.wake()
    return silent


def _summarise(context: Context, failures: Failures, installed: Installed | None) -> None:
    for mount in context.mounts:
        error = failures.get(mount.id)
        access = "ro" if mount.read_only else "rw"
        outcome = f"failed: {error.message}" if error else f"mounted {access}"
        if error and error.problem is Problem.MOUNT_BUSY:
            outcome = "pending: the new options wait until it is no longer in use"
        journal.say(f"  {mount.directory} <- s3://{mount.bucket}  {outcome}")
    failed = failures.keys() - _waiting(failures).keys()
    good = sum(mount.id not in failed for mount in context.mounts)
    what = f"mount-s3 {installed}" if installed else "no mount-s3 yet"
    journal.say(f"{good} of {len(context.mounts)} mounts are up, with {what}")
