"""Asking the configuration's source for a newer version, and putting it in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Union

from s3mount_agent.config import config_file, desired, source
from s3mount_agent.config.desired import Desired, overridden
from s3mount_agent.config.source import Fetched
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import lock
from s3mount_agent.reconcile import execute
from s3mount_agent.reconcile.session import read_node, tell_wait
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state import machine
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.state.timeline import waiting_for
from s3mount_agent.system import journal

_LOCK_SECONDS = 60.0
# What a source may take to answer, or to fail.
_SOURCE_SECONDS = 120.0
# Another program that asks at the same time may be the first to put a version in force.
_ATTEMPTS = 3
_Answer = Union[Fetched, AgentError, None]


@dataclass(frozen=True)
class News:
    """A sentence about what is in force now and was not, and what is wrong with the newest version
    or with its source."""

    in_force: str = ""
    error: AgentError | None = None

    def __bool__(self) -> bool:
        return bool(self.in_force)


def _nobody(line: str) -> None:
    """Nobody waits for what the daemon has done."""


def refresh(*, anew: bool = False, say: Callable[[str], object] = _nobody) -> News:
    """Asks the source for a newer version and puts it in force if it is good.

    What is wrong with a newer one, in itself or on this node, is written down and told once; with
    ``anew`` a version that was refused is looked at again. The source is asked without the node's
    lock: a slow one keeps nobody waiting. ``say`` is told of what is waited for.
    """
    for _ in range(_ATTEMPTS):
        origin = origins.load()
        if origin is None or machine.is_foreign():
            return News()
        with waiting_for(f"asking {origin.shown_url}", _SOURCE_SECONDS, say=say):
            answer = _ask(origin, anew=anew or desired.is_damaged())
        if answer is None and _unchanged(origin) == origin:
            return News()
        on_wait = partial(tell_wait, _LOCK_SECONDS, say=say)
        with lock.hold("refresh", timeout=_LOCK_SECONDS, on_wait=on_wait):
            if origins.load() == origin:
                return _take(origin, answer)
        # What was fetched is not news to what another program has put in force meanwhile.
    return News()


def _ask(origin: Origin, *, anew: bool) -> _Answer:
    try:
        return source.fetch(origin.url, "" if anew else origin.seen)
    except AgentError as error:
        return error


def _unchanged(origin: Origin) -> Origin:
    """What is known where nothing is newer than what was seen: what was wrong with a version that
    is still the newest stays wrong."""
    healed = origin._replace(problem=None)
    return healed if origin.version == origin.seen else origin


def _take(origin: Origin, answer: _Answer) -> News:
    """Puts a good answer in force, or writes down what is wrong; the lock is held."""
    if answer is None:
        _note(_unchanged(origin), origin)
        return News()
    if isinstance(answer, AgentError):
        # A version that was refused is looked at again afterwards.
        away = answer.problem is Problem.SOURCE_FAILED
        return _refuse(answer, origin, origin.version if away else origin.seen)
    try:
        return _put_in_force(answer, origin)
    except AgentError as error:
        # A full disk is no fault of this version: it is fetched again next time.
        ours = error.problem in (Problem.NO_SPACE, Problem.FILE_FAILED)
        return _refuse(error, origin, origin.seen if ours else answer.version)


def _put_in_force(fetched: Fetched, origin: Origin) -> News:
    configuration = overridden(config_file.parse(fetched.text, origin.url), origin.overrides)
    version = fetched.version
    newer = Origin(origin.url, version, version, None, origin.overrides)
    new = Desired(configuration, fetched.text, newer)
    session = read_node(new)
    execute.require_possible(session.context, session.observed)
    kept = desired.keep_damaged()
    changed = new.save()
    message = f"version {newer.shown} of {origin.url} is in force"
    if kept:
        message += f"; {config_file.PATH} was damaged: what it held is kept as {kept}"
    if version != origin.version or origin.problem or kept:
        journal.event(Event.REFRESHED, message)
    return News(message if changed else "")


def _refuse(error: AgentError, origin: Origin, seen: str) -> News:
    _note(origin._replace(seen=seen, problem=error.message), origin, error)
    message = f"{error.message}; version {origin.shown} stays in force"
    return News(
        error=AgentError(
            error.problem, message, cause=error.cause, hint=error.hint, more=error.more
        )
    )


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
