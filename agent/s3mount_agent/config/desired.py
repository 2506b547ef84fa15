"""What shall be mounted on this node: as arguments or a source say, and what is in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3mount_agent.config import config_file, source
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.config.configuration import Configuration, of_mounts
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.roles import Mode, OnFailure, Role
from s3mount_agent.state import origin as origins
from s3mount_agent.state.origin import Origin
from s3mount_agent.system import files, journal
from s3mount_agent.system.retry import patiently

_FIRST_SECONDS = 60.0
_KINDS = {"role": Role, "mode": Mode, "on_failure": OnFailure}
Overrides = dict[str, str]
"""``role``, ``mode`` and ``on_failure`` as the bootstrap's options give them."""


@dataclass(frozen=True)
class Desired:
    """A configuration, its text for config.yaml, and its origin (None: the arguments).

    ``by`` is the command that wants it, as those are told who must wait for its end.
    """

    configuration: Configuration
    text: str
    origin: Origin | None = None
    by: str = "bootstrap"

    def save(self) -> bool:
        """Puts it in force; returns whether that changed anything."""
        changed = files.write(config_file.PATH, self.text)
        if self.origin != origins.load():
            origins.save(self.origin)
        return changed


def from_arguments(arguments: Sequence[str], overrides: Overrides) -> Desired:
    """The article's form. Raises what is wrong with an argument."""
    mounts = parse_arguments(arguments)
    configuration = overridden(of_mounts(mounts), overrides)
    return Desired(configuration, config_file.render(configuration, mounts))


def from_source(url: str, overrides: Overrides) -> Desired:
    """The configuration behind a URL, or its last good copy where the source is out of reach.

    Raises ``source-failed`` without such a copy, and what is wrong with the file.
    """
    known = origins.load()
    if known is None or known.url != url:
        known = Origin(url)
    try:
        fetched = patiently(lambda: source.fetch(url), budget=_FIRST_SECONDS)
    except AgentError as error:
        if not known.version or error.problem is not Problem.SOURCE_FAILED:
            raise
        journal.say(f"{error.message}: the last good copy is in force")
        kept = Origin(url, known.version, known.version, error.message, overrides)
        return Desired(in_force(overrides), files.read(config_file.PATH) or "", kept)
    if fetched is None:  # cannot be: no version was named as known
        raise AssertionError(url)
    configuration = overridden(config_file.parse(fetched.text, url), overrides)
    version = fetched.version
    return Desired(configuration, fetched.text, Origin(url, version, version, None, overrides))


def in_force(overrides: Overrides | None = None) -> Configuration:
    """What config.yaml says, with the bootstrap's options. Raises ``not-configured`` and others."""
    origin = origins.load()
    if overrides is None:
        overrides = origin.overrides if origin else {}
    return overridden(config_file.load(), overrides)


def overridden(configuration: Configuration, overrides: Overrides) -> Configuration:
    """The configuration with the bootstrap's own options, which win."""
    chosen: dict[str, Any] = {
        name: kind(overrides[name]) for name, kind in _KINDS.items() if name in overrides
    }
    return dataclasses.replace(configuration, **chosen)
