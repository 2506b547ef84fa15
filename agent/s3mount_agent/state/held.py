"""/run/s3mount-agent/held.json: mounts that an administrator took down.

They stay down until the next boot, apply or bootstrap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from s3mount_agent.system import files, paths

# In /run, which a reboot empties.
PATH = paths.RUN / "held.json"


def load() -> frozenset[str]:
    """The ids of the mounts that are held down."""
    try:
        return frozenset(json.loads(files.read(PATH) or "[]"))
    except (ValueError, TypeError):
        return frozenset()


def save(ids: Iterable[str]) -> None:
    """Holds these mounts down, and no others."""
    if sorted(ids):
        files.write(PATH, json.dumps(sorted(ids)) + "\n")
    else:
        files.remove(PATH)
