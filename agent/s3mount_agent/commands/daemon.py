"""``s3mount-agent daemon``: the service."""

from __future__ import annotations

from s3mount_agent.commands.parser import Given
from s3mount_agent.config import environment
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node


def main(given: Given) -> int:
    """Runs until SIGTERM."""
    node.require_root()
    environment.load()

    from s3mount_agent.daemon import loop

    loop.run()
    return Exit.OK
