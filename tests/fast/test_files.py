"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import disk, files

ROOT = os.geteuid() == 0


def test_a_new_file_is_written_with_its_parents_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    assert files.write(path, "text\n", mode=0o600)
    assert path.read_text() == "text\n"
    assert path.stat().st_mode & 0o7777 == 0o600


def test_the_same_text_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, "text\n")
    before = path.stat()
    assert not files.write(path, "text\n", mode=0o600)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_mode) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_mode,
    )


def test_a_changed_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    if ROOT:
        os.chown(path, 12, 34)
    before = path.stat()
    assert files.write(path, "new", mode=0o777)
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize("relative", [True, False])
def test_a_symbolic_link_stays_and_its_target_changes(tmp_path: Path, relative: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real/file"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to("real/file" if relative else target)
    files.write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("text", ["", "ünï\n", "a\r\nb\r\n", "a\rb", "\udcff\n", "x" * 100_000])
def test_text_comes_back_as_it_was_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    files.write(path, text)
    assert path.read_bytes() == text.encode(errors="surrogateescape")
    assert files.read(path) == text
    assert not files.write(path, text)


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, "one")
    files.write(path, "two")
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {letter * 300_000 for letter in "ab"}
    files.write(path, min(texts))
    done = threading.Event()

    def write() -> None:
        for number in range(30):
            files.write(path, sorted(texts)[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in texts
    writer.join()


def test_two_writers_at_once_leave_one_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [letter * 200_000 for letter in "abcd"]
    threads = [threading.Thread(target=files.write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert files.read(tmp_path / "none") is None
    assert files.read(tmp_path / "no/such/directory") is None


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file/below"):
        with pytest.raises(AgentError) as caught:
            files.read(path)
        assert caught.value.problem is Problem.FILE_FAILED
        assert str(path) in caught.value.message


def test_a_parent_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError) as caught:
        files.write(tmp_path / "file/below", "x")
    assert caught.value.problem is Problem.FILE_FAILED


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, Problem.NO_SPACE),
        (errno.EDQUOT, Problem.NO_SPACE),
        (errno.EROFS, Problem.FILE_FAILED),
        (errno.EACCES, Problem.FILE_FAILED),
    ],
)
def test_errors_of_the_system_get_their_code(number: int, problem: Problem) -> None:
    with pytest.raises(AgentError) as caught, files.told_plainly("write /x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.problem is problem
    assert caught.value.message == "could not write /x"
    assert os.strerror(number) in str(caught.value.cause)


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from s3mount_agent.filesystem import disk, files
from s3mount_agent.core.errors import AgentError
home = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", home], check=True)
files.write(home / "file", "old")
try:
    files.write(home / "file", "x" * 1_000_000)
except AgentError as error:
    print(error.problem.code, (home / "file").read_text(), [p.name for p in home.iterdir()])
"""


@pytest.mark.skipif(not ROOT, reason="only root may mount a small file system")
def test_on_a_full_disk_the_old_text_stays(tmp_path: Path) -> None:
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.stdout == "no-space old ['file']\n", answer.stderr


def test_removing_says_whether_there_was_something(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    assert files.remove(path)
    assert not files.remove(path)
    assert not path.exists()


def test_a_directory_is_not_removed_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        files.remove(tmp_path)
    assert caught.value.problem is Problem.FILE_FAILED
    assert tmp_path.is_dir()


def test_directories_are_afterwards_as_they_were_found(tmp_path: Path) -> None:
    kept, new = tmp_path / "kept", tmp_path / "new"
    (kept / "partial").mkdir(parents=True, mode=0o700)
    (kept / "list").write_text("old")
    (kept / "gone").write_text("gone")
    (kept / "link").symlink_to("list")
    before = {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in kept.rglob("*")}
    with disk.kept_as_found([kept, new]):
        (kept / "list").write_text("new")  # in its place, as some programs do
        (kept / "gone").unlink()
        (kept / "more/deep").mkdir(parents=True)
        (kept / "more/deep/file").write_text("x")
        new.mkdir()
        (new / "file").write_text("x")
    after = {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in kept.rglob("*")}
    # A directory's own time is that of the last change of its names.
    assert after.keys() == before.keys()
    assert {p: after[p] for p in after if p.name != "partial"} == {
        p: before[p] for p in before if p.name != "partial"
    }
    assert ((kept / "list").read_text(), (kept / "gone").read_text()) == ("old", "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
