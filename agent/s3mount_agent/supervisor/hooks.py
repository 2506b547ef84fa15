"""What a mount's unit has done at its start and end, beside mount-s3 itself.

Run by systemd as ExecStartPre, ExecStartPost, ExecStop and ExecStopPost: they work while the
agent's daemon does not, and none of them can hang on a mount.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import Presence
from s3mount_agent.state import identity
from s3mount_agent.system import fuse, mountinfo, probe, process, safe_path
from s3mount_agent.system.probe import Answer

# The unit's TimeoutStartSec= and TimeoutStopSec= are a little longer.
_READY_SECONDS = 140.0
_GONE_SECONDS = 80.0
_PROBE_SECONDS = 5.0
_POLL_SECONDS = 0.02
_MOST_LAYERS = 16
# What mount-s3 writes to, with the modes it gives them itself.
STORES = {"cache": 0o700, "log-directory": 0o750}


def clean(directory: str, pid: int) -> bool:
    """Takes away what a dead mount-s3 left on a directory; anything else stays."""
    for _ in range(_MOST_LAYERS):
        if mountinfo.presence(directory) is not Presence.MOUNTPOINT_S3:
            break
        finding = probe.look(directory, timeout=_PROBE_SECONDS)
        if finding.answer is not Answer.DISCONNECTED:
            break
        mountinfo.unmount(directory, lazy=True)
    return True


def prepare(directory: str, pid: int, *places: str) -> bool:
    """Before each start: cleans, and refuses what root cannot safely mount on, write to or read.

    ``places`` are ``cache=PATH`` and their like. Not only when the configuration comes: whoever can
    rename on the way has all the time of the world until the next start. Raises
    ``path-unsafe`` and the other problems of :mod:`system.safe_path`, and ``foreign-machine`` where
    the unit came with an image of another machine.
    """
    identity.require_own()
    clean(directory, pid)
    safe_path.require(directory)
    require_places((kind, path) for kind, _, path in (each.partition("=") for each in places))
    return True


def require_places(places: Iterable[tuple[str, str]]) -> None:
    """Sees to it that what mount-s3 writes to is there, as on a disk that is blank at every boot,
    and that what it writes to and reads is root's alone."""
    for kind, path in places:
        if kind in STORES:
            safe_path.make_store(path, STORES[kind])
        else:
            safe_path.require_file(path)


def ready(directory: str, pid: int) -> bool:
    """Waits until mount-s3 has mounted: False if it ends before that, having said why itself.

    Raises ``mount-not-ready`` if it takes too long.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while mountinfo.presence(directory) is not Presence.MOUNTPOINT_S3:
        if process.started(pid) is None:
            return False
        if time.monotonic() > deadline:
            raise AgentError(
                Problem.MOUNT_NOT_READY,
                f"{directory} was not up after {_READY_SECONDS:.0f} seconds",
            )
        time.sleep(_POLL_SECONDS)
    return True


def stop(directory: str, pid: int) -> bool:
    """Unmounts, and waits until mount-s3 has ended by itself; raises ``mount-busy``.

    The wait matters: on its way out mount-s3 unmounts the directory once more, whatever lies on it
    by then. False if it did not end.
    """
    if mountinfo.presence(directory) is Presence.MOUNTPOINT_S3:
        mountinfo.unmount(directory)
    deadline = time.monotonic() + _GONE_SECONDS
    while process.started(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def unmount(directory: str, pid: int) -> bool:
    """Unmounts, if nothing is in use; raises ``mount-busy``."""
    if mountinfo.presence(directory) is Presence.MOUNTPOINT_S3:
        mountinfo.unmount(directory)
    return True


def detach(directory: str, pid: int) -> bool:
    """Takes a mount away from everybody at once, also one that hangs.

    Aborting its connection sets free whoever waits for an answer:
    https://docs.kernel.org/filesystems/fuse.html (section "Aborting a filesystem connection")
    """
    entry = mountinfo.read().get(directory)
    if entry is not None and entry.presence is Presence.MOUNTPOINT_S3:
        fuse.abort(entry.minor)
        mountinfo.unmount(directory, lazy=True)
    return True


HOOKS = {
    "prepare": prepare,
    "clean": clean,
    "ready": ready,
    "stop": stop,
    "unmount": unmount,
    "detach": detach,
}
