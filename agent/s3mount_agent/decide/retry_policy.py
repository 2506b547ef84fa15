"""When what failed is tried again: one row by problem.

Nothing is given up but refused arguments. What may heal by itself is tried quickly for as long as
that makes sense; then somebody has to act, and it is tried slowly, for ever: once the missing
policy is attached, or the bucket made, a fleet heals by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from s3mount_agent.core.errors import AgentError, Problem

# No node asks more rarely than this, whatever is wrong.
SLOWEST_SECONDS = 300.0
# Somebody waits for a bootstrap, and for the next attempt no longer than this.
_BOOTSTRAP_SECONDS = 15.0
# More would only make large numbers.
_MOST_DOUBLINGS = 10


class Wake(Enum):
    """What makes an attempt due at once."""

    ASKED = "`s3mount-agent apply`, a reload or a restart of the service"
    CONFIGURATION = "a new configuration"


@dataclass(frozen=True)
class Pace:
    """How attempts follow one another; all in seconds.

    ``first`` is the pause before the second attempt, which ``growth`` multiplies from then on.
    While ``quick_for`` has not passed since the first failure, no pause is longer than ``longest``
    (None: the configuration's ``retry_at_most_every``); a bootstrap, too, waits for that long. Then
    somebody has to act, and no pause is longer than ``slow`` (None: only ``wakes`` help).
    """

    quick_for: float
    first: float = 1.0
    growth: float = 2.0
    longest: float | None = None
    slow: float | None = SLOWEST_SECONDS
    wakes: frozenset[Wake] = frozenset(Wake)

    def pause(self, attempts: int, *, quick: bool, longest: float, jitter: float) -> float:
        """Seconds until the next attempt after so many failed ones in a row.

        The first failure may be the end of a long, good run: the second attempt is made at once.
        ``longest`` is the configuration's, and ``jitter``, from 0 to 1, chooses from the upper half
        of the pause: mounts and nodes that failed together must not try together.
        """
        bound = (longest if self.longest is None else self.longest) if quick else self.slow
        if bound is None:
            return math.inf
        if attempts <= 1:
            return 0.0
        whole = min(bound, self.first * self.growth ** min(attempts - 1, _MOST_DOUBLINGS))
        return whole * (1 + jitter) / 2


def pause_of_bootstrap(attempts: int, jitter: float) -> float:
    """Seconds until a bootstrap tries again what has failed so often in a row. ``jitter``, from 0
    to 1, chooses from the whole pause: a thousand nodes that were refused in the same second, by a
    mirror that can serve a hundred, must not come back together."""
    return jitter * min(_BOOTSTRAP_SECONDS, 2.0 ** min(attempts, _MOST_DOUBLINGS))


_MAY_HEAL = Pace(quick_for=math.inf)
_SOMEBODY = Pace(quick_for=0)
_REFUSED = Pace(quick_for=0, slow=None, wakes=frozenset({Wake.CONFIGURATION}))

PACES: Mapping[Problem, Pace] = {
    # A clock is set, and credentials are renewed, without us.
    Problem.CLOCK_WRONG: _MAY_HEAL,
    Problem.CREDENTIALS_MISSING: _MAY_HEAL,
    Problem.CREDENTIALS_EXPIRED: _MAY_HEAL,
    Problem.S3_THROTTLED: _MAY_HEAL,
    Problem.S3_UNREACHABLE: _MAY_HEAL,
    Problem.S3_ERRORS: _MAY_HEAL,
    Problem.MOUNT_FAILED: _MAY_HEAL,
    Problem.MOUNT_NOT_READY: _MAY_HEAL,
    # A directory service may not be up yet.
    Problem.OWNER_UNKNOWN: _MAY_HEAL,
    # A role or key that is new takes a while until S3 knows it.
    Problem.ACCESS_DENIED: Pace(quick_for=20),
    Problem.CREDENTIALS_INVALID: Pace(quick_for=20),
    Problem.SIGNATURE_WRONG: Pace(quick_for=20),
    # One that ends again and again is not started in a flurry for ever.
    Problem.MOUNT_ENDED: Pace(quick_for=600),
    # It costs nothing to look whether it is empty by now.
    Problem.DIRECTORY_NOT_EMPTY: Pace(quick_for=0, slow=60),
    Problem.PATH_UNSAFE: Pace(quick_for=0, slow=60),
    # A file system that hangs may answer again, and a disk may come.
    Problem.PATH_MISSING: _MAY_HEAL,
    Problem.PATH_SILENT: _MAY_HEAL,
    # The same arguments are refused each time.
    Problem.MOUNT_REFUSED: _REFUSED,
    Problem.OPTION_UNKNOWN: _REFUSED,
    # It ends by itself, and that is an event.
    Problem.MOUNT_ENDING: Pace(quick_for=math.inf, longest=5),
    # The mount is up; its policy says for how long a change to it waits.
    Problem.MOUNT_BUSY: _REFUSED,
}


def pace_of(error: AgentError) -> Pace:
    """How often what failed with an error is tried: the row of its problem, unless the error itself
    says for how long quickly."""
    pace = PACES.get(error.problem, _SOMEBODY)
    return pace if error.retry_for is None else replace(pace, quick_for=error.retry_for)


def is_lasting(error: AgentError) -> bool:
    """Whether somebody has to act before it can go well."""
    return pace_of(error).quick_for <= 0
