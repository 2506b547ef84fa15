"""The article's cluster: its arguments, its units, and what its author then sees on a node."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from cluster.node import Node

FIRST, SECOND = "hpc-dev-mountpoint-sample-1", "hpc-dev-mountpoint-sample-2"
READONLY, WRITABLE = "/mnt/s3-readonly", "/mnt/s3"
SEEN = "YouCanLookThisFileFromS3.txt"
HEAD = (
    *(FIRST, READONLY, "--allow-delete --allow-other"),
    *(SECOND, WRITABLE, "--allow-delete --allow-other"),
)
COMPUTE = (
    *(FIRST, READONLY, "--read-only --allow-other"),
    *(SECOND, WRITABLE, "--allow-delete --allow-other"),
)
# One mount is enough where a test asks nothing of a second one.
ONE = (SECOND, WRITABLE, "--allow-delete --allow-other")
UNITS = {
    "mountpoint-s3-585e79a6.service": f"Mount s3://{SECOND} at {WRITABLE}",
    "mountpoint-s3-91ef1212.service": f"Mount s3://{FIRST} at {READONLY}",
}
UNIT = {WRITABLE: "mountpoint-s3-585e79a6.service", READONLY: "mountpoint-s3-91ef1212.service"}
AGENT_UNIT = "s3mount-agent.service"
ENVIRONMENT = "/etc/s3mount-agent/environment"
MEMBERS = {"path", "bucket", "state", "reason", "hint", "since", "pid", "read_only"}


def status(node: Node, *, wait: float | None = None) -> dict[str, Any]:
    """What ``status --json`` says, whatever its exit code."""
    waiting = [] if wait is None else ["--wait", str(wait)]
    answer = node.run(["s3mount-agent", "status", "--json", *waiting], check=False)
    lines = answer.stderr.splitlines()  # who has to wait is told
    assert all(waiting and line.startswith("s3mount-agent: waiting for ") for line in lines), (
        answer.stderr
    )
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def states(node: Node, *, wait: float | None = None) -> dict[str, str]:
    """The state of each mount by its directory."""
    return {mount["path"]: mount["state"] for mount in status(node, wait=wait)["mounts"]}


def pids(node: Node) -> dict[str, int]:
    """The process of each mount by its directory."""
    return {mount["path"]: mount["pid"] for mount in status(node)["mounts"]}


def main_pid(node: Node, unit: str) -> int:
    """The main process of a unit, 0 if it has none."""
    return int(show(node, unit, "MainPID"))


def show(node: Node, unit: str, setting: str) -> str:
    """One property of a unit."""
    return node.run(["systemctl", "show", f"--property={setting}", "--value", unit]).stdout.strip()


def listed(node: Node, directory: str) -> list[str]:
    """The names in a directory."""
    return node.run(["ls", "-1", directory]).stdout.splitlines()


def mounted(node: Node) -> dict[str, str]:
    """The options of each of mount-s3's mounts by its directory, as ``mount`` shows them."""
    table = {}
    for line in node.run(["mount"]).stdout.splitlines():
        if line.startswith("mountpoint-s3 on "):
            directory, _, rest = line[len("mountpoint-s3 on ") :].partition(" type fuse ")
            table[directory] = rest.strip("()")
    return table


def set_environment(node: Node, **values: str) -> None:
    """Changes settings in the agent's environment file."""
    lines = node.read(ENVIRONMENT).splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in values]
    text = "\n".join([*kept, *(f"{name}={value}" for name, value in values.items())])
    node.write(ENVIRONMENT, text + "\n", mode=0o600)


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return true()
