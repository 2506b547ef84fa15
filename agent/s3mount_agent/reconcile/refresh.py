"""Asking the configuration's source for a newer version, and putting it in force."""

from __future__ import annotations

import dataclasses

from s3mount_agent.config import config_file, source
from s3mount_agent.config.desired import overridden
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.events import Event
from s3mount_agent.reconcile import execute
from s3mount_agent.reconcile.context import gather
from s3mount_agent.state import origin as origins
from s3mount_agent.state.origin import Origin
from s3mount_agent.system import files, journal


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
        fetched = source.fetch(origin.url, seen)
        if fetched is None:
            # What was wrong with a version that is still the newest stays wrong.
            healed = dataclasses.replace(origin, problem=None)
            _note(healed if origin.version == seen else origin, origin)
            return False
        seen = fetched.version
        configuration = overridden(config_file.parse(fetched.text, origin.url), origin.overrides)
        execute.require_possible(gather(configuration))
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
