"""/var/lib/s3mount-agent/origin.json: where this node's configuration comes from.

It is there only if it comes from somewhere (``--config``); the last good version itself is
/etc/s3mount-agent/config.yaml.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from s3mount_agent.system import files, paths

PATH = paths.STATE / "origin.json"


@dataclass(frozen=True)
class Origin:
    """``version`` is in force. ``seen`` is the newest version that was looked at; where the two
    differ, ``problem`` says what is wrong with the newer one. ``problem`` is also set while the
    source cannot be reached. ``overrides`` are the bootstrap's own options."""

    url: str
    version: str = ""
    seen: str = ""
    problem: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The version as people see it: S3's ETags come in quotes."""
        return self.version.strip('"')


def load(path: Path = PATH) -> Origin | None:
    """The origin, or None if the configuration was given as arguments."""
    try:
        fields = json.loads(files.read(path) or "null")
        return None if fields is None else Origin(**fields)
    except (ValueError, TypeError):
        return None


def save(origin: Origin | None, path: Path = PATH) -> None:
    """Writes it down, or forgets it."""
    if origin is None:
        files.remove(path)
    else:
        files.write(path, json.dumps(asdict(origin)) + "\n")
