"""The service: keeps the mounts as the configuration says, after a boot and when things happen.

It waits for nothing but events: mounts are started by their supervisor and looked at again when
something changes or the time has come, so that one mount never waits for another.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection

from s3mount_agent.config import config_file, desired
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.events import Event
from s3mount_agent.core.plan import Kind, Observed, Placed, Wanted, plan
from s3mount_agent.core.retry_policy import Wake
from s3mount_agent.core.states import Presence, State
from s3mount_agent.daemon.health import Health
from s3mount_agent.daemon.metrics import Recorder
from s3mount_agent.daemon.refresher import Refresher
from s3mount_agent.daemon.reports import Changes
from s3mount_agent.daemon.retries import Troubles
from s3mount_agent.mountpoint import program
from s3mount_agent.reconcile import directories, execute
from s3mount_agent.reconcile.context import Context, ask_ahead, gather
from s3mount_agent.reconcile.execute import Failures
from s3mount_agent.reconcile.look import Sight
from s3mount_agent.reconcile.observe import observe
from s3mount_agent.reconcile.remember import remember
from s3mount_agent.state import held, in_force, leftovers, origin, status_file
from s3mount_agent.supervisor import service
from s3mount_agent.system import files, journal, lock, mountinfo, systemd
from s3mount_agent.system.wakeups import Events

_ALONE_SECONDS = 10.0
# Jobs wait for READY=1 after a reboot (Before=slurmd.service), but not for ever.
_READY_SECONDS = 120.0
_MOVING_SECONDS = 0.5
_BLIND_SECONDS = 2.0
# What no event tells is found by a look now and then.
_CYCLE_SECONDS = 300.0
_INSTALL_SECONDS = 120.0
_ROUND_SECONDS = 60.0
_NOTHING_TO_DO = (Problem.NOT_CONFIGURED, Problem.FOREIGN_MACHINE)
_SETTLED = {State.OK, State.FAILED, State.FOREIGN, State.DEGRADED}
_MOVING = {State.STARTING, State.STALE, State.HUNG}


def run() -> None:
    """Works until SIGTERM; the mounts stay."""
    events = Events()  # who finds the lock taken may send a signal
    with lock.hold("daemon", timeout=_ALONE_SECONDS, path=service.LOCK):
        _work(events, Daemon(), Refresher())


def _work(events: Events, daemon: Daemon, refresher: Refresher) -> None:
    leftovers.sweep()
    began = time.monotonic()
    ready = False
    happened = True
    while not events.stopping:
        reloaded = events.take_reload()
        if reloaded:
            daemon.reload()
        if happened or daemon.is_due(table_changed=events.take_table_change()):
            daemon.cycle()
        if not ready and (daemon.settled or time.monotonic() - began > _READY_SECONDS):
            ready = True
            systemd.notify("READY=1")
        asked = refresher.work(every=daemon.configuration.refresh, now=reloaded)
        news = asked and daemon.is_outdated()
        # Only here, after all the work of this round: a daemon that hangs in it is restarted.
        systemd.notify("WATCHDOG=1", f"STATUS={daemon.sentence}")
        daemon.publish()
        pause = min(daemon.pause(), refresher.pause(), _ROUND_SECONDS, systemd.watchdog() / 3)
        quiet = [*daemon.health.descriptors, *refresher.descriptors]
        happened = events.wait(0 if news else pause, daemon.pids, quiet) or news
    systemd.notify("STOPPING=1")


class Daemon:
    """What the service remembers between two cycles; ``sentence`` is what the last one found."""

    def __init__(self) -> None:
        self.sentence = "starting"
        self.settled = False
        self.configuration = Configuration()
        self.health = Health()
        self._sights: tuple[Sight, ...] = ()
        self._troubles = Troubles()
        self._recorder = Recorder()
        self._changes = Changes()
        self._unmade = False
        # Mounts that were up in the last cycle, and those that have gone down since they were.
        self._up: dict[str, Placed] = {}
        self._lost: set[str] = set()
        self._table: dict[str, mountinfo.Entry] = {}
        self._written: tuple[int, int] | None = None
        # At its start, and when it is reloaded, config.yaml is put in force.
        self._begins = True
        self._edited = 0
        self._due = 0.0
        # The bootstrap has just tried.
        self._install_due = time.monotonic() + _INSTALL_SECONDS

    @property
    def pids(self) -> list[int]:
        """The processes whose end is an event."""
        return [sight.pid for sight in self._sights if sight.pid]

    def is_due(self, *, table_changed: bool) -> bool:
        """Whether to look again though nothing happened to a process; takes in what probes have
        found. Other people's mounts, of which there may be many, are no reason."""
        if self.health.work(self.configuration) or time.monotonic() >= self._due:
            return True
        if not table_changed:
            return False
        table = mountinfo.read()
        return any(
            table.get(sight.row.path) != self._table.get(sight.row.path) for sight in self._sights
        )

    def reload(self) -> None:
        """Puts config.yaml in force with the next cycle, and tries at once what has failed."""
        self._begins = True
        self._troubles.wake(Wake.ASKED)

    def is_outdated(self) -> bool:
        """Whether the configuration is another one than in the last cycle."""
        return self._written != _versions()

    def pause(self) -> float:
        """How many seconds may pass until then."""
        metrics = self._recorder.pause(self.configuration.metrics)
        return max(0.0, min(self._due - time.monotonic(), self.health.pause(), metrics))

    def cycle(self) -> None:
        """Starts what is down and may be tried, ends what hangs, and saves what is seen."""
        # As it was before: what changes from now on is news.
        self._table = mountinfo.read()
        ask_ahead(self.configuration)
        try:
            # Not waited for: while another command works, SIGTERM must still be heard.
            with lock.hold("daemon", timeout=0):
                self._sights = self._cycle()
        except AgentError as error:
            self._due = time.monotonic() + _BLIND_SECONDS
            if error.problem is not Problem.LOCKED and error.message != self.sentence:
                journal.event(Event.CYCLE_FAILED, error.message, error_code=error.problem.code)
            self.sentence = error.message
            # Without a configuration there is nothing that a boot could wait for.
            if error.problem.exit_code is Exit.USAGE or error.problem in _NOTHING_TO_DO:
                self.settled = True
            return
        self._due = time.monotonic() + self._until_next()
        self.sentence = _sentence(self._sights)
        self.settled = all(
            sight.row.held or sight.judgement.state in _SETTLED for sight in self._sights
        )

    def publish(self) -> None:
        """Publishes figures, if the configuration asks for them."""
        conditions = self.health.conditions()
        self._recorder.publish(self.configuration.metrics, self._sights, conditions)

    def _until_next(self) -> float:
        if any(sight.judgement.state in _MOVING for sight in self._sights):
            return _MOVING_SECONDS
        # A mount may have come up while this cycle was at work: its health is not followed yet.
        up = {sight.pid for sight in self._sights if sight.judgement.state is State.OK}
        if not up <= self.health.pids:
            return _MOVING_SECONDS
        due = self._troubles.seconds_until_due()
        longest = self._troubles.longest_pause if self._unmade else _CYCLE_SECONDS
        return longest if due is None else min(due, longest)

    def _cycle(self) -> tuple[Sight, ...]:
        self._read_configuration()
        context = gather(self.configuration)
        installed = program.find()
        observed = self._end_hung(observe(context.supervisor), context)
        failures: Failures = {}
        if installed is None:
            failures = dict.fromkeys((mount.id for mount in context.mounts), self._install_later())
        else:
            wanted, failures = execute.want(context, installed, observed)
            down = held.load()
            up = tuple(each for each in wanted if each.mount.id not in down)
            self._reconcile(up, observed, context, keep=failures)
            directories.tidy(mount.directory for mount in context.mounts)
        # What this node cannot have yet, for want of mount-s3 or of a mount's owner.
        self._unmade = bool(failures)
        failures = {**self._troubles.failures(), **failures}
        sights = remember(context, installed, failures, self.health.conditions())
        self._changes.tell(sights)
        self._recorder.follow(sights)
        return sights

    def _install_later(self) -> AgentError:
        """Has another attempt made to install mount-s3, now and then; says so in the meantime."""
        now = time.monotonic()
        if now >= self._install_due:
            self._install_due = now + _INSTALL_SECONDS
            service.apply_later()
        return AgentError(
            Problem.PACKAGES_FAILED, "mount-s3 could not be installed yet", retry_for=math.inf
        )

    def _reconcile(
        self,
        wanted: tuple[Wanted, ...],
        observed: Observed,
        context: Context,
        *,
        keep: Collection[str],
    ) -> None:
        ids = {want.mount.id for want in wanted}
        self._troubles.keep_only(ids | set(observed.placed))
        before, self._up = self._up, {}
        self._lost &= ids
        for placed in observed.placed.values():
            if placed.id in ids and not self._troubles.is_busy(placed.id):
                self._take_note_of_end(before.get(placed.id), placed)
                self._take_note(placed, observed, context)
        # What has to wait is neither started, nor stopped, nor taken for unwanted.
        due = tuple(want for want in wanted if self._troubles.may_try(want.mount.id))
        visible = {
            mount_id: placed
            for mount_id, placed in observed.placed.items()
            if self._troubles.may_try(mount_id)
            # Whatever failed, what is no longer wanted can go; only who uses it is waited for.
            or (mount_id not in ids and not self._troubles.is_busy(mount_id))
        }
        seen = Observed(visible, observed.presence)
        todo = plan(due, seen, keep=keep)
        start = context.supervisor.start_later
        told = self._troubles.failures()
        failures = execute.carry_out(todo, due, seen, context, start=start, told=told)
        essences = {want.mount.id: want.definition.essence for want in due}
        for action in todo.of(Kind.STOP):
            if action.id not in failures:
                self._troubles.over(action.id)
                self._up.pop(action.id, None)
                if seen.placed[action.id].definition.essence == essences.get(action.id):
                    self._lost.add(action.id)  # not changed, but to be repaired
        for action in todo.of(Kind.START):
            self._troubles.trying(action.id)
        for mount_id, error in failures.items():
            self._troubles.note(mount_id, error)

    def _end_hung(self, observed: Observed, context: Context) -> Observed:
        """Has the health of what is up watched, and ends what hangs: from then on it is on its way,
        like anything that is started again."""
        up = [
            placed
            for placed in observed.placed.values()
            if placed.active and observed.on(placed.definition.directory) is Presence.MOUNTPOINT_S3
        ]
        self.health.follow(up, self.configuration)
        conditions = self.health.conditions()
        hung = [placed for placed in up if conditions[placed.id].lost]
        for placed in hung:
            self._end(placed, context)
        ended = {p.id: dataclasses.replace(p, active=False, starting=True) for p in hung}
        return Observed({**observed.placed, **ended}, observed.presence)

    def _end(self, placed: Placed, context: Context) -> None:
        news = placed.id not in self._lost
        self._lost.add(placed.id)
        if news:
            told = f"{placed.definition.directory} does not answer: mount-s3 is ended"
            _tell_placed(placed, Event.HUNG, told, AgentError(Problem.MOUNT_SILENT, told))
        try:
            context.supervisor.end(placed)
        except AgentError as error:  # the others are looked after all the same
            if news:
                _tell_placed(placed, Event.STOP_FAILED, error.message, error)
        # Each takes its time, and is progress.
        systemd.notify("WATCHDOG=1")

    def _take_note_of_end(self, before: Placed | None, placed: Placed) -> None:
        """Learns that the process of a mount has ended, though nobody changed the mount; by now
        systemd may have started another."""
        if before is None or before.pid == placed.pid or before.text != placed.text:
            return
        error = placed.ended()
        if self._troubles.note(placed.id, error):
            _tell_placed(placed, Event.ENDED, error.message, error)
        if placed.starting:
            self._troubles.trying(placed.id)

    def _take_note(self, placed: Placed, observed: Observed, context: Context) -> None:
        """Learns how the last attempt to start a mount went, if it is over."""
        if placed.starting:
            # Whoever began it: how it ends is news.
            self._troubles.trying(placed.id)
            return
        if placed.active:
            self._up[placed.id] = placed
            if observed.on(placed.definition.directory) is not Presence.MOUNTPOINT_S3:
                return  # its process lives, but nobody can use it
            if self._troubles.over(placed.id) or placed.id in self._lost:
                told = f"{placed.definition.directory} is mounted again"
                _tell_placed(placed, Event.RECOVERED, told)
            self._lost.discard(placed.id)
            return
        if not self._troubles.is_news(placed.id):
            return
        error = context.supervisor.failure(placed)
        # That we have ended one that hung was told by then.
        ours = (
            placed.id in self._lost and error is not None and error.problem is Problem.MOUNT_ENDED
        )
        if error is not None and self._troubles.note(placed.id, error) and not ours:
            _tell_placed(placed, Event.START_FAILED, error.message, error)
        systemd.notify("WATCHDOG=1")  # the journal may take its time

    def _read_configuration(self) -> None:
        """A new configuration is a new chance for what had failed for good; one that is wrong
        changes nothing."""
        written = _versions()
        if written == self._written and not self._begins:
            self._tell_edit()
            return
        first, self._written = self._written is None, written
        begins, self._begins = self._begins, False
        wanted: desired.Desired | None
        wrong: AgentError | None = None
        try:
            if begins:
                wanted, wrong = desired.begin()
                self._written = _versions()
            else:
                wanted = desired.in_force()
        except AgentError as error:
            if first:
                self._written, self._begins = None, True
                raise
            wanted, wrong = None, error
        if wrong is not None:
            told = f"{wrong.message}; the last good configuration stays in force"
            journal.event(Event.REFUSED, told, error_code=wrong.problem.code)
        if wanted is None:
            return
        again = begins and not first and wanted.configuration == self.configuration
        self.configuration = wanted.configuration
        if not again:
            self._troubles.clear()
        self._troubles.longest_pause = float(self.configuration.retry_at_most_every)
        if first:
            self._recall()

    def _tell_edit(self) -> None:
        """Tells once that config.yaml is not what is in force."""
        edited = files.modified(config_file.PATH)
        if edited != self._edited:
            self._edited = edited
            told = desired.pending()
            if told:
                journal.event(Event.EDITED, told)

    def _recall(self) -> None:
        """What was known before the service was started need not be found out, or told, again."""
        known = status_file.load()
        rows = known.rows if known else ()
        self._changes.recall(rows)
        self.health.recall({row.pid: row.s3 for row in rows if row.pid and row.s3})
        for row in rows:
            # What the bootstrap, or a daemon before this one, has found and told.
            if row.failure is not None:
                self._troubles.note(row.id, status_file.error_of(row.failure))
        self._troubles.wake(Wake.ASKED)


def _versions() -> tuple[int, int]:
    """When the configuration in force, and what is known of its source, were last written."""
    return files.modified(in_force.PATH), files.modified(origin.PATH)


def _tell_placed(
    placed: Placed, event: Event, message: str, error: AgentError | None = None
) -> None:
    journal.event(
        event,
        message,
        mount=placed.definition.directory,
        bucket=placed.definition.bucket,
        error_code=error.problem.code if error else "",
        cause=(error.cause or "") if error else "",
    )


def _sentence(sights: tuple[Sight, ...]) -> str:
    bad = [s for s in sights if s.judgement.state is not State.OK]
    told = "; ".join(f"{s.row.path} is {s.judgement.state.value}" for s in bad[:3])
    good = f"{len(sights) - len(bad)} of {len(sights)} mounts are up"
    return f"{good}; {told}" if told else good
