"""``s3mount-agent unmount``: takes mounts down."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.directory import parse_directory
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0 if all are down, 1 if one is in use."""
    everything = given.has("--all")
    if everything and given.words:
        raise AgentError(
            Problem.USAGE, "unmount takes directories or --all, not both", hint="leave one out"
        )
    if not everything and not given.words:
        raise AgentError(
            Problem.USAGE,
            "unmount needs a directory, or --all",
            hint="`s3mount-agent status` lists the mounts of this node",
        )
    directories = None if everything else [parse_directory(word) for word in given.words]
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile import takedown

    errors = takedown.unmount(directories)
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
