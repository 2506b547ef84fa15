"""/var/lib/s3mount-agent/origin.json: where this node's configuration comes from.

It is there only if it comes from somewhere (``--config``). What is in force, and from which source,
is also in in-force.json: where this file is damaged, the source is asked as if for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.masking import masked
from s3mount_agent.filesystem import files, json_codec, paths
from s3mount_agent.state import in_force, secrets

PATH = paths.STATE / "origin.json"


class Origin(NamedTuple):
    """``version`` is in force. ``seen`` is the newest version that was looked at; where the two
    differ, ``problem`` says what is wrong with the newer one. ``problem`` is also set while the
    source cannot be reached. ``overrides`` are the bootstrap's own options."""

    url: str
    version: str = ""
    seen: str = ""
    problem: str | None = None
    overrides: Mapping[str, str] = {}

    @property
    def shown(self) -> str:
        """The version as people see it: S3's ETags come in quotes."""
        return self.version.strip('"') or "unknown"

    @property
    def shown_url(self) -> str:
        """The source without what only root may see of it."""
        return masked(self.url)


def load(path: Path = PATH) -> Origin | None:
    """The origin, or None if the configuration was given as arguments."""
    found = json_codec.read(path, _build)
    try:
        record = in_force.load()
    except AgentError:  # not everybody may read it where a password stands in it
        record = None
    if found is not None and (record is None or found.url == record.url):
        return found._replace(url=secrets.source(found.url))
    if record is None:
        return None
    # Damaged, or the power went before it was written.
    if record.url is None:
        return None
    return Origin(secrets.source(record.url), overrides=record.overrides)


def save(origin: Origin | None, path: Path = PATH) -> None:
    """Writes it down, or forgets it."""
    secrets.keep_source(origin.url if origin else None)
    if origin is None:
        files.remove(path)
    else:
        json_codec.write(path, {**origin._asdict(), "url": origin.shown_url})


def _build(fields: Any) -> Origin:
    return Origin(
        json_codec.field(fields, "url", str),
        json_codec.field(fields, "version", str, ""),
        json_codec.field(fields, "seen", str, ""),
        json_codec.optional(fields, "problem", str),
        in_force.overrides_of(fields.get("overrides", {})),
    )
