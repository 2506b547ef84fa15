"""The service: brings the wanted mounts up after a boot, and back when they go.

It waits for nothing but events: mounts are started by their supervisor and looked at again when
the mount table changes or the time has come, so that one mount never waits for another.
"""

from __future__ import annotations

import time

from s3mount_agent.doors import config_file, journal, lock, mount_s3, systemd
from s3mount_agent.doors.events import Events
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.plan import Kind, Observed, Wanted, plan
from s3mount_agent.model.states import State
from s3mount_agent.work import held, reconcile, service
from s3mount_agent.work.context import Context, gather
from s3mount_agent.work.look import Sight
from s3mount_agent.work.observe import observe
from s3mount_agent.work.remember import remember
from s3mount_agent.work.troubles import Troubles

_ALONE_SECONDS = 10.0
# Jobs wait for READY=1 after a reboot (Before=slurmd.service), but not for ever.
_READY_SECONDS = 120.0
_IDLE_SECONDS = 60.0
_MOVING_SECONDS = 0.5
_BLIND_SECONDS = 2.0
_SETTLED = {State.OK, State.FAILED, State.FOREIGN}
_MOVING = {State.STARTING, State.STALE}


def run() -> None:
    """Works until SIGTERM; the mounts stay."""
    with lock.hold("daemon", timeout=_ALONE_SECONDS, path=service.LOCK):
        _work(Events(), Daemon())


def _work(events: Events, daemon: Daemon) -> None:
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
        pids = [sight.pid for sight in sights or () if sight.pid]
        events.wait(daemon.pause(sights), pids)
    systemd.notify("STOPPING=1")


class Daemon:
    """What the service remembers between two cycles; ``sentence`` is what the last one found."""

    def __init__(self) -> None:
        self.sentence = "starting"
        self._troubles = Troubles()
        self._configuration_written = 0.0

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
        return _IDLE_SECONDS if due is None else min(due, _IDLE_SECONDS)

    def _cycle(self) -> tuple[Sight, ...]:
        configuration = config_file.load()
        self._forget_if_rewritten()
        context = gather(configuration)
        down = held.load()
        installed = mount_s3.find()
        if installed is not None:
            mounts = [mount for mount in configuration.mounts if mount.id not in down]
            wanted = reconcile.want(
                mounts,
                context.conduct,
                owner=context.owner,
                installed=installed,
                supervisor=context.supervisor,
            )
            self._reconcile(wanted, context)
        return remember(configuration.mounts, context, installed, self._troubles.failures())

    def _reconcile(self, wanted: tuple[Wanted, ...], context: Context) -> None:
        self._troubles.keep_only({want.mount.id for want in wanted})
        observed = observe(context.supervisor)
        for want in wanted:
            self._take_note(want, observed, context)
        due = tuple(want for want in wanted if self._troubles.may_try(want.mount.id))
        # What has to wait is neither started nor taken for unwanted.
        waiting = {want.mount.id for want in wanted if want not in due}
        visible = {key: value for key, value in observed.placed.items() if key not in waiting}
        seen = Observed(visible, observed.presence)
        todo = plan(due, seen)
        failures = reconcile.carry_out(
            todo, due, seen, context.supervisor, start=context.supervisor.start_later
        )
        for action in todo.of(Kind.START):
            self._troubles.trying(action.id)
        for mount_id, error in failures.items():
            self._troubles.note(mount_id, error)

    def _take_note(self, want: Wanted, observed: Observed, context: Context) -> None:
        """Learns how the last attempt to start a mount ended, if it has ended."""
        mount = want.mount
        placed = observed.placed.get(mount.id)
        if placed is None or placed.starting:
            return
        if placed.active:
            if self._troubles.over(mount.id):
                _tell(want, f"{mount.directory} is mounted again", result="recovered")
            return
        error = context.supervisor.failure(placed) if self._troubles.is_news(mount.id) else None
        if error is not None and self._troubles.note(mount.id, error):
            _tell(want, error.message, result="failed", error_code=error.problem.code)

    def _forget_if_rewritten(self) -> None:
        """A new configuration is a new chance for what had failed for good."""
        written = config_file.PATH.stat().st_mtime
        if written != self._configuration_written:
            self._troubles.clear()
            self._configuration_written = written


def _tell(want: Wanted, message: str, *, result: str, error_code: str = "") -> None:
    journal.event(
        message,
        action="start",
        result=result,
        mount=want.mount.directory,
        bucket=str(want.mount.bucket),
        error_code=error_code,
        priority=journal.ERROR if error_code else journal.INFO,
    )


def _sentence(sights: tuple[Sight, ...]) -> str:
    bad = [s for s in sights if s.judgement.state is not State.OK]
    told = "; ".join(f"{s.row.path} is {s.judgement.state.value}" for s in bad[:3])
    good = f"{len(sights) - len(bad)} of {len(sights)} mounts are up"
    return f"{good}; {told}" if told else good
