"""``s3mount-agent apply``: the configuration, put into force."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import say_aside, tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit, Problem
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.system import node

# What a source may take, with a little for who holds the node's lock meanwhile.
_SOURCE_SECONDS = 180.0


def main(given: Given) -> int:
    """0 if every mount is as it should be, 4 if a change waits for a mount in use, 1 if not."""
    node.require_root()
    environment.require_understood()
    environment.load()

    from s3mount_agent.config import desired
    from s3mount_agent.reconcile import bootstrap
    from s3mount_agent.reconcile.refresh import refresh
    from s3mount_agent.state import origin as origins
    from s3mount_agent.state.timeline import waiting_for

    if given.has("--now"):
        origin = origins.load()
        asked = f"asking {origin.shown_url}" if origin else "looking for a source"
        with waiting_for(asked, _SOURCE_SECONDS, say=say_aside):
            wrong = refresh(anew=True).error
        if wrong is not None:
            raise wrong
    failures, _ = bootstrap.bootstrap(desired.on_disk, by="apply")
    errors = list(failures.values())
    waiting = [e for e in errors if e.problem is Problem.MOUNT_BUSY and not is_lasting(e)]
    tell(errors)
    if len(waiting) < len(errors):
        return Exit.FAILED
    return Exit.PENDING if waiting else Exit.OK
