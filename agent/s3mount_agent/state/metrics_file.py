"""The file of figures for Prometheus, where the configuration wants one."""

from __future__ import annotations

from s3mount_agent.system import owned_file

_HEAD = b"# HELP s3mount_"


def write(path: str, text: str) -> None:
    """Writes the figures; raises ``path-unsafe``, ``no-space``, ``file-failed`` or
    ``path-silent``."""
    owned_file.write(path, text)


def take_back(path: str | None) -> None:
    """Removes the file: figures that nobody writes any more would be collected for ever."""
    if path:
        owned_file.remove(path, _HEAD)
