"""/run/s3mount-agent/held.json: mounts that an administrator took down.

They stay down until the next boot, apply or bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable

from s3mount_agent.filesystem import codec, files, paths

# In /run, which a reboot empties.
PATH = paths.RUN / "held.json"


def load() -> frozenset[str]:
    """The ids of the mounts that are held down."""
    return frozenset(codec.read(PATH, codec.texts) or ())


def save(ids: Iterable[str]) -> None:
    """Holds these mounts down, and no others."""
    if sorted(ids):
        codec.write(PATH, sorted(ids))
    else:
        files.remove(PATH)
