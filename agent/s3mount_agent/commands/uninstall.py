"""``s3mount-agent uninstall``: takes everything back."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import say_aside, tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node

# What the node's lock is waited for, the end of mount-s3, and the removal of packages.
_WAIT_SECONDS = 120.0 + 60.0 + 900.0


def main(given: Given) -> int:
    """0 if nothing of the agent is left, 1 if a mount is in use."""
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile.uninstall import uninstall
    from s3mount_agent.state.timeline import waiting_for

    leaves = "Ctrl-C stops it where it is"
    with waiting_for("uninstalling", _WAIT_SECONDS, attempt="", leaves=leaves, say=say_aside):
        errors = uninstall(dry_run=given.has("--dry-run"))
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
