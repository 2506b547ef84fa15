"""A node that follows a configuration file on S3, and what its administrator does and sees."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Callable

import yaml

from node.article import mounted, pids, status
from s3mount_agent.config.arguments import parse_arguments

if TYPE_CHECKING:
    import subprocess

    from cluster.cluster import Cluster
    from cluster.command import Command
    from cluster.node import Node

# No wait here is a measurement: other programs may want the machine at the same time.
PATIENCE = 90.0
SEEN = "seen.txt"
CONFIG = "/etc/s3mount-agent/config.yaml"
LOCK = "/run/s3mount-agent/lock"
_HOLD_LOCK = """
import sys
sys.path.insert(0, "/opt/s3mount-agent/current/lib")
from s3mount_agent.filesystem import lock
with lock.hold("a test", timeout=60):
    print("held", flush=True)
    sys.stdin.read()
"""
_NUMBERS = itertools.count(1)
# Opens a file, says so, and reads it when it is told to.
_HOLDER = 'exec 3<"$0" && echo open && read -r line && cat <&3'

Row = Mapping[str, object]


def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    """Waits for something to become true; ``what`` tells what is there instead. To ask again takes
    a processor that others need: what takes long is asked for less often."""
    began = time.monotonic()
    while not true():
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise AssertionError(f"not within {PATIENCE:.0f} seconds: {what()}")
        time.sleep(min(0.2 + waited / 20, 0.5))


def document(*rows: Row, **top: object) -> str:
    """The text of a configuration with these mounts."""
    return yaml.safe_dump(
        {"mounts": list(map(dict, rows)), **top}, sort_keys=False, allow_unicode=True
    )


def unit_of(bucket: str, directory: str) -> str:
    """The name of a mount's unit."""
    (mount,) = parse_arguments((bucket, directory, ""))
    return mount.unit


@contextlib.contextmanager
def locked(node: Node) -> Iterator[None]:
    """Another program that changes the node's mounts, for as long as this lasts."""
    import subprocess

    with node.popen(["python3", "-I", "-c", _HOLD_LOCK], stdin=subprocess.PIPE) as command:
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == "held\n"
            yield
        finally:
            command.kill()


class Source:
    """A configuration file in a bucket of its own, which can be cut off without touching others."""

    def __init__(self, cluster: Cluster) -> None:
        self._s3 = cluster.s3
        self.bucket = f"live-configuration-{next(_NUMBERS)}"
        self.url = f"s3://{self.bucket}/clusters/s3mount.yaml"
        self._s3.create_bucket(self.bucket)

    def put(self, text: str) -> str:
        """Publishes a version; returns what status will call it."""
        self._s3.put(self.bucket, "clusters/s3mount.yaml", text.encode())
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    @property
    def requests(self) -> int:
        """How often nodes have asked for it."""
        return self._s3.requests(self.bucket)

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Out of reach for as long as this lasts."""
        self._s3.fault(self.bucket)
        try:
            yield
        finally:
            self._s3.heal(self.bucket)


class Site:
    """A node, its source, and a bucket of data that only its tests write to."""

    def __init__(self, cluster: Cluster, node: Node, source: Source | None = None) -> None:
        self.cluster = cluster
        self.node = node
        self.source = source or Source(cluster)
        self.bucket = f"live-data-{next(_NUMBERS)}"
        cluster.s3.create_bucket(self.bucket)
        cluster.s3.put(self.bucket, SEEN, b"seen\n")

    def row(self, directory: str, options: str = "--allow-other", **keys: object) -> Row:
        """A mount of this site's bucket."""
        return {"bucket": self.bucket, "directory": directory, "options": options, **keys}

    def unit(self, directory: str) -> str:
        """The unit of such a mount."""
        return unit_of(self.bucket, directory)

    def unit_file(self, directory: str) -> str:
        """Where it lies: on a compute node (mode direct) it does not outlive the boot."""
        direct = status(self.node)["node"]["mode"] == "direct"
        return f"/{'run' if direct else 'etc'}/systemd/system/{self.unit(directory)}"

    def bootstrap(self, text: str) -> str:
        """Publishes a configuration and has ParallelCluster run the custom action with it."""
        version = self.source.put(text)
        action = self.cluster.custom_action(self.node, ["--config", self.source.url])
        assert (action.returncode, action.stderr) == (0, ""), action.stdout + action.stderr
        return version

    def set(self, text: str) -> str:
        """Publishes a configuration and has it in force: where most tests start from."""
        version = self.source.put(text)
        self.agent("apply", "--now")
        return version

    def edit(self, text: str) -> str:
        """Publishes a configuration, has the daemon ask for it, and waits until it has."""
        version = self.source.put(text)
        self.ask()
        return version

    def ask(self) -> None:
        """Has the daemon ask the source, and waits until it has asked."""
        before = self.source.requests
        self.node.run(["systemctl", "reload", "s3mount-agent"])
        until(lambda: self.source.requests > before, lambda: self.told())

    def agent(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs one of the agent's commands, which ends with this exit code."""
        answer = self.node.run(["s3mount-agent", *arguments], check=False, timeout=PATIENCE)
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer

    def told(self, since: int = 0) -> list[dict[str, str]]:
        """The agent's journal entries, oldest first, from a ``mark`` on."""
        answer = self.node.run(["journalctl", "--no-pager", "-o", "json", "-t", "s3mount-agent"])
        return [json.loads(line) for line in answer.stdout.splitlines()][since:]

    def mark(self) -> int:
        """This moment in the journal. (--after-cursor loses an entry where there are matches.)"""
        return len(self.told())

    def events(self, since: int = 0) -> list[tuple[str, str, str]]:
        """What the agent told of its events: action, directory and result."""
        return [
            (entry["S3MOUNT_ACTION"], entry.get("S3MOUNT_MOUNT", ""), entry["S3MOUNT_RESULT"])
            for entry in self.told(since)
            if "S3MOUNT_ACTION" in entry
        ]

    def config(self) -> dict[str, str]:
        """What status says of the configuration."""
        followed: dict[str, str] = status(self.node)["config"]
        return followed

    def mount(self, directory: str) -> dict[str, Any]:
        """What status says of one mount; nothing if it does not know it."""
        mounts = status(self.node)["mounts"]
        return next((mount for mount in mounts if mount["path"] == directory), {})

    def await_mounts(self, *directories: str) -> None:
        """Waits until these are all the mounts, each is well and nothing waits."""
        wanted = dict.fromkeys(directories, "ok")

        def there() -> bool:
            mounts = status(self.node)["mounts"]
            seen = {mount["path"]: mount["state"] for mount in mounts}
            waits = any("pending" in mount for mount in mounts)
            return seen == wanted and not waits and mounted(self.node).keys() == wanted.keys()

        until(there, lambda: (status(self.node), sorted(mounted(self.node)), self.told()[-9:]))

    def await_version(self, version: str) -> None:
        """Waits until a version is in force and nothing is wrong with it."""
        wanted = {"source": self.source.url, "version": version}
        until(lambda: self.config() == wanted, self.config)

    def await_problem(self, words: str) -> None:
        """Waits until status tells of a problem with the newest version."""
        until(lambda: words in self.config().get("problem", ""), self.config)

    def pids(self) -> dict[str, int]:
        """The process of each mount, and there is no other, but for a moment that which put it into
        the background."""
        found: dict[str, int] = {}
        told: list[str] = []

        def alone() -> bool:
            found.clear()
            found.update(pids(self.node))
            told[:] = self.node.run(["pgrep", "-xa", "mount-s3"], check=False).stdout.splitlines()
            # A daemon that has just been started asks for the version.
            running = [line.split()[0] for line in told if not line.endswith("--version")]
            return sorted(found.values()) == sorted(map(int, running))

        until(alone, lambda: (found, told))
        return found

    @contextlib.contextmanager
    def in_use(self, directory: str) -> Iterator[Command]:
        """A program with a file open on a mount, which reads it once it gets a line."""
        import subprocess

        path = str(PurePosixPath(directory, SEEN))
        command = self.node.popen(["sh", "-c", _HOLDER, path], stdin=subprocess.PIPE)
        with command:
            try:
                assert command.stdout is not None
                assert command.stdout.readline() == "open\n"
                yield command
            finally:
                command.kill()

    def require_gone(self, directory: str, unit_file: str) -> None:
        """Nothing is left of a mount that was removed."""
        assert directory not in mounted(self.node)
        assert not self.node.exists(directory)
        assert not self.node.exists(unit_file)
        unit = self.unit(directory)
        shown = self.node.run(["systemctl", "show", "--property=LoadState", "--value", unit])
        assert shown.stdout.strip() == "not-found"
        left = self.node.run(["find", "/etc/systemd", "/run/systemd", "-name", f"*{unit}*"])
        assert left.stdout == ""
