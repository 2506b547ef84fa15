"""The service: keeps the mounts as the configuration says, after a boot and when things happen.

It waits for nothing but events: mounts are started by their supervisor and looked at again when
something changes or the time has come, so that one mount never waits for another.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.states import State
from s3mount_agent.daemon.lives import Lives
from s3mount_agent.daemon.metrics import Recorder
from s3mount_agent.daemon.refresher import Refresher
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.job_readiness import is_awaited
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Observed, Wanted, plan
from s3mount_agent.decide.retry_policy import Wake
from s3mount_agent.filesystem import leftovers, lock
from s3mount_agent.reconcile.context import Context
from s3mount_agent.supervisor import agent_service
from s3mount_agent.system.wakeups import Wakeups

_ALONE_SECONDS = 10.0
# Jobs wait for READY=1 after a reboot (Before=slurmd.service), but not for ever.
_READY_SECONDS = 120.0
_MOVING_SECONDS = 0.5
_BLIND_SECONDS = 2.0
# What no event tells is found by a look now and then.
_CYCLE_SECONDS = 300.0
_INSTALL_SECONDS = 120.0
_LONGEST_INSTALL_SECONDS = 3600.0
# How often it is looked whether somebody has installed mount-s3, which costs next to nothing.
_MISSING_SECONDS = 2.0
_ROUND_SECONDS = 60.0
_NOTHING_TO_DO = (Problem.NOT_CONFIGURED, Problem.FOREIGN_MACHINE)
_MOVING = {State.STARTING, State.STALE, State.HUNG}


def run() -> None:
    """Works until SIGTERM; the mounts stay."""
    wakeups = Wakeups()  # who finds the lock taken may send a signal
    with lock.hold(agent_service.name(), timeout=_ALONE_SECONDS, path=agent_service.LOCK):
        leftovers.sweep_files()
        _work(wakeups, Surroundings())


def _work(wakeups: Wakeups, around: Surroundings) -> None:
    daemon, refresher = Daemon(around), Refresher(around)
    deadline = around.now() + _READY_SECONDS
    ready = False
    happened = True
    while not wakeups.stopping:
        reloaded = wakeups.take_reload()
        if reloaded:
            daemon.reload()
        if happened or daemon.is_due(table_changed=wakeups.take_table_change()):
            daemon.cycle()
        if not ready and (daemon.settled or around.now() >= deadline):
            ready = True
            around.notify("READY=1")
            daemon.tell_late()
        asked = refresher.work(every=daemon.configuration.refresh, now=reloaded)
        news = asked and daemon.is_outdated()
        # Only here, after all the work of this round: a daemon that hangs in it is restarted.
        around.notify("WATCHDOG=1", f"STATUS={daemon.sentence}")
        around.tell_lost()
        daemon.publish()
        pause = min(daemon.pause(), refresher.pause(), _ROUND_SECONDS, around.watchdog() / 3)
        if not ready:
            pause = min(pause, max(0.0, deadline - around.now()))
        quiet = [*daemon.health.descriptors, *refresher.descriptors]
        happened = wakeups.wait(0 if news else pause, daemon.pids, quiet) or news
    around.notify("STOPPING=1")


class Daemon:
    """What the service remembers between two cycles; ``sentence`` is what the last one found."""

    def __init__(self, around: Surroundings) -> None:
        self.sentence = "starting"
        self.settled = False
        self.configuration = Configuration()
        self.health = around.health()
        self._around = around
        self._lives = Lives(around)
        self._mounts: tuple[MountStatus, ...] = ()
        # In this boot nobody has looked yet: no job runs, and slurmd waits.
        self._boots = not around.recall()
        self._jobs_wait = False
        self._recorder = Recorder(around)
        self._unmade = False
        self._missing = False
        self._table: Mapping[str, object] = {}
        self._written: tuple[int, int] | None = None
        # At its start, and when it is reloaded, config.yaml is put in force.
        self._begins = True
        self._asked = False
        self._edited = 0
        self._due = 0.0
        # The bootstrap has just tried.
        self._install_pause = _INSTALL_SECONDS
        self._install_due = around.now() + _INSTALL_SECONDS

    @property
    def pids(self) -> list[int]:
        """The processes whose end is an event."""
        return [mount.pid for mount in self._mounts if mount.pid]

    def is_due(self, *, table_changed: bool) -> bool:
        """Whether to look again though nothing happened to a process; takes in what probes have
        found. Other people's mounts, of which there may be many, are no reason."""
        if self.health.work(self.configuration) or self._around.now() >= self._due:
            return True
        if self._missing and self._around.installed() is not None:
            return True
        if not table_changed:
            return False
        table = self._around.table()
        return any(table.get(mount.path) != self._table.get(mount.path) for mount in self._mounts)

    def reload(self) -> None:
        """Puts config.yaml in force with the next cycle, and tries at once what has failed."""
        self._begins = self._asked = True
        self._lives.wake(Wake.ASKED)

    def is_outdated(self) -> bool:
        """Whether the configuration is another one than in the last cycle."""
        return self._written != self._around.versions()

    def pause(self) -> float:
        """How many seconds may pass until then."""
        metrics = self._recorder.pause(self.configuration.metrics)
        due = self._due - self._around.now()
        missing = _MISSING_SECONDS if self._missing else due
        return max(0.0, min(due, missing, self.health.pause(), metrics))

    def cycle(self) -> None:
        """Starts what is down and may be tried, ends what hangs, and saves what is seen."""
        # As it was before: what changes from now on is news.
        self._table = self._around.table()
        self._around.ask_ahead(self.configuration)
        try:
            with self._around.alone():
                self._mounts = self._cycle()
        except AgentError as error:
            self._due = self._around.now() + _BLIND_SECONDS
            if error.problem is not Problem.LOCKED and error.message != self.sentence:
                self._tell(Event.CYCLE_FAILED, error.message, error)
            self.sentence = error.message
            # Without a configuration there is nothing that a boot could wait for.
            if error.problem.exit_code is Exit.USAGE or error.problem in _NOTHING_TO_DO:
                self.settled = True
            return
        self._due = self._around.now() + self._until_next()
        self.sentence = _sentence(self._mounts)
        waits = self._jobs_wait
        self.settled = not any(is_awaited(mount, by_jobs=waits) for mount in self._mounts)

    def tell_late(self) -> None:
        """Tells that the boot goes on without all mounts, if it does."""
        if self._boots and not self.settled:
            after = f"{_READY_SECONDS:.0f} seconds"
            message = f"the boot goes on after {after}, and with it slurmd: {self.sentence}"
            self._tell(Event.BOOT_LATE, message, None)

    def publish(self) -> None:
        """Publishes figures, if the configuration asks for them."""
        wanted, conditions = self.configuration.metrics, self.health.conditions()
        self._recorder.publish(wanted, self._mounts, conditions, self._lives.stories())

    def _until_next(self) -> float:
        for mount in self._mounts:
            if mount.state in _MOVING or self._lives.is_unexplained(mount):
                return _MOVING_SECONDS
        # A mount may have come up while this cycle was at work: its health is not followed yet.
        up = {mount.pid for mount in self._mounts if mount.state is State.OK}
        if not up <= self.health.pids:
            return _MOVING_SECONDS
        longest = self.configuration.retry_at_most_every if self._unmade else _CYCLE_SECONDS
        return self._lives.pause(longest)

    def _cycle(self) -> tuple[MountStatus, ...]:
        self._read_configuration()
        if self._asked:
            self._asked = False
            self._recall(first=False)
        around = self._around
        context = around.gather(self.configuration)
        self._jobs_wait = self._boots and context.conduct.role.runs_jobs
        installed = around.installed()
        self._missing = installed is None
        observed = around.observe(context)
        self._follow(observed)
        wanted: tuple[Wanted, ...] = ()
        if installed is None:
            later, known = self._install_later(), around.why_missing()
            failures = {mount.id: known.get(mount.id, later) for mount in context.mounts}
        else:
            wanted, failures = around.want(context, installed, observed)
            # Each attempt keeps the node's lock, and so the mounts from being looked after.
            if around.is_to_install(self.configuration):
                self._install_later(growth=2)
        down = around.held()
        up = tuple(each for each in wanted if each.mount.id not in down)
        self._reconcile(up, observed, context, keep=failures)
        if installed is not None:
            around.tidy(context.mounts)
        # What this node cannot have yet, for want of mount-s3 or of a mount's owner.
        self._unmade = bool(failures)
        failures = {**self._lives.failures(), **failures}
        mounts = around.remember(context, installed, failures, self.health.conditions())
        for mount in mounts:
            self._lives.judge(mount)
        self._recorder.follow(mounts)
        around.tell_neighbours(context, mounts)
        return mounts

    def _install_later(self, growth: int = 1) -> AgentError:
        """Has another attempt made to install mount-s3, now and then; what to say meanwhile."""
        now = self._around.now()
        if now >= self._install_due:
            self._install_due = now + self._install_pause
            self._install_pause = min(_LONGEST_INSTALL_SECONDS, self._install_pause * growth)
            self._around.install_later()
        return AgentError(
            Problem.PACKAGES_FAILED, "mount-s3 could not be installed yet", retry_for=math.inf
        )

    def _follow(self, observed: Observed) -> None:
        """Has the health of what is up watched, and of what serves on without its mount."""
        up = [each for each in observed.placed.values() if observed.is_useful(each)]
        detached = [each for each in observed.placed.values() if observed.is_detached(each)]
        self.health.follow(up, self.configuration, detached)

    def _reconcile(
        self,
        wanted: tuple[Wanted, ...],
        observed: Observed,
        context: Context,
        *,
        keep: Collection[str],
    ) -> None:
        ids = {want.mount.id for want in wanted}
        self._lives.keep_only(ids | set(observed.placed), context)
        conditions = self.health.conditions()
        for placed in observed.placed.values():
            condition = conditions.get(placed.id, Condition())
            # Of what is to go, only a hang is of interest.
            if placed.id in ids or condition.lost:
                self._lives.look(placed, observed, context, condition)
        records = self._lives.standings(conditions)
        todo = plan(wanted, observed, keep=keep, held=self._around.held(), records=records)
        failures = self._around.carry_out(todo, wanted, observed, context, self._lives.failures())
        self._around.notify("WATCHDOG=1")
        self._lives.learn(todo, wanted, observed, failures)

    def _tell(
        self,
        event: Event,
        message: str,
        error: AgentError | None,
        directory: str = "",
        bucket: str = "",
    ) -> None:
        self._around.tell(event, message, error, mount=directory, bucket=bucket)

    def _read_configuration(self) -> None:
        """A new configuration is a new chance for what has failed; one that is wrong changes
        nothing."""
        written = self._around.versions()
        if written == self._written and not self._begins:
            self._tell_edit()
            return
        first, self._written = self._written is None, written
        begins, self._begins = self._begins, False
        new: Configuration | None
        wrong: AgentError | None = None
        try:
            if begins:
                new, wrong = self._around.begin()
                self._written = self._around.versions()
            else:
                new = self._around.configuration()
        except AgentError as error:
            if first:
                self._written, self._begins = None, True
                raise
            new, wrong = None, error
        if wrong is not None:
            message = f"{wrong.message}; the last good configuration stays in force"
            self._tell(Event.REFUSED, message, wrong)
        if new is None:
            return
        again = begins and not first and new == self.configuration
        self.configuration = new
        self._lives.longest_pause = float(new.retry_at_most_every)
        if first:
            self._recall(first=True)
        elif not again:
            self._lives.wake(Wake.CONFIGURATION)
            self._install_pause = _INSTALL_SECONDS
            self._install_due = min(self._install_due, self._around.now() + _INSTALL_SECONDS)

    def _tell_edit(self) -> None:
        """Tells once that config.yaml is not what is in force."""
        edited = self._around.edited()
        if edited != self._edited:
            self._edited = edited
            message = self._around.pending()
            if message:
                self._tell(Event.EDITED, message, None)

    def _recall(self, *, first: bool) -> None:
        """Takes in what was known before; ``first``: by the service before this one."""
        known = self._around.recall()
        self.health.recall({each.asked: each.s3 for each in known if each.asked and each.s3})
        self._lives.recall(known, first=first)


def _sentence(mounts: tuple[MountStatus, ...]) -> str:
    bad = [s for s in mounts if s.state is not State.OK]
    names = "; ".join(f"{s.path} is {s.state.value}" for s in bad[:3])
    good = f"{len(mounts) - len(bad)} of {len(mounts)} mounts are up"
    return f"{good}; {names}" if names else good
