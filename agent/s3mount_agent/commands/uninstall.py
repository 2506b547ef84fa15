"""``s3mount-agent uninstall``: takes everything back."""

from __future__ import annotations

from s3mount_agent.commands.output import tell
from s3mount_agent.config import environment
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.system import node

HELP = """\
usage: s3mount-agent uninstall

Takes all mounts down and removes what the agent brought: units, packages, its change to
/etc/fuse.conf, empty directories that it made, and itself. While a mount is in use, the agent
stays. /etc/s3mount-agent/environment is yours and stays too."""


def main(arguments: list[str]) -> int:
    """0 if nothing of the agent is left, 1 if a mount is in use."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return Exit.OK
    if arguments:
        raise AgentError(Problem.USAGE, "uninstall takes no arguments")
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile import takedown

    errors = takedown.uninstall()
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
