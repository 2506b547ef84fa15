"""The service: keeps the mounts as the configuration says, after a boot and when things happen.

It waits for nothing but events: mounts are started by their supervisor and looked at again when
something changes or the time has come, so that one mount never waits for another.
"""

from __future__ import annotations

import time

from s3mount_agent.doors import config_file, held, journal, lock, mount_s3, systemd
from s3mount_agent.doors.events import Events
from s3mount_agent.model.configuration import Configuration
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.plan import Kind, Observed, Placed, Wanted, plan
from s3mount_agent.model.states import State
from s3mount_agent.work import desired, reconcile, service
from s3mount_agent.work.context import Context, gather
from s3mount_agent.work.look import Sight
from s3mount_agent.work.observe import observe
from s3mount_agent.work.reconcile import Failures
from s3mount_agent.work.refresher import Refresher
from s3mount_agent.work.remember import remember
from s3mount_agent.work.troubles import Troubles

_ALONE_SECONDS = 10.0
# Jobs wait for READY=1 after a reboot (Before=slurmd.service), but not for ever.
_READY_SECONDS = 120.0
_MOVING_SECONDS = 0.5
_BLIND_SECONDS = 2.0
_SETTLED = {State.OK, State.FAILED, State.FOREIGN}
_MOVING = {State.STARTING, State.STALE}


def run() -> None:
    """Works until SIGTERM; the mounts stay."""
    with lock.hold("daemon", timeout=_ALONE_SECONDS, path=service.LOCK):
        _work(Events(), Daemon(), Refresher())


def _work(events: Events, daemon: Daemon, refresher: Refresher) -> None:
    began = time.monotonic()
    ready = False
    while not events.stopping:
        sights = daemon.cycle()
        settled = sights is not None and all(
            sight.row.held or sight.judgement.state in _SETTLED for sight in sights
        )
        if not ready and (settled or time.monotonic() - began > _READY_SECONDS):
            ready = True
            systemd.notify("READY=1")
        systemd.notify(f"STATUS={daemon.sentence}")
        refresher.work(every=daemon.configuration.refresh, now=events.take_reload())
        pids = [sight.pid for sight in sights or () if sight.pid] + refresher.pids
        events.wait(min(daemon.pause(sights), refresher.pause()), pids)
    systemd.notify("STOPPING=1")


class Daemon:
    """What the service remembers between two cycles; ``sentence`` is what the last one found."""

    def __init__(self) -> None:
        self.sentence = "starting"
        self.configuration = Configuration()
        self._troubles = Troubles()
        self._written = 0.0

    def cycle(self) -> tuple[Sight, ...] | None:
        """Starts what is down and may be tried, and saves what is seen; None if it cannot look."""
        try:
            # Not waited for: while another command works, SIGTERM must still be heard.
            with lock.hold("daemon", timeout=0):
                sights = self._cycle()
        except AgentError as error:
            if error.problem is not Problem.LOCKED and error.message != self.sentence:
                journal.event(
                    error.message,
                    action="cycle",
                    result="failed",
                    error_code=error.problem.code,
                    priority=journal.ERROR,
                )
            self.sentence = error.message
            return None
        self.sentence = _sentence(sights)
        return sights

    def pause(self, sights: tuple[Sight, ...] | None) -> float:
        """How many seconds may pass until the next cycle, if nothing happens."""
        if sights is None:
            return _BLIND_SECONDS
        if any(sight.judgement.state in _MOVING for sight in sights):
            return _MOVING_SECONDS
        due = self._troubles.seconds_until_due()
        idle = float(self.configuration.look_every)
        return idle if due is None else min(due, idle)

    def _cycle(self) -> tuple[Sight, ...]:
        self._read_configuration()
        context = gather(self.configuration)
        installed = mount_s3.find()
        failures: Failures = {}
        if installed is not None:
            wanted, failures = reconcile.want(context, installed)
            down = held.load()
            self._reconcile(tuple(each for each in wanted if each.mount.id not in down), context)
        return remember(context, installed, {**self._troubles.failures(), **failures})

    def _reconcile(self, wanted: tuple[Wanted, ...], context: Context) -> None:
        observed = observe(context.supervisor)
        self._troubles.keep_only({want.mount.id for want in wanted} | set(observed.placed))
        for placed in observed.placed.values():
            self._take_note(placed, context)
        # What has to wait is neither started, nor stopped, nor taken for unwanted.
        due = tuple(want for want in wanted if self._troubles.may_try(want.mount.id))
        visible = {
            mount_id: placed
            for mount_id, placed in observed.placed.items()
            if self._troubles.may_try(mount_id)
        }
        seen = Observed(visible, observed.presence)
        todo = plan(due, seen)
        start = context.supervisor.start_later
        failures = reconcile.carry_out(todo, due, seen, context, start=start)
        for action in todo.of(Kind.STOP):
            self._troubles.over(action.id)
        for action in todo.of(Kind.START):
            self._troubles.trying(action.id)
        for mount_id, error in failures.items():
            self._troubles.note(mount_id, error)

    def _take_note(self, placed: Placed, context: Context) -> None:
        """Learns how the last attempt to start a mount ended, if it has ended."""
        if placed.starting or self._troubles.is_busy(placed.id):
            return
        if placed.active:
            if self._troubles.over(placed.id):
                told = f"{placed.definition.directory} is mounted again"
                _tell(placed, told, result="recovered")
            return
        error = context.supervisor.failure(placed) if self._troubles.is_news(placed.id) else None
        if error is not None and self._troubles.note(placed.id, error):
            _tell(placed, error.message, result="failed", error_code=error.problem.code)

    def _read_configuration(self) -> None:
        """A new configuration is a new chance for what had failed for good."""
        try:
            written = config_file.PATH.stat().st_mtime
        except FileNotFoundError:
            written = 0.0
        if written != self._written:
            self.configuration = desired.in_force()
            self._troubles.clear()
            self._troubles.longest_pause = float(self.configuration.retry_at_most_every)
            self._written = written


def _tell(placed: Placed, message: str, *, result: str, error_code: str = "") -> None:
    journal.event(
        message,
        action="start",
        result=result,
        mount=placed.definition.directory,
        bucket=placed.definition.bucket,
        error_code=error_code,
        priority=journal.ERROR if error_code else journal.INFO,
    )


def _sentence(sights: tuple[Sight, ...]) -> str:
    bad = [s for s in sights if s.judgement.state is not State.OK]
    told = "; ".join(f"{s.row.path} is {s.judgement.state.value}" for s in bad[:3])
    good = f"{len(sights) - len(bad)} of {len(sights)} mounts are up"
    return f"{good}; {told}" if told else good
