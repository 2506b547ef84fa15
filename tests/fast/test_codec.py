"""The agent's own files, read as if anybody might have written them."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent import cli
from s3mount_agent.config import config_file, desired, environment, source
from s3mount_agent.console import parser
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import files, json_codec, paths, procfs
from s3mount_agent.packages import systems
from s3mount_agent.reconcile import context, directories, glance, observe
from s3mount_agent.state import (
    config_origin,
    held_down,
    in_force,
    inventory,
    machine,
    secrets,
    status_file,
)
from s3mount_agent.supervisor import agent_service, direct, fuse_connections
from s3mount_agent.supervisor.direct import Processes
from s3mount_agent.system import capacity, journal

HOME = "/mnt/s3"
LOADS: dict[str, tuple[Callable[[], object], object]] = {
    "held.json": (held_down.load, frozenset()),
    "made.json": (inventory.load, inventory.Belongings()),
    "status.json": (status_file.load, None),
    "origin.json": (config_origin.load, None),
    "in-force.json": (in_force.load, None),
    "secrets.json": (secrets.load, {}),
    "machine.json": (machine.is_foreign, False),
    "slurm.json": (lambda: capacity.remembered(NODE_NAME[0], SLURM[0]), None),
    "connection.json": (lambda: fuse_connections.load(HOME), None),
    "585e79a6.json": (lambda: Processes().placed(), {}),
    "585e79a6.pid": (lambda: direct._living("585e79a6"), None),
}
NODE_NAME: list[Path] = []
SLURM: list[Path] = []
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FAILURE = {"code": "access-denied", "reason": "no", "hint": "x", "permanent": False}
ROW = {
    "id": "585e79a6",
    "path": HOME,
    "bucket": "b",
    "read_only": True,
    "state": "ok",
    "since": "2026-01-01T00:00:00Z",
    "pending": "x",
    "pending_since": "2026-01-01T00:00:00Z",
    "failure": FAILURE,
    "s3": FAILURE,
    "asked": 5,
    "pid": 5,
}
FIRST = ("id", "path", "bucket", "read_only", "state", "since")
OVERRIDES = {"role": "head", "mode": "systemd", "on_failure": "fail"}
DEFINITION = Definition("b", HOME, ("mount-s3", "b", HOME), Mode.DIRECT, False, memory_max=512)
GOOD: dict[str, Any] = {
    "held.json": ["585e79a6"],
    "made.json": {"directories": [HOME], "packages": ["mount-s3"], "fuse_conf_before": "x"},
    "status.json": {
        "schema": 1,
        "at": "2026-01-01T00:00:00Z",
        "node": {"mode": "direct", "role": "head"},
        "mounts": [ROW],
    },
    "origin.json": {
        "url": "https://127.0.0.1:9/k",
        "version": "1",
        "seen": "1",
        "overrides": OVERRIDES,
    },
    "in-force.json": {
        "schema": 1,
        "text": "mounts: []",
        "url": "https://127.0.0.1:9/k",
        "overrides": OVERRIDES,
    },
    "secrets.json": {"source": "https://h/k?x", "key": "00", "http_proxy": "http://u:p@h:1"},
    "machine.json": {"instance": "i-1", "machine": "0123"},
    "slurm.json": {"node": "n", "real_memory": 1500},
    "connection.json": {
        "directory": HOME,
        "device": "0:54",
        "mount": 96,
        "pid": 1,
        "start": 5,
        "before": ["0:50"],
        "binds": [["0:50", "/b", "/"]],
        "waiting": "vi (pid 7)",
    },
    "585e79a6.json": json.loads(DEFINITION.to_json()),
}
# One at a time in the place of any value: what is JSON, and can be no such value.
IMPOSSIBLE: tuple[object, ...] = (
    *(math.nan, math.inf, -math.inf, 10**400, -(10**400), 1e300, 2**62, -1, 0.5, True, None),
    *("", "bogus", "\ud800", "\x00", "\udcff", "/", "../..", "-x", "x" * 5000, "\n", "9" * 5000),
    *(
        [],
        {},
        [[]],
        [None],
        {"a": None},
        "9999-12-31T23:59:59Z",
        "2026-02-31T99:99:99Z",
        "0:0",
        "i-2",
    ),
)


class Place:
    """A directory for all of them, and what the journal was told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.told: list[tuple[Event, str]] = []

    def put(self, name: str, text: str) -> None:
        for path in self.directory.iterdir():
            path.unlink()
        (self.directory / name).write_bytes(text.encode(errors="surrogateescape"))

    def load(self, name: str) -> object:
        return LOADS[name][0]()

    def require_told(self, name: str) -> None:
        """Told, and set aside, where it is not taken for one that says nothing."""
        path = self.directory / name
        if not path.exists():
            assert path.with_name(f"{name}.bad").exists()
            assert self.told[-1][0] is Event.DAMAGED
            assert str(path) in self.told[-1][1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("state"))
    here = found.directory
    patch = pytest.MonkeyPatch()
    modules = {held_down: "held", in_force: "in-force", secrets: "secrets", machine: "machine"}
    for module, name in modules.items():
        patch.setattr(module, "PATH", here / f"{name}.json")
    for module in (paths, config_file):
        name = "CONFIG" if module is paths else "PATH"
        patch.setattr(module, name, here / "config.yaml")
    for module, name in ((inventory, "made"), (status_file, "status"), (config_origin, "origin")):
        patch.setattr(module.load, "__defaults__", (here / f"{name}.json",))
    patch.setattr(fuse_connections, "_path", lambda directory: here / "connection.json")
    patch.setattr(direct, "_HOME", here)
    for user in (observe, context):
        patch.setattr(user, "supervisor", lambda mode: Processes())
    patch.setattr(paths, "DAEMON_LOCK", here.parent / "daemon.lock")
    patch.setattr(environment, "PATH", here / "environment")
    patch.setattr(agent_service, "is_up", lambda: True)
    NODE_NAME[:] = [here.parent / "slurm_nodename"]
    NODE_NAME[0].write_text("n")
    SLURM[:] = [here / "slurm.json"]
    patch.setattr(journal, "event", lambda kind, message, cause: found.told.append((kind, message)))
    yield found
    patch.undo()


def test_the_words_that_are_checked_are_the_only_ones() -> None:
    kinds: dict[str, type[Enum]] = {"role": Role, "mode": Mode, "on_failure": OnFailure}
    words = {name: {str(each.value) for each in list(kind)} for name, kind in kinds.items()}
    option = parser.find("bootstrap").option("--assume-family")
    assert option is not None
    words["family"] = set(option.value.split("|"))
    assert {name: set(known) for name, known in in_force._OVERRIDES.items()} == words
    assert {family.kind for family in systems.FAMILIES} <= words["family"]
    assert set(status_file._MODES) == words["mode"]


@pytest.mark.parametrize("name", GOOD)
def test_what_the_agent_wrote_is_read(place: Place, name: str) -> None:
    place.put(name, json.dumps(GOOD[name]))
    if name == "machine.json":
        assert place.load(name) is True
        return
    assert place.load(name) not in (LOADS[name][1], None)
    assert (place.directory / name).exists()


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize(
    "text", ["", "{", "\x00", "[" * 100_000, "\udcff", "5", '"x"', "[[]]", "[5]"]
)
def test_a_damaged_file_is_told_set_aside_and_as_if_it_were_not_there(
    place: Place, name: str, text: str
) -> None:
    place.put(name, text)
    assert place.load(name) == LOADS[name][1]
    assert not (place.directory / name).exists()
    place.require_told(name)


@pytest.mark.parametrize("name", LOADS)
def test_no_document_whatever_ends_a_command(place: Place, name: str) -> None:
    @given(ANY_JSON)
    def holds(document: object) -> None:
        place.put(name, json.dumps(document))
        place.load(name)
        place.require_told(name)

    holds()


def paths_in(value: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in a document, the document itself among them."""
    yield at
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths_in(value[key], (*at, key))


def exchanged(document: Any, at: tuple[Any, ...], value: object) -> Any:
    """The document with another value in one place."""
    if not at:
        return value
    copy = document.copy()
    copy[at[0]] = exchanged(document[at[0]], at[1:], value)
    return copy


# All that commands, hooks and the daemon do with what is in these files, from the file to the end.
COMMANDS: tuple[Callable[[], object], ...] = (
    lambda: cli.main(["status"]),
    lambda: cli.main(["status", "--json"]),
    lambda: cli.main(["status", HOME]),
    lambda: cli.main(["plan"]),
    observe.take,
    glance.take,
    desired.in_force,
    Surroundings().begin,
    desired.pending,
    desired.is_damaged,
    environment.load,
    lambda: environment.settle({}),
    lambda: secrets.fingerprint("x"),
    lambda: source.fetch((config_origin.load() or config_origin.Origin("/none")).url, "x"),
    machine.require_own,
    lambda: directories.tidy(()),
    lambda: fuse_connections.forget(HOME),
    lambda: fuse_connections.is_idle(HOME),
    lambda: fuse_connections.gone(fuse_connections.load(HOME) or fuse_connections.Connection(HOME)),
    lambda: [Processes().failure(each) for each in Processes().placed().values()],
)


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOTEMPTY, "not empty")


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_no_such_value_ends_nothing_unforeseen(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value of each file is exchanged for each of those, and all that reads it is called: it
    says nothing, or one of our own errors."""
    good = GOOD[name]
    # As python -X utf8 has them.
    said = io.BytesIO()
    for stream, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        text = io.TextIOWrapper(said, encoding="utf-8", errors=errors, write_through=True)
        monkeypatch.setattr(sys, stream, text)
    # Nothing of this machine's is changed.
    for change in ("write", "remove"):
        monkeypatch.setattr(files, change, lambda *_, **__: True)
    monkeypatch.setattr(os, "rmdir", refuse)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for at in paths_in(good):
        for value in IMPOSSIBLE:
            place.put(name, json.dumps(exchanged(good, at, value)))
            place.load(name)
            place.require_told(name)
            if not (place.directory / name).exists():
                continue
            for command in COMMANDS:
                with contextlib.suppress(AgentError):
                    command()
            assert b"[internal]" not in said.getvalue(), (at, value, said.getvalue()[-2000:])


@pytest.mark.parametrize(
    "words", ["", "x", "1 x", "1 2 3", "-1 5", "9" * 5000 + " 1", "1.5 2", "\x00 1", "² 1"]
)
def test_a_damaged_pid_is_no_process(place: Place, words: str) -> None:
    name = "585e79a6.pid"
    place.put(name, words)
    assert place.load(name) is None
    place.require_told(name)
    place.put(name, f"{os.getpid()} {procfs.started(os.getpid())}\n")
    assert place.load(name) == os.getpid()


@pytest.mark.parametrize("name", GOOD)
def test_no_value_of_the_wrong_type_gets_in(place: Place, name: str) -> None:
    """Each value is exchanged for others, on its own."""
    good = GOOD[name]
    if not isinstance(good, dict):
        return
    for key in good:
        for wrong in (5, "x", [5], {"x": 5}, None, [None]):
            place.put(name, json.dumps({**good, key: wrong}))
            found = place.load(name)
            place.require_told(name)
            if isinstance(found, inventory.Belongings):
                assert all(isinstance(each, str) for each in (*found.directories, *found.packages))


@pytest.mark.parametrize("key", ROW)
def test_a_mount_of_the_wrong_shape_spoils_the_snapshot(place: Place, key: str) -> None:
    less = [{k: v for k, v in ROW.items() if k != key}] * (key in FIRST)
    for row in ({**ROW, key: [5]}, *less):
        place.put("status.json", json.dumps({**GOOD["status.json"], "mounts": [row]}))
        assert place.load("status.json") is None
        place.require_told("status.json")


def test_who_may_not_set_it_aside_is_not_kept_from_going_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("held.json", "{")
    told = len(place.told)

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError

    monkeypatch.setattr(Path, "replace", refused)
    assert place.load("held.json") == frozenset()
    assert len(place.told) == told


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert json_codec.write(path, {"a": ["é"]})
    assert not json_codec.write(path, {"a": ["é"]})
    assert json_codec.read(path, lambda fields: json_codec.texts(fields["a"])) == ("é",)
    assert (files.read(path) or "").count("\n") == 1
