"""``s3mount-agent unmount``: takes mounts down."""

from __future__ import annotations

from s3mount_agent.commands.output import tell
from s3mount_agent.config import environment
from s3mount_agent.core.directory import parse_directory
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.system import node

HELP = """\
usage: s3mount-agent unmount DIRECTORY...
       s3mount-agent unmount --all

Takes mounts down and keeps them down until the next boot, `s3mount-agent apply` or bootstrap.
A mount that programs use stays up, and is an error."""


def main(arguments: list[str]) -> int:
    """0 if all are down, 1 if one is in use."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return Exit.OK
    if not arguments:
        raise AgentError(Problem.USAGE, "unmount needs a directory, or --all")
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile import takedown

    everything = arguments == ["--all"]
    errors = takedown.unmount(None if everything else [parse_directory(a) for a in arguments])
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
