"""/var/lib/s3mount-agent/machine.json: the machine that the agent's state on this disk is of.

An image that was made of a running node has all of it: the configuration, its source, the units.
Booted as another machine, which may be of another cluster, role and queue, it must not mount what
the first one did. A bootstrap makes the state this machine's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files, json_codec, paths

PATH = paths.STATE / "machine.json"
# Images are often made without emptying it (machine-id(5)), so that it alone is not enough.
MACHINE_ID = Path("/etc/machine-id")
# On EC2 the firmware says which instance this is; cloud-init says it on all of its platforms.
ASSET_TAG = Path("/sys/class/dmi/id/board_asset_tag")
CLOUD_INIT = Path("/var/lib/cloud/data/instance-id")


@dataclass(frozen=True)
class Identity:
    """What tells a machine from others, each empty where it is not known."""

    instance: str = ""
    machine: str = ""

    def is_another(self, other: Identity) -> bool:
        """Whether two are certainly not the same."""
        if self.instance and other.instance:
            return self.instance != other.instance
        return bool(self.machine and other.machine) and self.machine != other.machine


def current() -> Identity:
    """This machine."""
    tag = _line(ASSET_TAG)
    return Identity(tag if tag.startswith("i-") else _line(CLOUD_INIT), _line(MACHINE_ID))


def claim() -> None:
    """Makes the state on this disk this machine's."""
    json_codec.write(PATH, asdict(current()))


def is_foreign() -> bool:
    """Whether the state on this disk is of another machine."""
    kept = json_codec.read(PATH, _build)
    return kept is not None and kept.is_another(current())


def require_own() -> None:
    """Refuses to do anything by the state of another machine (``foreign-machine``)."""
    if is_foreign():
        raise AgentError(
            Problem.FOREIGN_MACHINE,
            "what is configured here was configured on another machine, of which this is an image",
        )


def _line(path: Path) -> str:
    try:
        return (files.read(path) or "").strip()
    except AgentError:
        return ""


def _build(fields: Any) -> Identity:
    return Identity(
        json_codec.field(fields, "instance", str), json_codec.field(fields, "machine", str)
    )
