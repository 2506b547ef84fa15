"""What the kernel and systemd show of one process in files: who only looks runs no program."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# systemd links a unit's name to its invocation there, for as long as that lasts.
_UNITS = Path("/run/systemd/units")


def arguments(pid: int) -> tuple[str, ...]:
    """A process's command line as it was started, empty if it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(word.decode(errors="surrogateescape") for word in words[:-1])


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, or None if it has ended.

    It tells a process from a later one with the same pid. One that only waits to be reaped has
    ended. Field 22 of /proc/PID/stat: proc_pid_stat(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def moment(ticks: int) -> float:
    """Seconds since 1970 of a moment that :func:`started` tells."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """The processor time that a process's living threads have used, 0 if it has ended.

    To the nanosecond, where /proc/PID/stat counts in ticks: one that only waits for its network
    uses less than a tick, but one that is stopped uses nothing at all.
    https://docs.kernel.org/scheduler/sched-stats.html
    """
    spent = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            spent += int(thread.read_text().split()[0])
    return spent / 1e9


def invocation(unit: str) -> str:
    """The invocation in which a unit is, as `systemctl show` names it; empty if it is in none."""
    try:
        return (_UNITS / f"invocation:{unit}").readlink().name
    except OSError:
        return ""
