"""``s3mount-agent unmount``: takes mounts down."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import say_aside, tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.directory_rules import parse_directory
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.system import node

# What the node's lock is waited for, and then the end of mount-s3.
_WAIT_SECONDS = 120.0 + 60.0


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

    from s3mount_agent.reconcile import unmount
    from s3mount_agent.state.timeline import waiting_for

    what = f"unmounting {', '.join(directories) if directories else 'all mounts'}"
    leaves = "Ctrl-C ends the waiting, and what has begun goes on"
    with waiting_for(what, _WAIT_SECONDS, attempt="", leaves=leaves, say=say_aside):
        errors = unmount.unmount(directories)
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
