"""Builds of the agent that are left behind, as directories of a place of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3mount_agent.filesystem import leftovers, paths

# A command of a build, at work until its stdin is closed.
AT_WORK = """
import sys
from pathlib import Path
from s3mount_agent.filesystem import leftovers, paths
paths.HOME = Path(sys.argv[1])
leftovers.keep_build()
print("at work", flush=True)
sys.stdin.read()
"""


def test_a_build_goes_with_the_last_command_that_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "older", "new"):
        (tmp_path / name / "lib").mkdir(parents=True)
    (tmp_path / "current").symlink_to("new")
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "HOME", tmp_path / "new")
    argv = [sys.executable, "-c", AT_WORK, str(tmp_path / "old")]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "at work\n"
        leftovers.sweep_builds()
        assert {each.name for each in tmp_path.iterdir()} == {".lock", "current", "new", "old"}
        assert (tmp_path / "old/lib").exists()
    leftovers.sweep_builds()
    assert {each.name for each in tmp_path.iterdir()} == {".lock", "current", "new"}
