"""/var/lib/s3mount-agent/in-force.json: the configuration that the mounts of this node follow.

config.yaml says what shall be. It is put in force by bootstrap, apply, a reload or start of the
service, or a new version of its source; until then an edit of it changes nothing, and a broken one
never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from s3mount_agent.core.masking import masked
from s3mount_agent.filesystem import files, json_codec, paths

PATH = paths.STATE / "in-force.json"
_SCHEMA = 1
# core/node_roles.py has them, which who only looks need not load.
_OVERRIDES = {
    "role": ("head", "compute", "login", "standalone"),
    "mode": ("systemd", "direct"),
    "on_failure": ("fail", "continue"),
    "family": ("deb", "rpm"),
}


class InForce(NamedTuple):
    """A configuration's text, the source that it is from (None: arguments, or none is known), and
    the bootstrap's own options."""

    text: str
    url: str | None = None
    overrides: Mapping[str, str] = {}


def load() -> InForce | None:
    """What is in force, or None where nothing is written down of it."""
    return json_codec.read(PATH, _build)


def save(record: InForce) -> bool:
    """Writes down what is in force from now on; returns whether that is news."""
    if record.url is not None:
        record = record._replace(url=masked(record.url))
    if record == load():
        return False
    # Who may not read config.yaml may not read its copy.
    mode = files.permissions(paths.CONFIG) or 0o644
    return json_codec.write(PATH, {"schema": _SCHEMA, **record._asdict()}, exactly=mode)


def version() -> str:
    """What tells what is in force from what was before."""
    return str(files.modified(PATH))


def is_edited() -> bool:
    """Whether config.yaml is not what is in force: it was edited, or has gone."""
    record = load()
    return record is not None and files.read(paths.CONFIG) != record.text


def _build(fields: Any) -> InForce | None:
    if json_codec.field(fields, "schema", int) != _SCHEMA:
        return None
    return InForce(
        json_codec.field(fields, "text", str),
        json_codec.optional(fields, "url", str),
        overrides_of(fields["overrides"]),
    )


def overrides_of(value: object) -> dict[str, str]:
    """The bootstrap's own options as they are written down; raises ValueError or TypeError."""
    overrides = json_codec.named_texts(value)
    for name, word in overrides.items():
        if word not in _OVERRIDES.get(name, ()):
            raise ValueError(f"{name} cannot be {word!r}")
    return overrides
