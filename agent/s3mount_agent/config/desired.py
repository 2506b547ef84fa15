"""What shall be mounted on this node: as arguments or a source say, and what is in force."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from s3mount_agent.config import config_file, environment, source
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.config.configuration import Configuration, of_mounts
from s3mount_agent.config.source import Fetched
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import is_secret, masked
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import disk, files
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state import in_force as record
from s3mount_agent.state import machine
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.state.in_force import InForce
from s3mount_agent.state.timeline import Waiting, waiting_for
from s3mount_agent.system import journal
from s3mount_agent.system.retry import patiently

_FIRST_SECONDS = 60.0
# How long an attempt that has begun by then may take.
_LAST_SECONDS = 60.0
_KINDS = {"role": Role, "mode": Mode, "on_failure": OnFailure}
Overrides = Mapping[str, str]
"""``role``, ``mode``, ``on_failure`` and ``family`` as the bootstrap's options give them."""
Answer = Union[Fetched, AgentError]
"""What a source gave, or why it could not be read."""


@dataclass(frozen=True)
class Desired:
    """A configuration, its text for config.yaml, and its origin (None: the arguments)."""

    configuration: Configuration
    text: str
    origin: Origin | None = None

    def save(self) -> bool:
        """Puts it in force; returns whether that changed anything."""
        machine.claim()
        changed = files.write(config_file.PATH, self.text, exactly=_mode(self.configuration))
        environment.settle(self.configuration.environment)
        url, overrides = (self.origin.url, self.origin.overrides) if self.origin else (None, {})
        changed |= record.save(InForce(self.text, url, overrides))
        origins.save(self.origin)
        return changed


def _mode(configuration: Configuration) -> int | None:
    """Who may read config.yaml: everybody, unless a password stands in it; as it was, where the
    administrator has decided that."""
    secret = [*configuration.environment.values(), configuration.install.source or ""]
    if any(map(is_secret, secret)):
        return 0o600
    return 0o644 if is_secret(files.read(config_file.PATH) or "") else None


def from_arguments(arguments: Sequence[str], overrides: Overrides) -> Desired:
    """The article's form. Raises what is wrong with an argument."""
    mounts = parse_arguments(arguments)
    configuration = overridden(of_mounts(mounts), overrides)
    return Desired(configuration, config_file.render(configuration, mounts))


def from_source(
    url: str, overrides: Overrides, say: Callable[[str], None] = journal.say
) -> Desired:
    """The configuration behind a URL, or its last good copy where the source is out of reach.

    Raises ``source-failed`` without such a copy, and what is wrong with the file.
    """
    return from_answer(url, ask(url, say), overrides)


class Following:
    """What a source says, for a node that is to follow it: asked without the node's lock, since it
    may be slow, and read under it."""

    def __init__(self, url: str, overrides: Overrides) -> None:
        self._url = url
        self._overrides = overrides
        self.ask()

    def ask(self) -> None:
        """Asks it, as :func:`ask` does."""
        self._before = record.load(), origins.load()
        self._answer = ask(self._url)

    def read(self) -> Desired | None:
        """What its answer amounts to; None where something else has been put in force since it was
        asked, which may be newer. Raises what :func:`from_source` raises."""
        if (record.load(), origins.load()) != self._before:
            return None
        return from_answer(self._url, self._answer, self._overrides)


def ask(url: str, say: Callable[[str], None] = journal.say) -> Answer:
    """Asks a source, for a minute; changes nothing and needs no lock. Raises ``usage``.

    ``say`` is told what is waited for, and why it is asked again.
    """
    said: list[str] = []

    def once(line: str) -> None:
        said.append(line)
        say(line)

    def waits(line: str) -> None:
        if not said:  # a reason to ask again is more
            say(line)

    what, leaves = f"asking {masked(url)}", "Ctrl-C ends it"
    failed = Waiting(what, _FIRST_SECONDS, leaves=leaves, say=once)
    try:
        with waiting_for(what, _FIRST_SECONDS + _LAST_SECONDS, leaves=leaves, say=waits):
            fetched = patiently(lambda: source.fetch(url), budget=_FIRST_SECONDS, on_retry=failed)
    except AgentError as error:
        if error.problem is not Problem.SOURCE_FAILED:
            raise
        return error
    if fetched is None:  # cannot be: no version was named as known
        raise AssertionError(url)
    return fetched


def from_answer(url: str, answer: Answer, overrides: Overrides) -> Desired:
    """What a source's answer amounts to on this node; see :func:`from_source`."""
    if isinstance(answer, Fetched):
        configuration = overridden(config_file.parse(answer.text, url), overrides)
        version = answer.version
        return Desired(configuration, answer.text, Origin(url, version, version, None, overrides))
    known = origins.load()
    if known is None or known.url != url or not known.version or machine.is_foreign():
        raise answer
    kept = in_force()
    configuration = overridden(config_file.parse(kept.text, url), overrides)
    journal.say(f"{answer.message}: the last good copy is in force")
    origin = Origin(url, known.version, known.version, answer.message, overrides)
    return Desired(configuration, kept.text, origin)


def on_disk() -> Desired:
    """What config.yaml says, with the bootstrap's options. Raises ``not-configured`` and others."""
    machine.require_own()
    return _with_origin(config_file.read(), str(config_file.PATH))


def in_force() -> Desired:
    """What was last put in force; without a record of it, what config.yaml says."""
    machine.require_own()
    kept = record.load()
    if kept is None:
        return on_disk()
    return _with_origin(kept.text, f"the configuration in force ({record.PATH})")


def begin(
    require_possible: Callable[[Configuration], object],
) -> tuple[Desired, AgentError | None]:
    """Puts config.yaml in force; where it is broken, or ``require_possible`` says that this node
    cannot have it, the last good one stays in force.

    Returns what is in force, and what is wrong with config.yaml. Raises that where there is no
    last good one.
    """
    machine.require_own()
    edited = record.is_edited()
    try:
        wanted = on_disk()
        if edited:
            require_possible(wanted.configuration)
    except AgentError as error:
        if record.load() is None:
            raise
        return in_force(), error
    # Where there is no space to write it down, it is the configuration all the same.
    with contextlib.suppress(AgentError):
        wanted.save()
    if edited:
        journal.event(Event.REFRESHED, f"{config_file.PATH} is in force as it was edited")
    return wanted, None


def pending() -> str | None:
    """What status says of a config.yaml that is not what is in force: an edit, or a broken one."""
    if not record.is_edited():
        return None
    try:
        config_file.parse(config_file.read(), str(config_file.PATH))
    except AgentError as error:
        return f"{error.message}; what was in force before it stays so"
    return f"{config_file.PATH} was edited: `s3mount-agent apply` puts it in force"


def is_damaged() -> bool:
    """Whether config.yaml has gone, or is no configuration any more, though one is in force."""
    if not record.is_edited():
        return False
    try:
        config_file.parse(config_file.read(), str(config_file.PATH))
    except AgentError:
        return True
    return False


def keep_damaged() -> Path | None:
    """Keeps a damaged config.yaml beside the good one that is about to take its place, and says
    where; None where there is none."""
    if not is_damaged() or not disk.exists(config_file.PATH):
        return None
    aside = config_file.damaged()
    disk.move(config_file.PATH, aside)
    return aside


def _with_origin(text: str, name: str) -> Desired:
    origin = origins.load()
    configuration = overridden(config_file.parse(text, name), origin.overrides if origin else {})
    return Desired(configuration, text, origin)


def overridden(configuration: Configuration, overrides: Overrides) -> Configuration:
    """The configuration with the bootstrap's own options, which win."""
    chosen: dict[str, Any] = {
        name: kind(overrides[name]) for name, kind in _KINDS.items() if name in overrides
    }
    if "family" in overrides:
        family = overrides["family"]
        chosen["install"] = dataclasses.replace(configuration.install, family=family)
    return dataclasses.replace(configuration, **chosen)
