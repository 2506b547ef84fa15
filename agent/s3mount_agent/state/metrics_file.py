"""The file of figures for Prometheus, where the configuration wants one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from s3mount_agent.core.errors import AgentError
from s3mount_agent.system import files


def write(path: str, text: str) -> None:
    """Writes the figures; raises ``no-space`` or ``file-failed``."""
    files.write(Path(path), text)


def take_back(path: str | None) -> None:
    """Removes the file: figures that nobody writes any more would be collected for ever."""
    if path:
        with contextlib.suppress(AgentError):
            if (files.read(Path(path)) or "").startswith("# HELP s3mount_"):
                files.remove(Path(path))
