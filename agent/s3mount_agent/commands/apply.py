"""``s3mount-agent apply``: the configuration, put into force."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import say_aside, tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit, Problem
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0 if every mount is as it should be, 4 if a change waits for a mount in use, 1 if not."""
    node.require_root()
    environment.require_understood()
    environment.load()

    from s3mount_agent.config import desired
    from s3mount_agent.reconcile import bootstrap
    from s3mount_agent.reconcile.refresh import News, refresh

    news = refresh(anew=True, say=say_aside) if given.has("--now") else News()
    if news.error is not None:
        raise news.error
    failures, _ = bootstrap.bootstrap(desired.on_disk, by="apply", news=news.in_force)
    errors = list(failures.values())
    waiting = [e for e in errors if e.problem is Problem.MOUNT_BUSY and not is_lasting(e)]
    tell(errors)
    if len(waiting) < len(errors):
        return Exit.FAILED
    return Exit.PENDING if waiting else Exit.OK
