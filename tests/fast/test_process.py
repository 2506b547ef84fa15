"""Other programs: run to their end, never longer than agreed; and the lock between them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import lock, procfs
from s3mount_agent.system import journal, process

HOLD = """
import sys, time
from pathlib import Path
from s3mount_agent.filesystem import lock, procfs
with lock.hold("bootstrap", timeout=5, path=Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

SHOW = """
import sys
from pathlib import Path
from s3mount_agent import cli
seen = Path("/proc/self/cmdline")
before = seen.read_bytes()
cli.main(sys.argv[1:])
print(repr(before.split(b"\\0")[3:-1]))
print(repr(seen.read_bytes().rstrip(b"\\0").split(b"\\0")[3:]))
print(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://h/k?X-Amz-Signature=SECRETWORD", "https://h/k?***"),
        ("--config=https://u:SECRETWORD@h/k", "--config=https://***@h/k"),
        ("--allow-other --endpoint-url http://u:p@h", "--allow-other --endpoint-url http://***@h"),
        ("é?SECRET=abc", "é?SECRET=***"),
        ("s3://bucket/key@2", "s3://bucket/key@2"),
    ],
)
def test_nobody_sees_the_secrets_in_our_command_line(given: str, shown: str) -> None:
    """ps, and journald, which writes it down with each entry."""
    answer = subprocess.run(
        [sys.executable, "-c", SHOW, "hostname", given, "last"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    before, after, kept = answer.stdout.splitlines()
    assert before == repr([b"hostname", given.encode(), b"last"])
    assert after == repr([b"hostname", shown.encode(), b"last"])
    assert kept == repr(["hostname", given, "last"])


def test_output_and_code_are_kept() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = process.run([sys.executable, "-c", code], timeout=20, check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.last_words() == "err"


def test_with_debug_each_program_is_told_with_its_end_and_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "_traced", False)
    process.run(["true"], timeout=20)
    assert capsys.readouterr().err == ""
    process.trace()
    process.run(["sh", "-c", "exit 3"], timeout=20, check=False)
    with pytest.raises(AgentError):
        process.run(["sleep", "60"], timeout=0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\+ sh -c 'exit 3' -> 3 \(\d+\.\d{3} s\)", lines[0])
    assert re.fullmatch(r"\+ sleep 60 -> killed \(\d+\.\d{3} s\)", lines[1])


def test_a_failing_program_is_an_error_with_its_own_words() -> None:
    with pytest.raises(AgentError) as caught:
        process.run(["sh", "-c", "echo 'no such bucket' >&2; exit 5"], timeout=20)
    assert caught.value.problem is Problem.PROGRAM_FAILED
    assert caught.value.cause == "no such bucket"
    assert "ended with 5" in caught.value.message


def test_the_command_in_an_error_can_be_pasted_into_a_shell() -> None:
    done = process.run(["printf", "%s", "a b;c"], timeout=20)
    assert done.stdout == "a b;c"
    again = subprocess.run(["sh", "-c", done.command], capture_output=True, check=True, text=True)
    assert again.stdout == done.stdout


def test_a_missing_program_is_an_error() -> None:
    with pytest.raises(AgentError) as caught:
        process.run(["/no/such/program"], timeout=1)
    assert caught.value.problem is Problem.PROGRAM_FAILED
    assert "/no/such/program" in caught.value.message


@pytest.mark.parametrize("pidfd", [True, False])
def test_past_its_time_a_program_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    """Also by a Python that was built on a kernel without pidfd_open(2), as on EL8."""
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
        assert process.run(["sh", "-c", "echo done"], timeout=20).stdout == "done\n"
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(AgentError) as caught:
        process.run(
            ["sh", "-c", f"echo working; echo $$ >{pid_file}; trap '' TERM; exec sleep 60"],
            timeout=0.5,
        )
    assert caught.value.problem is Problem.PROGRAM_TIMEOUT
    assert caught.value.cause == "working"
    assert time.monotonic() - began < 40
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_grandchild_that_keeps_stdout_open_is_not_waited_for(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    done = process.run(["sh", "-c", f"sleep 30 & echo $! >{pid_file}; echo done"], timeout=20)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert done.stdout == "done\n"
    assert time.monotonic() - began < 15


def test_output_that_is_not_utf8_is_shown_as_far_as_it_can_be() -> None:
    done = process.run(["printf", r"a\377b\303\274"], timeout=20)
    assert done.stdout == "a\ufffdb\u00fc"
    done.stdout.encode()


def test_much_output_is_kept_and_does_not_block() -> None:
    done = process.run([sys.executable, "-c", "print('x' * 3_000_000)"], timeout=20)
    assert len(done.stdout) == 3_000_001


def test_a_program_reads_nothing_from_our_stdin() -> None:
    assert process.run(["cat"], timeout=20).stdout == ""


def test_a_program_has_a_session_of_its_own() -> None:
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert process.run([sys.executable, "-c", code], timeout=20).stdout == "True\n"


def test_the_environment_is_usable_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "HOME", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    code = 'echo "$HOME:$LC_ALL:${NOTIFY_SOCKET-none}:$EXTRA"; command -v sh'
    done = process.run(["sh", "-c", code], timeout=20, extra_environment={"EXTRA": "x"})
    first, found = done.stdout.splitlines()
    assert first == "/root:C.UTF-8:none:x"
    assert found.endswith("/sh")


def test_programs_come_from_the_system_whatever_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 12edeff a bucket mounted on /usr/local/sbin gave us our next `systemctl`."""
    evil = tmp_path / "sh"
    evil.write_text("#!/bin/sh\necho pwned\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/local/sbin")
    done = process.run(["sh", "-c", "command -v sh; echo $PATH"], timeout=20)
    assert done.stdout.splitlines()[0] in ("/usr/bin/sh", "/bin/sh")
    assert done.stdout.splitlines()[1] == "/usr/sbin:/usr/bin:/sbin:/bin"
    with pytest.raises(AgentError, match="no no-such-program"):
        process.run(["no-such-program"], timeout=1)


def holding(path: Path, seconds: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    return child


def test_who_waits_for_the_lock_gets_it_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run/lock"
    child = holding(path, 0.6)
    began = time.monotonic()
    with lock.hold("apply", timeout=20, path=path):
        assert time.monotonic() - began > 0.2
        assert lock.holder(path) == os.getpid()
    assert child.wait(10) == 0
    assert lock.holder(path) is None


def test_past_the_timeout_the_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = holding(path, 30)
    try:
        began = time.monotonic()
        with pytest.raises(AgentError) as caught, lock.hold("apply", timeout=0.3, path=path):
            pass
        assert 0.2 < time.monotonic() - began < 20
        assert caught.value.problem is Problem.LOCKED
        assert f"bootstrap, pid {child.pid}, since 20" in caught.value.message
        assert lock.holder(path) == child.pid
    finally:
        child.kill()
        child.wait()


def test_the_death_of_the_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = holding(path, 30)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with lock.hold("apply", timeout=0, path=path):
        pass


def test_an_error_under_the_lock_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), lock.hold("apply", timeout=0, path=path):
        raise ZeroDivisionError
    assert lock.holder(path) is None
    with lock.hold("apply", timeout=0, path=path):
        pass


def test_a_lock_that_nobody_ever_held_has_no_holder(tmp_path: Path) -> None:
    assert lock.holder(tmp_path / "none") is None


def test_a_programs_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold("apply", timeout=0, path=path):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        assert lock.holder(path) is None
    finally:
        child.kill()
        child.wait()


def test_a_place_without_a_lock_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AgentError) as caught,
        lock.hold("x", timeout=0, path=tmp_path / "file/lock"),
    ):
        pass
    assert caught.value.problem is Problem.FILE_FAILED


def test_the_processor_time_of_a_process_that_stops_stands_still() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: sum(range(1000))"]) as child:
        try:
            before = procfs.processor_seconds(child.pid)
            while procfs.processor_seconds(child.pid) <= before:
                time.sleep(0.01)
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
            stopped = procfs.processor_seconds(child.pid)
            time.sleep(0.2)
            assert procfs.processor_seconds(child.pid) == stopped > 0
        finally:
            child.kill()
    assert procfs.processor_seconds(child.pid) == 0


@pytest.mark.parametrize("there", [False, True], ids=["no journalctl", "journalctl fails"])
def test_a_journal_that_cannot_be_read_is_no_reason_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        program = tmp_path / "journalctl"
        program.write_text("#!/bin/sh\nkill -9 $$\n")
        program.chmod(0o755)
    monkeypatch.setattr(process, "_PLACES", (str(tmp_path),))
    monkeypatch.setattr(journal, "_silent_until", {})
    assert journal.last_words("mount-s3", 1) == ""
