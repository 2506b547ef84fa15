"""Waking up when something happens: signals, the mount table, the end of a look."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAIT = """
import sys, time
from s3mount_agent.system.wakeups import Wakeups
events = Wakeups()
events.wait(0)  # takes what happened before we looked
print("ready", flush=True)
began = time.monotonic()
while not events.wait(20) and time.monotonic() - began < 15:
    pass  # somebody mounts something
print(events.stopping, time.monotonic() - began < 15, flush=True)
events.wait(20 if events.stopping else 0)
print(time.monotonic() - began < 15)
"""


@pytest.mark.parametrize(
    ("number", "stopping"),
    [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, False)],
)
def test_a_signal_wakes_the_daemon(number: signal.Signals, stopping: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    rest, _ = child.communicate(timeout=30)
    assert rest.splitlines() == [f"{stopping} True", "True"]
    assert child.returncode == 0


MOUNT = """
import subprocess, sys, threading, time
from s3mount_agent.system.wakeups import Wakeups
events = Wakeups()
for words in (["mount", "-t", "tmpfs", "tmpfs", sys.argv[1]], ["umount", sys.argv[1]]):
    events.wait(0)
    began = time.monotonic()
    timer = threading.Timer(0.2, subprocess.run, [words])
    timer.start()
    events.wait(20)
    print(0.1 < time.monotonic() - began < 10)
    timer.join()
    time.sleep(0.2)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_change_of_the_mount_table_wakes_the_daemon(tmp_path: Path) -> None:
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", MOUNT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout.split() == ["True", "True"], answer.stderr


# A user mounts as fast as he can; who waits does so again and again, as the daemon does.
STORM = """
import ctypes, sys, threading, time
from s3mount_agent.system.wakeups import Wakeups
events = Wakeups()
libc, target = ctypes.CDLL(None, use_errno=True), sys.argv[1].encode()
changes = 0
def storm():
    global changes
    while changes < 2000 or time.monotonic() - began < 2:
        libc.mount(target, target, None, 4096, None)
        libc.umount2(target, 2)
        changes += 2
    print("calm")
began = time.monotonic()
thread = threading.Thread(target=storm)
thread.start()
woken = looks = 0
while thread.is_alive():
    events.wait(1)
    woken += 1
    looks += events.take_table_change()
seconds = time.monotonic() - began
print(looks <= 4 * seconds + 2 and woken <= 5 * seconds + 3, looks > 3)
# Nothing of it is lost: the last change is seen, if late.
libc.mount(target, target, None, 4096, None)
events.wait(1)
print(events.take_table_change())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_storm_of_mounts_wakes_the_daemon_a_few_times_a_second(tmp_path: Path) -> None:
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", STORM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.stdout.split() == ["calm", "True", "True", "True"], answer.stderr


PIPE = """
import os, threading, time
from s3mount_agent.system.wakeups import Wakeups
events = Wakeups()
events.wait(0)
reader, writer = os.pipe()
os.write(writer, b"said before the end")
began, times = time.monotonic(), 0
while time.monotonic() - began < 0.2:  # others may mount something meanwhile
    happened, times = events.wait(0.2, (), [reader]), times + 1
print(happened, times < 5, end=" ")
began = time.monotonic()
threading.Timer(0.2, os.close, [writer]).start()
print(events.wait(20, (), [reader]), time.monotonic() - began < 15)
"""


def test_the_end_of_a_look_wakes_the_daemon_and_is_no_event() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PIPE], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout.split() == ["False", "True", "False", "True"], answer.stderr


OLD = """
import os, time
del os.pidfd_open
from s3mount_agent.system.wakeups import Wakeups
events = Wakeups()
events.wait(0)
began = time.monotonic()
while time.monotonic() - began < 0.3:  # others may mount something meanwhile
    print(events.wait(0.3, [os.getpid()]))
"""


def test_a_python_that_knows_no_pidfd_looks_after_mounts_all_the_same() -> None:
    """One that was built on EL8's kernel."""
    answer = subprocess.run(
        [sys.executable, "-c", OLD], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert set(answer.stdout.split()) == {"False"}
