"""What the machine says of itself: ParallelCluster's files, and the environment file."""

from __future__ import annotations

import json
import math
import os
import pwd
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from s3mount_agent.config import environment
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mounts import Owner
from s3mount_agent.core.node_roles import Role, role_of
from s3mount_agent.system import node


def written(path: Path, text: str | None) -> Path:
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def facts(tmp_path: Path, dna: str | None, cfnconfig: str | None) -> node.NodeFacts:
    return node.read(written(tmp_path / "dna", dna), written(tmp_path / "cfnconfig", cfnconfig))


def dna(**cluster: object) -> str:
    return json.dumps({"cluster": cluster})


def test_a_node_without_the_files_is_of_no_cluster(tmp_path: Path) -> None:
    assert facts(tmp_path, None, None) == node.NodeFacts()


def test_dna_json_tells_everything(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        dna(
            node_type="ComputeFleet",
            cluster_name="hpc",
            stack_name="hpc-stack",
            scheduler_queue_name="gpu",
            cluster_user="ubuntu",
            ebs_shared_dirs=["/shared"],
            count=3,
        ),
        "cfn_node_type=ComputeFleet\n",
    )
    assert role_of(found.node_types) is Role.COMPUTE
    assert (found.cluster, found.queue, found.user) == ("hpc", "gpu", "ubuntu")


@pytest.mark.parametrize(
    "text",
    [
        "cfn_node_type=HeadNode\nstack_name=hpc\ncfn_cluster_user=ec2-user\n",
        "export cfn_node_type='HeadNode'\nstack_name=\"hpc\"\ncfn_cluster_user='ec2-user'",
        "# comment\n\ncfn_node_type=HeadNode \n#cfn_node_type=LoginNode\nstack_name=hpc\n"
        "no assignment\ncfn_cluster_user=ec2-user\n",
    ],
)
def test_cfnconfig_alone_is_enough(tmp_path: Path, text: str) -> None:
    found = facts(tmp_path, None, text)
    assert role_of(found.node_types) is Role.HEAD
    assert (found.cluster, found.user) == ("hpc", "ec2-user")


def test_cfnconfig_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    facts(tmp_path, None, f"cfn_node_type=HeadNode; touch {mark}\nx=$(touch {mark})\n")
    assert not mark.exists()


def test_contradictory_files_are_an_error_that_names_both(tmp_path: Path) -> None:
    found = facts(tmp_path, dna(node_type="HeadNode"), "cfn_node_type=ComputeFleet\n")
    with pytest.raises(AgentError) as caught:
        role_of(found.node_types)
    assert caught.value.problem is Problem.NODE_TYPE
    for word in ("dna", "cfnconfig", "HeadNode", "ComputeFleet"):
        assert word in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", '{"cluster": []}', '{"cluster": null}', '{"other": {}}', "\udcff"],
)
def test_a_broken_dna_json_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(AgentError) as caught:
        facts(tmp_path, text, None)
    assert caught.value.problem is Problem.NODE_TYPE
    assert str(tmp_path / "dna") in caught.value.message


@pytest.mark.parametrize("cluster", [{"stack_name": "x"}, {"node_type": "Other"}, {"node_type": 5}])
def test_a_dna_json_without_a_known_type_is_no_standalone_node(
    tmp_path: Path, cluster: dict[str, object]
) -> None:
    with pytest.raises(AgentError) as caught:
        role_of(facts(tmp_path, dna(**cluster), None).node_types)
    assert caught.value.problem is Problem.NODE_TYPE


def test_the_owner_is_looked_up_on_this_node() -> None:
    me = pwd.getpwuid(os.getuid())
    assert node.owner(me.pw_name) == Owner(me.pw_uid, me.pw_gid)
    assert node.owner("no-such-user-here") is None


def test_a_local_user_is_known_though_the_directory_service_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda user: time.sleep(60))
    assert node.owner("root") == Owner(0, 0)


def test_a_directory_service_is_asked_with_a_deadline_and_its_silence_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node, "_remembered", {})
    monkeypatch.setattr(node, "_SERVICE_SECONDS", 0.2)
    entry = pwd.struct_passwd(("alice", "x", 70001, 70002, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwnam", lambda user: entry)
    assert node.owner("alice") == Owner(70001, 70002)
    monkeypatch.setattr(pwd, "getpwnam", lambda user: time.sleep(60))
    assert node.owner("alice") == Owner(70001, 70002)  # it need not be asked again
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(AgentError) as caught:
            node.owner("bob")
        error = caught.value
        assert (error.problem, error.retry_for) == (Problem.OWNER_UNKNOWN, math.inf)
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    "line", ["", "alice", "alice:x:1", "alice:x:one:2::/:", "alice:x:-1:2::/:", "bob:x:1:2::/:"]
)
def test_a_line_of_passwd_that_is_none_is_nobody(tmp_path: Path, line: str) -> None:
    path = tmp_path / "passwd"
    path.write_text(f"root:x:0:0::/root:/bin/sh\n{line}\n+::::::\n")
    assert node._in_passwd("alice", path) is None
    path.write_text(f"{line}\nalice:x:5:6:Alice,,,:/home/alice:/bin/sh\n")
    assert node._in_passwd("alice", path) == Owner(5, 6)


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "x86_64"), ("aarch64", "arm64"), ("amd64", "x86_64"), ("arm64", "arm64")],
)
def test_the_processor_is_named_as_aws_names_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine=machine))
    assert node.architecture() == name


@pytest.mark.parametrize(("uid", "refused"), [(0, False), (1000, True)])
def test_only_root_may_go_on(monkeypatch: pytest.MonkeyPatch, uid: int, refused: bool) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    if not refused:
        node.require_root()
        return
    with pytest.raises(AgentError) as caught:
        node.require_root()
    assert caught.value.problem is Problem.NOT_ROOT


# What systemd makes of the same lines: systemd.exec(5), EnvironmentFile=.
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("AWS_REGION=eu-west-1\n", {"AWS_REGION": "eu-west-1"}),
        ("AWS_REGION=eu-west-1", {"AWS_REGION": "eu-west-1"}),
        ("  A=1  \n\nB=2\n", {"A": "1", "B": "2"}),
        ("# A=1\n; B=2\nC=3\n", {"C": "3"}),
        ("A='b c'\nD=\"e f\"\n", {"A": "b c", "D": "e f"}),
        ("A=\n", {"A": ""}),
        ("A=b=c\n", {"A": "b=c"}),
        ("no assignment\nA=1\n", {"A": "1"}),
        ("=1\nA=1\n", {"A": "1"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=x#y\n", {"A": "x#y"}),
        ("A=$HOME $(id)\n", {"A": "$HOME $(id)"}),
        ("K=abc/DEF+123==\n", {"K": "abc/DEF+123=="}),
        ('A="say \\"hi\\""\n', {"A": 'say "hi"'}),
        ("A=two  words\n", {"A": "two  words"}),
        ("A=it's\n", {"A": "it's"}),
        ('A=b"c"\n', {"A": 'b"c"'}),
    ],
)
def test_the_environment_file_is_read_as_systemd_reads_it(
    text: str, values: dict[str, str]
) -> None:
    assert environment.parse(text) == values


def test_the_environment_file_reaches_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PATH", tmp_path / "environment")
    monkeypatch.setenv("S3MOUNT_TEST", "before")
    environment.load()
    assert os.environ["S3MOUNT_TEST"] == "before"
    written(tmp_path / "environment", "S3MOUNT_TEST='after this'\n")
    environment.load()
    assert os.environ["S3MOUNT_TEST"] == "after this"
