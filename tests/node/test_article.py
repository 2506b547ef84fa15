"""The article's verification: what its author types on the nodes, and what must come back."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import TYPE_CHECKING, Callable

import pytest

from cluster.cluster import ARTICLE, ActionResult, Cluster
from node.article import (
    AGENT_UNIT,
    COMPUTE,
    FIRST,
    HEAD,
    MEMBERS,
    READONLY,
    SECOND,
    SEEN,
    UNIT,
    UNITS,
    WRITABLE,
    listed,
    mounted,
    pids,
    show,
    states,
    status,
)
from node.conftest import NewNode

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

ROLES = ("head", "compute")
ARGUMENTS = {"head": HEAD, "compute": COMPUTE}
# What slurmd would see of the mounts at the moment of its start.
SLURMD = f"""\
[Unit]
Description=stands in for slurmd
After=network-online.target remote-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'ls {WRITABLE} {READONLY} > /var/log/seen-by-slurmd 2>&1'

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def nodes(new_module_node: NewNode) -> dict[str, Node]:
    """The article's two nodes, fresh."""
    return {role: new_module_node(role) for role in ROLES}


@pytest.fixture(scope="module", autouse=True)
def actions(cluster: Cluster, nodes: dict[str, Node]) -> dict[str, ActionResult]:
    """The article's custom actions, run on both."""
    return {role: cluster.custom_action(nodes[role], ARGUMENTS[role]) for role in ROLES}


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    """Each test is for both nodes."""
    name: str = request.param
    return name


def require_all_well(node: Node, role: str) -> None:
    """The author's own checks, in short."""
    assert states(node, wait=20) == {WRITABLE: "ok", READONLY: "ok"}
    assert set(units(node)) == set(UNITS)
    assert listed(node, WRITABLE)[0] == SEEN
    assert listed(node, READONLY) == [SEEN, "images", "reads"]
    access = {directory: options[:2] for directory, options in mounted(node).items()}
    assert access == {READONLY: "ro" if role == "compute" else "rw", WRITABLE: "rw"}


def units(node: Node) -> dict[str, str]:
    """The description of each mount's unit that is up, by its name."""
    listed = node.run(["systemctl", "list-units", "--no-legend", "mountpoint-s3-*"]).stdout
    rows = (line.split(None, 4) for line in listed.splitlines())
    return {
        name: description.strip()
        for name, load, active, running, description in rows
        if (load, active, running) == ("loaded", "active", "running")
    }


def test_the_custom_action_succeeds_and_says_nothing_on_stderr(
    actions: dict[str, ActionResult], role: str
) -> None:
    assert actions[role].returncode == 0
    assert actions[role].stderr == ""


def test_the_custom_action_tells_each_step_with_its_duration(
    actions: dict[str, ActionResult], role: str
) -> None:
    steps = re.findall(r"^\[  ok  \] (\S+) +\d+\.\d\d s  \S", actions[role].stdout, re.MULTILINE)
    assert steps == ["facts", "install", "fuse.conf", "config", "mounts", "daemon", "verify"]


def test_list_units_shows_the_articles_names_and_descriptions(
    nodes: dict[str, Node], role: str
) -> None:
    assert units(nodes[role]) == UNITS


def test_ls_shows_the_articles_files(nodes: dict[str, Node], role: str) -> None:
    node = nodes[role]
    names = node.run(["find", READONLY, "-type", "f", "-printf", "%P\n"]).stdout.splitlines()
    assert sorted(names) == sorted(ARTICLE[FIRST])
    assert SEEN in listed(node, WRITABLE)
    assert node.read(f"{WRITABLE}/{SEEN}") == f"{SEEN} of {SECOND}\n"


def test_mount_shows_ro_and_rw_where_the_article_has_them(
    nodes: dict[str, Node], role: str
) -> None:
    table = mounted(nodes[role])
    readonly = "ro" if role == "compute" else "rw"
    common = "nosuid,nodev,noatime,user_id=0,group_id=0,default_permissions,allow_other"
    assert table == {READONLY: f"{readonly},{common}", WRITABLE: f"rw,{common}"}


def test_a_read_only_mount_refuses_writing(nodes: dict[str, Node]) -> None:
    answer = nodes["compute"].run(["touch", f"{READONLY}/new"], check=False)
    assert answer.returncode != 0
    assert "Read-only file system" in answer.stderr


def test_files_belong_to_the_clusters_user(nodes: dict[str, Node], role: str) -> None:
    owners = nodes[role].run(["stat", "-c", "%U:%G", WRITABLE, f"{READONLY}/{SEEN}"]).stdout
    assert owners.split() == ["ubuntu:ubuntu", "ubuntu:ubuntu"]


def test_status_tells_people_how_the_mounts_are(nodes: dict[str, Node], role: str) -> None:
    answer = nodes[role].run(["s3mount-agent", "status"])
    first, *rest = answer.stdout.splitlines()
    assert first.startswith(f"ok: hpc-dev {role}")
    assert f"mode {'systemd' if role == 'head' else 'direct'}, mount-s3 " in rest[0]
    assert len(rest) == 1 + 2 * 2
    for at, (bucket, directory) in enumerate(((FIRST, READONLY), (SECOND, WRITABLE))):
        line, process = rest[1 + 2 * at : 3 + 2 * at]
        assert re.fullmatch(rf"  ok +{directory} +r[ow]  s3://{bucket}", line)
        assert re.fullmatch(r" {12}pid \d+, since [0-9-]+T[0-9:]+Z", process)
    assert max(map(len, answer.stdout.splitlines())) <= 80


def test_status_tells_programs_in_one_short_line_of_json(nodes: dict[str, Node], role: str) -> None:
    node = nodes[role]
    answer = node.run(["s3mount-agent", "status", "--json"])
    assert answer.stdout.count("\n") == 1
    assert len(answer.stdout) < 2500
    document = json.loads(answer.stdout)
    assert (document["schema"], document["state"]) == (1, "ok")
    assert document["node"]["role"] == role
    for mount in document["mounts"]:
        assert mount.keys() >= MEMBERS
        assert mount["state"] == "ok"
        assert mount["pid"] == int(show(node, UNIT[mount["path"]], "MainPID"))
        assert mount["read_only"] is (role == "compute" and mount["path"] == READONLY)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", mount["since"])


def test_the_agents_unit_is_up_and_says_how_it_is(nodes: dict[str, Node], role: str) -> None:
    node = nodes[role]
    assert show(node, AGENT_UNIT, "Type") == "notify"
    assert show(node, AGENT_UNIT, "ActiveState") == "active"
    assert show(node, AGENT_UNIT, "UnitFileState") == "enabled"
    assert show(node, AGENT_UNIT, "StatusText") == "2 of 2 mounts are up"


def test_units_start_at_boot_by_themselves_on_the_head_only(nodes: dict[str, Node]) -> None:
    kept = {role: show(nodes[role], UNIT[WRITABLE], "UnitFileState") for role in ROLES}
    assert kept["head"] == "enabled"
    assert kept["compute"] != "enabled"


def test_what_a_user_writes_on_compute_the_head_reads_through_s3(
    cluster: Cluster, nodes: dict[str, Node]
) -> None:
    name = f"{WRITABLE}/result.txt"
    nodes["compute"].run(["tee", name], user="ubuntu", input="42\n")
    assert cluster.s3.get(SECOND, "result.txt") == b"42\n"
    assert nodes["head"].read(name) == "42\n"
    nodes["head"].run(["rm", name], user="ubuntu")
    assert "result.txt" not in cluster.s3.keys(SECOND)


def test_any_other_user_can_read(nodes: dict[str, Node], role: str) -> None:
    content = nodes[role].run(["cat", f"{WRITABLE}/{SEEN}"], user="nobody").stdout
    assert content == f"{SEEN} of {SECOND}\n"


def test_all_is_well_again_after_the_head_was_stopped_and_started(nodes: dict[str, Node]) -> None:
    before = pids(nodes["head"])
    nodes["head"].power_off()
    nodes["head"].boot()
    require_all_well(nodes["head"], "head")
    assert before.keys() == pids(nodes["head"]).keys()


def test_a_rebooted_compute_node_has_its_mounts_before_slurmd_starts(
    nodes: dict[str, Node],
) -> None:
    node = nodes["compute"]
    node.write("/etc/systemd/system/slurmd.service", SLURMD)
    node.run(["systemctl", "enable", "slurmd.service"])
    node.reboot()
    seen = node.read("/var/log/seen-by-slurmd").splitlines()
    assert seen.count(SEEN) == 2
    require_all_well(node, "compute")


def test_a_second_reboot_is_no_different_from_the_first(nodes: dict[str, Node], role: str) -> None:
    nodes[role].reboot()
    require_all_well(nodes[role], role)


def test_a_compute_node_waits_for_an_s3_that_comes_later_than_itself(
    cluster: Cluster, nodes: dict[str, Node], break_s3: Callable[..., None]
) -> None:
    node = nodes["compute"]
    break_s3(SECOND, status=500, code="InternalError", message="not yet")
    node.power_off()
    healing = threading.Timer(3, cluster.s3.heal, [SECOND])
    healing.start()
    node.boot()
    healing.join()
    seen = node.read("/var/log/seen-by-slurmd").splitlines()
    assert seen.count(SEEN) == 2
    require_all_well(node, "compute")


@pytest.mark.parametrize("role", ["login", "standalone"])
def test_other_roles_keep_their_mounts_with_systemd(
    cluster: Cluster, new_node: NewNode, role: str
) -> None:
    node = new_node(role)
    action = cluster.custom_action(node, HEAD)
    assert action.returncode == 0, action.stderr
    assert status(node)["node"]["role"] == role
    assert status(node)["node"]["mode"] == "systemd"
    node.reboot()
    assert states(node, wait=20) == {WRITABLE: "ok", READONLY: "ok"}
    owner = node.run(["stat", "-c", "%U", WRITABLE]).stdout.strip()
    assert owner == ("ubuntu" if role == "login" else "root")


def test_role_and_mode_can_be_overridden(cluster: Cluster, new_ready_node: NewNode) -> None:
    node = new_ready_node("compute")
    action = cluster.custom_action(node, ["--role", "login", "--mode=direct", *HEAD])
    assert action.returncode == 0, action.stderr
    told = status(node)["node"]
    assert (told["role"], told["mode"]) == ("login", "direct")
    node.reboot()
    assert states(node, wait=20) == {WRITABLE: "ok", READONLY: "ok"}
    told = status(node)["node"]
    assert (told["role"], told["mode"]) == ("login", "direct")


@pytest.mark.parametrize(("policy", "code"), [("fail", 1), ("continue", 0)])
def test_the_failure_policy_can_be_overridden(
    cluster: Cluster, new_ready_node: NewNode, policy: str, code: int
) -> None:
    node = new_ready_node("head" if policy == "fail" else "compute")
    action = cluster.custom_action(
        node, [f"--on-failure={policy}", "no-such-bucket", WRITABLE, "--allow-other"]
    )
    assert action.returncode == code
    assert "bucket-missing" in (action.stderr if code else action.stdout)


def test_an_override_that_does_not_exist_is_refused(
    cluster: Cluster, nodes: dict[str, Node]
) -> None:
    for wrong in ("--role=captain", "--mode=cron", "--on-failure=cry", "--nonsense"):
        action = cluster.custom_action(nodes["head"], [wrong, *HEAD])
        assert action.returncode == 2
        assert "[usage]" in action.stderr


def test_status_answers_in_tens_of_milliseconds(nodes: dict[str, Node]) -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        nodes["head"].run(["s3mount-agent", "status"])
        took.append(time.monotonic() - began)
    assert min(took) < 0.4  # entering the node included
