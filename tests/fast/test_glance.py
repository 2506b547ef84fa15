"""A glance tells what the whole look tells, word for word, or leaves it to that."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from fast.glance_world import IDS, INVOCATION, LINE, World
from s3mount_agent import cli
from s3mount_agent.core.errors import Exit
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Failure, State
from s3mount_agent.decide.mount_status import MountStatus
from s3mount_agent.decide.plan import Placed
from s3mount_agent.filesystem import procfs
from s3mount_agent.filesystem.mountinfo import Table
from s3mount_agent.reconcile import glance, observe
from s3mount_agent.state import in_force, status_file
from s3mount_agent.state.in_force import InForce
from s3mount_agent.supervisor import fuse_connections

HERE, THERE = IDS
PID = os.getpid()
DENIED = Failure("access-denied", "S3 denies access", "allow it", permanent=False)


class Lock:
    """The daemon's, which it loses with its end."""

    descriptor = -1


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch.setattr)
    Lock.descriptor = made.make(PID)
    yield made
    os.close(Lock.descriptor)


def remember(world: World, **values: Any) -> None:
    """Has the daemon have seen something else of one of the mounts."""
    known = status_file.load()
    assert known is not None
    first, *others = known.mounts
    status_file.save(known.node, [first._replace(**values), *others], world.snapshot)


def record(**values: Any) -> None:
    """Has something else be known of the connection of one of the mounts."""
    known = fuse_connections.load(HERE)
    assert known is not None
    fuse_connections.save(known._replace(**values))


def look() -> tuple[MountStatus, ...]:
    """The whole look, where systemd says that all runs on as it did."""
    known = status_file.load()
    assert known is not None
    placed = {}
    for directory, mount_id in IDS.items():
        definition = Definition("my-bucket", directory, ("mount-s3",), Mode.DIRECT, False)
        placed[mount_id] = Placed(
            mount_id, definition, "", active=True, pid=PID, invocation=INVOCATION
        )
    return observe.judge_all(known.mounts, observe.judge_table(placed, Table.read()))


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, State.OK),
        ({"hung": True, "state": State.HUNG}, State.HUNG),
        ({"s3": DENIED, "state": State.DEGRADED}, State.DEGRADED),
        # What was found out of another process is not true of this one.
        ({"hung": True, "asked": 1}, State.OK),
        ({"s3": DENIED, "asked": None}, State.OK),
        ({"held": True}, State.OK),
        ({"failure": DENIED}, State.OK),
    ],
)
def test_a_glance_tells_what_a_look_tells(
    world: World, values: dict[str, Any], state: State
) -> None:
    remember(world, **values)
    seen = glance.take()
    assert seen is not None
    assert [mount.state for mount in seen.mounts] == [state, State.OK]
    assert seen.mounts == look()


@pytest.mark.parametrize(
    ("runs", "installed", "told"),
    [
        ("1.23.0", "1.24.0", True),
        ("1.24.0", "1.24.0", False),
        ("", "1.24.0", False),
        ("1.23.0", "", False),
    ],
)
def test_a_mount_that_runs_another_mount_s3_than_the_node_has_says_so(
    world: World, capsys: pytest.CaptureFixture[str], runs: str, installed: str, told: bool
) -> None:
    remember(world, version=runs)
    known = status_file.load()
    assert known is not None
    has = {"mount_s3": installed} if installed else {}
    status_file.save({**known.node, **has}, known.mounts, world.snapshot)
    sentence = "running 1.23.0, installed 1.24.0: takes effect at the next mount"
    assert cli.main(["status"]) == Exit.OK
    assert capsys.readouterr().out.count(sentence) == told
    assert cli.main(["status", "--json"]) == Exit.OK
    shown = json.loads(capsys.readouterr().out)["mounts"]
    assert [mount.get("mount_s3") for mount in shown] == [runs if told else None, None]


def mount_over(world: World) -> None:
    line = LINE.format(id=99, minor=77, directory=HERE).replace(" 22 ", " 96 ", 1)
    world.table.write_text(world.table.read_text() + line)


def mount_above(world: World) -> None:
    line = "99 22 0:77 / /mnt rw - tmpfs late rw\n"
    world.table.write_text(world.table.read_text() + line)


CHANGES: dict[str, Callable[[World], Any]] = {
    "the daemon has ended": lambda world: fcntl.flock(Lock.descriptor, fcntl.LOCK_UN),
    "there is no snapshot": lambda world: world.snapshot.rename(world.home / "old"),
    "its unit was started anew": lambda world: world.link(IDS[HERE], "0" * 32),
    "its unit was deleted": lambda world: world.unit(HERE).unlink(),
    "its unit has ended": lambda world: world.units.rename(world.home / "units.old"),
    "another process has the pid": lambda world: record(start=1),
    "another process serves it": lambda world: record(pid=os.getppid()),
    "its process was never seen": lambda world: remember(world, pid=None),
    "nothing was known of its unit": lambda world: remember(world, invocation=""),
    "it was unmounted": lambda world: world.table.write_text(
        world.table.read_text().replace(HERE + " ", "/elsewhere ")
    ),
    "another is mounted there": lambda world: world.table.write_text(
        world.table.read_text().replace("0:54", "0:55")
    ),
    "it is covered": mount_over,
    "a directory above it is covered": mount_above,
    "its connection is not known": lambda world: fuse_connections.forget(HERE),
    "its connection is not known yet": lambda world: record(device=""),
    "its stop waits": lambda world: record(waiting="vi (pid 7)"),
    "a bind mount may be dead": lambda world: record(binds=(("0:50", "/b", "/"),)),
    "a change waits": lambda world: remember(world, pending="its new options wait"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_has_changed_is_left_to_the_look(world: World, change: str) -> None:
    CHANGES[change](world)
    assert glance.take() is None


@pytest.mark.parametrize("behind", [False, True])
def test_a_configuration_that_was_not_carried_out_yet_is_no_good_end(
    world: World, capsys: pytest.CaptureFixture[str], *, behind: bool
) -> None:
    in_force.save(InForce("mounts: []"))
    if not behind:
        # Also where nothing else has changed, and within the same second.
        status_file.save(world.node, world.rows, world.snapshot)
    (world.home / "config.yaml").write_text("mounts: []")
    code = cli.main(["status", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert code == (Exit.DEGRADED if behind else Exit.OK)
    assert [mount["path"] for mount in shown["mounts"]] == list(IDS)
    assert ("carries out now" in shown.get("config", {}).get("pending", "")) is behind
    assert cli.main(["status", "--wait", "0"]) == (Exit.PENDING if behind else Exit.OK)


def test_without_systemd_it_is_left_to_the_look(world: World) -> None:
    remember(world, invocation="")
    (world.units / f"invocation:mountpoint-s3-{IDS[HERE]}.service").unlink()
    assert glance.take() is None


def test_what_a_look_has_seen_is_enough_for_a_glance(world: World) -> None:
    status_file.save({}, look(), world.snapshot)
    seen = glance.take()
    assert seen is not None
    assert seen.mounts == look()
    assert procfs.invocation("mountpoint-s3-00000000.service") == ""


# Each costs what half of a Python's start does, or more: `status` may take five of them.
SLOW = frozenset(
    "dataclasses inspect subprocess threading signal socket logging random struct selectors "
    "tempfile shutil shlex calendar datetime _strptime hashlib urllib.request http ssl "
    "platform boto3 botocore yaml tenacity psutil".split()
)
OURS = """
cli commands.check commands.status console.parser console.screen console.table core.directory_rules
core.errors core.masking core.states core.text decide.job_readiness decide.mount_status
filesystem.files filesystem.fuse
filesystem.json_codec filesystem.lock filesystem.mountinfo filesystem.paths filesystem.procfs
reconcile.glance state.config_origin state.in_force state.secrets state.status_file
supervisor.fuse_connections
"""
CHILD = """
import json, sys
from pathlib import Path
from fast.glance_world import World
from s3mount_agent import cli
World(Path(sys.argv[1]), setattr)
code = cli.main(sys.argv[2:])
loaded = (name for name, each in sys.modules.items() if type(each).__name__ != "_LazyModule")
print(json.dumps([code, sorted(loaded)]))
"""


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["check"], ["check", "/mnt/s3/a/file"]]
)
def test_a_glance_imports_nothing_that_is_slow(world: World, words: list[str]) -> None:
    """Seconds are the machine's; what is imported is ours."""
    answer = subprocess.run(
        [sys.executable, "-S", "-c", CHILD, str(world.home), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(answer.stdout.splitlines()[-1])
    assert code == 0
    assert not SLOW.intersection(modules)
    own = {name.partition(".")[2] for name in modules if name.startswith("s3mount_agent.")}
    rooms = {name.partition(".")[0] for name in OURS.split() if "." in name}
    assert own - rooms <= set(OURS.split())
