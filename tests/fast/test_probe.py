"""Looking at directories that may hang."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.system import probe
from s3mount_agent.system.probe import Answer, Finding, Probe, SilenceError

MAY_MOUNT = os.geteuid() == 0 and Path("/dev/fuse").exists()

# A FUSE file system of which nobody ever reads the requests, and then its end: what a hung and what
# a dead mount-s3 look like. In a mount namespace of its own, so that nothing is left behind.
HUNG = """
import ctypes, os, sys, time
from pathlib import Path
from s3mount_agent.filesystem import mountinfo
from s3mount_agent.system import probe
from s3mount_agent.filesystem import procfs
from s3mount_agent.supervisor import fuse_connections, hooks
home = sys.argv[1]
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"mountpoint-s3", home.encode(), b"fuse", 6, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
began = time.monotonic()
for deep in (False, True):
    finding = probe.look(home, timeout=0.5, deep=deep)
    print(finding.answer.value, finding.error)
print("quick" if time.monotonic() - began < 4 else "slow", mountinfo.presence(home).value)
fuse_connections._HOME = Path(sys.argv[2])
entry = mountinfo.read()[home]
mine = {"device": entry.device, "mount": entry.id, "pid": os.getpid()}
known = fuse_connections.Connection(home, start=procfs.started(os.getpid()), **mine)
fuse_connections.save(known)
hooks.clean(home, 0)
print(mountinfo.presence(home).value)
os.close(device)
for deep in (False, True):
    finding = probe.look(home, timeout=10, deep=deep)
    print(finding.answer.value, finding.error)
fuse_connections.save(fuse_connections.Connection(home, before=(entry.device,)))
hooks.clean(home, 0)
print("somebody else's", mountinfo.presence(home).value)
fuse_connections.save(fuse_connections.Connection(home, start=1, **mine))
hooks.clean(home, 0)
print("ours", mountinfo.presence(home).value)
"""


@pytest.mark.skipif(not MAY_MOUNT, reason="only root with /dev/fuse may mount")
def test_a_hung_and_a_dead_mount_are_told_apart_and_only_the_dead_one_is_cleared(
    tmp_path: Path,
) -> None:
    home = tmp_path / "mount"
    home.mkdir()
    answer = subprocess.run(
        [
            "unshare",
            "--mount",
            sys.executable,
            "-c",
            HUNG,
            str(home),
            str(tmp_path / "connections"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout.splitlines() == [
        "silent None",
        "silent None",
        "quick ours",
        "ours",
        "disconnected ENOTCONN",
        "disconnected ENOTCONN",
        "somebody else's ours",
        "ours absent",
    ], answer.stderr


@pytest.mark.parametrize("deep", [False, True])
def test_a_directory_answers(tmp_path: Path, deep: bool) -> None:
    for _ in range(2):
        found = probe.look(str(tmp_path), timeout=20, deep=deep)
        assert found == Finding(Answer.ANSWERS, None, found.seconds)
        assert 0 <= found.seconds < 20
        (tmp_path / "file").write_text("")


@pytest.mark.parametrize(
    ("name", "error"), [("none", "ENOENT"), ("file/below", "ENOTDIR"), ("x" * 300, "ENAMETOOLONG")]
)
def test_an_error_is_told_by_its_name(tmp_path: Path, name: str, error: str) -> None:
    (tmp_path / "file").write_text("")
    found = probe.look(str(tmp_path / name), timeout=20)
    assert found == Finding(Answer.ERROR, error, found.seconds)
    assert 0 <= found.seconds < 20


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert probe.look(str(tmp_path / "file"), timeout=20).answer is Answer.ANSWERS
    assert probe.look(str(tmp_path / "file"), timeout=20, deep=True).error == "ENOTDIR"


def test_one_child_looks_at_several_directories(tmp_path: Path) -> None:
    good, file, none = (str(tmp_path / name) for name in ("good", "file", "none"))
    Path(good).mkdir()
    Path(file).write_text("")
    for deep, of_file in ((False, None), (True, "ENOTDIR")):
        found = Probe([good, file, none], deep=deep)
        assert found.at == good
        found.wait(20)
        assert found.at is None
        errors = {name: finding.error for name, finding in found.findings.items()}
        assert errors == {good: None, file: of_file, none: "ENOENT"}
        found.collect()
        found.abandon()  # both do nothing any more


def test_a_child_in_which_a_look_takes_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = str(tmp_path / "slow")

    def errno_of(directory: str, *, deep: bool) -> int:
        time.sleep(60 if directory == slow else 0)
        return 0

    monkeypatch.setattr(probe, "_errno_of", errno_of)
    began = time.monotonic()
    found = Probe([str(tmp_path), slow, "/"])
    found.wait(0.5)
    assert found.at == slow
    assert began <= found.since <= time.monotonic()
    assert found.findings.keys() == {str(tmp_path)}
    found.abandon()
    assert found.at is None
    assert probe.look(slow, timeout=0.2) == Finding(Answer.SILENT, None, 0.2)
    assert time.monotonic() - began < 20


def test_one_child_lists_all_directories_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    names = [str(tmp_path / name) for name in ("silent", "", "file", "none")]
    errno_of, children = probe._errno_of, []

    def slow(directory: str, *, deep: bool) -> int:
        assert deep
        if directory == names[0]:
            time.sleep(60)
        return errno_of(directory, deep=deep)

    def fork(fork: Callable[[], int] = os.fork) -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(probe, "_errno_of", slow)
    monkeypatch.setattr(os, "fork", fork)
    listing = probe.Listing(names)
    found = listing.wait(2.0)
    assert [(each.answer, each.error) for each in map(found.__getitem__, names)] == [
        (Answer.SILENT, None),
        (Answer.ANSWERS, None),
        (Answer.ERROR, "ENOTDIR"),
        (Answer.ERROR, "ENOENT"),
    ]
    assert len(children) == 1
    assert listing.wait(2.0) == probe.Listing([]).wait(2.0) == {}  # both do nothing


def test_what_was_mounted_anew_while_it_was_listed_has_not_answered(tmp_path: Path) -> None:
    """The bare directory may have, in between."""
    names = [str(tmp_path / name) for name in "ab"]
    for name in names:
        Path(name).mkdir()
    processes = dict.fromkeys(names, 7)
    listing = probe.Listing(names, processes.get)
    processes[names[1]] = 8
    assert listing.wait(30.0).keys() == {names[0]}
    assert probe.Listing(names, processes.get).wait(30.0).keys() == set(names)


def test_a_child_that_has_said_all_does_not_look_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(directories: object, writer: int, enough: object, *, deep: bool) -> None:
        os.write(writer, b"0 0 2.5\n")
        time.sleep(60)  # it is on its way out, which may take a moment
        os._exit(0)

    monkeypatch.setattr(probe, "_look", look)
    found = Probe([str(tmp_path)])
    select.select([found.descriptor], [], [], 20)
    found.collect()
    assert found.findings[str(tmp_path)].answer is Answer.ANSWERS
    # Else its answer, which took long, would be followed by a silence that never ends.
    assert found.at is None


def test_a_question_is_answered_with_what_json_can_say() -> None:
    assert probe.ask(lambda a, b: {"sum": a + b, "name": "\udc80"}, 1, 2, timeout=20) == {
        "sum": 3,
        "name": "\udc80",
    }
    assert len(probe.ask(lambda: "x" * 1_000_000, timeout=20)) == 1_000_000
    assert probe.ask(lambda: None, timeout=20) is None


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    def list_a_file() -> list[str]:
        return [path.name for path in Path(__file__).iterdir()]

    with pytest.raises(NotADirectoryError) as caught:
        probe.ask(list_a_file, timeout=20)
    assert caught.value.filename == __file__

    def refuse() -> None:
        raise AgentError(Problem.USAGE, "no", cause="because", hint="do not", retry_for=3.5)

    with pytest.raises(AgentError) as refused:
        probe.ask(refuse, timeout=20)
    error = refused.value
    told = (error.problem, error.message, error.cause, error.hint, error.retry_for)
    assert told == (Problem.USAGE, "no", "because", "do not", 3.5)


def test_a_child_that_is_killed_has_not_answered() -> None:
    with pytest.raises(SilenceError, match="killed"):
        probe.ask(lambda: os.kill(os.getpid(), signal.SIGKILL), timeout=20)


def test_who_may_never_answer_is_left_behind_and_asked_by_one_child_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_ASKED", tmp_path / "asked")
    monkeypatch.setattr(os, "kill", lambda pid, number: left.append(pid))  # it waits for a disk
    left: list[int] = []
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(SilenceError):
            probe.ask(time.sleep, 60, timeout=0.3, place="/hung")
    # Who comes later waits for nothing: the first still does.
    assert time.monotonic() - began < 5
    assert len(left) == 1
    # What else is asked meanwhile is answered; this place again, once the child has gone.
    assert probe.ask(lambda: 1, timeout=20, place="/other") == 1
    monkeypatch.undo()
    monkeypatch.setattr(probe, "_ASKED", tmp_path / "asked")
    os.kill(left[0], signal.SIGKILL)
    os.waitpid(left[0], 0)
    assert probe.ask(lambda: 2, timeout=20, place="/hung") == 2
    assert (tmp_path / "asked").stat().st_mode & 0o777 == 0o700


def test_whoever_asks_at_the_same_time_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_ASKED", tmp_path / "asked")

    def slowly() -> int:
        time.sleep(0.02)
        return 7

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: probe.ask(slowly, timeout=20, place="/slow"), range(8))
        assert list(answers) == [7] * 8


def test_garbage_of_the_parents_closes_nothing_in_the_child(tmp_path: Path) -> None:
    """Its files have numbers that are others' in the child."""

    def work() -> int:
        descriptors = [os.open(tmp_path, os.O_RDONLY) for _ in range(30)]
        gc.collect()
        return sum(os.fstat(each).st_mode != 0 for each in descriptors)

    gc.disable()
    try:
        garbage: list[Any] = [[tmp_path.joinpath(str(n)).open("w")] for n in range(10)]
        for each in garbage:
            each.append(each)
        del garbage, each
        assert probe.ask(work, timeout=20) == 30
    finally:
        gc.enable()
        gc.collect()
