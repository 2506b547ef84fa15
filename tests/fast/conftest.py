"""What several modules of tests stand on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from fast.daemon_world import World
from fast.small_fuse import SmallFuse, small_fuse
from fast.ward import Ward
from s3mount_agent.daemon import health as healths
from s3mount_agent.system import journal, probe

# A busy machine is no fault of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def world() -> World:
    """A node for the daemon."""
    return World()


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    made = Ward()
    monkeypatch.setattr(healths, "Probe", made.begin)
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(healths, "random", SimpleNamespace(uniform=lambda low, high: high))
    monkeypatch.setattr(journal, "last_words", lambda identifier, pid: "")
    yield made
    for each in made.begun:
        each.abandon()


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[SmallFuse]:
    with small_fuse(tmp_path / "mount") as mounted:
        yield mounted


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that uses all the processor time that it can get."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield child.pid
    child.kill()
    child.wait()
