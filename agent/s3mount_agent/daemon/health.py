"""Looking after mounts that are up: do they answer, and can S3 be used through them?

No event tells either, so both are asked now and then: whether mounts answer every minute, which
costs a fork for all of them together; whether S3 can be used every few minutes, which costs a
request to S3 for each mount. Nothing here ever waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import Problem
from s3mount_agent.core.states import Failure
from s3mount_agent.daemon.senses import Senses
from s3mount_agent.decide.hang import CONFIRMATIONS, Condition, Silence, confirm
from s3mount_agent.decide.plan import Placed
from s3mount_agent.mountpoint import messages
from s3mount_agent.reconcile import reasons
from s3mount_agent.system.probe import Answer, Finding, Probe

# How long a look may take before its silence is worth a second look.
_QUIET_SECONDS = 1.0
# What S3 may take: mount-s3 tries ten times, and gives up after about a minute.
_S3_SECONDS = 150.0
_DEEP_AT_ONCE = 4
# How much longer than others one may be silent of which it is not known what it is asked: S3 may be
# slow.
_DETACHED = 4
# By how much of its time a look may be early.
_JITTER = 0.2


@dataclass
class _Mount:
    """What is known of one mount that is up."""

    placed: Placed
    condition: Condition = field(default_factory=Condition)
    silence: Silence | None = None
    deep_due: float = 0.0
    detached: bool = False
    """No path leads there any more, and only the kernel knows whether somebody waits for it."""


@dataclass(frozen=True)
class _Look:
    """A probe under way, and the processes whose directories it looks at: what it finds is of
    them, not of those that may have come after them. ``refusing`` are those of them that had
    lately refused to open a file for writing when it began."""

    probe: Probe
    pids: Mapping[str, int | None]
    refusing: Mapping[int, Failure]

    def means(self, mount: _Mount) -> bool:
        """Whether a mount is still the one that it looks at."""
        return self.pids.get(mount.placed.definition.directory, -1) == mount.placed.pid


class Health:
    """The health of a node's mounts by id, and when to look again."""

    def __init__(self, senses: Senses) -> None:
        self._senses = senses
        self._mounts: dict[str, _Mount] = {}
        self._looks: list[_Look] = []
        self._look_due = 0.0
        self._recalled: dict[int, Failure] = {}

    def recall(self, known: Mapping[int, Failure]) -> None:
        """What was wrong with S3, by the process of the mount, when somebody looked before us."""
        self._recalled = dict(known)
        for mount in self._mounts.values():
            s3 = self._recalled.pop(mount.placed.pid or 0, None)
            if s3 is not None:  # somebody has looked meanwhile: see whether it is so still
                mount.condition = replace(mount.condition, s3=s3)
                mount.deep_due = self._senses.now()

    def work(self, configuration: Configuration) -> bool:
        """Takes in what probes have found and starts those that are due; returns whether a mount
        may have to be judged anew."""
        before = {key: _verdict(mount.condition) for key, mount in self._mounts.items()}
        for look in self._looks:
            look.probe.collect()
            self._take(look, configuration)
        self._confirm_silences(configuration.hung_after)
        self._looks = [look for look in self._looks if look.probe.at is not None]
        self._start_due(configuration)
        return before != {key: _verdict(mount.condition) for key, mount in self._mounts.items()}

    def follow(
        self,
        up: Iterable[Placed],
        configuration: Configuration,
        detached: Iterable[Placed] = (),
    ) -> None:
        """Looks after these mounts from now on; a new process is a new mount. ``detached`` are
        those that were unmounted while somebody used them."""
        now = self._senses.now()
        here = {placed.id: placed for placed in (*up, *detached)}
        for mount_id in list(self._mounts):
            placed = here.get(mount_id)
            if placed is None or placed.pid != self._mounts[mount_id].placed.pid:
                del self._mounts[mount_id]
        for mount_id, placed in here.items():
            if mount_id not in self._mounts:
                # It could be listed when it was made: the first look at S3 may take its time.
                due = now + self._jittered(configuration.check_s3_every)
                s3 = self._recalled.pop(placed.pid or 0, None)
                self._mounts[mount_id] = _Mount(
                    placed, Condition(s3=s3), deep_due=now if s3 else due
                )
        gone = {placed.id for placed in detached}
        for mount_id, mount in self._mounts.items():
            if mount.detached != (mount_id in gone):
                mount.detached, mount.silence = mount_id in gone, None
                mount.condition = replace(mount.condition, silences=0)
        self._look_due = self._look_due or now + self._jittered(configuration.look_every)

    def conditions(self) -> Mapping[str, Condition]:
        """What is known now."""
        return {key: mount.condition for key, mount in self._mounts.items()}

    @property
    def pids(self) -> set[int | None]:
        """The processes whose mounts are looked after."""
        return {mount.placed.pid for mount in self._mounts.values()}

    @property
    def descriptors(self) -> list[int]:
        """The pipes that end when a probe has found all."""
        return [look.probe.descriptor for look in self._looks if look.probe.at is not None]

    def pause(self) -> float:
        """Seconds until there is something to do that no descriptor tells."""
        now = self._senses.now()
        if self._looks:
            return 1.0
        deep = (mount.deep_due for mount in self._mounts.values() if not mount.detached)
        due = [self._look_due, *deep]
        return max(0.1, min(due) - now) if self._mounts else 3600.0

    def _start_due(self, configuration: Configuration) -> None:
        """At most one look of each kind is under way for a mount: one that waits for S3 must not
        keep us from seeing that mount-s3 hangs."""
        now = self._senses.now()
        # One child for all that are due, or will be soon: each wake-up costs more than a look.
        soon = now + _JITTER * configuration.check_s3_every
        due = [
            mount
            for mount in self._free(deep=True)
            if mount.deep_due <= soon and mount.silence is None
        ]
        # One that waits beyond hope waits on, as the only one at its mount, and is not in the way.
        deep = sum(look.probe.deep and now - look.probe.since < _S3_SECONDS for look in self._looks)
        if deep < _DEEP_AT_ONCE and any(mount.deep_due <= now for mount in due):
            refusing = self._find_refusing(due, configuration.check_s3_every)
            self._look(sorted(due, key=lambda mount: mount.deep_due), refusing)
        if self._look_due <= now:
            self._look_due = now + self._jittered(configuration.look_every)
            self._look(self._free(deep=False))

    def _free(self, *, deep: bool) -> list[_Mount]:
        """The mounts at which nobody is looking in this way."""
        probes = [look.probe for look in self._looks if look.probe.deep is deep]
        busy = {directory for probe in probes for directory in probe.directories}
        return [
            mount
            for mount in self._mounts.values()
            if not mount.detached and mount.placed.definition.directory not in busy
        ]

    def _look(self, mounts: list[_Mount], refusing: Mapping[int, Failure] | None = None) -> None:
        """Begins a look; a deep one where it is known who has refused to write."""
        pids = {mount.placed.definition.directory: mount.placed.pid for mount in mounts}
        if pids:
            probe = self._senses.look(list(pids), deep=refusing is not None)
            self._looks.append(_Look(probe, pids, refusing or {}))

    def _take(self, look: _Look, configuration: Configuration) -> None:
        """Learns from what a probe has found so far, and notes where it waits for an answer."""
        now, probe = self._senses.now(), look.probe
        meant = {
            mount.placed.definition.directory: mount
            for mount in self._mounts.values()
            if look.means(mount) and not mount.detached
        }
        for directory in probe.directories:
            mount = meant.get(directory)
            finding = probe.findings.pop(directory, None)
            if mount is not None and finding is not None:
                mount.silence = None
                mount.condition = self._condition(mount, finding, configuration, look)
        if probe.at is None or now - probe.since < _QUIET_SECONDS:
            return
        waiting = meant.get(probe.at)
        if waiting is None:
            probe.abandon()  # the mount has gone, or is another one by now
            return
        if probe.deep:
            self._take_slow_s3(look, waiting, configuration)
        elif waiting.silence is None:
            spent = self._senses.processor_seconds(waiting.placed.pid or 0)
            waiting.silence = Silence(probe.since, probe.since, spent)
        # One mount must not keep the others from being looked at.
        if probe.at is not None and probe.at != probe.directories[-1]:
            probe.stop_here()
            if not probe.deep:
                self._look_due = now

    def _take_slow_s3(self, look: _Look, mount: _Mount, configuration: Configuration) -> None:
        # One that does not answer at all says nothing of S3.
        if self._senses.now() - look.probe.since > _S3_SECONDS and mount.silence is None:
            silence = Finding(Answer.SILENT, seconds=_S3_SECONDS)
            if mount.condition.s3 is None:
                mount.condition = self._condition(mount, silence, configuration, look)

    def _confirm_silences(self, seconds: float) -> None:
        now = self._senses.now()
        for mount in self._mounts.values():
            if mount.detached and mount.silence is None:
                spent = self._senses.processor_seconds(mount.placed.pid or 0)
                mount.silence = Silence(now, now, spent)
            silence, after = mount.silence, seconds * _DETACHED if mount.detached else seconds
            if silence is None or not silence.is_due(now, after):
                continue
            if self._is_idle(mount):
                self._disbelieve(mount)
                continue
            spent = self._senses.processor_seconds(mount.placed.pid or 0)
            works = spent != silence.processor
            # Only what it says by now: what S3 did before explains nothing.
            s3 = reasons.complaint(mount.placed, self._senses.last_words) if works else None
            confirm(silence, now=now, processor=spent, after=after, excused=s3 is not None)
            mount.deep_due = now if s3 else mount.deep_due  # which is to see it heal
            mount.condition = replace(
                mount.condition, silences=silence.confirmed, s3=s3 or mount.condition.s3
            )

    def _disbelieve(self, mount: _Mount) -> None:
        """Who is silent waits for another: somebody else's mount may have lain over ours when
        the child came by."""
        for look in self._looks:
            if look.means(mount) and look.probe.at == mount.placed.definition.directory:
                look.probe.abandon()
        mount.silence = None
        mount.condition = replace(mount.condition, silences=0)

    def _condition(
        self, mount: _Mount, finding: Finding, configuration: Configuration, look: _Look
    ) -> Condition:
        deep = look.probe.deep
        if finding.answer is Answer.DISCONNECTED:
            # The process lives, without its mount: on its way out, or for ever.
            wait = configuration.hung_after / CONFIRMATIONS
            self._look_due = min(self._look_due, self._senses.now() + (0 if deep else wait))
            mount.deep_due = self._senses.now() + self._jittered(configuration.check_s3_every)
            silences = mount.condition.silences + (0 if deep else 1)
            return replace(mount.condition, silences=silences)
        if not deep:
            return Condition(s3=mount.condition.s3, seconds=finding.seconds)
        well = finding.answer is Answer.ANSWERS
        s3 = (
            look.refusing.get(mount.placed.pid or 0)
            if well
            else reasons.why(mount.placed, finding, self._senses.last_words)
        )
        # What is broken is looked at more often: it should be seen to heal.
        every = configuration.check_s3_every if s3 is None else configuration.check_s3_every / 4
        mount.deep_due = self._senses.now() + self._jittered(max(5.0, every))
        return Condition(s3=s3, seconds=mount.condition.seconds)

    def _is_idle(self, mount: _Mount) -> bool:
        """Whether nobody waits for its answer, which is certain; of a detached one, whether that is
        so or not known."""
        directory = mount.placed.definition.directory
        if mount.detached:
            return not self._senses.is_awaited(directory)
        return self._senses.is_idle(directory)

    def _find_refusing(self, mounts: Iterable[_Mount], seconds: float) -> Mapping[int, Failure]:
        """Those that have lately refused to open a file for writing, by their processes: no look
        at them would tell, as only one that opens so many files meets it."""
        limited = {
            mount.placed.pid: mount.placed.definition
            for mount in mounts
            if mount.placed.pid and mount.placed.definition.options.write_files is not None
        }
        found = {}
        for pid, line in self._senses.warnings(limited, seconds) if limited else ():
            of = limited.get(pid)
            if of is not None:
                read = messages.explain(line, bucket=of.bucket, directory=of.directory)
                if read.problem is Problem.WRITE_LIMIT:
                    found[pid] = reasons.passing(read)
        return found

    def _jittered(self, every: float) -> float:
        """Mounts and nodes that started together must not ask together."""
        return every * (1 - _JITTER * self._senses.luck())


def _verdict(condition: Condition) -> tuple[int, Failure | None]:
    """What of a condition matters to the judgement."""
    return condition.silences, condition.s3
