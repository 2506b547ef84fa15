"""What several modules of tests stand on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fast.daemon_world import World
from fast.small_fuse import SmallFuse, small_fuse
from fast.ward import Ward
from s3mount_agent import cli

# A busy machine is no fault of what is tested.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def world() -> World:
    """A node for the daemon."""
    return World()


@pytest.fixture
def ward() -> Iterator[Ward]:
    made = Ward()
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


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command as a user would; returns its exit code, stdout and stderr."""

    def told(*words: str) -> tuple[int, str, str]:
        try:
            code = cli.main(words)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return told
