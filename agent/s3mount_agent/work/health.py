"""Looking after mounts that are up: do they answer, and can S3 be used through them?

No event tells either, so both are asked now and then: whether mounts answer every minute, which
costs a fork for all of them together; whether S3 can be used every few minutes, which costs a
request to S3 for each mount. Nothing here ever waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from s3mount_agent.doors import journal, mount_s3, process
from s3mount_agent.doors.probe import Answer, Finding, Probe
from s3mount_agent.model.configuration import Configuration
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.health import Condition, Silence, confirm
from s3mount_agent.model.plan import Placed
from s3mount_agent.model.states import Failure

# How long a look may take before its silence is worth a second look.
_QUIET_SECONDS = 5.0
# What S3 may take: mount-s3 tries ten times, and gives up after about a minute.
_S3_SECONDS = 150.0
_DEEP_AT_ONCE = 4


@dataclass
class _Mount:
    """What is known of one mount that is up."""

    placed: Placed
    condition: Condition = field(default_factory=Condition)
    silence: Silence | None = None
    deep_due: float = 0.0


class Health:
    """The health of a node's mounts by id, and when to look again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mounts: dict[str, _Mount] = {}
        self._probes: list[Probe] = []
        self._look_due = 0.0

    def work(self, configuration: Configuration) -> bool:
        """Takes in what probes have found and starts those that are due; returns whether a mount
        may have to be judged anew."""
        before = {key: _verdict(mount.condition) for key, mount in self._mounts.items()}
        for probe in self._probes:
            probe.collect()
            self._take(probe, configuration)
        self._confirm_silences(configuration.hung_after)
        self._probes = [probe for probe in self._probes if probe.at is not None]
        self._start_due(configuration)
        return before != {key: _verdict(mount.condition) for key, mount in self._mounts.items()}

    def follow(self, up: Iterable[Placed], configuration: Configuration) -> None:
        """Looks after these mounts from now on; a new process is a new mount."""
        now = self._clock()
        here = {placed.id: placed for placed in up}
        for mount_id in list(self._mounts):
            placed = here.get(mount_id)
            if placed is None or placed.pid != self._mounts[mount_id].placed.pid:
                del self._mounts[mount_id]
        for mount_id, placed in here.items():
            if mount_id not in self._mounts:
                # It could be listed when it was made: the first look at S3 may take its time.
                due = now + _jittered(configuration.check_s3_every)
                self._mounts[mount_id] = _Mount(placed, deep_due=due)
        self._look_due = self._look_due or now + _jittered(configuration.look_every)

    def conditions(self) -> Mapping[str, Condition]:
        """What is known now."""
        return {key: mount.condition for key, mount in self._mounts.items()}

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when a probe has found something."""
        return [probe.descriptor for probe in self._probes if probe.at is not None]

    def pause(self) -> float:
        """Seconds until there is something to do that no descriptor tells."""
        now = self._clock()
        if self._probes:
            return 1.0
        due = [self._look_due, *(mount.deep_due for mount in self._mounts.values())]
        return max(0.1, min(due) - now) if self._mounts else 3600.0

    def _start_due(self, configuration: Configuration) -> None:
        now = self._clock()
        busy = {directory for probe in self._probes for directory in probe.directories}
        free = [m for m in self._mounts.values() if m.placed.definition.directory not in busy]
        deep = sum(probe.deep for probe in self._probes)
        for mount in sorted(free, key=lambda mount: mount.deep_due):
            if mount.deep_due <= now and deep < _DEEP_AT_ONCE:
                self._probes.append(Probe([mount.placed.definition.directory], deep=True))
                deep += 1
                free.remove(mount)
        if self._look_due <= now:
            self._look_due = now + _jittered(configuration.look_every)
            if free:
                directories = [mount.placed.definition.directory for mount in free]
                self._probes.append(Probe(directories))

    def _take(self, probe: Probe, configuration: Configuration) -> None:
        """Learns from what a probe has found so far, and notes where it waits for an answer."""
        now = self._clock()
        by_directory = {m.placed.definition.directory: m for m in self._mounts.values()}
        for directory in probe.directories:
            mount = by_directory.get(directory)
            finding = probe.findings.pop(directory, None)
            if mount is not None and finding is not None:
                mount.silence = None
                mount.condition = self._condition(mount, finding, configuration, deep=probe.deep)
        waiting = by_directory.get(probe.at or "")
        if probe.at is None or now - probe.since < _QUIET_SECONDS:
            return
        if waiting is None:
            probe.abandon()  # the mount has gone, or is another one by now
        elif probe.deep:
            self._take_slow_s3(probe, waiting, configuration)
        elif waiting.silence is None:
            spent = process.processor_seconds(waiting.placed.pid or 0)
            waiting.silence = Silence(probe.since, now, spent)
            # One mount must not keep the others from being looked at.
            self._look_due = now if len(probe.directories) > 1 else self._look_due

    def _take_slow_s3(self, probe: Probe, mount: _Mount, configuration: Configuration) -> None:
        if self._clock() - probe.since > _S3_SECONDS:
            probe.abandon()
            silence = Finding(Answer.SILENT, seconds=_S3_SECONDS)
            mount.condition = self._condition(mount, silence, configuration, deep=True)

    def _confirm_silences(self, after: float) -> None:
        now = self._clock()
        for mount in self._mounts.values():
            if mount.silence is not None:
                spent = process.processor_seconds(mount.placed.pid or 0)
                confirm(mount.silence, now=now, processor=spent, after=after)
                mount.condition = replace(mount.condition, silences=mount.silence.confirmed)

    def _condition(
        self, mount: _Mount, finding: Finding, configuration: Configuration, *, deep: bool
    ) -> Condition:
        if not deep:
            return Condition(s3=mount.condition.s3, seconds=finding.seconds)
        well = finding.answer is Answer.ANSWERS
        s3 = None if well else _why(mount.placed, finding)
        # What is broken is looked at more often: it should be seen to heal.
        every = configuration.check_s3_every if well else configuration.check_s3_every / 4
        mount.deep_due = self._clock() + _jittered(max(5.0, every))
        return Condition(s3=s3, seconds=mount.condition.seconds)


def _verdict(condition: Condition) -> tuple[int, Failure | None]:
    """What of a condition matters to the judgement."""
    return condition.silences, condition.s3


def _why(placed: Placed, finding: Finding) -> Failure:
    """The reason why S3 cannot be used: what mount-s3 has just said of it in the journal."""
    definition = placed.definition
    told = finding.error or f"no answer within {finding.seconds:.0f} seconds"
    reason = AgentError(Problem.S3_ERRORS, f"S3 answers with errors: {told}")
    # The newest line that can be understood: older ones may be of another fault.
    for line in reversed(journal.last_words("mount-s3", placed.pid or 0).splitlines()):
        read = mount_s3.explain(line, bucket=definition.bucket, directory=definition.directory)
        if read.problem is not Problem.MOUNT_FAILED:
            reason = read
            break
    return Failure(reason.problem.code, reason.message, reason.hint, permanent=False)


def _jittered(every: float) -> float:
    """Mounts and nodes that started together must not ask together."""
    return random.uniform(0.8 * every, 1.2 * every)  # noqa: S311
