"""Errors on stderr, within what ParallelCluster keeps of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from s3mount_agent.core.errors import AgentError

# ParallelCluster puts a failing script's stderr into a message of at most 4,096 bytes, and cannot
# cope with what is not UTF-8.
_MOST_BYTES = 3900


def tell(errors: Sequence[AgentError]) -> None:
    """Prints errors to stderr: reason, cause and hint, the last ones first to be kept."""
    if not errors or sys.stderr is None:
        return
    text = "\n".join(line for error in errors for line in error.lines()) + "\n"
    kept = text.encode(errors="backslashreplace")[-_MOST_BYTES:]
    sys.stderr.write(kept.decode(errors="ignore"))
    sys.stderr.flush()
