"""A node with mounts that are broken on purpose, each on its own, and watched all the time."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import yaml
from node.article import main_pid, mounted, status
from s3mount_agent.model.mounts import parse_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.cluster import Cluster
    from cluster.command import Command
    from cluster.node import Node

# No wait here is a measurement: other programs may want the machine at the same time.
PATIENCE = 120.0
QUICK = {
    "look_every": "5s",
    "check_s3_every": "8s",
    "hung_after": "10s",
    "retry_at_most_every": "8s",
}
CALM = "calm"
AGENT = "s3mount-agent.service"
SEEN = "seen.txt"
BIG = "big.bin"
BIG_BYTES = 4 << 20
_NUMBERS = itertools.count(1)

# Reads a file over and over, each time anew, until its stdin ends; then tells how that went.
_READER = """
import json, select, sys, time
path, errors, reads, longest = sys.argv[1], [], 0, 0.0
print("reading", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    began = time.monotonic()
    try:
        with open(path) as file:
            text = file.read()
        if text != "seen\\n":
            errors.append(repr(text))
        reads += 1
    except OSError as error:
        errors.append(f"{time.time():.3f} {error}")
    longest = max(longest, time.monotonic() - began)
print(json.dumps({"reads": reads, "errors": errors[:9], "longest": longest}))
"""
# Does something to a mount, and tells after how many seconds it could be used again. The first
# look may come before the deed has its effect.
_BREAK = """
import subprocess, sys, time
path, *deed = sys.argv[1:]
began, failed = time.monotonic(), False
subprocess.run(deed, check=True)
while time.monotonic() - began < 120:
    try:
        with open(path) as file:
            file.read()
        if failed or time.monotonic() - began > 5:
            print(time.monotonic() - began)
            break
    except OSError:
        failed = True
    time.sleep(0.01)
"""


def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    """Waits for something to become true; ``what`` tells what is there instead."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:.0f} seconds: {what()}")
        time.sleep(0.2)


@dataclass(frozen=True)
class Sample:
    """What status said of the mounts, asked at a moment (monotonic seconds)."""

    at: float
    mounts: dict[str, dict[str, Any]]


@dataclass
class Reading:
    """How a reader fared."""

    reads: int
    longest: float
    errors: list[str] = field(default_factory=list)


class Ward:
    """A node with a mount /mnt/NAME of a bucket of its own for each name, and one named "calm", to
    which nothing is done."""

    def __init__(
        self, cluster: Cluster, node: Node, names: Iterable[str], **endpoints: str
    ) -> None:
        self.cluster = cluster
        self.node = node
        self.names = (*names, CALM)
        self.numbers: dict[str, float] = {}
        self.samples: list[Sample] = []
        self._number = next(_NUMBERS)
        self._endpoints = endpoints
        self._stopping = threading.Event()
        self._sampler: threading.Thread | None = None
        for name in self.names:
            bucket = self.bucket(name)
            cluster.s3.create_bucket(bucket)
            cluster.s3.put(bucket, SEEN, b"seen\n")

    def bucket(self, name: str) -> str:
        """A mount's bucket."""
        return f"health-{self._number}-{name}"

    def directory(self, name: str) -> str:
        """A mount's directory."""
        return f"/mnt/{name}"

    def unit(self, name: str) -> str:
        """A mount's unit."""
        return parse_mount(self.bucket(name), self.directory(name), "").unit

    def row(self, name: str) -> dict[str, object]:
        """A mount in the configuration."""
        row: dict[str, object] = {"bucket": self.bucket(name), "directory": self.directory(name)}
        if name in self._endpoints:
            row["endpoint_url"] = self._endpoints[name]
        return {**row, "allow_other": True, "allow_delete": True}

    def bootstrap(self, health: dict[str, str] | None = QUICK, **top: object) -> None:
        """Has ParallelCluster run the custom action with these mounts."""
        configuration: dict[str, object] = {"mounts": [self.row(name) for name in self.names]}
        if health is not None:
            configuration["health"] = health
            configuration["environment"] = {"AWS_MAX_ATTEMPTS": "2"}
        text = yaml.safe_dump({**configuration, **top}, sort_keys=False)
        self.cluster.s3.create_bucket("health-configuration")
        self.cluster.s3.put("health-configuration", f"{self._number}.yaml", text.encode())
        url = f"s3://health-configuration/{self._number}.yaml"
        action = self.cluster.custom_action(self.node, ["--config", url])
        assert (action.returncode, action.stderr) == (0, ""), action.stdout + action.stderr

    # What status says.

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Asks status over and over for as long as this lasts."""
        self._stopping.clear()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._sampler.join()

    def _sample(self) -> None:
        while not self._stopping.wait(0.25):
            at = time.monotonic()
            answer = self.node.run(["s3mount-agent", "status", "--json"], check=False)
            rows = json.loads(answer.stdout)["mounts"]
            self.samples.append(Sample(at, {row["path"]: row for row in rows}))

    def now(self, name: str) -> dict[str, Any]:
        """What status says of a mount now."""
        path = self.directory(name)
        if self._sampler is None or not self._sampler.is_alive():
            found: dict[str, Any] = next(
                m for m in status(self.node)["mounts"] if m["path"] == path
            )
            return found
        asked = time.monotonic()
        until(lambda: bool(self.samples) and self.samples[-1].at >= asked)
        return self.samples[-1].mounts[path]

    def pid(self, name: str) -> int:
        """A mount's process."""
        pid = self.now(name)["pid"]
        assert pid, self.now(name)
        return int(pid)

    def rows_since(self, name: str, moment: float) -> list[dict[str, Any]]:
        """All that status has said of a mount since then."""
        path = self.directory(name)
        return [sample.mounts[path] for sample in self.samples if sample.at >= moment]

    def states_since(self, name: str, moment: float) -> list[str]:
        """The states that a mount went through since then, in order."""
        states = [row["state"] for row in self.rows_since(name, moment)]
        return [state for state, _ in itertools.groupby(states)]

    def await_state(self, name: str, *states: str, since: float | None = None) -> dict[str, Any]:
        """Waits until a mount is, or has been since then, in one of these states."""
        moment = time.monotonic() if since is None else since

        def row() -> dict[str, Any] | None:
            rows = self.rows_since(name, moment)
            return next((row for row in rows if row["state"] in states), None)

        until(lambda: row() is not None, lambda: (name, self.rows_since(name, moment)[-2:]))
        found = row()
        assert found is not None
        return found

    def require_only(self, name: str, since: float, *states: str) -> None:
        """A mount was in no other state than these since then."""
        rows = self.rows_since(name, since)
        others = [row for row in rows if row["state"] not in states]
        assert others == [], self.states_since(name, since)

    # What happens to mounts.

    def signal(self, name: str, number: str) -> None:
        """Sends a signal to a mount's process."""
        self.node.run(["kill", f"-{number}", str(main_pid(self.node, self.unit(name)))])

    def break_and_wait(self, name: str, *deed: str) -> float:
        """Does something to a mount and returns how long its user had to wait."""
        path = f"{self.directory(name)}/{SEEN}"
        answer = self.node.run(
            ["python3", "-c", _BREAK, path, *deed], user=None, timeout=PATIENCE + 30
        )
        return float(answer.stdout)

    def note(self, what: str, seconds: float) -> None:
        """Keeps a figure for the report: the worst of its kind."""
        self.numbers[what] = max(self.numbers.get(what, 0.0), seconds)

    def usable(self, name: str) -> None:
        """A user can read and write there, and it arrives."""
        directory = self.directory(name)
        assert self.node.run(["cat", f"{directory}/{SEEN}"], user="ubuntu").stdout == "seen\n"
        written = f"{directory}/written-{next(_NUMBERS)}"
        self.node.run(["sh", "-c", 'echo new >"$0"', written], user="ubuntu")
        key = written.rpartition("/")[2]
        assert self.cluster.s3.get(self.bucket(name), key) == b"new\n"

    @contextmanager
    def reader(self, name: str) -> Iterator[list[Reading]]:
        """Someone who reads there all the time; the list has the result afterwards."""
        result: list[Reading] = []
        path = f"{self.directory(name)}/{SEEN}"
        command = self.node.popen(
            ["python3", "-c", _READER, path], user="ubuntu", stdin=subprocess.PIPE
        )
        with command:
            try:
                assert command.stdout is not None
                assert command.stdout.readline() == "reading\n"
                yield result
                stdout, stderr = command.communicate(timeout=PATIENCE)
                assert stdout, stderr
                result.append(Reading(**json.loads(stdout)))
            finally:
                command.kill()

    def python(self, program: str, *arguments: str, user: str | None = "ubuntu") -> Command:
        """Starts a Python program in the node."""
        return self.node.popen(
            ["python3", "-c", program, *arguments], user=user, stdin=subprocess.PIPE
        )

    # What is told and what is left.

    def told(self, name: str | None = None) -> list[dict[str, str]]:
        """The agent's entries in the journal, about one mount or all, as an administrator asks."""
        match = [f"S3MOUNT_MOUNT={self.directory(name)}"] if name else ["-t", "s3mount-agent"]
        answer = self.node.run(["journalctl", "--no-pager", "-o", "json", *match])
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def events(self, name: str) -> list[tuple[str, str]]:
        """The events of one mount: action and result."""
        return [(entry["S3MOUNT_ACTION"], entry["S3MOUNT_RESULT"]) for entry in self.told(name)]

    def daemon_pid(self) -> int:
        """The daemon's process, 0 if there is none."""
        return main_pid(self.node, AGENT)

    def require_nothing_left(self) -> None:
        """One mount and one process for each name, nothing hidden below, and no probe left over."""
        directories = sorted(map(self.directory, self.names))

        def trouble() -> object:
            table = self.node.read("/proc/self/mountinfo").splitlines()
            mounts = sorted(d for line in table if (d := line.split(" ")[4]).startswith("/mnt/"))
            running = self.node.run(["pgrep", "-x", "mount-s3"], check=False).stdout.split()
            rows = status(self.node)["mounts"]
            pids = sorted(str(row["pid"]) for row in rows)
            group = f"/sys/fs/cgroup/system.slice/{AGENT}/cgroup.procs"
            agents = self.node.read(group).split()
            left = {
                "mounts": mounts if mounts != directories else None,
                "processes": (running, pids) if sorted(running) != pids else None,
                "daemon": agents if len(agents) != 1 else None,
                "states": [row for row in rows if row["state"] != "ok"],
            }
            return {key: value for key, value in left.items() if value}

        # A probe may be at work just now.
        until(lambda: not trouble(), trouble)
        assert mounted(self.node).keys() == set(directories)
