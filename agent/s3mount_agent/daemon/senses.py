"""All by which the service tells how a mount is that is up: looks, processor time, its own words.

It is handed to `Health`, whose tests hand in senses of their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Sequence

from s3mount_agent.filesystem import procfs
from s3mount_agent.supervisor import fuse_connections
from s3mount_agent.system import journal
from s3mount_agent.system.probe import Probe


class Senses:
    """Those of a node on which the service runs."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def luck(self) -> float:
        """What is left to chance, from 0 to 1."""
        return random.random()  # noqa: S311

    def look(self, directories: Sequence[str], *, deep: bool) -> Probe:
        """Begins a look at directories; ``deep`` asks S3 as well."""
        return Probe(directories, deep=deep)

    def is_idle(self, directory: str) -> bool:
        """Whether it is certain that nobody waits for an answer of our mount there."""
        return fuse_connections.is_idle(directory)

    def is_awaited(self, directory: str) -> bool:
        """Whether it is certain that somebody waits for an answer of our mount that was there."""
        return fuse_connections.is_awaited(directory)

    def processor_seconds(self, pid: int) -> float:
        """The processor time that a process has used, 0 if it has ended."""
        return procfs.processor_seconds(pid)

    def last_words(self, identifier: str, pid: int) -> str:
        """What a process has just said in the journal."""
        return journal.last_words(identifier, pid)

    def warnings(self, pids: Collection[int], seconds: float) -> Iterable[tuple[int, str]]:
        """What mount-s3's processes have complained of for so long."""
        return journal.warnings("mount-s3", pids, seconds=seconds)
