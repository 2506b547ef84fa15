"""``s3mount-agent uninstall``: takes everything back."""

from __future__ import annotations

from s3mount_agent.config import environment
from s3mount_agent.console.output import tell
from s3mount_agent.console.parser import Given
from s3mount_agent.core.errors import Exit
from s3mount_agent.system import node


def main(given: Given) -> int:
    """0 if nothing of the agent is left, 1 if a mount is in use."""
    node.require_root()
    environment.load()

    from s3mount_agent.reconcile.uninstall import uninstall

    errors = uninstall(dry_run=given.has("--dry-run"))
    tell(errors)
    return Exit.FAILED if errors else Exit.OK
