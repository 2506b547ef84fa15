"""What a power cut may leave: files that were being written. Nothing else needs to be cleared."""

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
)


def sweep() -> None:
    """Removes them wherever the agent writes."""
    for place in _PLACES:
        files.sweep(place)
