"""The lock under which one program at a time changes the node's mounts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files

PATH = Path("/run/s3mount-agent/lock")
_POLL_SECONDS = 0.1
_TELL_SECONDS = 1.0


@contextlib.contextmanager
def hold(
    purpose: str,
    *,
    timeout: float,
    path: Path = PATH,
    on_wait: Callable[[str], None] = lambda holder: None,
) -> Iterator[None]:
    """Holds the lock; raises ``locked``, with the holder's name and start, past ``timeout``.

    ``on_wait`` is told them once, if there is a holder to wait for.
    """
    descriptor = _open(path)
    try:
        _acquire(descriptor, path, timeout, on_wait)
        if not _is_at(descriptor, path):
            # Who held it has removed it: an uninstall. What others take by now is a new one.
            removed, descriptor = descriptor, _open(path)
            os.close(removed)
            _acquire(descriptor, path, timeout, on_wait)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # A courtesy to those who wait: where there is no space for it, it is left out.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{purpose}, pid {os.getpid()}, since {started}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # gives the lock back, as the end of the process would


def _open(path: Path) -> int:
    with files.told_plainly(f"open {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever may open it may hold it: nobody but root.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _acquire(descriptor: int, path: Path, timeout: float, on_wait: Callable[[str], None]) -> None:
    began = time.monotonic()
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            holder = holder or "its name is not known"
            if waited >= timeout:
                raise AgentError(
                    Problem.LOCKED,
                    f"another program changes the mounts: {holder}",
                    cause=f"{path} is locked",
                ) from None
            # The daemon holds it for moments only, and often.
            if waited >= _TELL_SECONDS and not told:
                told = True
                on_wait(holder)
            time.sleep(_POLL_SECONDS)
        else:
            return


def holder(path: Path) -> int | None:
    """The pid of who holds a lock (0 if it has not said), or None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:
        return _listed_holder(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        match = re.search(r"pid (\d+)", os.pread(descriptor, 200, 0).decode(errors="replace"))
        return int(match[1]) if match else 0
    else:
        return None
    finally:
        os.close(descriptor)


def _listed_holder(path: Path) -> int | None:
    """The same for who may not open the lock, as the kernel lists them: proc_locks(5)."""
    try:
        wanted = str(path.stat().st_ino)
        rows = Path("/proc/locks").read_bytes().decode().splitlines()
    except OSError:
        return None
    for row in rows:
        fields = row.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == wanted:
            return int(fields[4])
    return None
