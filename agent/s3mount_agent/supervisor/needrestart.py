"""needrestart(1), which restarts services after an upgrade of a library they use: not our mounts.

A restart waits until nobody uses the mount (the stop hook sees to it), and would keep the upgrade
waiting; mount-s3 is started anew with the next change or boot anyway.
"""

from __future__ import annotations

from pathlib import Path

from s3mount_agent.filesystem import disk, files

CONF = Path("/etc/needrestart/conf.d/s3mount-agent.conf")
_TEXT = """\
# Written by s3mount-agent, and removed by `s3mount-agent uninstall`: restarted under a job, a mount
# would keep this upgrade waiting until the job has ended.
$nrconf{override_rc}{qr(^mountpoint-s3-[0-9a-f]{8}\\.service$)} = 0;
"""


def is_told() -> bool:
    """Whether nothing has to be said: it is not installed, or has our file or somebody's own."""
    return not disk.exists(CONF.parent) or disk.exists(CONF)


def leave_mounts_alone() -> bool:
    """Tells needrestart, where it is installed; returns whether it had to be told.

    Raises ``file-failed`` or ``no-space``.
    """
    return disk.exists(CONF.parent) and files.write(CONF, _TEXT)


def take_back() -> bool:
    """Removes what was told, unless somebody has changed it; returns whether that was there."""
    return files.read(CONF) == _TEXT and files.remove(CONF)
