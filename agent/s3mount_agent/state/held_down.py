"""/run/s3mount-agent/held.json: mounts that an administrator took down.

They stay down until the next boot, apply or bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable

from s3mount_agent.filesystem import files, json_codec, paths

# In /run, which a reboot empties.
PATH = paths.RUN / "held.json"


def load() -> frozenset[str]:
    """The ids of the mounts that are held down."""
    return frozenset(json_codec.read(PATH, json_codec.texts) or ())


def save(ids: Iterable[str]) -> None:
    """Holds these mounts down, and no others."""
    if sorted(ids):
        json_codec.write(PATH, sorted(ids))
    else:
        files.remove(PATH)
