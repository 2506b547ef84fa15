"""`make herd`: how the requests of a thousand nodes that boot in the same second spread.

Nodes, clock and servers are simulated; what decides when a node asks is the agent's own code. How
much one boot asks for was counted on a node (tests/node/test_image.py).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.daemon.health import Health
from s3mount_agent.daemon.refresher import Refresher
from s3mount_agent.daemon.senses import Senses
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.retry_policy import pace_of, pause_of_bootstrap

NODES = 1000
MOUNTS = 2
# Of a folder of releases: the keys, the package and its signature, and of any but AWS's own whether
# it is an offline bundle.
DOWNLOADS, OF_AWS = 4, 3
REFRESH_SECONDS = 300
LONGEST_PAUSE_SECONDS = 30
BUDGET_SECONDS = 600.0
# What S3 takes for one prefix of a bucket: GET, HEAD and LIST.
S3_EACH_SECOND = 5500
Luck = Callable[[], float]


class Spread(NamedTuple):
    """How many requests came in each second, and when each node had what it wanted (seconds)."""

    requests: Counter[int]
    served: list[float]

    def busiest(self, since: int = 0) -> int:
        """The most requests of one second, from a second on."""
        return max((n for second, n in self.requests.items() if second >= since), default=0)

    def all(self) -> int:
        """The requests of all seconds."""
        return sum(self.requests.values())

    def after(self, part: float) -> float:
        """When so many of the nodes were served, from 0 to 1; infinite if they never were."""
        at = max(int(part * NODES) - 1, 0)
        return sorted(self.served)[at] if len(self.served) > at else float("inf")


def downloads(
    luck: Luck, *, each_second: int, spread: float = 0.0, files: int = DOWNLOADS
) -> Spread:
    """Nodes download from a server that answers so many requests a second, and 503 beyond that.

    An attempt of which one request was refused is made again, all of it, as a bootstrap does.
    """
    found = Spread(Counter(), [])
    due = [(spread * luck(), node, 1) for node in range(NODES)]
    heapq.heapify(due)
    while due:
        now, node, attempt = heapq.heappop(due)
        second = int(now)
        found.requests[second] += files
        if found.requests[second] <= each_second:
            found.served.append(now)
            continue
        again = now + max(pause_of_bootstrap(attempt, luck()), 0.01)  # the refusal takes its time
        if again < BUDGET_SECONDS:
            heapq.heappush(due, (again, node, attempt + 1))
    return found


class _Around(Surroundings):
    """A node whose daemon follows a source, by a clock that is set."""

    def __init__(self, luck: Luck, ask: Callable[[float], None]) -> None:
        self.time = 0.0
        self._luck = luck
        self._ask = ask

    def now(self) -> float:
        return self.time

    def luck(self) -> float:
        return self._luck()

    def follows_a_source(self) -> bool:
        self._ask(self.time)
        return False  # what the question brings is nothing new


def refreshes(luck: Luck, *, seconds: float) -> Spread:
    """Daemons ask the source of their configuration for news."""
    found = Spread(Counter(), [])

    def ask(now: float) -> None:
        found.requests[int(now)] += 1

    nodes = [_Around(luck, ask) for _ in range(NODES)]
    clocks = [Refresher(around) for around in nodes]
    due = [(0.0, node) for node in range(NODES)]
    while due[0][0] < seconds:
        now, node = heapq.heappop(due)
        nodes[node].time = now
        clocks[node].work(every=REFRESH_SECONDS, now=False)
        heapq.heappush(due, (now + clocks[node].pause(), node))
    return found


class _Senses(Senses):
    def __init__(self, luck: Luck) -> None:
        self._luck = luck

    def luck(self) -> float:
        return self._luck()


def listings(luck: Luck, *, seconds: float) -> Spread:
    """Daemons list their mounts, which takes S3 (`check_s3_every`)."""
    health, found = Health(_Senses(luck)), Spread(Counter(), [])
    for _ in range(NODES):
        now = 0.0
        while (now := now + health._jittered(REFRESH_SECONDS)) < seconds:
            found.requests[int(now)] += MOUNTS
    return found


def retries(luck: Luck, problem: Problem, *, seconds: float) -> Spread:
    """Daemons try mounts that all have failed in the same second, until one attempt succeeds."""
    found, pace = Spread(Counter(), []), pace_of(AgentError(problem, "simulated"))
    for _ in range(NODES * MOUNTS):
        now, attempts = 0.0, 0
        while now < seconds:
            found.requests[int(now)] += 1
            attempts += 1
            quick = now < pace.quick_for
            now += pace.pause(attempts, quick=quick, longest=LONGEST_PAUSE_SECONDS, jitter=luck())
    return found


def same() -> float:
    """No luck at all: every node has the same, as if there were no jitter."""
    return 1.0


def main() -> None:
    """Prints the tables of docs/scale.md."""
    luck = random.Random(1).random  # noqa: S311
    print(f"{NODES} nodes begin in the same second\n")
    print("| they download mount-s3 from | busiest second | requests | half have it | all have |")
    print("|---|---|---|---|---|")
    rows = (
        ("AWS's bucket", downloads(luck, each_second=S3_EACH_SECOND, files=OF_AWS)),
        ("a mirror, 200 requests a second", downloads(luck, each_second=200)),
        ("the same, were there no jitter", downloads(same, each_second=200)),
        ("the same, `spread: 60s`", downloads(luck, each_second=200, spread=60)),
    )
    for name, found in rows:
        half, whole = (_shown(found.after(part)) for part in (0.5, 1.0))
        print(f"| {name} | {found.busiest()} | {found.all()} | {half} | {whole} |")
    print("\n| in an hour they ask S3 | busiest second | a second, on average | without jitter |")
    print("|---|---|---|---|")
    for name, found, control in hourly(luck):
        # All have failed in the first second; from the second minute on jitter has had its time.
        since = 60 if name.startswith("again") else 0
        average = found.all() / 3600
        print(f"| {name} | {found.busiest(since)} | {average:.0f} | {control.busiest(since)} |")


def hourly(luck: Luck) -> list[tuple[str, Spread, Spread]]:
    """What daemons ask for in an hour, each with a name, and as it would be without jitter."""
    denied, away = Problem.ACCESS_DENIED, Problem.S3_UNREACHABLE
    runs: dict[str, Callable[[Luck], Spread]] = {
        "for a new configuration": lambda by: refreshes(by, seconds=3600),
        f"whether it answers ({MOUNTS} mounts)": lambda by: listings(by, seconds=3600),
        f"again: access denied ({MOUNTS} mounts)": lambda by: retries(by, denied, seconds=3600),
        f"again: out of reach ({MOUNTS} mounts)": lambda by: retries(by, away, seconds=3600),
    }
    return [(name, run(luck), run(same)) for name, run in runs.items()]


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < float("inf") else "never"


if __name__ == "__main__":
    main()
