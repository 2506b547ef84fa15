"""What several modules of tests stand on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def aws_address() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(aws_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """AWS as a node sees it, and a way to fill it."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": aws_address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    clients = {name: boto3.client(name) for name in ("s3", "ssm")}
    clients["s3"].create_bucket(Bucket="configurations")
    return clients
