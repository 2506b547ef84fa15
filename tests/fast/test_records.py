"""What the agent writes down: the configuration, its belongings, what it saw, what is held."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast.in_memory import parse_mount
from s3mount_agent.config import config_file
from s3mount_agent.config.configuration import of_mounts
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.states import Failure, State
from s3mount_agent.decide.mount_status import REMEMBERED, MountStatus
from s3mount_agent.filesystem import files
from s3mount_agent.state import held_down, inventory, status_file
from s3mount_agent.state.inventory import Belongings

PRINTABLE = st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=30)
NAMES = PRINTABLE.map(lambda t: t.replace("/", "_").replace("\\", "_"))
MOUNTS = st.builds(
    lambda bucket, prefix, name, agent: parse_mount(
        f"s3://{bucket}/{prefix}" + ("/" if prefix else ""),
        f"/mnt/x{name}",
        shlex.join(["--allow-other", f"--user-agent-prefix=x{agent}", "--uid=7"]),
    ),
    st.sampled_from(["my-bucket", "null", "123", "1e5", "0.1", "true", "2024-01-01"]),
    st.one_of(st.just(""), PRINTABLE),
    NAMES,
    PRINTABLE.filter(lambda text: not is_secret(f"x{text}")),  # which is refused
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(MOUNTS, max_size=3, unique_by=lambda mount: mount.directory),
    st.sampled_from([None, *Role]),
    st.sampled_from([None, *Mode]),
    st.sampled_from([None, *OnFailure]),
)
def test_a_configuration_reads_back_as_it_was_written(
    tmp_path: Path,
    mounts: list[Mount],
    role: Role | None,
    mode: Mode | None,
    on_failure: OnFailure | None,
) -> None:
    path = tmp_path / "config.yaml"
    configuration = of_mounts(tuple(mounts), role=role, mode=mode, on_failure=on_failure)
    text = config_file.render(configuration, tuple(mounts))
    files.write(path, text)
    assert config_file.parse(config_file.read(path), str(path)) == configuration
    assert config_file.parse(config_file.read(path), str(path)).mounts(Role.HEAD, "") == tuple(
        mounts
    )
    assert config_file.parse(text, "x") == configuration
    assert not files.write(path, text)


@pytest.mark.parametrize("glue", [" ", "  ", " # ", ": ", "é "])
def test_long_options_are_not_changed_by_folding(glue: str) -> None:
    options = shlex.join(
        ["--cache", f"/c{glue}" * 500, f"--user-agent-prefix={glue.join('x' * 900)}"]
    )
    mounts = (parse_mount("my-bucket", "/mnt/s3", options),)
    text = config_file.render(of_mounts(mounts), mounts)
    assert config_file.parse(text, "x").mounts(Role.COMPUTE, "") == mounts


def test_the_configuration_is_readable_by_all_and_by_people(tmp_path: Path) -> None:
    path = tmp_path / "etc/config.yaml"
    mount = parse_mount("my-bucket", "/mnt/s3", "--allow-delete --allow-other")
    text = config_file.render(of_mounts((mount,), mode=Mode.DIRECT), (mount,))
    assert files.write(path, text)
    assert path.stat().st_mode & 0o777 == 0o644
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#")
    assert "- bucket: my-bucket" in lines
    assert "  directory: /mnt/s3" in lines
    assert "mode: direct" in lines


def test_a_node_without_configuration_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        config_file.read(tmp_path / "config.yaml")
    assert caught.value.problem is Problem.NOT_CONFIGURED


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", Problem.CONFIG_INVALID),
        ("[]", Problem.CONFIG_INVALID),
        ("mounts:", Problem.CONFIG_INVALID),
        ("mounts: {}", Problem.CONFIG_INVALID),
        ("mounts: [1]", Problem.CONFIG_INVALID),
        ("mounts: [{bucket: my-bucket}]", Problem.CONFIG_INVALID),
        ("mounts: [{directory: /mnt/s3}]", Problem.CONFIG_INVALID),
        ("mounts: [{bucket: my-bucket, directory: /mnt/s3, options: }]", Problem.CONFIG_INVALID),
        ("mounts: [{bucket: my-bucket, directory: /mnt/s3, options: []}]", Problem.CONFIG_INVALID),
        ("mounts: [{bucket: 1, directory: /mnt/s3, options: ''}]", Problem.BUCKET_INVALID),
        ("mounts: [", Problem.CONFIG_INVALID),
        ("mounts: []\n\x00", Problem.CONFIG_INVALID),
        ("mounts: []\nwhen: 2024-99-99", Problem.CONFIG_INVALID),
        ("mounts: !!python/object/apply:os.getcwd []", Problem.CONFIG_INVALID),
        ("mounts: []\nrole: boss", Problem.CONFIG_INVALID),
        ("mounts: []\nmode: [direct]", Problem.CONFIG_INVALID),
        ("mounts: []\non_failure: true", Problem.CONFIG_INVALID),
        ("mounts: [{bucket: B, directory: /mnt/s3, options: ''}]", Problem.BUCKET_INVALID),
        ("mounts: [{bucket: bbb, directory: mnt, options: ''}]", Problem.DIRECTORY_INVALID),
        ("mounts: [{bucket: bbb, directory: /mnt/s3, options: -f}]", Problem.OPTION_RESERVED),
        (
            "mounts: [{bucket: bbb, directory: /mnt/s3, options: ''}, "
            "{bucket: ccc, directory: /mnt/s3/x, options: ''}]",
            Problem.DIRECTORY_TWICE,
        ),
    ],
)
def test_a_broken_configuration_is_refused(tmp_path: Path, text: str, problem: Problem) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(AgentError) as caught:
        config_file.parse(config_file.read(path), str(path))
    assert caught.value.problem is problem


@pytest.mark.parametrize(
    "made",
    [
        Belongings(),
        Belongings(directories=("/mnt/a b", "/mnt/ü"), packages=("mount-s3", "libfuse2")),
        Belongings(packages=("mount-s3",), installing=True, fuse_conf_before=""),
        Belongings(fuse_conf_before="#user_allow_other\n"),
    ],
)
def test_belongings_read_back_as_they_were_written(tmp_path: Path, made: Belongings) -> None:
    path = tmp_path / "lib/made.json"
    inventory.save(made, path)
    assert inventory.load(path) == made
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [None, "", "{", "[]", "5", "null", '{"directories": 5}'])
def test_unreadable_belongings_are_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "made.json"
    if text is not None:
        path.write_text(text)
    assert inventory.load(path) == Belongings()


def test_directories_come_and_go() -> None:
    made = Belongings().with_directory("/a").with_directory("/a/b").without_directory("/a")
    assert made.directories == ("/a/b",)


ROWS = (
    MountStatus("585e79a6", "/mnt/s3", "b/prefix/", False, State.OK, "2026-01-01T00:00:00Z"),
    MountStatus(
        "91ef1212",
        "/mnt/ü",
        "c",
        True,
        State.FAILED,
        "2026-01-01T00:00:00Z",
        held=True,
        failure=Failure("bucket-missing", "it does not exist", "create it", True),
    ),
)


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run/status.json"
    status_file.save({"role": "head"}, ROWS, path)
    found = status_file.load(path)
    assert found is not None
    assert (found.node, found.mounts) == ({"role": "head"}, ROWS)
    assert found.mount("91ef1212") == ROWS[1]
    assert found.mount("none") is None


def test_a_snapshot_for_which_there_is_no_room_beside_the_old_one_replaces_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "status.json"
    write = files.write

    def write_where_there_is_room(path: Path, text: str) -> bool:
        if path.exists():
            raise AgentError(Problem.NO_SPACE, f"could not write {path}")
        return write(path, text)

    status_file.save({"role": "head"}, ROWS, path)
    monkeypatch.setattr(files, "write", write_where_there_is_room)
    status_file.save({"role": "compute"}, ROWS, path)
    found = status_file.load(path)
    assert found is not None
    assert found.node == {"role": "compute"}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "null",
        "5",
        "[]",
        "{}",
        '{"schema": 2, "at": "", "node": {}, "mounts": []}',
        '{"schema": 1, "at": "", "node": {}}',
        '{"schema": 1, "at": "", "node": {}, "mounts": [{}]}',
        '{"schema": 1, "at": "", "node": {}, "mounts": [1]}',
        '{"schema": 1, "at": "", "node": {}, "mounts": [{"state": "new", "failure": null}]}',
    ],
)
def test_an_unreadable_snapshot_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "status.json"
    if text is not None:
        path.write_text(text)
    assert status_file.load(path) is None


def test_an_error_is_remembered_with_whether_it_lasts() -> None:
    error = AgentError(Problem.BUCKET_MISSING, "it does not exist", hint="make it")
    assert status_file.failure_of(error) == Failure(
        "bucket-missing", "it does not exist", "make it", True
    )
    error = AgentError(Problem.S3_THROTTLED, "too much", retry_for=20)
    assert not status_file.failure_of(error).permanent


def test_a_fresh_row_knows_the_mount_and_nothing_else() -> None:
    mount = parse_mount("s3://my-bucket/a/", "/mnt/s3", "--read-only")
    row = status_file.fresh(mount, held=True)
    assert (row.id, row.path, row.bucket) == (mount.id, "/mnt/s3", "my-bucket/a/")
    assert (row.read_only, row.state, row.held, row.failure) == (True, State.MISSING, True, None)


def test_held_mounts_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_down, "PATH", tmp_path / "held.json")
    assert held_down.load() == frozenset()
    held_down.save({"b", "a"})
    assert held_down.load() == {"a", "b"}
    assert json.loads(held_down.PATH.read_text()) == ["a", "b"]
    held_down.save(())
    assert held_down.load() == frozenset()
    assert not held_down.PATH.exists()
    held_down.PATH.write_text("{broken")
    assert held_down.load() == frozenset()


def test_all_that_is_to_be_remembered_of_a_mount_is_read_again(tmp_path: Path) -> None:
    """What is written but not read back would begin anew with each look."""
    failure = Failure("mount-ended", "it ended", "wait", permanent=False)
    row = MountStatus(
        id="585e79a6", path="/mnt/s3", bucket="b", read_only=True, state=State.DEGRADED,
        since="2026-01-01T00:00:00Z", held=True, pending="it waits",
        pending_since="2026-01-01T00:00:01Z", failure=failure, hung=True, s3=failure, asked=7,
        pid=7, invocation="4f", write_files=47, required=False, version="1.23.0",
    )  # fmt: skip
    path = tmp_path / "status.json"
    status_file.save({"role": "head"}, [row], path)
    known = status_file.load(path)
    assert known is not None
    fresh = MountStatus("585e79a6", "/mnt/s3", "b", False, State.OK, "")
    for name in REMEMBERED:
        assert getattr(known.mounts[0], name) == getattr(row, name), name
        assert name in ("id", "path", "bucket") or getattr(row, name) != getattr(fresh, name)
