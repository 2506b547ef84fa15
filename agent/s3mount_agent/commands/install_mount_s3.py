"""``s3mount-agent install-mount-s3``: run by the daemon, whose sandbox installs nothing."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0 if mount-s3 is there now; the daemon sees that and mounts."""
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile import bootstrap

    bootstrap.install_only()
    return Exit.OK
