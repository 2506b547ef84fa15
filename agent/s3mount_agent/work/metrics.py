"""Figures about the mounts for those who collect them: Prometheus and CloudWatch.

Everything is made of what the daemon sees anyway; nothing is measured for this alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.doors import files, journal
from s3mount_agent.model.configuration import Metrics
from s3mount_agent.model.errors import AgentError
from s3mount_agent.model.health import Condition
from s3mount_agent.model.states import State
from s3mount_agent.work.look import Sight

_EVERY_SECONDS = 60.0
_HELP = {
    "s3mount_up": ("gauge", "Whether the mount can be used (1) or not (0)."),
    "s3mount_state": ("gauge", "1 for the state that the mount is in."),
    "s3mount_restarts_total": ("counter", "New mount-s3 processes since the agent started."),
    "s3mount_recovery_seconds": ("gauge", "How long the last recovery took."),
    "s3mount_probe_seconds": ("gauge", "How long the mount took to answer."),
}


@dataclass
class _Story:
    """What has happened to one mount since the daemon started."""

    pid: int | None = None
    restarts: int = 0
    down_since: float | None = None
    recovery: float | None = None


class Recorder:
    """Follows the mounts and publishes their figures once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stories: dict[str, _Story] = {}
        self._due = 0.0

    def follow(self, sights: tuple[Sight, ...]) -> None:
        """Takes note of restarts and recoveries."""
        now = self._clock()
        for sight in sights:
            story = self._stories.setdefault(sight.row.id, _Story())
            if sight.pid and story.pid and sight.pid != story.pid:
                story.restarts += 1
            story.pid = sight.pid or story.pid
            if sight.judgement.state is not State.OK:
                story.down_since = story.down_since if story.down_since is not None else now
            elif story.down_since is not None:
                story.recovery, story.down_since = now - story.down_since, None

    def publish(
        self, wanted: Metrics, sights: tuple[Sight, ...], conditions: Mapping[str, Condition]
    ) -> None:
        """Writes the figures where they are wanted, if it is time; a disk that is full is no reason
        to stop looking after the mounts."""
        now = self._clock()
        if now < self._due or not (wanted.prometheus or wanted.cloudwatch):
            return
        self._due = now + _EVERY_SECONDS
        figures = [(s, self._figures(s, conditions.get(s.row.id, Condition()))) for s in sights]
        if wanted.prometheus:
            with contextlib.suppress(AgentError):
                files.write(Path(wanted.prometheus), prometheus(figures))
        if wanted.cloudwatch:
            for sight, values in figures:
                journal.record(embedded(sight, values, wanted.namespace, time.time()))

    def _figures(self, sight: Sight, condition: Condition) -> dict[str, float]:
        story = self._stories.get(sight.row.id, _Story())
        found = {
            "s3mount_up": float(sight.judgement.state is State.OK),
            "s3mount_restarts_total": float(story.restarts),
            "s3mount_recovery_seconds": story.recovery,
            "s3mount_probe_seconds": condition.seconds,
        }
        return {name: value for name, value in found.items() if value is not None}


Figures = list[tuple[Sight, dict[str, float]]]


def prometheus(figures: Figures) -> str:
    """The text for node_exporter's textfile collector.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    for name, (kind, about) in _HELP.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for sight, values in figures:
            labels = f'mount="{_escape(sight.row.path)}",bucket="{_escape(sight.row.bucket)}"'
            if name == "s3mount_state":
                lines.append(f'{name}{{{labels},state="{sight.judgement.state.value}"}} 1')
            elif name in values:
                lines.append(f"{name}{{{labels}}} {values[name]:.6g}")
    return "\n".join(lines) + "\n"


def embedded(sight: Sight, values: dict[str, float], namespace: str, at: float) -> str:
    """One line of CloudWatch's embedded metric format.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    directive = {
        "Namespace": namespace,
        "Dimensions": [["Mount", "Bucket"]],
        "Metrics": [
            {"Name": name, **({"Unit": "Seconds"} if name.endswith("_seconds") else {})}
            for name in values
        ],
    }
    line = {
        "_aws": {"Timestamp": int(at * 1000), "CloudWatchMetrics": [directive]},
        "Mount": sight.row.path,
        "Bucket": sight.row.bucket,
        "State": sight.judgement.state.value,
        **values,
    }
    return json.dumps(line, separators=(",", ":"))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
