"""``s3mount-agent daemon``: the service."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node

HELP = """\
usage: s3mount-agent daemon

Keeps the mounts of this node until it is told to end (SIGTERM), and leaves them when it does.
systemd runs it as s3mount-agent.service."""


def main(arguments: list[str]) -> int:
    """Runs until SIGTERM."""
    if arguments:
        print(HELP)
        return Exit.OK if arguments[0] in ("-h", "--help") else Exit.USAGE
    node.require_root()
    environment.load()

    from s3mount_agent.daemon import loop

    loop.run()
    return Exit.OK
