"""S3 that cannot be used for a while: mounts stay, say why, and are well again by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import pytest

from cluster.cluster import Cluster
from node.article import listed, status
from node.conftest import NewNode
from node.live_site import SEEN, Row, Site, document, until
from node.witness import QUICK, courses_until, require_tidy, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

pytestmark = pytest.mark.node

WELL = "/mnt/well"
# Longer than what hangs may stay silent, and less than mount-s3 waits for an answer.
SLOW_SECONDS = 20.0
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Broken:
    """A way in which S3 fails, the problem that it is, and what status says of it."""

    directory: str
    code: str
    words: str
    fault: Mapping[str, Any] = field(default_factory=dict)


BROKEN = (
    Broken("/mnt/denied", "access-denied", "S3 denies access to"),
    Broken(
        "/mnt/deleted",
        "bucket-missing",
        "does not exist",
        {"status": 404, "code": "NoSuchBucket", "message": "The specified bucket does not exist"},
    ),
    Broken(
        "/mnt/throttled",
        "s3-throttled",
        "S3 throttles requests",
        {"status": 503, "code": "SlowDown", "message": "Please reduce your request rate."},
    ),
    Broken(
        "/mnt/failing",
        "s3-errors",
        "S3 answers with errors",
        {"status": 500, "code": "InternalError", "message": "We encountered an internal error."},
    ),
    Broken(
        "/mnt/garbled",
        "s3-errors",
        "S3 answers with errors",
        {"status": 200, "body": "<html><p>Welcome! Sign in & enjoy your connection.</html>"},
    ),
    Broken(
        "/mnt/expired",
        "credentials-expired",
        "have expired",
        {"status": 400, "code": "ExpiredToken", "message": "The provided token has expired."},
    ),
)


class Place:
    """A node with a mount that is well, and one of a bucket of its own for each way to fail."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.site = Site(cluster, node)
        self.node = node
        self.buckets = {each.directory: f"health-{next(_NUMBERS)}-{each.code}" for each in BROKEN}
        self.directories = (WELL, *self.buckets)
        for bucket in self.buckets.values():
            cluster.s3.create_bucket(bucket)
            cluster.s3.put(bucket, SEEN, b"seen\n")
        rows: list[Row] = [self.site.row(WELL)]
        rows += [
            {"bucket": bucket, "directory": directory, "options": "--allow-other"}
            for directory, bucket in self.buckets.items()
        ]
        environment = {"AWS_MAX_ATTEMPTS": "2"}
        self.site.bootstrap(document(*rows, health=QUICK, environment=environment))

    def all_are(self, state: str) -> dict[str, str]:
        """This state for every mount."""
        return dict.fromkeys(self.directories, state)

    def codes(self, since: int, result: str) -> dict[str, str]:
        """The problems that were told of the mounts' health from a mark on, by directory."""
        return {
            entry["S3MOUNT_MOUNT"]: entry.get("S3MOUNT_ERROR_CODE", "")
            for entry in self.site.told(since)
            if entry.get("S3MOUNT_ACTION") == "health" and entry["S3MOUNT_RESULT"] == result
        }


@pytest.fixture(scope="module", params=["head", "compute"])
def place(
    request: pytest.FixtureRequest, cluster: Cluster, new_ready_module_node: NewNode
) -> Place:
    """A node in each mode."""
    return Place(cluster, new_ready_module_node(request.param))


@pytest.fixture(autouse=True)
def nothing_is_remounted(place: Place) -> Iterator[None]:
    """Whatever S3 does, each test begins and ends with the same processes, and all is well."""
    courses_until(place.node, place.all_are("ok"))
    before, mark = place.site.pids(), place.site.mark()
    yield
    courses_until(place.node, place.all_are("ok"))
    assert place.site.pids() == before
    require_tidy(place.node, *place.directories)
    told = {(action, result) for action, _, result in place.site.events(mark)}
    assert told <= {("health", "degraded"), ("health", "recovered")}


def require_only(courses: Mapping[str, list[str]], *states: str) -> None:
    """No mount was in any other state on the way."""
    assert {state for course in courses.values() for state in course} <= {*states}


def test_each_fault_of_s3_degrades_its_mount_with_its_reason_until_it_heals(
    place: Place, break_s3: Any, cluster: Cluster
) -> None:
    mark = place.site.mark()
    with undisturbed(place.node, WELL):
        for each in BROKEN:
            break_s3(place.buckets[each.directory], **each.fault)
        there = courses_until(place.node, {**place.all_are("degraded"), WELL: "ok"})
        reasons = {row["path"]: row["reason"] or "" for row in status(place.node)["mounts"]}
        for each in BROKEN:
            cluster.s3.heal(place.buckets[each.directory])
        back = courses_until(place.node, place.all_are("ok"))
    require_only(there, "ok", "degraded")
    require_only(back, "ok", "degraded")
    assert there[WELL] == back[WELL] == ["ok"]
    assert {each.directory: each.words in reasons[each.directory] for each in BROKEN} == (
        dict.fromkeys(place.buckets, True)
    ), reasons
    assert place.codes(mark, "degraded") == {each.directory: each.code for each in BROKEN}
    assert place.codes(mark, "recovered").keys() == place.buckets.keys()


def test_a_cut_network_degrades_every_mount_until_it_is_back(place: Place) -> None:
    node, mark = place.node, place.site.mark()
    node.cut()
    try:
        there = courses_until(node, place.all_are("degraded"))
        reasons = {row["reason"] for row in status(node)["mounts"]}
        # mount-s3 has given up: who reads now gets an error, not an endless wait.
        answer = node.run(["cat", f"{WELL}/{SEEN}"], check=False)
    finally:
        node.reconnect()
    back = courses_until(node, place.all_are("ok"))
    require_only(there, "ok", "degraded")
    require_only(back, "ok", "degraded")
    assert answer.returncode == 1
    assert "Input/output error" in answer.stderr
    assert all("S3 cannot be reached" in reason for reason in reasons), reasons
    assert place.codes(mark, "degraded") == dict.fromkeys(place.directories, "s3-unreachable")
    for directory in place.directories:
        assert listed(node, directory) == [SEEN]


def test_a_slow_s3_is_waited_for_and_nobody_is_taken_for_hung(
    place: Place, break_s3: Any, cluster: Cluster
) -> None:
    slow = BROKEN[0].directory
    bucket = place.buckets[slow]
    seen: set[str] = set()

    def watch(true: Callable[[], bool]) -> None:
        def look() -> bool:
            seen.update(row["state"] for row in status(place.node)["mounts"])
            return true()

        until(look, lambda: (seen, place.site.told()[-9:]))

    def asked(times: int) -> Callable[[], bool]:
        before = cluster.s3.requests(bucket)
        return lambda: cluster.s3.requests(bucket) >= before + times

    with place.site.in_use(slow) as reader, undisturbed(place.node, WELL):
        assert reader.stdin is not None
        assert reader.stdout is not None
        break_s3(bucket, status=200, delay=SLOW_SECONDS)
        both = asked(2)
        reader.stdin.write("read\n")
        reader.stdin.flush()
        watch(both)  # the reader and the agent: what they have asked still takes its time
        cluster.s3.heal(bucket)
        watch(lambda: reader.poll() is not None)
        assert reader.stdout.read() == "seen\n"
        watch(asked(1))  # the agent's next look: the slow one is over
    assert seen == {"ok"}
