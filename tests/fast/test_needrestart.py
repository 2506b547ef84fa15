"""What needrestart is told, and that it is taken back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s3mount_agent.supervisor import needrestart


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "conf.d/s3mount-agent.conf"
    monkeypatch.setattr(needrestart, "CONF", path)
    return path


def test_a_node_without_needrestart_is_left_as_it_is(conf: Path) -> None:
    assert not needrestart.leave_mounts_alone()
    assert not conf.parent.exists()
    assert not needrestart.take_back()


def test_it_is_told_once_of_our_units_alone_and_forgets_them(conf: Path) -> None:
    conf.parent.mkdir()
    assert needrestart.leave_mounts_alone()
    assert not needrestart.leave_mounts_alone()
    pattern = re.search(r"qr\((.*)\)\} = 0;", conf.read_text())
    assert pattern is not None
    assert re.search(pattern[1], "mountpoint-s3-585e79a6.service")
    for other in ("s3mount-agent.service", "mountpoint-s3-x.service", "a-mountpoint-s3-585e79a6"):
        assert not re.search(pattern[1], other)
    assert needrestart.take_back()
    assert list(conf.parent.iterdir()) == []


def test_what_somebody_has_changed_stays(conf: Path) -> None:
    conf.parent.mkdir()
    needrestart.leave_mounts_alone()
    conf.write_text(conf.read_text() + "1;\n")
    assert not needrestart.take_back()
    assert conf.exists()
