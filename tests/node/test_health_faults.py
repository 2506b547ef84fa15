"""Whatever happens to a mount, it comes back, in the right states, and the others notice nothing.

Every fault befalls a mount of its own; all of them happen at the same time, on a node of each mode.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Callable

import pytest

from cluster.cluster import Cluster
from node.article import main_pid, status
from node.conftest import NewNode
from node.health_relay import Relay
from node.health_ward import BIG, BIG_BYTES, CALM, PATIENCE, SEEN, Reading, Ward, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(420)]

ROLES = ("compute", "head")
# What a mount may pass through on its way back, which takes half a second.
MENDING = ("ok", "stale", "missing", "starting")
PROMETHEUS = "/var/lib/node_exporter/textfile_collector/s3mount.prom"
HUNG_AFTER, LOOK_EVERY = 10, 5

# Reads a file over and over until a read fails, and then tells how.
READ_UNTIL_ERROR = """
import os, sys
print("reading", flush=True)
try:
    while True:
        descriptor = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)
        while os.read(descriptor, 1 << 16):
            pass
        os.close(descriptor)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""
# Writes a file slowly until that fails.
WRITE_UNTIL_ERROR = """
import os, sys, time
try:
    descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    while True:
        os.write(descriptor, bytes(1 << 16))
        print("written", flush=True)
        time.sleep(0.05)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""
# Looks whether a file is ever anything but whole.
READ_FIGURES = """
import select, sys
from pathlib import Path
torn, seen = [], 0
print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    try:
        text = Path(sys.argv[1]).read_text()
    except FileNotFoundError:
        continue
    seen += 1
    if not text.endswith("\\n") or text.count("# HELP") != 5:
        torn.append(text)
print(seen, torn)
"""


# Each takes a node and the name of a mount on it.


def killed_idle(ward: Ward, name: str) -> None:
    began, pid = time.monotonic(), ward.pid(name)
    ward.note("SIGKILL", ward.break_and_wait(name, "kill", "-KILL", str(pid)))
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    assert ward.pid(name) != pid
    ward.usable(name)
    assert ("start", "failed") in ward.events(name) or ward.node.name.startswith("head")


def killed_with_its_group(ward: Ward, name: str) -> None:
    """As the kernel does when memory is short: the whole control group at once."""
    began, pid = time.monotonic(), ward.pid(name)
    group = f"/sys/fs/cgroup/system.slice/{ward.unit(name)}/cgroup.kill"
    ward.note("cgroup kill", ward.break_and_wait(name, "sh", "-c", f"echo 1 >{group}"))
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    assert ward.pid(name) != pid
    ward.usable(name)


def killed_while_read(ward: Ward, name: str) -> None:
    ward.cluster.s3.put(ward.bucket(name), BIG, bytes(BIG_BYTES))
    began, pid = time.monotonic(), ward.pid(name)
    with ward.python(READ_UNTIL_ERROR, f"{ward.directory(name)}/{BIG}") as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        ward.note("SIGKILL, reading", ward.break_and_wait(name, "kill", "-KILL", str(pid)))
        words, _ = reader.communicate(timeout=PATIENCE)
    assert words.strip() in {
        "Transport endpoint is not connected",
        "Software caused connection abort",
        "Input/output error",
        "No such file or directory",  # between two mounts the directory is empty
    }
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    size = ward.node.run(["wc", "-c", f"{ward.directory(name)}/{BIG}"], user="ubuntu").stdout
    assert size.split()[0] == str(BIG_BYTES)


def killed_while_written(ward: Ward, name: str) -> None:
    began, pid = time.monotonic(), ward.pid(name)
    with ward.python(WRITE_UNTIL_ERROR, f"{ward.directory(name)}/half") as writer:
        assert writer.stdout is not None
        for _ in range(5):
            assert writer.stdout.readline() == "written\n"
        ward.note("SIGKILL, writing", ward.break_and_wait(name, "kill", "-KILL", str(pid)))
        words, _ = writer.communicate(timeout=PATIENCE)
    assert words.splitlines()[-1] in {
        "Transport endpoint is not connected",
        "Software caused connection abort",
        "Input/output error",
    }
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    # What was not finished is not there, and can be written now.
    assert "half" not in ward.cluster.s3.keys(ward.bucket(name))
    ward.node.run(["sh", "-c", 'echo whole >"$0"', f"{ward.directory(name)}/half"], user="ubuntu")
    assert ward.cluster.s3.get(ward.bucket(name), "half") == b"whole\n"


def unmounted(ward: Ward, name: str) -> None:
    began, pid = time.monotonic(), ward.pid(name)
    ward.note("umount", ward.break_and_wait(name, "umount", ward.directory(name)))
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    assert ward.pid(name) != pid
    ward.usable(name)


def unmounted_lazily(ward: Ward, name: str) -> None:
    began, pid = time.monotonic(), ward.pid(name)
    ward.note("umount -l", ward.break_and_wait(name, "umount", "-l", ward.directory(name)))
    ward.await_state(name, "ok")
    ward.require_only(name, began, *MENDING)
    assert ward.pid(name) != pid
    ward.usable(name)


def mounted_over(ward: Ward, name: str) -> None:
    """Somebody else's mount is never touched, and ours lives on below it."""
    node, directory = ward.node, ward.directory(name)
    began, pid = time.monotonic(), ward.pid(name)
    node.run(["mount", "-t", "tmpfs", "-o", "size=1m", "somebody", directory])
    node.write(f"{directory}/precious", "mine\n")
    row = ward.await_state(name, "foreign")
    assert row["reason"] == "something else is mounted on this directory"
    for _ in range(3):
        node.run(["systemctl", "reload", "s3mount-agent"])
        asked = time.monotonic()
        ward.await_state(name, "foreign")
        assert ward.states_since(name, asked) == ["foreign"]
    node.run(["s3mount-agent", "apply", "--now"], check=False)
    assert node.read(f"{directory}/precious") == "mine\n"
    assert main_pid(node, ward.unit(name)) == pid
    node.run(["umount", directory])
    ward.await_state(name, "ok")
    ward.require_only(name, began, "ok", "foreign")
    assert ward.pid(name) == pid
    ward.usable(name)


def hung(ward: Ward, name: str) -> None:
    """Whoever waits for an answer is free again in the documented time."""
    began = time.monotonic()
    pid = ward.pid(name)
    list_it = "import os, sys; print('ready', flush=True); input(); os.listdir(sys.argv[1])"
    with ward.python(list_it, ward.directory(name)) as blocked:
        assert blocked.stdin is not None
        assert blocked.stdout is not None
        assert blocked.stdout.readline() == "ready\n"
        ward.signal(name, "STOP")
        stopped = time.monotonic()
        _, words = blocked.communicate("go\n", timeout=PATIENCE)
    ward.note("hang: blocked reader is free", freed := time.monotonic() - stopped)
    assert "Software caused connection abort" in words or "not connected" in words, words
    # The documented time, and a little for what the machine is busy with.
    assert freed < HUNG_AFTER + LOOK_EVERY * 1.2 + 12
    ward.await_state(name, "hung", since=stopped)
    ward.await_state(name, "ok")
    states = ward.states_since(name, began)
    assert set(states) <= {*MENDING, "hung"}, states
    assert states[:2] == ["ok", "hung"]
    assert states.count("hung") == 1
    assert ward.pid(name) != pid
    assert not ward.node.exists(f"/proc/{pid}")
    assert ("health", "hung") in ward.events(name)
    ward.usable(name)


def hung_while_s3_is_slow(ward: Ward, name: str) -> None:
    """A look at S3 that waits for its answer is no reason to overlook a hang."""
    bucket, pid = ward.bucket(name), ward.pid(name)
    before = ward.cluster.s3.requests(bucket)
    ward.cluster.s3.fault(bucket, status=200, delay=25)
    until(lambda: ward.cluster.s3.requests(bucket) > before)  # of the daemon's probe
    time.sleep(1)
    ward.signal(name, "STOP")
    stopped = time.monotonic()
    ward.cluster.s3.heal(bucket)
    ward.await_state(name, "hung", since=stopped)
    until(lambda: not ward.node.exists(f"/proc/{pid}"))
    ward.note("hang beside slow S3: ended", ended := time.monotonic() - stopped)
    assert ended < HUNG_AFTER + LOOK_EVERY * 1.2 + 12
    ward.await_state(name, "ok")
    assert ward.pid(name) != pid
    ward.usable(name)


def s3_answers(
    status: int, code: str, message: str, reason: str, error_code: str, hint: str
) -> Callable[[Ward, str], None]:
    """S3 answers with an error for a while: told, and the mount is left alone."""

    def befall(ward: Ward, name: str) -> None:
        s3, bucket = ward.cluster.s3, ward.bucket(name)
        began, pid = time.monotonic(), ward.pid(name)
        s3.fault(bucket, status=status, code=code, message=message)
        require_degraded(ward, name, reason, error_code, hint)
        s3.heal(bucket)
        require_healed(ward, name, began, pid)

    return befall


def require_degraded(ward: Ward, name: str, reason: str, error_code: str, hint: str) -> None:
    row = ward.await_state(name, "degraded")
    assert re.search(reason, row["reason"]), row
    table = ward.node.run(["s3mount-agent", "status"], check=False).stdout.splitlines()
    at = next(n for n, line in enumerate(table) if f" {ward.directory(name)} " in line)
    assert table[at].split()[0] == "degraded"
    assert hint in table[at + 2], table[at : at + 3]
    entries = [e for e in ward.told(name) if e["S3MOUNT_RESULT"] == "degraded"]
    assert [entry["S3MOUNT_ERROR_CODE"] for entry in entries] == [error_code], entries
    answer = ward.node.run(["cat", f"{ward.directory(name)}/none"], check=False, user="ubuntu")
    assert "Input/output error" in answer.stderr  # the user's own words for it


def require_healed(ward: Ward, name: str, began: float, pid: int) -> None:
    healed = time.monotonic()
    ward.await_state(name, "ok")
    ward.note("S3 is well: ok", time.monotonic() - healed)
    ward.require_only(name, began, "ok", "degraded")
    assert ward.states_since(name, began) == ["ok", "degraded", "ok"]
    assert ward.pid(name) == pid
    assert ward.events(name)[-2:] == [("health", "degraded"), ("health", "recovered")]
    ward.usable(name)


def s3_is_slow(ward: Ward, name: str) -> None:
    """Slow is not hung: nothing is ended, and who reads gets what is there."""
    bucket = ward.bucket(name)
    began, pid = time.monotonic(), ward.pid(name)
    ward.cluster.s3.fault(bucket, status=200, delay=9)
    read = ward.node.popen(["cat", f"{ward.directory(name)}/{SEEN}"], user="ubuntu")
    with read:
        words, errors = read.communicate(timeout=PATIENCE)
    assert words == "seen\n", errors
    until(lambda: time.monotonic() - began > 4 * HUNG_AFTER)
    ward.cluster.s3.heal(bucket)
    ward.await_state(name, "ok")
    ward.require_only(name, began, "ok")
    assert ward.pid(name) == pid


def throttled(ward: Ward, name: str) -> None:
    """A process that hardly ever gets the processor answers late, but it answers."""
    began, pid = time.monotonic(), ward.pid(name)
    try:
        while time.monotonic() - began < 4 * HUNG_AFTER:
            ward.node.run(["kill", "-STOP", str(pid)])
            time.sleep(6)
            ward.node.run(["kill", "-CONT", str(pid)])
            time.sleep(0.5)
    finally:
        ward.node.run(["kill", "-CONT", str(pid)])
    ward.await_state(name, "ok")
    ward.require_only(name, began, "ok")
    assert ward.pid(name) == pid


def fails_for_good(ward: Ward, name: str) -> None:
    """A bucket that is deleted: the next start fails, once, and waits for somebody."""
    s3, bucket = ward.cluster.s3, ward.bucket(name)
    s3.fault(bucket, status=404, code="NoSuchBucket", message="The bucket does not exist")
    ward.signal(name, "KILL")
    row = ward.await_state(name, "failed")
    assert "does not exist" in row["reason"]
    failed = [e for e in ward.told(name) if e["S3MOUNT_RESULT"] == "failed"]
    # Its death may be told before it is known why it does not come back.
    assert failed[-1]["S3MOUNT_ERROR_CODE"] == "bucket-missing"
    assert "does not exist" in failed[-1]["S3MOUNT_CAUSE"]
    assert len(failed[-1]["S3MOUNT_CAUSE"]) < 2000
    assert len(failed) <= 2
    asked = s3.requests(bucket)
    since = time.monotonic()
    until(lambda: time.monotonic() - since > 12)
    assert s3.requests(bucket) == asked  # nobody tries in vain
    assert ward.states_since(name, since) == ["failed"]
    s3.heal(bucket)
    ward.node.run(["s3mount-agent", "apply"], timeout=PATIENCE)
    ward.await_state(name, "ok")
    ward.usable(name)


def fails_for_a_while(ward: Ward, name: str) -> None:
    """Attempts are made further and further apart, and the same trouble is told once."""
    s3, bucket = ward.cluster.s3, ward.bucket(name)
    s3.fault(bucket, status=503, code="SlowDown", message="Please reduce your request rate.")
    began = time.monotonic()
    ward.signal(name, "KILL")
    row = ward.await_state(name, "retrying", since=began)
    until(lambda: "throttle" in ward.now(name)["reason"], lambda: ward.now(name))
    assert row["pid"] is None
    until(lambda: time.monotonic() - began > 25)
    told = [entry.get("S3MOUNT_ERROR_CODE") for entry in ward.told(name)]
    assert told.count("s3-throttled") == 1, told
    starts = attempts(ward, name)
    assert 3 <= len(starts) <= 16
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    assert max(gaps) > 2.5, gaps
    s3.heal(bucket)
    healed = time.monotonic()
    ward.await_state(name, "ok")
    ward.note("S3 is well: mounted (at most 8 s pause)", time.monotonic() - healed)
    ward.require_only(name, began, *MENDING, "retrying")
    until(lambda: ("start", "recovered") in ward.events(name), lambda: ward.events(name))
    ward.usable(name)


def attempts(ward: Ward, name: str) -> list[float]:
    """When systemd began to start a mount, in seconds."""
    starting = "7d4958e842da4a758f6c1cdc7b36dcc5"  # SD_MESSAGE_UNIT_STARTING
    words = ["journalctl", "--no-pager", "-o", "json", f"UNIT={ward.unit(name)}"]
    answer = ward.node.run([*words, f"MESSAGE_ID={starting}"])
    entries = [json.loads(line) for line in answer.stdout.splitlines()]
    return [int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 for entry in entries][1:]


def s3_answers_garbage(ward: Ward, name: str, relay: Relay) -> None:
    began, pid = time.monotonic(), ward.pid(name)
    with relay.talking_garbage():
        require_degraded(ward, name, "S3 cannot be reached", "s3-unreachable", "route to S3")
    require_healed(ward, name, began, pid)


SCENARIOS: dict[str, Callable[[Ward, str], None]] = {
    "killed-idle": killed_idle,
    "killed-with-its-group": killed_with_its_group,
    "killed-while-read": killed_while_read,
    "killed-while-written": killed_while_written,
    "unmounted": unmounted,
    "unmounted-lazily": unmounted_lazily,
    "mounted-over": mounted_over,
    "hung": hung,
    "hung-beside-slow-s3": hung_while_s3_is_slow,
    "s3-403": s3_answers(
        403, "AccessDenied", "Access Denied", "denies access", "access-denied", "s3:ListBucket"
    ),
    "s3-404": s3_answers(
        404, "NoSuchBucket", "It is gone", "does not exist", "bucket-missing", "bucket's name"
    ),
    "s3-500": s3_answers(
        500, "InternalError", "We failed", "answers with errors", "s3-errors", "recovers when S3"
    ),
    "s3-503": s3_answers(
        503, "SlowDown", "Slow down", "throttles", "s3-throttled", "too many requests"
    ),
    "s3-expired": s3_answers(
        400, "ExpiredToken", "The provided token has expired.",
        "credentials", "credentials-missing", "instance profile",
    ),
    "s3-slow": s3_is_slow,
    "throttled": throttled,
    "fails-for-good": fails_for_good,
    "fails-for-a-while": fails_for_a_while,
}  # fmt: skip
GARBAGE = "s3-garbage"
Outcomes = dict[tuple[str, str], "Future[None]"]


class Run:
    """All scenarios under way on a node of each role."""

    def __init__(self, wards: dict[str, Ward], outcomes: Outcomes) -> None:
        self.wards = wards
        self.outcomes = outcomes
        self.calm: dict[str, list[Reading]] = {}
        self.calm_pids: dict[str, int] = {}
        self.figures: dict[str, str] = {}
        self._end = threading.Event()

    def attend(self, role: str, ward: Ward) -> None:
        """Reads all the time where nothing happens, and looks at the file of figures."""
        with ward.python(READ_FIGURES, PROMETHEUS, user=None) as figures:
            with ward.reader(CALM) as readings:
                self._end.wait()
            self.calm[role] = readings
            self.figures[role], _ = figures.communicate(timeout=PATIENCE)

    def finish(self) -> None:
        """Waits for the end of all scenarios."""
        for outcome in self.outcomes.values():
            outcome.exception()
        self._end.set()


@pytest.fixture(scope="module")
def run(cluster: Cluster, new_ready_module_node: NewNode) -> Iterator[Run]:
    relay = Relay(cluster.network.address, cluster.s3.url)
    wards = {}
    for role in ROLES:
        names = (*SCENARIOS, GARBAGE)
        ward = Ward(cluster, new_ready_module_node(role), names, **{GARBAGE: relay.url})
        wards[role] = ward
    with ExitStack() as stack:
        stack.callback(relay.close)
        pool = stack.enter_context(ThreadPoolExecutor(64))
        metrics = {"prometheus": PROMETHEUS, "cloudwatch": True, "namespace": "Health"}
        list(pool.map(lambda ward: ward.bootstrap(metrics=metrics), wards.values()))
        for ward in wards.values():
            stack.enter_context(ward.watched())
            for name in ward.names:
                ward.await_state(name, "ok")
        run = Run(wards, {})
        stack.callback(run.finish)
        attendants = []
        for role, ward in wards.items():
            run.calm_pids[role] = ward.pid(CALM)
            attendants.append(pool.submit(run.attend, role, ward))
            for name, scenario in SCENARIOS.items():
                run.outcomes[role, name] = pool.submit(scenario, ward, name)
            outcome = pool.submit(s3_answers_garbage, ward, GARBAGE, relay)
            run.outcomes[role, GARBAGE] = outcome
        yield run
        run.finish()
        for attendant in attendants:
            attendant.result()
        for ward in wards.values():
            print(
                f"\n{ward.node.name}: "
                + ", ".join(f"{k} {v:.1f} s" for k, v in ward.numbers.items())
            )


@pytest.mark.parametrize("name", [*SCENARIOS, GARBAGE])
@pytest.mark.parametrize("role", ROLES)
def test_a_mount_survives_being(run: Run, role: str, name: str) -> None:
    run.outcomes[role, name].result(timeout=400)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_else_noticed_and_nothing_is_left(run: Run, role: str) -> None:
    run.finish()
    ward = run.wards[role]
    ward.require_nothing_left()
    until(lambda: role in run.figures)
    (reading,) = run.calm[role]
    assert reading.errors == []
    assert reading.reads > 100
    assert ward.pid(CALM) == run.calm_pids[role]
    ward.require_only(CALM, 0, "ok")
    assert ward.told(CALM)[1:] == []  # since it was mounted
