"""Power lost before every single step of `s3mount-agent apply`, and what the next boot makes of it.

Two configurations that differ by one mount added, one changed and one removed are put in force by
turns; each time the power goes one step later, until `apply` comes to its end. After each boot the
node's disk must hold exactly what it holds where no power was ever lost.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node import power_steps
from node.article import mounted
from node.conftest import NewNode
from node.listing import Entry, difference, written
from node.live_site import CONFIG, Site, document

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

KEPT, CHANGED, LEFT, RIGHT = "/mnt/kept", "/mnt/changed", "/mnt/left/deep", "/mnt/right/deep"
STEPS = "/root/power_steps.py"
STATE = "/var/lib/s3mount-agent"
# The agent's code (Python compiles it when it is first used), and when something was last done.
BUT = (
    *("/opt/s3mount-agent", f"{STATE}/timeline.json", f"{STATE}/made.json"),
    *("/var/tmp", "/var/lib/systemd"),  # systemd's own
)
MOST_STEPS = 200
# How often the daemon may be quicker with a part of the work.
SPARE = 5
# What there is to do at the least: a configuration, a mount less, one more, and another one.
PARTS = (
    "config.yaml",
    "unit-hook unmount",
    "systemctl stop",
    "systemctl start",
    "daemon-reload",
    "os.rmdir /mnt/",
    "os.mkdir /mnt/",
    "made.json",
    "mountpoint-s3-",
)


@dataclass(frozen=True)
class Version:
    """A configuration, and what a node has that follows it."""

    text: str
    access: dict[str, str]  # "ro" or "rw" by directory
    made: set[str]


@dataclass
class Outcome:
    """What became of one role: each step's name, and what was wrong after it."""

    steps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Subject:
    """A node that loses power again and again."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.site = Site(cluster, node)
        node.write(STEPS, Path(power_steps.__file__).read_text(encoding="utf-8"))
        rw, ro = "--allow-delete --allow-other", "--read-only --allow-other"
        kept = self.site.row(KEPT)
        self.versions = (
            Version(
                document(kept, self.site.row(CHANGED, ro), self.site.row(LEFT)),
                {KEPT: "rw", CHANGED: "ro", LEFT: "rw"},
                {KEPT, CHANGED, LEFT, "/mnt/left"},
            ),
            Version(
                document(kept, self.site.row(CHANGED, rw), self.site.row(RIGHT)),
                {KEPT: "rw", CHANGED: "rw", RIGHT: "rw"},
                {KEPT, CHANGED, RIGHT, "/mnt/right"},
            ),
        )
        self.site.bootstrap(self.versions[0].text)
        # What is right: the disk of a node on which nothing ever went wrong.
        self.right = {self.versions[0].text: self.disk()}
        self.site.set(self.versions[1].text)
        self.right[self.versions[1].text] = self.disk()
        self.site.set(self.versions[0].text)
        assert difference(self.right[self.versions[0].text], self.disk()) == {}

    def disk(self) -> dict[str, Entry]:
        """What was written to the node's disk, without times."""
        found = written(self.site.node, ignoring=BUT)
        return {path: entry._replace(modified=0) for path, entry in found.items()}

    def lose_power(self, last: int, new: Version) -> str | None:
        """Applies a version and loses power before a step; None if there is no such step."""
        self.site.source.put(new.text)
        argv = ["python3", "-I", STEPS, str(last), "apply", "--now"]
        with self.site.node.popen(argv) as command:
            assert command.stdout is not None
            lines = iter(command.stdout.readline, "")
            told = next((x for x in lines if x.startswith(("before ", "steps: "))), "")
            if told.startswith("before "):
                self.site.node.kill()
                command.kill()
                return told.strip()
            assert told.startswith("steps: "), command.stderr.read() if command.stderr else ""
        return None

    def boot(self, old: Version, new: Version) -> None:
        """Boots, and checks that the node is what its configuration says: the old or the new."""
        self.site.node.boot()
        in_force = self.site.node.read(CONFIG)
        if in_force == old.text:  # the daemon asks the source as it starts, and so may we
            self.site.set(new.text)
        self.require(new)

    def require(self, version: Version) -> None:
        """The node has what a version says, and nothing else."""
        node = self.site.node
        self.site.agent("status", "--wait", "60")
        assert node.read(CONFIG) == version.text
        found = {path: options.split(",")[0] for path, options in mounted(node).items()}
        assert found == version.access, f"mounted: {found}"
        assert self.site.agent("plan").stdout.startswith("Nothing to change")
        assert len(self.site.pids()) == len(version.access)
        shown = node.run(
            ["sh", "-c", "ls -A /run/systemd/system /etc/systemd/system | grep -c mountpoint-s3-"]
        )
        assert shown.stdout.strip() == str(len(version.access)), "units"
        made = json.loads(node.read(f"{STATE}/made.json"))["directories"]
        assert sorted(made) == sorted(version.made), "made.json"
        if self.site.config()["version"] != hash_of(version.text):
            # Lost between the file and the note of where it came from, which the next look mends.
            self.site.ask()
            self.site.await_version(hash_of(version.text))
        json.loads(node.read(f"{STATE}/timeline.json"))
        wrong = difference(self.right[version.text], self.disk())
        assert wrong == {}, f"differs from a node that never lost power: {sorted(wrong)}"


def hash_of(text: str) -> str:
    """What status calls a version: S3's ETag."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def lose_power_everywhere(cluster: Cluster, node: Node) -> Outcome:
    """Power is lost before each step, one after the other."""
    outcome = Outcome()
    subject = Subject(cluster, node)
    spare = SPARE
    for old, new in itertools.cycle([subject.versions, subject.versions[::-1]]):
        step = subject.lose_power(len(outcome.steps) + 1, new)
        if step is None:
            subject.require(new)
            if spare == 0 or all(part in "\n".join(outcome.steps) for part in PARTS):
                return outcome
            spare -= 1  # the daemon was quicker, and did a part of it
            continue
        if len(outcome.steps) == MOST_STEPS:
            raise AssertionError("it never comes to an end")
        outcome.steps.append(step)
        try:
            subject.boot(old, new)
        except AssertionError as error:
            outcome.wrong.append(f"{step}: {error}")
            mend(subject, new)
    return outcome


def mend(subject: Subject, version: Version) -> None:
    """After a fault that was noted: the node as it should be, so that the rest can be tried."""
    made = ["/mnt/left/deep", "/mnt/left", "/mnt/right/deep", "/mnt/right"]
    subject.site.agent("apply", "--now")
    for directory in made:
        if directory not in version.made:
            subject.site.node.run(["rmdir", directory], check=False)
    record = f"{STATE}/made.json"
    kept = json.loads(subject.site.node.read(record))
    kept["directories"] = sorted(version.made)
    subject.site.node.write(record, json.dumps(kept), mode=0o600)
    left = ["/etc", STATE, "-name", ".*.[0-9]*.[0-9]*", "-delete"]
    subject.site.node.run(["find", *left])


@pytest.fixture(scope="module")
def outcomes(cluster: Cluster, new_ready_module_node: NewNode) -> dict[str, Outcome]:
    """Both roles at the same time, each with a node of its own."""
    nodes = {role: new_ready_module_node(role) for role in ("head", "compute")}
    with ThreadPoolExecutor(len(nodes)) as pool:
        running = {
            role: pool.submit(lose_power_everywhere, cluster, node) for role, node in nodes.items()
        }
        return {role: each.result() for role, each in running.items()}


@pytest.mark.parametrize("role", ["head", "compute"])
def test_power_lost_before_any_step_of_apply_leaves_a_node_that_converges(
    outcomes: dict[str, Outcome], role: str
) -> None:
    outcome = outcomes[role]
    print(f"{role}: {len(outcome.steps)} steps", *outcome.steps, sep="\n  ")
    assert outcome.wrong == []
    told = "\n".join(outcome.steps)
    for part in PARTS:
        assert part in told
