"""``s3mount-agent refresh``: run by the daemon to ask the configuration's source for news."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0, whether there was news or not: what is wrong with it is in status and the journal."""
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile.refresh import refresh

    refresh()
    return Exit.OK
