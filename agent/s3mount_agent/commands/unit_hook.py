"""``s3mount-agent unit-hook``: run by the mounts' units, not by people."""

from __future__ import annotations

import os

from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.supervisor.hooks import BUSY, HOOKS


def main(given: Given) -> int:
    """``unit-hook NAME DIRECTORY [PLACE]…``, with $MAINPID from systemd. It ends with BUSY where
    the mount is in use, and says by whom on stdout."""
    name, directory, *places = given.words
    if name not in HOOKS:
        raise AgentError(
            Problem.USAGE, f"there is no hook {name!r}", hint=f"one of {', '.join(HOOKS)}"
        )
    try:
        done = HOOKS[name](directory, int(os.environ.get("MAINPID") or 0), *places)
    except AgentError as error:
        if error.problem is not Problem.MOUNT_BUSY:
            raise
        print(error.cause or "")
        return BUSY
    return Exit.OK if done else Exit.FAILED
