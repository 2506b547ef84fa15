"""``s3mount-agent daemon``: the service."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.system import node


def main(given: Given) -> int:
    """Runs until SIGTERM."""
    node.require_root()
    environment.load()

    from s3mount_agent.daemon import loop
    from s3mount_agent.system import journal

    try:
        environment.require_understood()
    except AgentError as error:  # no reason to leave the mounts alone
        journal.event(Event.REFUSED, error.message, error_code=error.problem.code)
    loop.run()
    return Exit.OK
