"""The agent's own files, read as if anybody might have written them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.decide.events import Event
from s3mount_agent.filesystem import files, paths
from s3mount_agent.state import codec, held, in_force, inventory, origin, status_file
from s3mount_agent.system import journal

LOADS: dict[str, tuple[Callable[[], object], object]] = {
    "held.json": (held.load, frozenset()),
    "made.json": (inventory.load, inventory.Belongings()),
    "status.json": (status_file.load, None),
    "origin.json": (origin.load, None),
    "in-force.json": (in_force.load, None),
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ROW = {
    "id": "585e79a6",
    "path": "/mnt/s3",
    "bucket": "b",
    "read_only": True,
    "state": "ok",
    "since": "2026-01-01T00:00:00Z",
}
GOOD = {
    "held.json": ["585e79a6"],
    "made.json": {"directories": ["/mnt/s3"], "packages": ["mount-s3"]},
    "status.json": {"schema": 1, "at": "2026-01-01T00:00:00Z", "node": {}, "mounts": [ROW]},
    "origin.json": {"url": "s3://b/k", "version": "1", "seen": "1", "overrides": {}},
    "in-force.json": {"schema": 1, "text": "mounts: []", "url": None, "overrides": {}},
}


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
def place(tmp_path_factory: pytest.TempPathFactory) -> object:
    found = Place(tmp_path_factory.mktemp("state"))
    patch = pytest.MonkeyPatch()
    patch.setattr(held, "PATH", found.directory / "held.json")
    patch.setattr(in_force, "PATH", found.directory / "in-force.json")
    patch.setattr(paths, "CONFIG", found.directory / "config.yaml")
    for module, name in ((inventory, "made.json"), (status_file, "status.json")):
        patch.setattr(module.load, "__defaults__", (found.directory / name,))
    patch.setattr(origin.load, "__defaults__", (found.directory / "origin.json",))
    patch.setattr(journal, "event", lambda kind, message, cause: found.told.append((kind, message)))
    yield found
    patch.undo()


@pytest.mark.parametrize("name", LOADS)
def test_what_the_agent_wrote_is_read(place: Place, name: str) -> None:
    place.put(name, json.dumps(GOOD[name]))
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


@pytest.mark.parametrize("name", LOADS)
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
    for row in ({**ROW, key: [5]}, {k: v for k, v in ROW.items() if k != key}):
        place.put("status.json", json.dumps({**GOOD["status.json"], "mounts": [row]}))  # type: ignore[dict-item]
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
    assert codec.write(path, {"a": ["é"]})
    assert not codec.write(path, {"a": ["é"]})
    assert codec.read(path, lambda fields: codec.texts(fields["a"])) == ("é",)
    assert (files.read(path) or "").count("\n") == 1
