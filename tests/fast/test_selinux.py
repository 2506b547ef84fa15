"""SELinux's restorecon is asked where contexts are enforced, and never waited for for long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from s3mount_agent.supervisor import selinux
from s3mount_agent.system import process


@pytest.fixture
def enforce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel says, on a node whose only program is a restorecon that says what it got."""
    path = tmp_path / "enforce"
    path.write_text("1")
    monkeypatch.setattr(selinux, "ENFORCE", path)
    monkeypatch.setattr(process, "_PLACES", (str(tmp_path), "/usr/bin", "/bin"))
    return path


def restorecon(tmp_path: Path, line: str) -> None:
    program = tmp_path / "restorecon"
    program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n{line}\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("kernel", "asked"), [("1", True), ("1\n", True), ("0", False), ("", False)]
)
def test_it_is_asked_only_where_contexts_are_enforced(
    tmp_path: Path, enforce: Path, kernel: str, asked: bool
) -> None:
    restorecon(tmp_path, "true")
    enforce.write_text(kernel)
    selinux.restore([Path("/a b"), Path("/-c")])
    calls = tmp_path / "calls"
    assert (calls.read_text() if calls.exists() else "") == ("-R -- /a b /-c\n" if asked else "")


def test_a_node_without_selinux_and_nothing_to_restore_ask_nothing(
    tmp_path: Path, enforce: Path
) -> None:
    restorecon(tmp_path, "true")
    selinux.restore([])
    enforce.unlink()
    selinux.restore([Path("/a")])
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("line", ["exit 1", "exec sleep 60"])
def test_one_that_fails_or_hangs_is_told_and_left(
    tmp_path: Path, enforce: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    restorecon(tmp_path, line)
    began = time.monotonic()
    selinux.restore([Path("/a")], seconds=0.5)
    assert time.monotonic() - began < 30
    assert "SELinux: the contexts of /a stay as they are: `" in capsys.readouterr().out
