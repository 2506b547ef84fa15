"""A node that follows a source: its files, what the URL gives, and what the journal was told."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Union

import pytest

from s3mount_agent.config import config_file, desired, environment, source
from s3mount_agent.config.source import Fetched
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Role
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import files, paths
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state import in_force, machine, secrets
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.system import journal

URL = "s3://configurations/s3mount.yaml"
ONE = "mounts:\n- {bucket: bucket-one, directory: /mnt/s3}\n"
TWO = "mounts:\n- {bucket: bucket-two, directory: /mnt/s3}\n"
BAD = "mounts:\n- {bucket: bucket-two, directory: /mnt/s3}\n- {bucket: x, directory: /etc}\n"
WORSE = "mounts: ["
GONE = AgentError(Problem.SOURCE_FAILED, f"the configuration {URL} could not be read")
AWAY = AgentError(Problem.SOURCE_FAILED, "S3 does not answer", retry_for=math.inf)
LARGE = AgentError(Problem.CONFIG_INVALID, f"{URL} is larger than 256 KiB")

Answer = Union[Fetched, AgentError]


class Source:
    """What the URL gives; ``asked`` are the versions that were known to who asked."""

    def __init__(self) -> None:
        self.now: Answer = Fetched(ONE, '"1"')
        self.asked: list[str] = []

    def fetch(self, url: str, known: str = "") -> Fetched | None:
        assert url == URL
        self.asked.append(known)
        if isinstance(self.now, AgentError):
            raise self.now
        return None if self.now.version == known else self.now


@dataclasses.dataclass
class Place:
    """The files of a node, the source that they come from, and what the journal was told."""

    config: Path
    origin: Path
    source: Source
    told: list[tuple[Event, str]]
    writes: list[str]
    codes: list[str] = dataclasses.field(default_factory=list)

    @property
    def bucket(self) -> str:
        (mount,) = desired.in_force().configuration.mounts(Role.COMPUTE, "")
        return mount.bucket.name

    def origin_now(self) -> Origin:
        found = origins.load()
        assert found is not None
        return found

    def begin(self, **overrides: str) -> None:
        desired.from_source(URL, overrides).save()


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A node whose files are in a directory of the test's."""
    found = Place(tmp_path / "config.yaml", tmp_path / "origin.json", Source(), [], [])
    monkeypatch.setattr(config_file, "PATH", found.config)
    monkeypatch.setattr(paths, "CONFIG", found.config)
    monkeypatch.setattr(environment, "NODE", tmp_path / "environment")
    monkeypatch.setattr(environment, "MOUNTS", tmp_path / "mounts.env")
    monkeypatch.setattr(machine, "PATH", tmp_path / "machine.json")
    monkeypatch.setattr(secrets, "PATH", tmp_path / "secrets.json")
    monkeypatch.setattr(in_force, "PATH", tmp_path / "in-force.json")
    monkeypatch.setattr(origins.load, "__defaults__", (found.origin,))
    monkeypatch.setattr(origins.save, "__defaults__", (found.origin,))
    monkeypatch.setattr(source, "fetch", found.source.fetch)
    monkeypatch.setattr(desired, "_FIRST_SECONDS", 0.0)

    def event(kind: Event, message: str, *, error_code: str = "", cause: str = "") -> None:
        if kind is Event.DAMAGED:  # a file of ours, of which codec's own tests tell
            return
        assert kind.action == "refresh"
        assert kind.is_bad is bool(error_code)
        found.told.append((kind, message))
        found.codes.append(error_code)

    write = files.write

    def counted(path: Path, text: str, **given: int) -> bool:
        changed = write(path, text, **given)
        if changed:
            found.writes.append(path.name)
        return changed

    monkeypatch.setattr(journal, "event", event)
    monkeypatch.setattr(files, "write", counted)
    return found
