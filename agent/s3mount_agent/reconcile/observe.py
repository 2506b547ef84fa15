"""Looking at a node: what the agent placed, and what the mount table has. Touches no mount."""

from __future__ import annotations

from s3mount_agent.core.plan import Observed
from s3mount_agent.supervisor.protocol import Supervisor
from s3mount_agent.system import mountinfo


def observe(supervisor: Supervisor) -> Observed:
    """The node as it is."""
    # In this order: what is up by now has its mount by then, and is not taken for one without.
    placed = supervisor.placed()
    presence = {directory: entry.presence for directory, entry in mountinfo.read().items()}
    return Observed(placed, presence)
