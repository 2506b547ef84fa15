"""``s3mount-agent unit-hook``: run by the mounts' units, not by people."""

from __future__ import annotations

import os

from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.supervisor.hooks import HOOKS


def main(arguments: list[str]) -> int:
    """``unit-hook NAME DIRECTORY``, with $MAINPID from systemd."""
    if len(arguments) != 2 or arguments[0] not in HOOKS:
        raise AgentError(
            Problem.USAGE, f"usage: s3mount-agent unit-hook {'|'.join(HOOKS)} DIRECTORY"
        )
    done = HOOKS[arguments[0]](arguments[1], int(os.environ.get("MAINPID") or 0))
    return Exit.OK if done else Exit.FAILED
