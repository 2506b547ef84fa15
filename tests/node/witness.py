"""What users of a node see while something happens to one of its mounts, and what is left after."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from node.article import mounted, pids, status
from node.live_site import PATIENCE, SEEN, until

if TYPE_CHECKING:
    from cluster.command import Command
    from cluster.node import Node

# Health that is looked at often, so that a test need not wait for minutes.
QUICK = {
    "look_every": "5s",
    "check_s3_every": "8s",
    "hung_after": "10s",
    "retry_at_most_every": "5s",
}
# Opens, reads and lists again and again until its input ends; then it tells what it has seen.
_READER = """
import json, os, select, sys, time
paths, count, errors = sys.argv[1:], 0, []
print("reading", flush=True)
while not select.select([0], [], [], 0.02)[0]:
    for path in paths:
        began = time.time()
        try:
            with open(path) as file:
                file.read()
            os.listdir(os.path.dirname(path))
            count += 1
        except OSError as error:
            errors.append(f"{path} at {began:.3f}: {error}")
print(json.dumps({"count": count, "errors": errors}))
"""


@contextlib.contextmanager
def undisturbed(node: Node, *directories: str, name: str = SEEN) -> Iterator[None]:
    """An ordinary user reads these mounts all the while, and must see no error at all."""
    paths = [f"{directory}/{name}" for directory in directories]
    command = node.popen(["python3", "-c", _READER, *paths], user="ubuntu", stdin=subprocess.PIPE)
    with command:
        try:
            assert command.stdout is not None
            assert command.stdin is not None
            assert command.stdout.readline() == "reading\n"
            yield
            command.stdin.close()
            seen = json.loads(command.stdout.readline())
        finally:
            command.kill()
    assert seen["errors"] == []
    assert seen["count"] >= len(paths), "the reader was kept waiting"


def states_until(node: Node, directory: str, last: str, *, first: str = "") -> list[str]:
    """The states of a mount as `status` tells them one after the other, up to ``last``; it begins
    to count only with ``first``, if there is one."""
    seen: list[str] = []

    def arrived() -> bool:
        mounts = {mount["path"]: mount for mount in status(node)["mounts"]}
        state = mounts[directory]["state"]
        if (seen or not first or state == first) and seen[-1:] != [state]:
            seen.append(state)
        return seen[-1:] == [last] and (not first or len(seen) > 1 or first == last)

    until(arrived, lambda: (seen, status(node)["mounts"]))
    return seen


def courses_until(node: Node, last: Mapping[str, str]) -> dict[str, list[str]]:
    """The states of every mount as `status` tells them one after the other, by directory, up to
    where each is in its ``last`` one."""
    courses: dict[str, list[str]] = {}

    def arrived() -> bool:
        now = {mount["path"]: mount["state"] for mount in status(node)["mounts"]}
        for directory, state in now.items():
            course = courses.setdefault(directory, [])
            if course[-1:] != [state]:
                course.append(state)
        return now == last

    until(arrived, lambda: (courses, status(node)["mounts"]))
    return courses


def require_tidy(node: Node, *directories: str) -> None:
    """These are the mounts, one process each and nothing else: no stopped or dead process, no
    second mount on the same directory, no probe that hangs."""

    def tidy() -> bool:
        running = node.run(["pgrep", "-x", "mount-s3"], check=False).stdout.split()
        lines = node.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
        points = [line.split()[4] for line in lines if " mountpoint-s3 " in line]
        daemon = node.run(
            ["systemctl", "show", "--property=ControlGroup", "--value", "s3mount-agent"]
        ).stdout.strip()
        group = node.run(["cat", f"/sys/fs/cgroup{daemon}/cgroup.procs"]).stdout.split()
        return (
            sorted(map(int, running)) == sorted(pids(node).values())
            and sorted(points) == sorted(directories) == sorted(mounted(node))
            and len(group) == 1
        )

    until(tidy, lambda: node.run(["ps", "-ef", "--forest"]).stdout)


# Asks for the states of all mounts again and again until its input ends; then it tells them.
_ASKER = """
import json, select, subprocess
told = {}
def ask():
    command = ["s3mount-agent", "status", "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    for mount in json.loads(answer.stdout)["mounts"]:
        states = told.setdefault(mount["path"], [])
        if states[-1:] != [mount["state"]]:
            states.append(mount["state"])
ask()
print("asking", flush=True)
while not select.select([0], [], [], 0.05)[0]:
    ask()
ask()
print(json.dumps(told))
"""

# Opens and reads a file again and again until its input ends; then it tells how that went.
_USER = """
import errno, json, select, sys
path, seen = sys.argv[1], []
def use():
    try:
        with open(path) as file:
            file.read()
        return "read"
    except OSError as error:
        return errno.errorcode[error.errno]
def note(outcome):
    if seen[-1:] != [outcome]:
        seen.append(outcome)
note(use())
print("reading", flush=True)
while not select.select([0], [], [], 0.01)[0]:
    note(use())
note(use())
print(json.dumps(seen))
"""


@contextlib.contextmanager
def told_states(node: Node) -> Iterator[dict[str, list[str]]]:
    """Asks `status` all the while, and it always answers; at the end there is each mount's state by
    its directory, as often as it has changed, from what it was at the beginning."""
    told: dict[str, list[str]] = {}
    command = node.popen(["python3", "-c", _ASKER], stdin=subprocess.PIPE)
    with _watching(command, "asking\n") as answer:
        yield told
    told.update(json.loads(answer[0]))


@contextlib.contextmanager
def outcomes(node: Node, path: str) -> Iterator[list[str]]:
    """An ordinary user reads a file again and again; at the end there is "read" or the name of the
    error, as often as that has changed."""
    seen: list[str] = []
    command = node.popen(["python3", "-c", _USER, path], user="ubuntu", stdin=subprocess.PIPE)
    with _watching(command, "reading\n") as answer:
        yield seen
    seen += json.loads(answer[0])


@contextlib.contextmanager
def _watching(command: Command, first: str) -> Iterator[list[str]]:
    """Waits until a program has begun to watch, and has it end; its answer is there only then."""
    answer: list[str] = []
    with command:
        try:
            assert command.stdout is not None
            assert command.stdin is not None
            assert command.stdout.readline() == first
            yield answer
            stdout, stderr = command.communicate(timeout=PATIENCE)
            assert command.returncode == 0, stderr
            answer.append(stdout)
        finally:
            command.kill()
