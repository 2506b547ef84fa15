"""Whether the agent's own service runs, and can: seen cheaply, by any user."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from fast.in_memory import context
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.decide.plan import Observed
from s3mount_agent.filesystem import lock, paths
from s3mount_agent.mountpoint import install
from s3mount_agent.reconcile import uninstall
from s3mount_agent.supervisor import agent_service
from s3mount_agent.system import systemd

ASK = """
import os, sys
from pathlib import Path
from s3mount_agent.filesystem import lock
if os.geteuid() == 0:
    os.setuid(65534)
print(lock.holder(Path(sys.argv[1])))
"""


def asked_by_a_user(path: Path) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", ASK, str(path)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or answer.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has what a user may not read")
def test_a_user_sees_who_holds_a_lock_that_he_may_not_open() -> None:
    path = Path(f"/tmp/s3mount-test-{os.getpid()}.lock")
    try:
        with lock.hold("test", timeout=1, path=path):
            assert asked_by_a_user(path) == str(os.getpid())
        assert asked_by_a_user(path) == "None"
        path.unlink()
        assert asked_by_a_user(path) == "None"
    finally:
        path.unlink(missing_ok=True)


def test_without_systemd_no_daemon_is_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "RUN", tmp_path / "none")
    monkeypatch.setattr(agent_service, "LOCK", tmp_path / "daemon.lock")
    assert not agent_service.is_up()
    with lock.hold("daemon", timeout=1, path=tmp_path / "daemon.lock"):
        assert agent_service.is_up()
    assert not agent_service.is_up()


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (f"#!/bin/sh\n[ -x '{sys.executable}' ]\n", None),
        ("#!/bin/sh\n[ -x '/gone/python3' ]\n", "run by /gone/python3, which is not there"),
        ("", "not there"),
        (None, "cannot be read"),
    ],
)
def test_a_command_that_cannot_start_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, broken: str | None
) -> None:
    command = tmp_path / "s3mount-agent"
    if text is not None:
        command.write_text(text)
    monkeypatch.setattr(paths, "COMMAND", str(command))
    found = paths.broken_command()
    assert (found is None) if broken is None else (broken in (found or ""))


def test_a_lock_that_was_removed_by_its_holder_is_taken_anew(tmp_path: Path) -> None:
    """An uninstall removes its own lock: who has waited for it holds the one that others see."""
    path = tmp_path / "lock"
    taken = threading.Event()

    def wait() -> None:
        with lock.hold("waiting", timeout=20, path=path):
            taken.set()
            released.wait(20)

    released = threading.Event()
    waiting = threading.Thread(target=wait, daemon=True)
    with lock.hold("uninstall", timeout=1, path=path):
        waiting.start()
        time.sleep(0.3)  # it has the file open by now
        path.unlink()
    assert taken.wait(20)
    assert lock.holder(path) == os.getpid()
    released.set()
    waiting.join(20)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), AgentError(Problem.FILE_FAILED, "no space")])
def test_an_uninstall_that_ends_among_the_mounts_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: BaseException
) -> None:
    session = SimpleNamespace(context=context(), observed=Observed({}, {}))

    def stopped(*_: object) -> None:
        raise end

    monkeypatch.setattr(uninstall, "node_session", lambda *_, **__: nullcontext(session))
    monkeypatch.setattr(uninstall, "require_changeable", lambda *_, **__: None)
    monkeypatch.setattr(install, "packages_to_take_back", lambda: ([], {}))
    monkeypatch.setattr(uninstall, "take_down", stopped)
    with pytest.raises(type(end)):
        uninstall.uninstall()
    said = capsys.readouterr().out
    assert "still here: mounts (`s3mount-agent status` tells which), the agent's service" in said
    assert "all mounts are down" not in said
