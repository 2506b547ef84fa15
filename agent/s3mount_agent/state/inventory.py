"""/var/lib/s3mount-agent/made.json: what the agent made, so that it can be taken back.

Everything is written down before it is made: after a power cut the record may name something that
is not there, but nothing is there that the record does not name.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3mount_agent.filesystem import files, json_codec, paths

PATH = paths.STATE / "made.json"


@dataclass(frozen=True)
class Belongings:
    """``packages`` were installed by the agent, ``installing`` says that it was about to install
    some and has not ended yet. ``fuse_conf_before`` is the text of /etc/fuse.conf before the agent
    changed it (None: it did not), ``fuse_conf_made`` that there was none."""

    directories: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    installing: bool = False
    fuse_conf_before: str | None = None
    fuse_conf_made: bool = False
    updatedb: tuple[str, ...] = ()
    """Directories that the agent added to /etc/updatedb.conf."""

    def with_directory(self, directory: str) -> Belongings:
        """The same with one more directory, once."""
        # In one order, whichever of several mounts was quicker.
        known = tuple(sorted({*self.directories, directory}))
        return dataclasses.replace(self, directories=known)

    def without_directory(self, directory: str) -> Belongings:
        """The same with one directory less."""
        kept = tuple(other for other in self.directories if other != directory)
        return dataclasses.replace(self, directories=kept)


def load(path: Path = PATH) -> Belongings:
    """What is written down; nothing if nothing is, or if it is damaged."""
    return json_codec.read(path, _build) or Belongings()


def save(belongings: Belongings, path: Path = PATH) -> None:
    """Writes them down."""
    fields = {
        key: value for key, value in vars(belongings).items() if value not in (None, (), False)
    }
    files.write(path, json.dumps(fields, indent=1) + "\n", mode=0o600)


def _build(fields: Any) -> Belongings:
    return Belongings(
        directories=json_codec.texts(fields.get("directories", [])),
        packages=json_codec.texts(fields.get("packages", [])),
        installing=json_codec.field(fields, "installing", bool, default=False),
        fuse_conf_before=json_codec.optional(fields, "fuse_conf_before", str),
        fuse_conf_made=json_codec.field(fields, "fuse_conf_made", bool, default=False),
        updatedb=json_codec.texts(fields.get("updatedb", [])),
    )
