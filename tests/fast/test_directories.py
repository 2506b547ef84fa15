"""The directories that mounts go on, and carrying a plan out on real ones."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fast.in_memory import Supervisor, context, parse_mount
from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent.config.configuration import Configuration, Row, WhenBusy
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode, Role
from s3mount_agent.core.states import Presence
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.plan import Observed, Placed, Wanted, plan
from s3mount_agent.decide.retry_policy import pace_of
from s3mount_agent.filesystem import safe_path
from s3mount_agent.filesystem.mountinfo import Entry
from s3mount_agent.reconcile import directories, execute
from s3mount_agent.state import inventory
from s3mount_agent.system import probe


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A made.json of the test's own; what was closed is opened again, to be cleaned up."""
    path = tmp_path / "var/made.json"
    monkeypatch.setattr(inventory.load, "__defaults__", (path,))
    monkeypatch.setattr(inventory.save, "__defaults__", (path,))
    yield path
    for each in (each for each in tmp_path.rglob("*") if each.is_dir()):
        open_again(each)


def open_again(directory: Path) -> None:
    """What somebody does who wants to write there all the same."""
    subprocess.run(["chattr", "-i", directory], capture_output=True, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path)) / "home"
    path.mkdir()
    return path


def entry(directory: Path, *, ours: bool) -> dict[str, Entry]:
    source, fstype = ("mountpoint-s3", "fuse") if ours else ("tmpfs", "tmpfs")
    return {str(directory): Entry(str(directory), source, fstype, read_only=False, minor=1)}


def refused(directory: Path, table: dict[str, Entry], *, own: bool = False) -> Problem:
    with pytest.raises(AgentError) as caught:
        directories.require_usable(str(directory), table, own=own)
    assert str(directory) in caught.value.message
    return caught.value.problem


def is_closed(directory: Path) -> bool:
    """Whether even root cannot make anything in it. As another user no directory is closed."""
    try:
        (directory / "file").touch()
    except PermissionError:
        return True
    (directory / "file").unlink()
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may close a directory")
def test_root_cannot_write_beneath_a_mount_in_a_directory_that_the_agent_made(home: Path) -> None:
    theirs, ours = home / "theirs", home / "a/ours"
    theirs.mkdir()
    for directory in (theirs, ours):
        for _ in range(2):
            directories.make(str(directory))
    assert (is_closed(theirs), is_closed(ours), is_closed(home / "a")) == (False, True, False)
    # What was one of ours is the way to the next: it is open again.
    directories.make(str(ours / "below"))
    assert (is_closed(ours), is_closed(ours / "below")) == (False, True)
    assert directories.remove([str(ours / "below"), str(theirs)])
    assert [each.name for each in home.iterdir()] == ["theirs"]
    assert inventory.load().directories == ()


def test_where_a_file_system_cannot_close_a_directory_all_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(*arguments: object) -> int:
        raise OSError(errno.ENOTTY, "it cannot")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    directories.make(str(home / "ours"))
    assert not is_closed(home / "ours")
    assert directories.remove([str(home / "ours")])
    assert list(home.iterdir()) == []


def test_an_empty_or_missing_directory_is_usable(home: Path) -> None:
    directories.require_usable(str(home), {}, own=False)
    directories.require_usable(str(home / "a/b/c"), {}, own=False)
    assert not (home / "a").exists()


def test_a_directory_with_something_in_it_is_refused(home: Path) -> None:
    (home / ".hidden").write_text("")
    assert refused(home, {}) is Problem.DIRECTORY_NOT_EMPTY


@pytest.mark.parametrize("below", ["", "below", "below/deep"])
def test_a_file_is_no_directory(home: Path, below: str) -> None:
    (home / "file").write_text("")
    assert refused(home / "file" / below, {}) is Problem.DIRECTORY_NOT_A_DIRECTORY


def test_a_way_through_a_symbolic_link_is_refused_and_the_real_path_given(home: Path) -> None:
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    (home / "dangling").symlink_to("nowhere")
    for path in ("link", "link/below"):
        with pytest.raises(AgentError) as caught:
            directories.require_usable(str(home / path), {}, own=False)
        assert caught.value.problem is Problem.DIRECTORY_INVALID
        assert str(home / path.replace("link", "real")) in caught.value.hint
    assert refused(home / "dangling", {}) is Problem.DIRECTORY_INVALID


@pytest.mark.parametrize(
    ("ours", "own", "usable"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_a_mounted_directory_is_usable_only_if_the_mount_is_the_agents(
    home: Path, ours: bool, own: bool, usable: bool
) -> None:
    (home / "seen-through-the-mount").write_text("")
    table = entry(home, ours=ours)
    if usable:
        directories.require_usable(str(home), table, own=own)
    else:
        assert refused(home, table, own=own) is Problem.DIRECTORY_IN_USE


def test_a_mount_that_would_hide_another_is_refused(home: Path) -> None:
    assert refused(home, entry(home / "below", ours=False)) is Problem.DIRECTORY_IN_USE


def test_what_is_made_is_written_down_and_can_be_removed(home: Path, state: Path) -> None:
    (home / "there").mkdir()
    target = home / "there/a/b c"
    umask = os.umask(0o077)
    try:
        directories.make(str(target))
        directories.make(str(target))
    finally:
        os.umask(umask)
    assert [p.stat().st_mode & 0o777 for p in (target, target.parent)] == [0o755, 0o755]
    assert inventory.load().directories == (str(target.parent), str(target))
    directories.remove([str(target)])
    assert list((home / "there").iterdir()) == []
    assert inventory.load().directories == ()


def test_what_was_there_before_stays(home: Path) -> None:
    (home / "there").mkdir()
    directories.make(str(home / "there"))
    directories.remove([str(home / "there")])
    assert (home / "there").is_dir()


@pytest.mark.parametrize("name", ["a/b/file", "a/file"])
def test_what_is_not_empty_stays_and_stays_written_down(home: Path, name: str) -> None:
    directories.make(str(home / "a/b"))
    open_again(home / "a/b")
    (home / name).write_text("precious")
    directories.remove([str(home / "a/b")])
    assert (home / name).read_text() == "precious"
    assert str(home / "a") in inventory.load().directories


def test_a_directory_that_somebody_removed_is_forgotten_with_its_parents(home: Path) -> None:
    directories.make(str(home / "a/b"))
    open_again(home / "a/b")
    (home / "a/b").rmdir()
    directories.remove([str(home / "a/b")])
    assert not (home / "a").exists()
    assert inventory.load().directories == ()


def test_shared_parents_go_with_the_last_mount(home: Path) -> None:
    for name in ("a/one", "a/two"):
        directories.make(str(home / name))
    directories.remove([str(home / "a/one")])
    assert list((home / "a").iterdir()) == [home / "a/two"]
    directories.remove([str(home / "a/two")])
    assert list(home.iterdir()) == []


def test_where_a_wanted_mount_stores_stays_and_goes_with_it(home: Path) -> None:
    home.chmod(0o755)
    options = f"--cache {home}/cache/ --log-directory {home}/log"
    want = wanted(home / "mount", options=options)
    directories.make(want.mount.directory)
    directories.make_stores(want.definition)
    made = {str(home / name) for name in ("cache", "log", "mount")}
    directories.tidy([want.mount])
    assert set(inventory.load().directories) == {str(each) for each in home.iterdir()} == made
    directories.tidy(())
    assert inventory.load().directories == ()
    assert list(home.iterdir()) == []


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_what_is_left_where_nothing_answers_keeps_the_mounts_waiting_once(
    fuse: SmallFuse, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked one after the other in each cycle, they kept a killed mount down for minutes."""
    asked: list[object] = []
    ask = probe.ask

    def counted(*words: object, **more: object) -> object:
        asked.append(words)
        return ask(*words, **more)  # type: ignore[arg-type]

    directories.make(str(home / "empty"))
    made = inventory.load()
    for name in range(4):
        made = made.with_directory(f"{fuse.directory}/{name}")
    inventory.save(made)
    fuse.hang()
    monkeypatch.setattr(safe_path, "_SECONDS", 0.3)
    monkeypatch.setattr(probe, "ask", counted)
    around = Surroundings()
    for _ in range(3):
        around.tidy(())
    assert len(asked) == 1
    fuse.go_on()
    monkeypatch.setattr(safe_path, "_SECONDS", 20.0)
    assert directories.tidy(())
    assert not (home / "empty").exists()
    assert str(home / "empty") not in inventory.load().directories


def wanted(directory: Path, bucket: str = "my-bucket", options: str = "") -> Wanted:
    mount = parse_mount(bucket, str(directory), options)
    command = ("/usr/bin/mount-s3", *mount.arguments(None))
    definition = Definition(bucket, str(directory), command, Mode.SYSTEMD, mount.read_only)
    return Wanted(mount, definition, definition.to_json())


def carried_out(
    supervisor: Supervisor,
    wants: list[Wanted],
    *up: Wanted,
    configuration: Configuration | None = None,
) -> dict[str, AgentError]:
    observed = Observed(
        {w.mount.id: Placed(w.mount.id, w.definition, w.text, active=True) for w in up},
        {w.mount.directory: Presence.OURS for w in up},
    )
    todo = plan(wants, observed)

    def start(want: Wanted) -> None:
        assert Path(want.mount.directory).is_dir()
        supervisor.start(want)

    around = context(configuration, supervisor)
    return execute.carry_out(todo, wants, observed, around, start=start)


def test_a_change_stops_then_writes_then_starts(home: Path) -> None:
    supervisor = Supervisor()
    directories.make(str(home / "old"))
    before = [wanted(home / "old"), wanted(home / "same"), wanted(home / "other")]
    after = [wanted(home / "new"), wanted(home / "same"), wanted(home / "other", options="-d")]
    assert carried_out(supervisor, after, *before) == {}
    stops = [line for line in supervisor.log if line.startswith(("stop", "remove"))]
    assert supervisor.log[: len(stops)] == stops
    assert {line for line in stops if line.startswith("stop")} == {"stop old", "stop other"}
    assert set(supervisor.log[len(stops) :]) == {
        "write new",
        "write other",
        "start new",
        "start other",
    }
    assert (home / "new").is_dir()
    assert not (home / "old").exists()


def test_a_mount_in_use_stays_and_is_not_started_anew(home: Path) -> None:
    busy = home / "busy"
    supervisor = Supervisor(str(busy))
    failures = carried_out(supervisor, [wanted(busy, options="-d")], wanted(busy))
    assert [error.problem for error in failures.values()] == [Problem.MOUNT_BUSY]
    assert supervisor.log == []


def test_nothing_is_started_on_a_directory_that_another_bucket_still_uses(home: Path) -> None:
    busy = home / "busy"
    supervisor = Supervisor(str(busy))
    new = [wanted(busy, bucket="new-bucket"), wanted(home / "free")]
    failures = carried_out(supervisor, new, wanted(busy, bucket="old-bucket"))
    assert supervisor.log == ["write free", "start free"]
    assert Problem.MOUNT_BUSY in {error.problem for error in failures.values()}


def test_a_definition_that_cannot_be_written_fails_alone(home: Path) -> None:
    supervisor = Supervisor()
    supervisor.unwritable[str(home / "bad")] = AgentError(Problem.UNIT_FOREIGN, "it is theirs")
    wants = [wanted(home / "bad"), wanted(home / "good")]
    failures = carried_out(supervisor, wants)
    assert {key: error.problem for key, error in failures.items()} == {
        wants[0].mount.id: Problem.UNIT_FOREIGN
    }
    assert supervisor.log == ["write good", "start good"]


def test_a_directory_that_cannot_be_made_fails_alone(home: Path) -> None:
    (home / "file").write_text("")
    bad = wanted(home / "file/below")
    supervisor = Supervisor()
    failures = carried_out(supervisor, [bad, wanted(home / "good")])
    assert failures.keys() == {bad.mount.id}
    assert failures[bad.mount.id].problem is Problem.DIRECTORY_NOT_A_DIRECTORY
    assert supervisor.log == ["write good", "start good"]


def entry_of(want: Wanted, *on: Role, when_busy: WhenBusy | None = None) -> Row:
    mount = want.mount
    return Row(mount.bucket, mount.directory, on=on, when_busy=when_busy)


@pytest.mark.parametrize(
    ("policy", "patience"), [(WhenBusy.WAIT, 7200), (WhenBusy.FAIL, 0), (WhenBusy.LAZY, None)]
)
@pytest.mark.parametrize("own", [True, False])
def test_what_happens_to_a_mount_in_use_is_a_policy(
    home: Path, policy: WhenBusy, patience: float | None, own: bool
) -> None:
    busy = wanted(home / "busy")
    configuration = Configuration(
        (entry_of(busy, when_busy=policy if own else None),),
        when_busy=WhenBusy.FAIL if own else policy,
        busy_deadline=7200,
    )
    supervisor = Supervisor(str(home / "busy"))
    changed = wanted(home / "busy", options="-d")
    failures = carried_out(supervisor, [changed], busy, configuration=configuration)
    if patience is None:
        assert failures == {}
        assert supervisor.log == ["tear away busy", "remove busy", "write busy", "start busy"]
        return
    error = failures[busy.mount.id]
    assert (error.problem, pace_of(error).quick_for) == (Problem.MOUNT_BUSY, patience)
    assert supervisor.log == []


def test_each_role_has_the_policy_of_its_own_mount(home: Path) -> None:
    """The same directory may belong to different mounts on different roles."""
    busy = wanted(home / "busy")
    configuration = Configuration(
        (
            entry_of(busy, Role.HEAD, when_busy=WhenBusy.LAZY),
            entry_of(busy, Role.COMPUTE, when_busy=WhenBusy.FAIL),
        ),
    )
    supervisor = Supervisor(str(home / "busy"))  # on a compute node: see fast.in_memory
    changed = wanted(home / "busy", options="-d")
    failures = carried_out(supervisor, [changed], busy, configuration=configuration)
    assert [error.problem for error in failures.values()] == [Problem.MOUNT_BUSY]
    assert supervisor.log == []


def test_a_unit_that_cannot_be_removed_keeps_no_other_mount_from_its_start(home: Path) -> None:
    directories.make(str(home / "old"))
    old, new = wanted(home / "old"), wanted(home / "new")
    supervisor = Supervisor()
    supervisor.unremovable[str(home / "old")] = AgentError(Problem.FILE_FAILED, "read-only")
    failures = carried_out(supervisor, [new], old)
    assert {key: error.problem for key, error in failures.items()} == {
        old.mount.id: Problem.FILE_FAILED
    }
    assert supervisor.log == ["stop old", "write new", "start new"]


def test_only_what_is_in_use_waits(home: Path) -> None:
    directories.make(str(home / "free"))
    up = [wanted(home / "busy"), wanted(home / "free")]
    supervisor = Supervisor(str(home / "busy"))
    failures = carried_out(supervisor, [], *up)
    assert failures.keys() == {up[0].mount.id}
    assert supervisor.log == ["stop free", "remove free"]
    assert not (home / "free").exists()


def test_a_file_system_that_hangs_keeps_no_other_mount_waiting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several that hang cost the time of one, not of all one after the other."""
    names = [f"hung{number}" for number in range(8)]
    begun = threading.Barrier(len(names), timeout=20)
    real = safe_path.survey

    def look(directory: str) -> tuple[list[str], str | None]:
        if "hung" in directory:
            begun.wait()  # only if all of them are asked at the same time
            raise AgentError(Problem.PATH_SILENT, f"{directory} does not answer")
        return real(directory)

    monkeypatch.setattr(safe_path, "survey", look)
    supervisor = Supervisor()
    failures = carried_out(supervisor, [wanted(home / name) for name in [*names, "good"]])
    assert {error.problem for error in failures.values()} == {Problem.PATH_SILENT}
    assert len(failures) == len(names)
    assert supervisor.log == ["write good", "start good"]


def test_directories_that_are_made_at_the_same_time_are_all_written_down(home: Path) -> None:
    wants = [wanted(home / f"a/b{number}") for number in range(20)]
    assert carried_out(Supervisor(), wants) == {}
    made = {str(home / "a"), *(want.mount.directory for want in wants)}
    assert set(inventory.load().directories) == made


def test_a_file_system_that_hangs_is_no_reason_to_refuse_all_mounts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what is wrong with another one is told all the same."""

    def require(directory: str) -> None:
        if directory.endswith("hung"):
            raise AgentError(Problem.PATH_SILENT, f"{directory} does not answer")

    monkeypatch.setattr(safe_path, "require", require)
    (home / "full").mkdir()
    (home / "full/file").write_text("")
    names = ["hung", "good"]
    for also, problem in (([], None), (["full"], Problem.DIRECTORY_NOT_EMPTY)):
        entries = tuple(entry_of(wanted(home / name)) for name in [*names, *also])
        around = context(Configuration(entries), Supervisor())
        if problem is None:
            execute.require_possible(around, Observed({}, {}))
        else:
            with pytest.raises(AgentError) as caught:
                execute.require_possible(around, Observed({}, {}))
            assert caught.value.problem is problem


def test_all_that_is_in_the_way_on_a_node_is_told_at_once(home: Path) -> None:
    names = ["full", "fuller", "good"]
    for name in names[:2]:
        (home / name).mkdir()
        (home / name / "file").write_text("")
    around = context(Configuration(tuple(entry_of(wanted(home / name)) for name in names)))
    with pytest.raises(AgentError) as caught:
        execute.require_possible(around, Observed({}, {}))
    told = [caught.value, *caught.value.more]
    assert [str(home / name) in each.message for name, each in zip(names, told)] == [True, True]
