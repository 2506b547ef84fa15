"""A node with a mount that suffers and one that must not notice, for tests of health."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.live_site import SEEN, document, until
from node.witness import require_tidy, told_states, undisturbed

if TYPE_CHECKING:
    from node.live_site import Site

VICTIM, OTHER = "/mnt/victim", "/mnt/other"
RW = "--allow-delete --allow-overwrite --allow-other"
QUICK = {
    "look_every": "5s",
    "check_s3_every": "8s",
    "hung_after": "10s",
    "retry_at_most_every": "5s",
}
# What a mount may be called between its loss and its return, if anybody looks in time.
ON_THE_WAY = {"stale", "missing", "starting", "retrying"}
NUMBERS = itertools.count(1)


class Scene:
    """A node with a mount that suffers, which has a bucket of its own, and one that must not."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.node = site.node
        self.s3 = site.cluster.s3
        self.bucket = f"victims-data-{next(NUMBERS)}"
        self.s3.create_bucket(self.bucket)
        self.s3.put(self.bucket, SEEN, b"seen\n")

    def text(self, **health: str) -> str:
        """The configuration, with figures of its health changed."""
        victim = self.site.row(VICTIM, RW, bucket=self.bucket)
        return document(victim, self.site.row(OTHER), health={**QUICK, **health})

    def pid(self) -> int:
        """The process that suffers."""
        return self.site.pids()[VICTIM]

    def send(self, number: signal.Signals, pid: int) -> None:
        """Sends a signal to a process."""
        self.node.run(["kill", f"-{number}", str(pid)])

    @contextlib.contextmanager
    def comes_back(self) -> Iterator[dict[str, list[str]]]:
        """What happens now costs one mount its process, and is over when it has a new one, works
        and nothing else is left. Nobody sees anything of it at the other, and `status` always
        answers: with the states on the way, which are given back at the end."""
        before = self.site.pids()
        with undisturbed(self.node, OTHER), told_states(self.node) as told:
            yield told
            until(lambda: self.site.mount(VICTIM).get("pid") not in (None, before[VICTIM]))
            self.site.await_mounts(VICTIM, OTHER)
        require_tidy(self.node, VICTIM, OTHER)
        after = self.site.pids()
        assert after[OTHER] == before[OTHER]
        assert after[VICTIM] != before[VICTIM]
        assert told[OTHER] == ["ok"]
        assert self.node.run(["cat", f"{VICTIM}/{SEEN}"], user="ubuntu").stdout == "seen\n"

    def require_on_the_way(self, told: dict[str, list[str]], *also: str) -> None:
        """The states of the mount were such as they must be when it is lost and comes back."""
        first, *way, last = told[VICTIM]
        assert (first, last) == ("ok", "ok")
        assert way
        assert set(way) <= {*ON_THE_WAY, *also}
