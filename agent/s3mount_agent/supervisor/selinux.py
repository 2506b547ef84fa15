"""SELinux's contexts of what the agent puts in place, on systems that enforce them (RHEL's family).

A new file has the type of its directory, but what lies in a `bin` below /opt has another one by the
policy, without which systemd may not run it as it should. restorecon(8) gives each the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s3mount_agent.core.errors import AgentError
from s3mount_agent.filesystem import disk, files, paths
from s3mount_agent.supervisor import target
from s3mount_agent.system import journal, process, systemd

ENFORCE = Path("/sys/fs/selinux/enforce")
_UNITS = (paths.AGENT_UNIT, *target.UNITS)
_SECONDS = 20.0
# /usr/local may be the head node's, and never answer.
_LINK_SECONDS = 5.0


def restore_all() -> None:
    """Restores the contexts of all that a bootstrap puts in place, but for the mounts' units."""
    own = (paths.ROOT, paths.CONFIGURATION, *(systemd.ETC / unit for unit in _UNITS))
    restore([path for path in own if disk.exists(path)])
    restore([paths.LINK], seconds=_LINK_SECONDS)


def restore(places: Sequence[Path], *, seconds: float = _SECONDS) -> None:
    """Restores the contexts of files, and of directories with all that is in them, where SELinux
    enforces them. What cannot be restored is told, and no reason to fail: the next relabelling of
    the system does it."""
    if not places or (files.read(ENFORCE) or "").strip() != "1":
        return
    try:
        program = process.program("restorecon")
        process.run([program, "-R", "--", *map(str, places)], timeout=seconds)
    except AgentError as error:
        names = ", ".join(map(str, places))
        journal.say(f"         SELinux: the contexts of {names} stay as they are: {error.message}")
