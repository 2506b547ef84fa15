"""How a mount that is up answers: from what its probes found to whether it hangs."""

from __future__ import annotations

from dataclasses import dataclass

from s3mount_agent.core.states import Failure

CONFIRMATIONS = 2


@dataclass(frozen=True)
class Condition:
    """What the probes say of a mount: how often its silence was confirmed, why S3 cannot be used
    through it, and how many seconds its last answer took."""

    silences: int = 0
    s3: Failure | None = None
    seconds: float | None = None

    @property
    def hung(self) -> bool:
        """Whether it seems to hang."""
        return self.silences > 0

    @property
    def lost(self) -> bool:
        """Whether that is certain enough to end its process."""
        return self.silences >= CONFIRMATIONS


@dataclass
class Silence:
    """A mount that does not answer: since when, when that was last looked at, and the processor
    time that its process had used by then. All in seconds."""

    since: float
    checked: float
    processor: float
    confirmed: int = 0

    def is_due(self, now: float, after: float) -> bool:
        """Whether it is time to look at it again."""
        return now - self.checked >= after / CONFIRMATIONS


# A process that works without answering may be slow, not hung; but not for ever.
_PATIENCE = 4


def confirm(
    silence: Silence, *, now: float, processor: float, after: float, excused: bool = False
) -> None:
    """Looks at a silence again, if it is time.

    Each half of ``after`` seconds in which the process has used no processor time confirms it. One
    that works is given four times ``after``, and all the time it needs where it is ``excused``:
    where all its threads may be waiting for an S3 that is known to fail.
    """
    if not silence.is_due(now, after):
        return
    patient = excused or now - silence.since < _PATIENCE * after
    works = processor != silence.processor and patient
    silence.confirmed = 0 if works else silence.confirmed + 1
    silence.checked, silence.processor = now, processor
