"""Work in several threads: results in order, errors, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from s3mount_agent.system.threads import together

# A shell starts what is to run in the background with SIGINT ignored, and so are these tests.
INTERRUPTED = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from s3mount_agent.system.threads import together
def hang(): sys.stdout.write("hanging\\n"); sys.stdout.flush(); threading.Event().wait()
try:
    together([hang, hang], at_once=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_results_come_in_the_order_of_the_jobs(at_once: int) -> None:
    def job(number: int) -> int:
        time.sleep(0.001 * (20 - number))
        return number

    jobs = [lambda number=number: job(number) for number in range(20)]
    assert together(jobs, at_once=at_once) == list(range(20))


def test_no_more_run_at_a_time_than_may() -> None:
    lock = threading.Lock()
    running, most = 0, 0

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    together([job] * 12, at_once=3)
    assert 2 <= most <= 3


def test_an_error_is_raised_once_all_are_done() -> None:
    ended = []

    def fail() -> None:
        raise LookupError("first")

    def later() -> None:
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(LookupError):
        together([later, fail], at_once=2)
    assert ended == [True]


def test_after_ctrl_c_nobody_waits_for_what_hangs() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(2):
            assert child.stdout.readline() == b"hanging\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.read() == b"interrupted\n"
        assert child.wait(20) == 0
