"""Memory on a node: what earlier versions left is healed, a new mount-s3 is told its part, and jobs
that open too many files for writing are understood. Changes that mean nothing change nothing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import (
    COMPUTE,
    READONLY,
    UNIT,
    WRITABLE,
    main_pid,
    pids,
    set_environment,
    show,
    status,
)
from node.conftest import NewNode
from node.live_site import until
from standin.package import build_package

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

OLD, NEW = "1.23.0", "1.24.0"
DEADLY = 539
CONFIG = "/etc/s3mount-agent/config.yaml"
AGENT = "s3mount-agent.service"
NOT_CONNECTED = "Transport endpoint is not connected"
READ = "import sys; file = open(sys.argv[1], 'rb')\nwhile file.read(1 << 20): pass"
OPEN_ALL = "import sys; files = [open(path, 'wb') for path in sys.argv[1:]]"


@pytest.fixture(scope="module")
def node(
    cluster: Cluster, new_module_node: NewNode, tmp_path_factory: pytest.TempPathFactory
) -> Node:
    """A compute node with the article's mounts and mount-s3 1.23, and 1.24 at hand.

    Both are stand-ins, whatever this run uses elsewhere: a node is taken from one to the other.
    """
    made = new_module_node("compute")
    packages = tmp_path_factory.mktemp("packages")
    for version in (OLD, NEW):
        shutil.copyfile(build_package(packages, version), made.root / f"root/{version}.deb")
    made.run(["apt-get", "-qq", "--yes", "update"])
    install(made, OLD)
    set_environment(made, S3MOUNT_RELEASE_VERSION="")  # nobody asks for another one
    action = cluster.custom_action(made, COMPUTE)
    assert action.returncode == 0, action.stdout + action.stderr
    assert status(made)["node"]["mount_s3"] == OLD
    return made


def install(node: Node, version: str) -> None:
    """Installs a release of mount-s3, as an administrator would."""
    quick = ["-qq", "--yes", "-o", "Dpkg::Options::=--force-unsafe-io"]
    words = ["apt-get", *quick, "install", "libfuse2", "python3-systemd", f"/root/{version}.deb"]
    node.run(words, env={"DEBIAN_FRONTEND": "noninteractive"})


def limit(node: Node, directory: str) -> int | None:
    """The limit of a mount's unit as systemd holds it now, in MiB."""
    told = show(node, UNIT[directory], "MemoryMax")
    return None if told == "infinity" else int(told) >> 20


def command(node: Node, directory: str) -> list[str]:
    """The words that a mount's process was started with."""
    return node.read(f"/proc/{main_pid(node, UNIT[directory])}/cmdline").split("\0")


def age_units(node: Node) -> None:
    """Makes the units what earlier versions of the agent wrote: with a limit that kills."""
    for unit in UNIT.values():
        path = f"/run/systemd/system/{unit}"
        text = node.read(path)
        assert '"memory_max": null' in text
        text = text.replace("MemoryMax=infinity", f"MemoryMax={DEADLY}M")
        node.write(path, text.replace('"memory_max": null', f'"memory_max": {DEADLY}'))
    node.run(["systemctl", "daemon-reload"])
    assert {limit(node, directory) for directory in UNIT} == {DEADLY}


def read_large(cluster: Cluster, node: Node) -> str:
    """What one sequential reader of a large file meets within some seconds."""
    cluster.s3.put_zeros(COMPUTE[0], "large", 1536 << 20)
    reader = ["timeout", "4", "python3", "-c", READ, f"{READONLY}/large"]
    return node.run(reader, check=False).stderr


def test_the_limit_of_earlier_versions_kills_and_is_gone_when_the_mount_is_back(
    cluster: Cluster, node: Node
) -> None:
    before = pids(node)
    node.run(["systemctl", "stop", AGENT])
    age_units(node)
    assert NOT_CONNECTED in read_large(cluster, node)
    node.run(["systemctl", "start", AGENT])
    until(lambda: pids(node)[READONLY] not in (None, before[READONLY]))
    assert status(node, wait=60)["state"] == "ok"
    assert read_large(cluster, node) == ""
    assert pids(node)[WRITABLE] == before[WRITABLE]
    assert {limit(node, directory) for directory in UNIT} == {None}


@pytest.mark.parametrize("how", ["restart of the service", "bootstrap"])
def test_a_deadly_limit_is_taken_off_without_a_new_mount(
    cluster: Cluster, node: Node, how: str
) -> None:
    before = pids(node)
    node.run(["systemctl", "stop", AGENT])
    age_units(node)
    if how == "bootstrap":
        assert cluster.custom_action(node, COMPUTE).returncode == 0
    else:
        node.run(["systemctl", "start", AGENT])
    until(lambda: {limit(node, directory) for directory in UNIT} == {None})
    assert pids(node) == before
    # Nothing is left that would outlive the unit.
    overrides = node.run(["sh", "-c", "ls -d /run/systemd/system.control 2>/dev/null"], check=False)
    assert overrides.stdout == ""
    assert node.run(["s3mount-agent", "plan"]).returncode == 0


def test_a_change_of_no_consequence_restarts_nothing(cluster: Cluster, node: Node) -> None:
    """Another order, a default spelled out, short names, and a file in the place of the Args."""
    before = pids(node)
    same = list(COMPUTE)
    same[2] = "--allow-other --read-only --max-threads 16"
    same[5] = "--dir-mode=0755 --allow-other --allow-delete"
    assert cluster.custom_action(node, same).returncode == 0
    assert pids(node) == before
    text = node.read(CONFIG)
    (first, directory, _), (second, writable, _) = COMPUTE[:3], COMPUTE[3:]
    rows = [
        {"bucket": second, "directory": writable, "allow_delete": True, "allow_other": True},
        {"bucket": first, "directory": directory, "options": "--read-only", "allow_other": True},
    ]
    node.write(CONFIG, json.dumps({"mounts": rows}))
    assert text != node.read(CONFIG)
    node.run(["s3mount-agent", "apply"])
    assert pids(node) == before
    assert cluster.custom_action(node, COMPUTE).returncode == 0
    assert pids(node) == before


def test_a_new_mount_s3_is_told_its_part_when_a_mount_starts_and_not_before(node: Node) -> None:
    install(node, NEW)
    before = pids(node)
    node.run(["s3mount-agent", "apply"])
    # What runs is still the old one, which knows of no limit.
    assert pids(node) == before
    assert {limit(node, directory) for directory in UNIT} == {None}
    assert not [word for word in command(node, WRITABLE) if "memory-target" in word]
    assert "write_files" not in status(node)["mounts"][0]
    node.run(["kill", "-KILL", *map(str, before.values())])
    until(lambda: not {None, *before.values()} & set(pids(node).values()))
    status(node, wait=60)
    for directory in UNIT:
        (word,) = (word for word in command(node, directory) if "--memory-target=" in word)
        target = int(word.partition("=")[2])
        assert limit(node, directory) == target + max(512, target // 2)
    shown = {mount["path"]: mount.get("write_files") for mount in status(node)["mounts"]}
    assert shown[READONLY] is None
    assert (shown[WRITABLE] or 0) >= 47


def test_who_opens_too_many_files_is_told_of_and_how_to_mend_it(node: Node) -> None:
    bucket = COMPUTE[3]
    row = {
        **{"bucket": bucket, "directory": WRITABLE, "allow_delete": True, "allow_other": True},
        # Few, by a large part: (512 - 128 - 8) / 94 = 4.
        **{"memory_target": 512, "write_part_size": 98566144},
    }
    node.write(CONFIG, json.dumps({"mounts": [row], "health": {"check_s3_every": "5s"}}))
    shown = node.run(["s3mount-agent", "plan"], check=False).stdout
    assert f"files that can be open for writing at once: 4 on {WRITABLE}" in shown
    node.run(["s3mount-agent", "apply"])
    (mount,) = status(node, wait=60)["mounts"]
    assert (mount["state"], mount["write_files"]) == ("ok", 4)
    paths = [f"{WRITABLE}/many-{n}" for n in range(5)]
    job = node.run(["python3", "-c", OPEN_ALL, *paths], user="ubuntu", check=False)
    assert "Cannot allocate memory" in job.stderr
    until(lambda: status(node)["mounts"][0]["state"] == "degraded")
    (mount,) = status(node)["mounts"]
    assert "as many files open for writing as its memory allows" in mount["reason"]
    assert "memory_target" in mount["hint"]
    told = node.run(["journalctl", "-q", "-o", "cat", "S3MOUNT_ERROR_CODE=write-limit"]).stdout
    assert told.count("\n") == 1
    # It is over when nobody has met it for a while.
    until(lambda: status(node)["mounts"][0]["state"] == "ok")


def test_parts_that_leave_no_file_to_write_are_refused_with_their_place(node: Node) -> None:
    before = pids(node)
    text = (
        f"mounts:\n- bucket: {COMPUTE[3]}\n  directory: {WRITABLE}\n"
        "  memory_target: 512\n  write_part_size: 402653184\n"
    )
    node.write("/root/bad.yaml", text)
    answer = node.run(["s3mount-agent", "validate", "/root/bad.yaml"], check=False)
    assert answer.returncode == 2
    assert "/root/bad.yaml:2:" in answer.stderr
    assert "no room for a write part" in answer.stderr
    assert pids(node) == before
