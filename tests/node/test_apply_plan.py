"""`s3mount-agent plan` on a node: it shows what `apply` would do, and does nothing."""

from __future__ import annotations

import json
import re

import pytest

from cluster.cluster import Cluster
from node.article import mounted
from node.conftest import NewNode
from node.listing import difference, written
from node.live_site import Site, document

pytestmark = pytest.mark.node

KEPT, CHANGED, OLD, NEW, THEIRS = "/mnt/kept", "/mnt/changed", "/mnt/old", "/mnt/new", "/mnt/theirs"
RO, RW = "--read-only --allow-other", "--allow-delete --allow-other"
NEXT = "/root/next.yaml"
USED = re.compile(
    r"(CPU|Memory|Tasks|IO|IP)\w*(NSec|Current|Peak|Available|Bytes|Operations|Packets)="
)
SYSTEMD_OWN = ("/var/tmp", "/var/lib/systemd", "/opt/s3mount-agent")


@pytest.fixture(scope="module", params=["head", "compute"])
def site(cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest) -> Site:
    """A node of each role with three mounts, and somebody else's mount."""
    site = Site(cluster, new_ready_module_node(request.param))
    site.bootstrap(document(site.row(KEPT), site.row(CHANGED, RO), site.row(OLD)))
    site.node.run(["mkdir", THEIRS])
    site.node.run(["mount", "-t", "tmpfs", "theirs", THEIRS])
    site.node.write(
        NEXT,
        document(site.row(KEPT), site.row(CHANGED, RW), site.row(NEW), site.row(THEIRS),
                 bandwidth_gbps=20),
    )  # fmt: skip
    return site


def properties(site: Site) -> list[str]:
    """What systemd knows of the units of mounts, but for what idle processes use."""
    told = site.node.run(["systemctl", "show", "mountpoint-s3-*"]).stdout.splitlines()
    return [line for line in told if not USED.match(line)]


def test_nothing_to_change(site: Site) -> None:
    first, *files = site.agent("plan").stdout.splitlines()
    assert first == "Nothing to change: this node is as its configuration says."
    shown = json.loads(site.agent("plan", "--json").stdout)
    # Below 1.24 nothing limits the files that are open for writing.
    for directory, number in shown.pop("write_files", {}).items():
        assert f"{number} on {directory}" in files[0]
    assert shown == {"schema": 1, "changes": [], "foreign": []}
    assert site.agent("plan", "--config", site.source.url).stdout.startswith("Nothing to change")


def test_what_would_change_is_shown_and_nothing_changes(site: Site) -> None:
    pids, disk, config = site.pids(), written(site.node, ignoring=SYSTEMD_OWN), site.config()
    units = properties(site)
    told = site.mark()
    lines = site.agent("plan", "--config", NEXT, code=4).stdout.splitlines()
    bucket = f"s3://{site.bucket}"
    # Another share is no reason for a new mount.
    share = "(its share of the node changes, without a new mount)"
    files = [line for line in lines if line.startswith("  files that can be open for writing")]
    lines = [line for line in lines if line not in files]
    assert all(f" on {CHANGED}" in line and f" on {NEW}" in line for line in files)
    assert sorted(lines[:-1]) == sorted(
        [
            f"  - {OLD:<12}  {bucket}  (it is no longer wanted)",
            f"  ~ {KEPT:<12}  {bucket}  {share}",
            f"  ~ {CHANGED:<12}  {bucket}  (it changed: -[--read-only] +[--allow-delete])",
            f"  + {NEW:<12}  {bucket}  (it is new)",
            f"  ! {THEIRS}  (something else is mounted there: not touched)",
        ]
    )
    assert lines[-1] == "Plan: 1 to add, 2 to change, 1 to remove."
    answer = site.agent("plan", "--json", "--config", NEXT, code=4)
    assert len(answer.stdout.splitlines()) == 1
    shown = json.loads(answer.stdout)
    assert shown["schema"] == 1
    assert shown["foreign"] == [THEIRS]
    assert {(c["kind"], c["directory"]) for c in shown["changes"]} == {
        ("remove", OLD), ("change", KEPT), ("change", CHANGED), ("add", NEW),
    }  # fmt: skip
    changed = next(c for c in shown["changes"] if c["directory"] == CHANGED)
    assert changed["bucket"] == site.bucket
    assert changed["because"] == "it changed: -[--read-only] +[--allow-delete]"
    # And nothing of it was done.
    assert site.pids() == pids
    assert difference(disk, written(site.node, ignoring=SYSTEMD_OWN)) == {}
    assert site.config() == config
    assert properties(site) == units
    assert site.mark() == told


def test_the_plan_for_a_bad_file_is_its_error(site: Site) -> None:
    site.node.write("/root/bad.yaml", "mounts:\n  - bucket: b\n    directory: /mnt/x\n    onn: 1\n")
    answer = site.agent("plan", "--config", "/root/bad.yaml", code=2)
    assert answer.stdout == ""
    assert "/root/bad.yaml:" in answer.stderr
    assert site.agent("plan", "--config", "/root/none.yaml", code=1).stdout == ""


def test_a_unit_edited_by_hand_is_shown_and_put_right_without_a_new_mount(site: Site) -> None:
    site.agent("plan")
    pids, path = site.pids(), site.unit_file(CHANGED)
    before = site.node.read(path)
    assert "--read-only" in before
    site.node.write(path, before.replace('"--read-only" ', "").replace("=-500", "=0"))
    answer = site.agent("plan", code=4).stdout
    assert answer.splitlines() == [
        f"  ~ {CHANGED}  s3://{site.bucket}  (its unit changes, without a new mount)",
        *[line for line in answer.splitlines() if "open for writing" in line],
        "Plan: 0 to add, 1 to change, 0 to remove.",
    ]
    site.agent("apply")
    assert site.node.read(path) == before
    assert site.pids() == pids
    site.agent("plan")


def test_apply_does_what_the_plan_said_and_leaves_what_is_not_ours(site: Site) -> None:
    pids = site.pids()
    site.source.put(
        document(site.row(KEPT), site.row(CHANGED, RW), site.row(NEW), bandwidth_gbps=10)
    )
    site.agent("apply", "--now")
    site.await_mounts(KEPT, CHANGED, NEW)
    assert site.pids()[KEPT] == pids[KEPT]
    assert "rw" in mounted(site.node)[CHANGED].split(",")
    assert site.node.run(["findmnt", "-n", "-o", "SOURCE", THEIRS]).stdout.strip() == "theirs"
    site.agent("plan")
