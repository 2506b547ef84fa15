"""Figures about the mounts, read as those who collect them read them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from s3mount_agent.config.configuration import Metrics
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.states import Failure, State
from s3mount_agent.daemon.metrics import Recorder
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide import lifecycle
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.lifecycle import Judged, Record
from s3mount_agent.decide.mount_status import MountStatus

NASTY = '/mnt/a "quoted" \\back\\slash, {brace}=ü'


class World(Surroundings):
    """A clock, a recorder that goes by it, and what it writes to the journal."""

    def __init__(self, path: Path) -> None:
        self.time = 1000.0
        self.path = path
        self.wanted = Metrics(prometheus=str(path))
        self.recorder = Recorder(self)
        self.records: dict[str, Record] = {}
        self.lines: list[str] = []
        self.told: list[tuple[Event, str]] = []

    def see(
        self, *sights: MountStatus, after: float = 0, conditions: dict[str, Condition] | None = None
    ) -> None:
        """The daemon has looked at the mounts, and comes to the end of its round."""
        self.time += after
        for each in sights:
            seen = Judged(each.state, each.path, pid=each.pid, held=each.held)
            record = self.records.get(each.id, Record())
            self.records[each.id], _ = lifecycle.step(record, seen, self.time)
        self.recorder.follow(sights)
        stories = {key: record.story for key, record in self.records.items()}
        self.recorder.publish(self.wanted, sights, conditions or {}, stories)

    def now(self) -> float:
        return self.time

    def record(self, line: str) -> None:
        self.lines.append(line)

    def tell(
        self,
        event: Event,
        message: str,
        error: AgentError | None,
        *,
        mount: str = "",
        bucket: str = "",
    ) -> None:
        assert error is not None
        self.told.append((event, error.problem.code))

    def samples(self) -> dict[tuple[str, str], float]:
        """What Prometheus knows, by name and the mount's directory."""
        return {
            (sample.name, sample.labels["mount"]): sample.value
            for family in text_string_to_metric_families(self.path.read_text(encoding="utf-8"))
            for sample in family.samples
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "collector/s3mount.prom")


def sight(
    state: State = State.OK, *, pid: int | None = 7, path: str = "/mnt/s3", held: bool = False
) -> MountStatus:
    return MountStatus(
        path, path, "my-bucket", False, state, "2026-01-01T00:00:00Z", held=held, pid=pid
    )


def test_prometheus_reads_what_was_meant(world: World) -> None:
    condition = Condition(seconds=0.25)
    world.see(sight(path=NASTY), sight(State.HUNG, path="/mnt/b"), conditions={NASTY: condition})
    text = world.path.read_text(encoding="utf-8")
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {
        "s3mount_up": "gauge",
        "s3mount_state": "gauge",
        "s3mount_restarts": "counter",
        "s3mount_recovery_seconds": "gauge",
        "s3mount_probe_seconds": "gauge",
    }
    assert all(family.documentation for family in families.values())
    assert world.samples() == {
        ("s3mount_up", NASTY): 1,
        ("s3mount_up", "/mnt/b"): 0,
        ("s3mount_state", NASTY): 1,
        ("s3mount_state", "/mnt/b"): 1,
        ("s3mount_restarts_total", NASTY): 0,
        ("s3mount_restarts_total", "/mnt/b"): 0,
        ("s3mount_probe_seconds", NASTY): 0.25,
    }
    states = {s.labels["mount"]: s.labels["state"] for s in families["s3mount_state"].samples}
    assert states == {NASTY: "ok", "/mnt/b": "hung"}
    buckets = {s.labels["bucket"] for family in families.values() for s in family.samples}
    assert buckets == {"my-bucket"}


def test_a_new_process_is_a_restart_and_its_absence_a_recovery(world: World) -> None:
    world.see(sight(State.STARTING, pid=None))
    world.see(sight(), after=30)
    world.see(sight(State.MISSING, pid=None), after=100)
    world.see(sight(State.STARTING, pid=None), after=1)
    world.see(sight(pid=8), after=1.5)
    world.see(sight(pid=8), after=100)
    name = "/mnt/s3"
    # How long it took to be up at all was no recovery.
    assert world.samples()["s3mount_recovery_seconds", name] == 2.5
    assert world.samples()["s3mount_restarts_total", name] == 1
    world.see(sight(pid=9), after=100)  # so quickly that nobody saw it down
    assert world.samples()["s3mount_restarts_total", name] == 2
    assert world.samples()["s3mount_recovery_seconds", name] == 2.5


def test_the_time_for_which_an_administrator_keeps_a_mount_down_is_no_recovery(
    world: World,
) -> None:
    world.see(sight())
    world.see(sight(State.MISSING, pid=None), after=60)
    world.see(sight(State.MISSING, pid=None, held=True), after=60)
    world.see(sight(pid=8), after=100_000)
    world.see(sight(pid=8), after=60)
    assert ("s3mount_recovery_seconds", "/mnt/s3") not in world.samples()
    assert world.samples()["s3mount_up", "/mnt/s3"] == 1


def test_figures_are_published_each_minute_and_soon_after_a_change(world: World) -> None:
    def written() -> bool:
        there = world.path.exists()
        world.path.unlink(missing_ok=True)
        return there

    assert world.recorder.pause(Metrics()) == math.inf
    world.see(sight())
    assert written()
    world.see(sight(), after=59)
    assert not written()
    assert world.recorder.pause(world.wanted) == pytest.approx(1)
    world.see(sight(), after=1)
    assert written()
    world.see(sight(State.HUNG), after=1)
    assert not written()
    assert world.recorder.pause(world.wanted) == pytest.approx(4)
    world.see(sight(), after=4)
    assert written()
    # A mount that comes and goes all the time does not make a flood of it.
    count = 0
    for number in range(100):
        world.see(sight(State.HUNG if number % 2 else State.OK), after=0.5)
        count += written()
    assert 9 <= count <= 11


def test_what_is_no_longer_asked_for_is_not_left_to_be_collected(world: World) -> None:
    world.see(sight())
    old = world.path
    world.path = old.with_name("other.prom")
    world.wanted = dataclasses.replace(world.wanted, prometheus=str(world.path))
    world.see(sight(), after=1)
    assert (old.exists(), world.path.exists()) == (False, True)
    world.wanted = Metrics()
    world.see(sight(), after=1)
    assert not world.path.exists()


def test_a_file_that_cannot_be_written_is_told_once(world: World) -> None:
    world.path.parent.mkdir()
    world.path.mkdir()
    for _ in range(5):
        world.see(sight(), after=60)
    assert world.told == [(Event.WRITE_FAILED, "path-unsafe")]
    world.path.rmdir()
    world.see(sight(), after=60)
    assert world.samples()["s3mount_up", "/mnt/s3"] == 1


def test_nothing_is_published_unless_it_is_asked_for(world: World) -> None:
    world.wanted = Metrics()
    for _ in range(3):
        world.see(sight(), after=60)
    assert (world.lines, world.told, world.path.exists()) == ([], [], False)


def require_embedded_metrics(line: str) -> dict[str, Any]:
    """The specification's MUSTs. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"""
    assert "\n" not in line
    assert len(line) < 256 << 10
    root: dict[str, Any] = json.loads(line)
    metadata = root["_aws"]
    assert metadata.keys() == {"Timestamp", "CloudWatchMetrics"}
    assert type(metadata["Timestamp"]) is int
    assert metadata["CloudWatchMetrics"]
    for directive in metadata["CloudWatchMetrics"]:
        assert directive.keys() == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 1024
        assert directive["Dimensions"]
        for dimensions in directive["Dimensions"]:
            assert 1 <= len(dimensions) <= 30
            assert all(isinstance(root[name], str) and root[name] for name in dimensions)
        assert 1 <= len(directive["Metrics"]) <= 100
        for each in directive["Metrics"]:
            assert each.keys() <= {"Name", "Unit", "StorageResolution"}
            assert each.get("Unit", "None") in ("None", "Seconds", "Count")
            assert type(root[each["Name"]]) in (int, float)
            assert math.isfinite(root[each["Name"]])
    return root


def test_cloudwatch_gets_one_line_for_each_mount_by_its_specification(world: World) -> None:
    world.wanted = Metrics(cloudwatch=True, namespace="My/Namespace")
    conditions = {"/mnt/a": Condition(seconds=0.125)}
    world.see(sight(path="/mnt/a"), sight(State.STALE, path=NASTY), conditions=conditions)
    first, second = map(require_embedded_metrics, world.lines)
    assert (first["Mount"], first["Bucket"], first["State"]) == ("/mnt/a", "my-bucket", "ok")
    assert (second["Mount"], second["State"], second["s3mount_up"]) == (NASTY, "stale", 0)
    assert first["s3mount_probe_seconds"] == 0.125
    (directive,) = first["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "My/Namespace"
    units = {each["Name"]: each.get("Unit") for each in directive["Metrics"]}
    assert units == {
        "s3mount_up": None,
        "s3mount_restarts_total": None,
        "s3mount_probe_seconds": "Seconds",
    }
    assert not world.path.exists()


def test_a_degraded_mount_is_not_up(world: World) -> None:
    away = Failure("s3-unreachable", "S3 cannot be reached", "wait", permanent=False)
    world.see(sight())
    world.see(sight(State.DEGRADED), after=60, conditions={"/mnt/s3": Condition(s3=away)})
    assert world.samples()["s3mount_up", "/mnt/s3"] == 0
    world.see(sight(), after=600)
    assert world.samples()["s3mount_recovery_seconds", "/mnt/s3"] == 600
    assert world.samples()["s3mount_restarts_total", "/mnt/s3"] == 0
