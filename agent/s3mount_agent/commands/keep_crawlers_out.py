"""``s3mount-agent keep-crawlers-out``: run by the daemon, whose sandbox has no /etc."""

from __future__ import annotations

from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.reconcile.session import node_session
from s3mount_agent.supervisor import crawlers, needrestart

_LOCK_SECONDS = 60.0


def main(given: Given) -> int:
    """0, whether anything had to change or not."""
    with node_session("keep-crawlers-out", timeout=_LOCK_SECONDS) as session:
        crawlers.keep_out([mount.directory for mount in session.context.mounts])
        if not needrestart.is_told():
            needrestart.leave_mounts_alone()
    return Exit.OK
