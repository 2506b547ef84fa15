"""Figures about the mounts for those who collect them: Prometheus and CloudWatch.

Everything is made of what the daemon sees anyway; nothing is measured for this alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from s3mount_agent.config.configuration import Metrics
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.states import State
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.hang import Condition
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.lifecycle import Story
from s3mount_agent.decide.mount_status import MountStatus

_EVERY_SECONDS = 60.0
# A change is published sooner, but not each one of a mount that comes and goes.
_SOON_SECONDS = 5.0
_HELP = {
    "s3mount_up": ("gauge", "Whether the mount can be used (1) or not (0)."),
    "s3mount_state": ("gauge", "1 for the state that the mount is in."),
    "s3mount_restarts_total": ("counter", "New mount-s3 processes since the agent started."),
    "s3mount_recovery_seconds": ("gauge", "How long the last recovery took."),
    "s3mount_probe_seconds": ("gauge", "How long the mount took to answer."),
}


class Recorder:
    """Publishes the figures of the mounts, once a minute and when something changes."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._shown: dict[str, object] = {}
        self._wanted = Metrics()
        self._trouble = ""
        self._published = self._due = -math.inf

    def follow(self, mounts: tuple[MountStatus, ...]) -> None:
        """Takes note of what has changed."""
        shown: dict[str, object] = {s.id: (s.state, s.pid) for s in mounts}
        if shown != self._shown:
            self._shown, self._due = shown, min(self._due, self._published + _SOON_SECONDS)

    def pause(self, wanted: Metrics) -> float:
        """Seconds until there is something to publish."""
        if not (wanted.prometheus or wanted.cloudwatch):
            return math.inf
        return max(0.1, self._due - self._around.now())

    def publish(
        self,
        wanted: Metrics,
        mounts: tuple[MountStatus, ...],
        conditions: Mapping[str, Condition],
        stories: Mapping[str, Story],
    ) -> None:
        """Writes the figures where they are wanted, if it is time."""
        if wanted != self._wanted:
            if self._wanted.prometheus != wanted.prometheus:
                self._around.take_back_figures(self._wanted.prometheus)
            self._wanted, self._due = wanted, -math.inf
        now = self._around.now()
        if now < self._due or not (wanted.prometheus or wanted.cloudwatch):
            return
        self._published, self._due = now, now + _EVERY_SECONDS
        figures = [
            (
                mount,
                _figures(
                    mount,
                    conditions.get(mount.id, Condition()),
                    stories.get(mount.id, Story()),
                ),
            )
            for mount in mounts
        ]
        if wanted.prometheus:
            self._write(wanted.prometheus, prometheus(figures))
        if wanted.cloudwatch:
            for mount, values in figures:
                at = self._around.wall_time()
                self._around.record(embedded(mount, values, wanted.namespace, at))

    def _write(self, path: str, text: str) -> None:
        """A file that cannot be written is told, once, but is no reason to stop looking after the
        mounts."""
        try:
            self._around.write_figures(path, text)
            self._trouble = ""
        except AgentError as error:
            if error.message != self._trouble:
                self._around.tell(Event.WRITE_FAILED, error.message, error)
            self._trouble = error.message


def _figures(mount: MountStatus, condition: Condition, story: Story) -> dict[str, float]:
    found = {
        "s3mount_up": float(mount.state is State.OK),
        "s3mount_restarts_total": float(story.restarts),
        "s3mount_recovery_seconds": story.recovery,
        "s3mount_probe_seconds": condition.seconds,
    }
    return {name: value for name, value in found.items() if value is not None}


Figures = list[tuple[MountStatus, dict[str, float]]]


def prometheus(figures: Figures) -> str:
    """The text for node_exporter's textfile collector.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    for name, (kind, about) in _HELP.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for mount, values in figures:
            labels = f'mount="{_escape(mount.path)}",bucket="{_escape(mount.bucket)}"'
            if name == "s3mount_state":
                lines.append(f'{name}{{{labels},state="{mount.state.value}"}} 1')
            elif name in values:
                lines.append(f"{name}{{{labels}}} {values[name]:.6g}")
    return "\n".join(lines) + "\n"


def embedded(mount: MountStatus, values: dict[str, float], namespace: str, at: float) -> str:
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
        "Mount": mount.path,
        "Bucket": mount.bucket,
        "State": mount.state.value,
        **values,
    }
    return json.dumps(line, separators=(",", ":"))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
