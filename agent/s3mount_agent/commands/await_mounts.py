"""``s3mount-agent await-mounts``: run by s3mount-wait.service, for those who need the mounts."""

from __future__ import annotations

import time

from s3mount_agent.config import config_file, desired
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.states import State
from s3mount_agent.filesystem import files
from s3mount_agent.reconcile import observe
from s3mount_agent.reconcile.context import gather

# What a bootstrap tries for. The unit's TimeoutStartSec= is a little longer.
_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.5


def main(given: Given) -> int:
    """0 once all required mounts are up; raises ``mount-not-ready`` if they are not in time."""
    deadline = time.monotonic() + _WAIT_SECONDS
    version, required = -1, frozenset[str]()
    while True:
        if version != (version := files.modified(config_file.PATH)):
            required = gather(desired.in_force().configuration).required
        states = {mount.path: mount.state for mount in observe.take().mounts}
        down = sorted(path for path in required if states.get(path) is not State.OK)
        if not down:
            return 0
        if time.monotonic() > deadline:
            raise AgentError(
                Problem.MOUNT_NOT_READY,
                f"not all mounts were up within {_WAIT_SECONDS:.0f} seconds: {', '.join(down)}",
                hint="`s3mount-agent status` tells why",
            )
        time.sleep(_POLL_SECONDS)
