"""What walks whole file systems keeps out of the mounts; what its owner wrote stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.state import inventory
from s3mount_agent.supervisor import crawlers
from s3mount_agent.system import updatedb

DEBIAN = """\
PRUNE_BIND_MOUNTS="yes"
# PRUNENAMES=".git .bzr .hg .svn"
PRUNEPATHS="/tmp /var/spool /media"
PRUNEFS="NFS afs fuse.sshfs"
"""
WORDS = st.text(st.sampled_from("ab/. #="), max_size=30)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a node, with the agent's record beside it."""
    conf, record = tmp_path / "updatedb.conf", tmp_path / "made.json"
    monkeypatch.setattr(updatedb, "CONF", conf)
    load, save = inventory.load, inventory.save
    monkeypatch.setattr(inventory, "load", lambda: load(record))
    monkeypatch.setattr(inventory, "save", lambda made: save(made, record))
    conf.write_text(DEBIAN)
    return conf


def test_mounts_are_added_once_and_taken_back(conf: Path) -> None:
    assert not crawlers.are_kept_out(["/mnt/s3", "/mnt/a"])
    assert crawlers.keep_out(["/mnt/s3", "/mnt/a"])
    expected = DEBIAN.replace("/media", "/media /mnt/a /mnt/s3")
    assert conf.read_text() == expected
    inode = conf.stat().st_ino
    assert crawlers.are_kept_out(["/mnt/a", "/mnt/s3"])
    assert not crawlers.keep_out(["/mnt/a", "/mnt/s3"])
    assert conf.stat().st_ino == inode
    # One goes, another one comes.
    assert crawlers.keep_out(["/mnt/s3", "/mnt/s3-more"])
    assert updatedb.pruned(conf.read_text())[3:] == ("/mnt/s3", "/mnt/s3-more")
    assert crawlers.keep_out([])
    assert conf.read_text() == DEBIAN


def test_what_its_owner_wrote_stays(conf: Path) -> None:
    conf.write_text(DEBIAN.replace("/media", "/media /mnt/s3"))
    before = conf.read_text()
    crawlers.keep_out(["/mnt/s3", "/mnt/s3/below"])
    # An administrator adds one of his own in the meantime, and takes one of ours away.
    conf.write_text(conf.read_text().replace("/mnt/s3/below", "/scratch"))
    crawlers.keep_out([])
    assert conf.read_text() == before.replace("/mnt/s3", "/mnt/s3 /scratch")


@pytest.mark.parametrize("text", ["", 'PRUNEFS="x"\n', 'PRUNEFS="x"', '#PRUNEPATHS="/tmp"\n'])
def test_a_file_without_the_setting_gets_it_and_loses_it(conf: Path, text: str) -> None:
    conf.write_text(text)
    assert crawlers.keep_out(["/mnt/s3"])
    assert updatedb.pruned(conf.read_text()) == ("/mnt/s3",)
    assert crawlers.keep_out([])
    assert conf.read_text().rstrip("\n") == text.rstrip("\n")


def test_where_there_is_no_updatedb_nothing_is_made(conf: Path) -> None:
    conf.unlink()
    assert crawlers.are_kept_out(["/mnt/s3"])
    assert not crawlers.keep_out(["/mnt/s3"])
    assert list(conf.parent.iterdir()) == []


def test_a_directory_that_the_file_cannot_name_is_left_out(conf: Path) -> None:
    assert not crawlers.keep_out(["/mnt/my data", '/mnt/"', "/mnt/tab\t"])
    assert conf.read_text() == DEBIAN


def test_whenever_the_power_goes_all_that_was_added_is_taken_back(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_power(made: object) -> None:
        if conf.read_text() != DEBIAN:
            raise KeyboardInterrupt
        save(made)  # type: ignore[arg-type]

    save = inventory.save
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "save", lose_power)
        with pytest.raises(KeyboardInterrupt):
            crawlers.keep_out(["/mnt/s3"])
    assert conf.read_text() != DEBIAN
    crawlers.keep_out([])
    assert conf.read_text() == DEBIAN


@given(WORDS, st.lists(st.sampled_from(["/a", "/a/b", "/b.", "/a.b", "/."]), unique=True))
def test_what_is_added_and_removed_again_leaves_the_same_words(
    value: str, paths: list[str]
) -> None:
    text = f'x\nPRUNEPATHS = "{value}" # kept\ny\n'
    new = [path for path in paths if path not in updatedb.pruned(text)]
    changed = updatedb.edited(text, add=new)
    assert updatedb.pruned(changed) == (*updatedb.pruned(text), *new)
    back = updatedb.edited(changed, remove=new)
    assert updatedb.pruned(back) == updatedb.pruned(text)
    assert back.partition('"')[0] == text.partition('"')[0]
    assert back.rpartition('"')[2] == text.rpartition('"')[2]
