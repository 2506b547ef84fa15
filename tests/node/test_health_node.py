"""A node in trouble: no space left, a clock that jumps, credentials that come after the boot."""

from __future__ import annotations

import calendar
import contextlib
import functools
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable

import pytest

from cluster.cluster import Cluster
from node.article import AGENT_UNIT, ENVIRONMENT, main_pid, pids, states, status
from node.conftest import NewNode
from node.live_site import CONFIG, SEEN, Site, document, until
from node.witness import QUICK, courses_until, require_tidy, states_until, undisturbed

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

ONE, OTHER = "/mnt/one", "/mnt/other"
BOTH_OK = {ONE: "ok", OTHER: "ok"}
DISK = "256m"

# /run is made small first: it is memory of this machine.
SHRINK = "mount -o remount,size=$(($(df --output=used -k /run | tail -n 1) + 16))k /run"
# Takes what is free; fails where there was something to take.
FILL = """
before=$(stat -c %s "$0/filler" 2> /dev/null)
dd if=/dev/zero bs=4k >> "$0/filler" 2> /dev/null
test "$before" = "$(stat -c %s "$0/filler")"
"""
EMPTY = "rm /run/filler /var/filler && mount -o remount,size=64m /run"

CLOCK, CLOCK_UNIT = "/var/lib/own-clock", "/etc/systemd/system/s3mount-agent.service.d/clock.conf"
# Only what the clock on the wall says is moved: not the monotonic clock, nor the times of files.
OWN_CLOCK = f"""\
[Service]
Environment=LD_PRELOAD=@LIBRARY@ FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
ExecStart=
ExecStart=/usr/bin/python3 -ISXutf8 {CLOCK}.py
"""

# A program that sleeps by a monotonic clock that is not faked gets EINVAL of libfaketime 0.9.10;
# the agent reads no site directory in which this could stand.
SLEEP = f"{CLOCK}.py"
SLEEP_CODE = """\
import select, sys, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
launcher = "/opt/s3mount-agent/current/bin/s3mount-agent"
sys.argv = [launcher, "daemon"]
exec(compile(open(launcher).read(), launcher, "exec"))
"""

LATE, LATE_UNIT = "/etc/s3mount-agent/environment.late", "late-credentials.service"
SEEN_AT_BOOT = "/var/log/seen-at-boot"
# An instance profile that comes late: when `status` has told for a while that mounts are retried.
LATE_CREDENTIALS = f"""\
[Service]
ExecStart=/bin/sh -c 'while sleep 0.5; do s3mount-agent status --json >> {SEEN_AT_BOOT}; \
test $(grep -c retrying {SEEN_AT_BOOT}) -lt 6 || mv {LATE} {ENVIRONMENT}; done'

[Install]
WantedBy=multi-user.target
"""


class Place:
    """A node with a small disk and two mounts of two buckets; nobody but the agent looks at ONE."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.cluster = cluster
        self.node = node
        self.site = Site(cluster, node)
        self.bucket = f"{self.site.bucket}-one"
        cluster.s3.create_bucket(self.bucket)
        cluster.s3.put(self.bucket, SEEN, b"seen\n")
        self.site.bootstrap(self.document())

    def document(self, **top: object) -> str:
        """The node's configuration."""
        one = {"bucket": self.bucket, "directory": ONE, "options": "--allow-other"}
        environment = {"AWS_MAX_ATTEMPTS": "1"}
        row = self.site.row(OTHER)
        return document(one, row, health=QUICK, environment=environment, **top)

    def signal(self, name: str) -> int:
        """Sends a signal to the process of ONE; returns its id."""
        pid = pids(self.node)[ONE]
        self.node.run(["kill", f"-{name}", str(pid)])
        return pid

    def await_another(self, pid: int) -> None:
        """Waits until ONE is well, with another process."""

        def there() -> bool:
            return states(self.node) == BOTH_OK and pids(self.node)[ONE] != pid

        until(there, lambda: (status(self.node), self.site.told()[-9:]))

    def await_looks(self) -> set[str]:
        """Waits until the agent has twice asked S3 through ONE; returns the states meanwhile."""
        before = self.cluster.s3.requests(self.bucket)
        seen: set[str] = set()

        def looked() -> bool:
            seen.update(states(self.node).values())
            return self.cluster.s3.requests(self.bucket) >= before + 2

        until(looked, lambda: self.site.told()[-9:])
        return seen


@pytest.fixture(scope="module", params=["head", "compute"])
def place(
    request: pytest.FixtureRequest, cluster: Cluster, new_ready_module_node: NewNode
) -> Place:
    """A node in each mode."""
    node = new_ready_module_node(request.param, DISK)
    node.run(["apt-get", "-qq", "--yes", "install", "libfaketime"])
    return Place(cluster, node)


@pytest.fixture(autouse=True)
def the_daemon_lives(request: pytest.FixtureRequest, place: Place) -> Iterator[None]:
    """Whatever happens to the node, each test ends with all well and nothing left."""
    if not place.node.is_on:  # the test before this one could not boot it
        place.node.boot()
    courses_until(place.node, BOTH_OK)
    yield
    courses_until(place.node, BOTH_OK)
    require_tidy(place.node, *BOTH_OK)


@contextlib.contextmanager
def full(node: Node) -> Iterator[None]:
    """No space in /run, nor in /var and /etc, which share a disk, for as long as this lasts."""
    node.run(["sh", "-c", SHRINK])

    def filled() -> bool:
        return all(
            node.run(["sh", "-c", FILL, directory], check=False).returncode == 0
            for directory in ("/run", "/var")
        )

    try:
        until(filled)
        yield
        assert filled()
    finally:
        node.run(["sh", "-c", EMPTY])


def test_full_disks_cost_no_mount_and_leave_no_half_written_file(place: Place) -> None:
    node, site = place.node, place.site
    before, daemon, config = site.pids(), main_pid(node, AGENT_UNIT), node.read(CONFIG)
    with undisturbed(node, OTHER):
        with full(node):
            place.await_another(place.signal("KILL"))
            hung = place.signal("STOP")
            assert states_until(node, ONE, "ok", first="hung")[0] == "hung"
            place.await_another(hung)
            version = site.edit(place.document(refresh="10m"))
            require_tidy(node, *BOTH_OK)  # the look at the new version is over
            assert node.read(CONFIG) == config
            assert site.config()["version"] != version
            assert states(node) == BOTH_OK
        site.ask()
        site.await_version(version)
        courses_until(node, BOTH_OK)
    assert main_pid(node, AGENT_UNIT) == daemon
    assert site.pids()[OTHER] == before[OTHER]
    assert node.run(["find", "/etc", "/run", "/var", "-name", "*.s3mount-new"]).stdout == ""


@contextlib.contextmanager
def own_clock(node: Node) -> Iterator[Callable[[str], None]]:
    """The daemon has a clock of its own, which can be set; no other clock is touched."""
    library = node.run(["sh", "-c", "echo /usr/lib/*/faketime/libfaketime.so.1"]).stdout.strip()
    node.write(SLEEP, SLEEP_CODE)
    node.write(CLOCK, "+0")
    node.write(CLOCK_UNIT, OWN_CLOCK.replace("@LIBRARY@", library))
    restart = "systemctl daemon-reload && systemctl restart s3mount-agent"
    try:
        node.run(["sh", "-c", restart])
        yield lambda shift: node.write(CLOCK, shift)
    finally:
        node.run(["sh", "-c", f"rm {CLOCK_UNIT} {SLEEP} && {restart}"])


def is_ahead(node: Node, days: int) -> bool:
    """Whether the daemon's clock was that many days ahead when it last looked."""
    at = calendar.timegm(time.strptime(status(node)["node"]["at"], "%Y-%m-%dT%H:%M:%SZ"))
    return round((at - time.time()) / 86400) == days


def test_a_clock_that_jumps_disturbs_nothing(place: Place) -> None:
    node, site = place.node, place.site
    with undisturbed(node, OTHER), own_clock(node) as set_clock:
        before, daemon, mark = site.pids(), main_pid(node, AGENT_UNIT), site.mark()
        for days in (1, -1):
            set_clock(f"{days:+}d")
            node.run(["systemctl", "reload", AGENT_UNIT])
            until(functools.partial(is_ahead, node, days), lambda: status(node))
            assert place.await_looks() == {"ok"}
            assert site.pids() == before
            place.await_another(place.signal("KILL"))
            before = {**before, ONE: site.pids()[ONE]}
        assert site.pids() == before
        assert main_pid(node, AGENT_UNIT) == daemon
        told = {event for event in site.events(mark) if event[0] == "health"}
        assert told == {("health", ONE, "ended")}  # those that were killed here


def test_mounts_come_by_themselves_when_the_credentials_come_after_the_boot(place: Place) -> None:
    node, site = place.node, place.site
    whole = node.read(ENVIRONMENT)
    lines = whole.splitlines(keepends=True)
    node.write(ENVIRONMENT, "".join(line for line in lines if "KEY" not in line), mode=0o600)
    node.write(LATE, whole, mode=0o600)
    node.write(f"/etc/systemd/system/{LATE_UNIT}", LATE_CREDENTIALS)
    node.run(["systemctl", "enable", "--quiet", LATE_UNIT])
    node.reboot()
    courses_until(node, BOTH_OK)
    node.run(["systemctl", "disable", "--quiet", "--now", LATE_UNIT])
    looks = [json.loads(line) for line in node.read(SEEN_AT_BOOT).splitlines()]
    rows = [row for look in looks for row in look["mounts"]]
    assert {row["state"] for row in rows} <= {"missing", "starting", "retrying", "ok"}
    retried = {(row["path"], row["reason"]) for row in rows if row["state"] == "retrying"}
    assert retried == {(path, "mount-s3 found no credentials") for path in BOTH_OK}
    # The daemon, too, was started without credentials.
    site.ask()
    until(lambda: "problem" not in site.config(), site.config)
