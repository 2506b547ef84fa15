"""What is left behind: files that were being written when the power went."""

from __future__ import annotations

from s3mount_agent.system import files, fuse, paths, systemd

_PLACES = (
    fuse.CONF.parent,
    systemd.ETC,
    systemd.RUN,
    paths.CONFIGURATION,
    paths.STATE,
    paths.RUN,
    paths.RUN / "mounts",
    paths.RUN / "connections",
    paths.STATE / "definitions",
    paths.RUN / "definitions",
)


def sweep() -> None:
    """Removes them wherever the agent writes."""
    for place in _PLACES:
        files.sweep(place)
