"""The file for Prometheus: whole or not at all, and in nobody's way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files, metrics_file, safe_path

OLD, NEW = "# HELP s3mount_up old\n", "# HELP s3mount_up new\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "collector/s3mount.prom"
    metrics_file.write(str(made), OLD)
    return made


def test_a_reader_sees_the_old_file_or_the_new_one_and_collectors_never_a_part(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with path.open(encoding="utf-8") as old:
        metrics_file.write(str(path), NEW)
        assert old.read() == OLD
    assert path.read_text(encoding="utf-8") == NEW
    assert [each.name for each in path.parent.iterdir()] == ["s3mount.prom"]
    # A child writes it.
    seen = tmp_path_factory.mktemp("seen") / "names"
    fsync = os.fsync

    def at_the_worst_moment(descriptor: int) -> None:
        with seen.open("a", encoding="utf-8") as file:
            file.writelines(f"{each.name}\n" for each in path.parent.iterdir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", at_the_worst_moment)
    metrics_file.write(str(path), OLD)
    names = set(seen.read_text(encoding="utf-8").splitlines())
    # node_exporter collects *.prom.
    assert [name for name in names if name.endswith(".prom")] == ["s3mount.prom"]
    assert len(names) == 2
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_directory_that_hangs_keeps_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_in", lambda directory, name, text: time.sleep(60))
    monkeypatch.setattr(safe_path, "_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(AgentError) as raised:
        metrics_file.write(str(path), NEW)
    assert raised.value.problem is Problem.PATH_SILENT
    assert time.monotonic() - began < 20
    assert path.read_text(encoding="utf-8") == OLD


def test_a_file_that_is_somebody_elses_is_not_taken_back(path: Path) -> None:
    other = path.with_name("other.prom")
    other.write_text("# HELP up Another's.\n")
    metrics_file.take_back(str(other))
    metrics_file.take_back(str(path.with_name("none")))
    metrics_file.take_back(None)
    assert other.exists()
    metrics_file.take_back(str(path))
    assert not path.exists()
