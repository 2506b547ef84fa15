"""The way to what root mounts on, writes or reads: only root can change it, or it is refused.

Each of these ways was taken at 12edeff. What an ordinary user can make of it on a node is in
tests/node/test_hostile_paths.py.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount_agent.config import environment
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import metrics_file, mountinfo, safe_path
from s3mount_agent.filesystem.mountinfo import Entry
from s3mount_agent.state import machine
from s3mount_agent.supervisor import fuse_connections, hooks

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")
SOMEBODY = 12345


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path)) / "home"
    path.mkdir()
    return path


def refused(path: Path) -> AgentError:
    with pytest.raises(AgentError) as caught:
        safe_path.require(str(path))
    return caught.value


def test_what_is_common_and_safe_is_accepted(home: Path) -> None:
    """Root's own directory in a sticky one, as /fsx and /scratch are in ParallelCluster."""
    (home / "fsx").mkdir()
    (home / "fsx").chmod(0o1777)
    (home / "fsx/s3").mkdir(mode=0o755)
    (home / "fsx/open").mkdir()
    (home / "fsx/open").chmod(0o777)  # what lies in it is hidden by a mount, and not renamed
    for path in ("fsx/s3", "fsx/open", "fsx/missing/below", "missing"):
        safe_path.require(str(home / path))
    assert safe_path.survey(str(home / "fsx/a/b")) == (
        [str(home / "fsx/a"), str(home / "fsx/a/b")],
        None,
    )


@pytest.mark.parametrize("path", ["sticky/s3", "sticky/s3/below", "s3"])
def test_what_is_to_be_mounted_on_next_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """In /tmp after a boot it is not: a link of a user's could be, once mount-s3 comes."""
    monkeypatch.setattr(fuse_connections, "_HOME", home / "connections")
    monkeypatch.setattr(environment, "settle_node", dict)
    monkeypatch.setattr(machine, "PATH", home / "machine.json")
    (home / "sticky").mkdir()
    (home / "sticky").chmod(0o1777)
    with pytest.raises(AgentError) as caught:
        hooks.prepare(str(home / path), 0)
    assert caught.value.problem is Problem.PATH_MISSING
    assert str(home / path) in caught.value.message
    assert not (home / path).exists()  # who makes it, writes it down
    safe_path.make(str(home / path))
    assert hooks.prepare(str(home / path), 0)


@needs_root
@pytest.mark.parametrize("path", ["theirs", "theirs/s3", "theirs/a/b", "sticky/theirs"])
def test_a_directory_of_somebody_elses_on_the_way_is_named_with_its_owner(
    home: Path, path: str
) -> None:
    (home / "sticky").mkdir()
    (home / "sticky").chmod(0o1777)
    for name in ("theirs", "sticky/theirs"):
        (home / name / "s3").mkdir(parents=True)
        os.chown(home / name, SOMEBODY, SOMEBODY)
    error = refused(home / path)
    assert error.problem is Problem.PATH_UNSAFE
    assert str(home / path.partition("/s3")[0].partition("/a/")[0]) in error.message
    assert f"uid {SOMEBODY}" in error.message


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o2775])
def test_a_directory_in_which_others_may_rename_is_no_way(home: Path, mode: int) -> None:
    (home / "open/s3").mkdir(parents=True)
    (home / "open").chmod(mode)
    error = refused(home / "open/s3")
    assert error.problem is Problem.PATH_UNSAFE
    assert str(home / "open") in error.message
    assert f"{mode:04o}" in error.message


@pytest.mark.parametrize("path", ["link", "link/below", "dangling", "dangling/below"])
def test_no_link_is_followed(home: Path, path: str) -> None:
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    (home / "dangling").symlink_to("nowhere")
    assert refused(home / path).problem is Problem.DIRECTORY_INVALID
    with pytest.raises(AgentError):
        safe_path.make(str(home / path))
    assert not (home / "nowhere").exists()
    assert list((home / "real").iterdir()) == []


@pytest.mark.parametrize("moment", ["mkdir", "open"])
def test_no_mode_of_anything_else_changes_when_a_directory_is_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A name that is exchanged just when it has been made: /root became 0755 at 12edeff."""
    secret, target = home / "secret", home / "s3"
    secret.mkdir(mode=0o700)
    real = getattr(os, moment)

    def raced(name: str, *arguments: int, **keywords: int) -> object:
        result = real(name, *arguments, **keywords)
        if Path(name).name == "s3":
            target.rename(home / "away")
            target.symlink_to(secret)
        return result

    monkeypatch.setattr(os, moment, raced)
    with contextlib.suppress(AgentError, OSError):
        safe_path._make(str(target), ())
    assert target.is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700


@needs_root
def test_a_user_who_is_quicker_gains_nothing(home: Path) -> None:
    (home / "scratch").mkdir()
    (home / "scratch").chmod(0o1777)
    theirs = home / "scratch/s3"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    with pytest.raises(AgentError, match=f"uid {SOMEBODY}"):
        safe_path.make(str(theirs))
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o700
    assert not safe_path.remove([str(theirs / "below")])


def test_a_store_is_made_where_its_parent_is_there(home: Path) -> None:
    """At 12edeff a --cache that did not exist was 57 s of "could not mount"."""
    umask = os.umask(0o027)
    try:
        hooks.require_places(
            [("cache", str(home / "cache")), ("log-directory", str(home / "logs"))]
        )
    finally:
        os.umask(umask)
    assert stat.S_IMODE((home / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "logs").stat().st_mode) == 0o750
    with pytest.raises(AgentError, match="there is no directory") as caught:
        safe_path.make_store(str(home / "disk/cache"), 0o700)
    assert str(home / "disk") in caught.value.message
    assert caught.value.problem is Problem.PATH_MISSING
    assert not (home / "disk").exists()


def test_a_store_in_which_others_write_is_refused_with_one_that_would_do(home: Path) -> None:
    """They could have made the mountpoint-cache that mount-s3 uses in it."""
    (home / "scratch").mkdir()
    (home / "scratch").chmod(0o1777)
    with pytest.raises(AgentError) as caught:
        safe_path.make_store(str(home / "scratch"), 0o700)
    assert caught.value.problem is Problem.PATH_UNSAFE
    assert f"{home}/scratch/s3" in caught.value.hint
    safe_path.make_store(str(home / "scratch/s3"), 0o700)


def test_a_file_of_roots_is_read_also_through_links_of_roots(home: Path) -> None:
    """As /etc/ssl/certs/ca-bundle.crt is on RHEL."""
    (home / "pki/extracted").mkdir(parents=True)
    (home / "pki/extracted/real.pem").write_text("x")
    (home / "pki/tls").mkdir()
    (home / "pki/tls/ca.pem").symlink_to("../extracted/real.pem")
    (home / "certs").symlink_to(home / "pki/tls")
    for path in ("pki/extracted/real.pem", "pki/tls/ca.pem", "certs/ca.pem"):
        safe_path.require_file(str(home / path))


@pytest.mark.parametrize("kind", ["fifo", "directory", "missing", "loop", "open", "in the open"])
def test_no_other_file_is_read(home: Path, kind: str) -> None:
    path = home / "ca.pem"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to("ca.pem")
    elif kind == "open":
        path.write_text("x")
        path.chmod(0o666)
    elif kind == "in the open":
        path.write_text("x")
        home.chmod(0o777)
    with pytest.raises(AgentError) as caught:
        safe_path.require_file(str(path))
    assert caught.value.problem in (Problem.PATH_UNSAFE, Problem.FILE_FAILED)


@pytest.mark.parametrize("path", ["data/s3", "data"])
def test_a_fuse_mount_of_a_users_is_not_even_touched(
    home: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """He takes it off again when he likes, and beneath it is what he likes."""
    (home / "data/s3").mkdir(parents=True)
    theirs = Entry(str(home / "data"), "x", "fuse.sshfs", False, 9, user=SOMEBODY)
    monkeypatch.setattr(mountinfo, "read", lambda: {theirs.directory: theirs})
    opened: list[object] = []
    real = os.open

    def noted(name: str, *arguments: int, **keywords: int) -> int:
        opened.append(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(AgentError, match="FUSE mount") as caught:
        safe_path._require(str(home / path))
    assert caught.value.problem is Problem.PATH_UNSAFE
    assert "data" not in opened


def test_a_way_that_does_not_answer_is_told_in_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_path, "_SECONDS", 0.2)
    monkeypatch.setattr(safe_path, "_require", lambda *_: threading.Event().wait(60))
    error = refused(home)
    assert error.problem is Problem.PATH_SILENT


def rows(*lines: str) -> list[Entry]:
    return [mountinfo._parse(line) for line in lines]


ROOT = "22 1 259:1 / / rw - ext4 /dev/root rw"


@pytest.mark.parametrize(
    ("line", "directory", "alias"),
    [
        ("30 22 259:1 /etc /mnt/e rw - ext4 /dev/root rw", "/mnt/e/cron.d", "/etc/cron.d"),
        ("30 22 259:1 /usr/local /srv rw - ext4 /dev/root rw", "/srv/sbin", "/usr/local/sbin"),
        ("30 22 259:1 / /mnt/all rw - ext4 /dev/root rw", "/mnt/all/root", "/root"),
        ("30 22 259:1 / /mnt/all rw - ext4 /dev/root rw", "/data/x", "/mnt/all/data/x"),
        ("30 22 0:9 / /data rw - tmpfs x rw", "/data/x", None),
        ("30 22 0:9 / /mnt/s3 rw - fuse mountpoint-s3 rw,user_id=0", "/mnt/s3", None),
    ],
)
def test_other_names_of_a_place_are_known_from_the_mount_table(
    line: str, directory: str, alias: str | None
) -> None:
    assert mountinfo.aliases(directory, rows(ROOT, line)) == ([alias] if alias else [])


def test_a_bind_mount_of_the_systems_is_the_systems(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = rows(ROOT, f"30 22 259:1 /usr/local {home} rw - ext4 /dev/root rw")
    monkeypatch.setattr(mountinfo, "entries", lambda: bound)
    error = refused(home / "sbin")
    assert error.problem is Problem.DIRECTORY_RESERVED
    assert "/usr/local/sbin" in error.message
    with pytest.raises(AgentError) as caught:
        safe_path.make_store(str(home / "logs"), 0o750)
    assert caught.value.problem is Problem.DIRECTORY_RESERVED
    assert not (home / "logs").exists()


@pytest.mark.parametrize("directory", ["/opt/tool", "/opt/tool/bin", "/opt/tool/bin/x"])
def test_where_programs_are_searched_nothing_is_mounted(
    monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/opt/tool/bin")
    assert refused(Path(directory)).problem is Problem.DIRECTORY_RESERVED


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sudoers", 'Defaults  secure_path="/usr/bin:/apps/bin"'),
        ("sudoers", "Defaults:ubuntu env_reset, secure_path = /usr/bin:/apps/bin"),
        ("sudoers.d/site", "Defaults secure_path=/apps/bin"),
        ("crontab", "PATH=/usr/local/sbin:/apps/bin"),
        ("cron.d/site", "SHELL=/bin/sh\nPATH = '/apps/bin'\n* * * * * root true"),
        ("login.defs", "ENV_SUPATH\tPATH=/sbin:/apps/bin"),
        ("environment", 'export PATH="/apps/bin:/usr/bin"'),
        ("profile", "if true; then\n  PATH=/usr/bin:/apps/bin; export PATH\nfi"),
        ("profile.d/site.sh", 'export PATH="/apps/bin${PATH:+:${PATH}}"  # not /apps/data'),
        ("bash.bashrc", "[ -d /apps/data ] && PATH+=:$PATH:/apps/bin/"),
        ("root/.bashrc", "#PATH=/apps/data\nPATH=$OTHER/apps/data:/apps/$OTHER:/apps/bin"),
        ("root/.profile", "MANPATH=/apps/data declare -x PATH=/apps/bin"),
        ("systemd/system.conf", "[Manager]\nDefaultEnvironment=PATH=/apps/bin"),
        ("systemd/system.conf.d/x.conf", 'ManagerEnvironment="PATH=/usr/bin:/apps/bin"'),
    ],
)
def test_where_a_root_path_leads_nothing_is_mounted(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    """sudo's, cron's, login's, a shell's, systemd's."""
    safe_path.require("/apps/bin")
    for kind in ("PATH_FILES", "PATH_FOLDERS"):
        known = [path.replace("/etc", "") for path in getattr(safe_path, kind)]
        monkeypatch.setattr(safe_path, kind, [f"{home}{path}" for path in known])
    (home / name).parent.mkdir(exist_ok=True, parents=True)
    (home / name).write_text(f"{line}\n")
    for directory in ("/apps", "/apps/bin", "/apps/bin/x"):
        error = refused(Path(directory))
        assert error.problem is Problem.DIRECTORY_RESERVED
        assert "search /apps/bin" in error.message
    safe_path.require("/apps/data")


def test_a_search_path_counts_by_the_places_that_its_links_lead_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "tools/bin").mkdir(parents=True)
    (home / "bin").symlink_to("tools/bin")
    safe_path.require(str(home / "tools"))
    monkeypatch.setenv("PATH", f"/usr/bin:{home}/bin")
    for path in ("tools", "tools/bin", "tools/bin/x"):
        assert refused(home / path).problem is Problem.DIRECTORY_RESERVED
    safe_path.require(str(home / "tools/data"))


def test_a_search_path_that_does_not_answer_keeps_no_mount_waiting(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "s3").mkdir()
    monkeypatch.setattr(safe_path, "_SECONDS", 0.5)
    monkeypatch.setattr(safe_path, "_searched", lambda: threading.Event().wait(60))
    safe_path.require(str(home / "s3"))
    monkeypatch.setenv("PATH", f"/usr/bin:{home}/s3")
    assert refused(home / "s3").problem is Problem.DIRECTORY_RESERVED


@pytest.fixture
def precious(home: Path) -> Path:
    path = home / "precious"
    path.write_text("keep")
    return path


@pytest.fixture
def in_time() -> Iterator[None]:
    """A FIFO stopped the daemon for ever at 12edeff: whoever opens it here is ended."""
    timer = threading.Timer(20, os._exit, [99])
    timer.start()
    yield
    timer.cancel()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "open", "link above"])
@pytest.mark.usefixtures("in_time")
def test_figures_go_to_a_file_of_roots_only(home: Path, precious: Path, kind: str) -> None:
    """At 12edeff a link made the daemon overwrite /root/precious."""
    folder = home / "textfile"
    folder.mkdir()
    path = folder / "s3mount.prom"
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "open":
        folder.chmod(0o777)
    else:
        path = home / "elsewhere/s3mount.prom"
        path.parent.symlink_to(folder)
    with pytest.raises(AgentError):
        metrics_file.write(str(path), "# HELP s3mount_up x\n")
    metrics_file.take_back(str(path))
    assert precious.read_text() == "keep"
    assert kind in ("open", "link above") or os.path.lexists(path)
    assert not [each for each in folder.iterdir() if each != path]
