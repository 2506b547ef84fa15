"""Which mount is ours, and who keeps a mount from being taken down: the table, the record, and real
mount namespaces."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import Placed
from s3mount_agent.filesystem import holders, procfs
from s3mount_agent.filesystem.mountinfo import Entry, Table
from s3mount_agent.reconcile import directories
from s3mount_agent.reconcile.observe import judge_table
from s3mount_agent.supervisor import fuse_connections, hooks
from s3mount_agent.supervisor.fuse_connections import Connection
from s3mount_agent.system import probe, systemd
from s3mount_agent.system.probe import Answer, Finding

HOME = "/mnt/of-nobody-here"
ROOT = Entry(
    "/", "/dev/root", "ext4", read_only=False, minor=1, device="259:1", id=22, parent=1, peers=1
)
DEFINITION = Definition("my-bucket", HOME, ("mount-s3", "my-bucket", HOME), Mode.SYSTEMD, False)


def fuse(minor: int, number: int, parent: int = 22, *, user: int = 0, where: str = HOME) -> Entry:
    """A mount that looks like mount-s3's."""
    return Entry(
        where,
        "mountpoint-s3",
        "fuse",
        read_only=False,
        minor=minor,
        device=f"0:{minor}",
        user=user,
        id=number,
        parent=parent,
    )


OURS, SECOND, USERS = fuse(54, 96), fuse(55, 97, 96), fuse(56, 98, 96, user=1000)
TMPFS = Entry(HOME, "theirs", "tmpfs", read_only=False, minor=60, device="0:60", id=99, parent=96)
ABOVE = Entry("/mnt", "late", "tmpfs", read_only=False, minor=61, device="0:61", id=120, parent=22)
KNOWN = Connection(HOME, device="0:54", mount=96, pid=1, start=procfs.started(1) or 0)


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_connections, "_HOME", tmp_path)


def seen(entries: list[Entry], *, active: bool = True, leaving: bool = False) -> Presence:
    placed = Placed("id", DEFINITION, "", active=active, leaving=leaving)
    return judge_table({"id": placed}, Table([ROOT, *entries])).on(HOME)


@pytest.mark.parametrize(
    ("entries", "presence"),
    [
        ([], Presence.ABSENT),
        ([OURS], Presence.OURS),
        ([OURS, TMPFS], Presence.COVERED),
        ([OURS, SECOND], Presence.COVERED),
        ([OURS, USERS], Presence.COVERED),
        ([OURS, ABOVE], Presence.COVERED),
        ([fuse(55, 97)], Presence.FOREIGN),
        ([fuse(54, 97, user=1000)], Presence.FOREIGN),
        ([ABOVE], Presence.ABSENT),
    ],
)
@pytest.mark.parametrize("active", [True, False])
def test_ours_is_the_device_that_our_process_mounted(
    entries: list[Entry], presence: Presence, active: bool
) -> None:
    fuse_connections.save(KNOWN)
    assert seen(entries, active=active) is presence


def test_what_lay_there_before_the_start_is_not_taken_for_what_is_started() -> None:
    fuse_connections.save(Connection(HOME, before=("0:55",)))
    assert seen([fuse(55, 97)]) is Presence.FOREIGN
    assert seen([OURS]) is Presence.OURS
    # Nor is anything ours that came when nothing was started.
    assert seen([OURS], active=False) is Presence.FOREIGN


def test_without_a_record_only_the_sole_mount_of_root_is_taken_for_ours() -> None:
    assert seen([OURS]) is Presence.OURS
    assert seen([OURS, SECOND]) is Presence.FOREIGN
    assert seen([fuse(54, 96, user=1000)]) is Presence.FOREIGN
    assert seen([OURS], active=False) is Presence.OURS  # dead: nobody serves it


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "{}",
        '{"directory": 7}',
        "\x00",
        '{"directory": "/mnt/of-nobody-here", "pid": "x"}',
    ],
)
def test_a_record_that_is_none_is_no_record(broken: str) -> None:
    fuse_connections.save(KNOWN)
    fuse_connections._path(HOME).write_text(broken)
    assert fuse_connections.load(HOME) is None


def test_a_process_that_came_after_another_is_told_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives the number of what has gone to what comes next."""
    monkeypatch.setattr(fuse_connections, "_HOME", tmp_path)
    assert fuse_connections.whose(HOME) is None
    fuse_connections.save(Connection(HOME, device="0:57", mount=96, pid=7, start=100))
    first = fuse_connections.whose(HOME)
    assert fuse_connections.whose(HOME) == first is not None
    fuse_connections.save(Connection(HOME, device="0:57", mount=96, pid=8, start=200))
    assert fuse_connections.whose(HOME) != first


def test_two_directories_never_share_a_record() -> None:
    long = "/mnt/" + "é/" * 200
    for directory in (HOME, "/mnt-of-nobody-here", "/mnt/of/nobody/here", long + "a", long + "b"):
        fuse_connections.save(Connection(directory, device="0:1"))
        assert fuse_connections.load(directory) == Connection(directory, device="0:1")
    assert fuse_connections.load(HOME) == Connection(HOME, device="0:1")


def test_the_bind_mounts_of_what_has_ended_stay_known_until_they_go() -> None:
    bind = fuse(54, 130, where="/data/project")
    connection = hooks._with_binds(KNOWN, Table([ROOT, OURS, bind]))
    connection = Connection(HOME, device="0:57", binds=connection.binds)
    assert connection.dead_binds(Table([ROOT, fuse(57, 96), bind])) == (bind,)
    assert connection.dead_binds(Table([ROOT, fuse(57, 96)])) == ()
    # What is made there anew is not dead.
    assert connection.dead_binds(Table([ROOT, fuse(57, 130, where="/data/project")])) == ()


# In a mount namespace of its own, a mount and those who have it elsewhere.
ELSEWHERE = """
import os, subprocess, sys, time
from pathlib import Path
from s3mount_agent.filesystem import holders
from s3mount_agent.filesystem.mountinfo import Table
home, other = sys.argv[1:]
holders._NODE = os.getpid()
subprocess.run(["mount", "--make-rshared", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", home], check=True)
def entry():
    return Table.read().on(home)
def told(*words):
    print(*words, holders.left_by_unmount(entry()), holders.of(entry()), sep="|")
def inside(*how, cwd="/"):
    child = subprocess.Popen(
        [*how, "sh", "-c", 'cd "$0"; echo in; exec sleep 60', cwd],
        stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "in\\n"
    while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\\n":
        time.sleep(0.01)  # it has its name a moment later
    return child
def over(child):
    child.kill()
    child.wait()
told("nobody")
child = inside("unshare", "--mount", "--propagation=slave")
told("slave")
over(child)
child = inside("unshare", "--mount", "--propagation=private")
told("private")
over(child)
child = inside("unshare", "--mount", "--propagation=private", cwd=home)
told("private and inside")
over(child)
child = inside(cwd=home)
told("inside")
over(child)
subprocess.run(["mount", "--bind", home, other], check=True)
told("bind")
child = inside("unshare", "--mount", "--propagation=slave")
told("bind and slave")
over(child)
subprocess.run(["umount", other], check=True)
before = entry()
child = inside(cwd=home)
subprocess.run(["umount", "--lazy", home], check=True)
print("detached", holders.left_by_unmount(before), holders.of(before), sep="|")
over(child)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", home], check=True)
with open(home + "/file", "wb") as file:
    file.write(b"x" * 4096)
import mmap
with open(home + "/file", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
told("mapped")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_who_keeps_a_mount_is_found_in_every_namespace(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", ELSEWHERE, str(home), str(other)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = dict(line.split("|", 1) for line in answer.stdout.splitlines())
    plain = {key: re.sub(r"pid \d+", "pid N", value) for key, value in told.items()}
    alone = "sleep (pid N), in a mount namespace of its own"
    bind = f"the bind mount on {other}"
    assert plain == {
        "nobody": "()|",
        "slave": "()|",
        "private": f"('{alone}',)|{alone}",
        "private and inside": f"('{alone}',)|sleep (pid N)",
        "inside": "()|sleep (pid N)",
        "bind": f"('{bind}',)|{bind}",
        "bind and slave": f"('{bind}',)|{bind}",
        "detached": "()|sleep (pid N)",
        "mapped": plain["mapped"],
    }, answer.stderr
    assert plain["mapped"].startswith("()|python")


HUNG_COVER = """
import ctypes, os, sys, time
from s3mount_agent.filesystem import fuse, holders
from s3mount_agent.filesystem.mountinfo import Table
home = sys.argv[1]
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions"
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"mountpoint-s3", home.encode(), b"fuse", 6, options.encode()) == 0
entry = Table.read().on(home)
began = time.monotonic()
print(holders.of(entry), holders.left_by_unmount(entry))
print(fuse.serves(os.getpid(), entry.minor), fuse.serves(os.getpid(), entry.minor + 1))
print(fuse.serves(1, entry.minor), time.monotonic() - began < 20)
libc.umount2(home.encode(), 2)
"""


@pytest.mark.skipif(not MAY_MOUNT, reason="only root with /dev/fuse may mount")
def test_nobody_is_asked_by_who_looks_for_users(tmp_path: Path) -> None:
    """Of a file system that never answers, too."""
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", HUNG_COVER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Before Linux 6.17 the kernel does not say whose connection it is.
    assert answer.stdout.splitlines() in (
        [" ()", "True False", "False True"],
        [" ()", "None None", "False True"],
    ), answer.stderr


def test_a_process_that_ended_before_its_mount_was_written_down_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed between mount(2) and the hook that notes it: the dead mount is ours to clear, what lay
    there before is not."""
    layers = [fuse(50, 90), OURS]
    gone: list[str] = []

    def unmount(directory: str, *, lazy: bool = False) -> None:
        gone.append(layers.pop().device)

    monkeypatch.setattr(Table, "read", staticmethod(lambda: Table([ROOT, *layers])))
    monkeypatch.setattr(hooks, "_unmount", unmount)
    dead = Finding(Answer.DISCONNECTED, "ENOTCONN")
    monkeypatch.setattr(probe, "look", lambda directory, timeout: dead)
    fuse_connections.save(Connection(HOME, before=("0:50",)))
    assert hooks.clean(HOME, 0)
    assert gone == [OURS.device]
    kept = fuse_connections.load(HOME)
    assert kept is not None
    assert kept.before == ("0:50",)


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_a_stop_goes_on_where_the_node_has_no_process_or_file_left_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the hook has ended, systemd kills mount-s3, and what is being written is lost."""
    mounted = SmallFuse(tmp_path / "mount")
    entry = Table.read().on(mounted.directory)
    assert entry is not None
    start = procfs.started(mounted.pid) or 0
    fuse_connections.save(Connection(mounted.directory, entry.device, entry.id, mounted.pid, start))
    left = {"fork": 3, "notify": 1, "is_stopping": 1}
    for module, name, error in (
        (os, "fork", OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))),
        (systemd, "notify", OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))),
        (systemd, "is_stopping", AgentError(Problem.PROGRAM_TIMEOUT, "it did not end")),
    ):
        works = getattr(module, name)

        def fails_at_first(
            *words: str,
            name: str = name,
            error: Exception = error,
            works: Callable[..., object] = works,
        ) -> object:
            if left[name]:
                left[name] -= 1
                raise error
            return works(*words)

        monkeypatch.setattr(module, name, fails_at_first)
    for seconds in ("_QUIET_SECONDS", "_LOOK_SECONDS", "_SHUTDOWN_SECONDS"):
        monkeypatch.setattr(hooks, seconds, 0.0)
    try:
        assert hooks.stop(mounted.directory, mounted.pid) is True
        assert Table.read().on(mounted.directory) is None
        assert left == dict.fromkeys(left, 0)
    finally:
        mounted.die()
        subprocess.run(["umount", "--lazy", mounted.directory], check=False, capture_output=True)


def test_dead_bind_mounts_are_remembered_for_as_long_as_they_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bind = fuse(40, 130, where="/data/project")
    there = [bind]
    monkeypatch.setattr(Table, "read", staticmethod(lambda: Table([ROOT, *there])))
    binds = ((bind.device, bind.directory, bind.root),)
    fuse_connections.save(Connection(HOME, device=OURS.device, binds=binds))
    fuse_connections.forget(HOME)
    kept = fuse_connections.load(HOME)
    assert kept is not None
    assert (kept.binds, kept.device) == (binds, "")
    there.clear()
    fuse_connections.forget(HOME)
    assert fuse_connections.load(HOME) is None


def test_a_process_that_cannot_be_looked_into_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user's process that waits for a FUSE of his own holds up whoever reads its arguments."""
    monkeypatch.setattr(probe, "_ASKED", tmp_path / "asked")
    monkeypatch.setattr(holders, "_SECONDS", 0.2)
    monkeypatch.setattr(holders, "_pids", lambda: time.sleep(60))
    monkeypatch.setattr(holders, "_namespaces", lambda: time.sleep(60))
    began = time.monotonic()
    found = holders.stranger(USERS)
    assert (found.pid, found.uid, found.directory) == (None, 1000, HOME)
    assert holders.of(OURS), "it may be that somebody has it"
    assert len(holders.left_by_unmount(OURS)) == 1, "it may be that somebody has it"
    assert holders.is_served(HOME, "mount-s3")
    assert time.monotonic() - began < 40


CLEAR = "\x1b[2J\x1b]0;pwned\x07\nroot: all is well"


def require_one_line(text: str) -> None:
    assert text.isprintable()
    assert "SECRETWORD" not in text


def test_a_user_writes_nothing_to_roots_terminal(tmp_path: Path) -> None:
    """The source of a FUSE, its kind, and the name and the arguments of a program are a user's."""
    told = "".join(f"\\{ord(c):03o}" for c in CLEAR + " http://u:SECRETWORD@h " + "x" * 500)
    line = f"40 22 0:99 / {HOME} rw - fuse.{CLEAR[:3]} {told} rw,user_id=1000,group_id=1000"
    table = tmp_path / "mountinfo"
    table.write_text(f"{line}\n")
    (entry,) = Table.read(table).entries
    found = holders.stranger(entry)
    require_one_line(found.words)
    assert len(found.source) == 120
    with pytest.raises(AgentError) as caught:
        directories.require_usable(HOME, {HOME: entry}, own=False)
    require_one_line(caught.value.message)
    below = entry._replace(directory=f"{HOME}/{CLEAR}")
    with pytest.raises(AgentError) as caught:
        directories.require_usable(HOME, {below.directory: below}, own=False)
    require_one_line(caught.value.message)
    evil = "open('/proc/self/comm', 'w').write(__import__('sys').argv[1]); print(); input()"
    arguments = [sys.executable, "-c", evil, CLEAR[:15], "http://u:SECRETWORD@h"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "\n"
        require_one_line(holders._named(user.pid))
        require_one_line(holders._command(user.pid))
        user.kill()


@pytest.mark.parametrize(("waiting", "idle"), [(0, True), (1, False), (None, False)])
def test_a_connection_is_idle_only_where_the_kernel_says_so(
    monkeypatch: pytest.MonkeyPatch, waiting: int | None, idle: bool
) -> None:
    asked: list[int] = []

    def count(minor: int) -> int | None:
        asked.append(minor)
        return waiting

    monkeypatch.setattr("s3mount_agent.filesystem.fuse.waiting", count)
    assert not fuse_connections.is_idle("/mnt/s3")  # nothing is written down of it
    fuse_connections.save(Connection("/mnt/s3", device="0:77"))
    assert fuse_connections.is_idle("/mnt/s3") is idle
    assert asked == [77]
