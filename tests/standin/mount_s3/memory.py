"""What the real one does with memory: it plans, and it is killed where a limit is below its plan.

Until 1.23 it plans with 95 % of the machine, whatever limit its unit has. From 1.24 on it sees that
limit, can be told what to aim at, and caps the files that are open for writing
(memory/write_handle_limiter.rs).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from . import RELEASE
from .cli import Arguments
from .errors import MountError
from .logs import Log

MIB = 1 << 20
PART = 8 * MIB
LEAST_TARGET = 512 * MIB
OVERHEAD = 128 * MIB
KNOWS_TARGETS = RELEASE >= (1, 24)
BASE = 40 * MIB
"""What it takes without doing anything."""
READ_AHEAD = 8
"""How many times what a sequential reader has read so far is fetched ahead of it."""
MOST_AHEAD = 660 * MIB
"""Measured: with no limit 1.23.0 peaks near 700 MiB with one reader of a large object."""
OF_TARGET = 0.82
"""Measured: told to aim at 512 MiB, 1.24.0 peaks at 420 with 16 readers or 16 writers."""
LOOK_SECONDS = 0.5


class Memory:
    """The plan of one mount, and what it would have in use by now."""

    def __init__(self, arguments: Arguments, log: Log) -> None:
        given = arguments.get("--memory-target") if KNOWS_TARGETS else None
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        seen = machine
        if KNOWS_TARGETS and given is None:
            seen = min(machine, limit() or machine)
        self.target = given * MIB if given else max(LEAST_TARGET, seen * 95 // 100)
        self.most_writers = self._check_parts(arguments, given, log) if KNOWS_TARGETS else None
        self._ahead: dict[Any, int] = {}
        self._looked = 0.0
        self._lock = threading.Lock()

    def _check_parts(self, arguments: Arguments, given: int | None, log: Log) -> int:
        both = arguments.get("--part-size", PART)
        read, write = (arguments.get(f"--{way}-part-size", both) for way in ("read", "write"))
        budget = self.target - max(OVERHEAD, self.target // 8)
        if read > budget and given:
            raise MountError(
                f"read part size ({read / MIB:g} MiB) exceeds the memory available for data "
                f"buffers ({budget / MIB:g} MiB)"
            )
        most = max(0, int((budget - min(read, budget)) // write))
        if most:
            log.info(
                "memory::write_handle_limiter", f"max files concurrently open for write: {most}"
            )
        else:
            log.warning(
                "memory::write_handle_limiter", "no concurrent open-for-write file handles allowed"
            )
        return most

    def reading(self, reader: object, done: int, left: int) -> None:
        """A sequential reader has read so many bytes, and so many of its object are left."""
        with self._lock:
            self._ahead[reader] = min(READ_AHEAD * done, left, MOST_AHEAD)
            used = BASE + sum(self._ahead.values())
            if KNOWS_TARGETS:
                used = min(used, int(self.target * OF_TARGET))
            if used > 2 * BASE and time.monotonic() - self._looked > LOOK_SECONDS:
                self._looked = time.monotonic()
                most = limit()
                if most is not None and used > most:
                    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel would for want of memory

    def done(self, reader: object) -> None:
        """A reader reads on somewhere else, or not at all."""
        with self._lock:
            self._ahead.pop(reader, None)


def limit() -> int | None:
    """The limit of our control group in bytes: the kernel's, or, where this machine gives nodes no
    memory controller, what systemd would set it to. None for no limit."""
    group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    try:
        text = Path(f"/sys/fs/cgroup{group}/memory.max").read_text().strip()
    except OSError:
        unit = group.rpartition("/")[2]
        if not unit.endswith(".service"):
            return None
        show = ["systemctl", "show", "--property=MemoryMax", "--value", "--", unit]
        text = subprocess.run(show, capture_output=True, text=True, check=False).stdout.strip()
    return int(text) if text.isdecimal() else None
