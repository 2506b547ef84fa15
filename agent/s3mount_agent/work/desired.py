"""What shall be mounted on this node: as arguments or a source say, and what is in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3mount_agent.doors import config_file, files, journal, sources
from s3mount_agent.doors import origin as origins
from s3mount_agent.doors.origin import Origin
from s3mount_agent.model.configuration import Configuration, of_mounts
from s3mount_agent.model.errors import AgentError, Problem
from s3mount_agent.model.events import Event
from s3mount_agent.model.mounts import parse_arguments
from s3mount_agent.model.roles import Mode, OnFailure, Role
from s3mount_agent.work.retry import patiently

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
    configuration = _overridden(of_mounts(mounts), overrides)
    return Desired(configuration, config_file.render(configuration, mounts))


def from_source(url: str, overrides: Overrides) -> Desired:
    """The configuration behind a URL, or its last good copy where the source is out of reach.

    Raises ``source-failed`` without such a copy, and what is wrong with the file.
    """
    known = origins.load()
    if known is None or known.url != url:
        known = Origin(url)
    try:
        fetched = patiently(lambda: sources.fetch(url), budget=_FIRST_SECONDS)
    except AgentError as error:
        if not known.version or error.problem is not Problem.SOURCE_FAILED:
            raise
        journal.say(f"{error.message}: the last good copy is in force")
        kept = Origin(url, known.version, known.version, error.message, overrides)
        return Desired(in_force(overrides), files.read(config_file.PATH) or "", kept)
    if fetched is None:  # cannot be: no version was named as known
        raise AssertionError(url)
    configuration = _overridden(config_file.parse(fetched.text, url), overrides)
    version = fetched.version
    return Desired(configuration, fetched.text, Origin(url, version, version, None, overrides))


def in_force(overrides: Overrides | None = None) -> Configuration:
    """What config.yaml says, with the bootstrap's options. Raises ``not-configured`` and others."""
    origin = origins.load()
    if overrides is None:
        overrides = origin.overrides if origin else {}
    return _overridden(config_file.load(), overrides)


def refresh() -> bool:
    """Asks the source for a newer version and puts it in force if it is good.

    Returns whether it did. What is wrong with a newer one, in itself or on this node, is written
    down and told once.
    """
    origin = origins.load()
    if origin is None:
        return False
    seen = origin.seen
    try:
        fetched = sources.fetch(origin.url, seen)
        if fetched is None:
            # What was wrong with a version that is still the newest stays wrong.
            healed = dataclasses.replace(origin, problem=None)
            _note(healed if origin.version == seen else origin, origin)
            return False
        # Nearly always there is no news: only they need what follows.
        from s3mount_agent.work import reconcile
        from s3mount_agent.work.context import gather

        seen = fetched.version
        configuration = _overridden(config_file.parse(fetched.text, origin.url), origin.overrides)
        reconcile.require_possible(gather(configuration))
    except AgentError as error:
        if error.problem is Problem.SOURCE_FAILED:
            seen = origin.version  # a version that was refused is looked at again afterwards
        _note(dataclasses.replace(origin, seen=seen, problem=error.message), origin, error)
        return False
    version = fetched.version
    new = dataclasses.replace(origin, version=version, seen=version, problem=None)
    try:
        changed = files.write(config_file.PATH, fetched.text)
    except AgentError as error:
        # Not its fault: it is fetched again next time.
        _note(dataclasses.replace(origin, problem=error.message), origin, error)
        return False
    origins.save(new)
    journal.event(Event.REFRESHED, f"version {new.shown} of {origin.url} is in force")
    return changed


def _note(new: Origin, old: Origin, error: AgentError | None = None) -> None:
    """Writes down what a look at the source gave, and tells it if it is news."""
    if new == old:
        return
    origins.save(new)
    if error is not None:
        journal.event(
            Event.UNREACHABLE if error.problem is Problem.SOURCE_FAILED else Event.REFUSED,
            f"{error.message}; version {old.shown} stays in force",
            error_code=error.problem.code,
            cause=error.cause or "",
        )


def _overridden(configuration: Configuration, overrides: Overrides) -> Configuration:
    chosen: dict[str, Any] = {
        name: kind(overrides[name]) for name, kind in _KINDS.items() if name in overrides
    }
    return dataclasses.replace(configuration, **chosen)
