"""Mounts that lose their process, their answers or their place, and come back while others stay.

The words in which the journal tells it are another module's.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster
from node.conftest import NewNode
from node.live_site import PATIENCE, SEEN, Site, until
from node.scene import ON_THE_WAY, OTHER, VICTIM, Scene
from node.witness import outcomes, require_tidy, undisturbed

pytestmark = pytest.mark.node

# What a program may see of a mount that has lost its process, and of the directory beneath it.
LOST = {"ENOTCONN", "ECONNABORTED", "ENOENT"}
# Writes a line, says so, and writes another one when it is told to.
WRITER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"first\\n")
    print("written", flush=True)
    sys.stdin.readline()
    file.write(b"second\\n")
"""


@pytest.fixture(scope="module", params=["head", "compute"])
def scene(
    cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest
) -> Scene:
    """A node of each role."""
    scene = Scene(Site(cluster, new_ready_module_node(request.param)))
    scene.site.bootstrap(scene.text())
    scene.site.await_mounts(VICTIM, OTHER)
    return scene


def test_a_mount_that_is_killed_while_nobody_uses_it_comes_back(scene: Scene) -> None:
    with scene.comes_back() as told:
        scene.send(signal.SIGKILL, scene.pid())
    scene.require_on_the_way(told)


def test_a_mount_that_is_killed_again_and_again_comes_back(scene: Scene) -> None:
    with scene.comes_back() as told:
        for _ in range(6):  # more often than systemd itself would start it
            lost = scene.pid()
            scene.send(signal.SIGKILL, lost)
            until(lambda: scene.site.mount(VICTIM)["pid"] not in (None, lost))  # noqa: B023
    scene.require_on_the_way(told, "ok")


def test_a_mount_that_is_asked_to_end_comes_back(scene: Scene) -> None:
    with scene.comes_back() as told:
        scene.send(signal.SIGTERM, scene.pid())  # it unmounts, and ends with 0
    scene.require_on_the_way(told)


def test_readers_of_a_mount_that_is_killed_see_an_error_and_then_their_files(scene: Scene) -> None:
    with outcomes(scene.node, f"{VICTIM}/{SEEN}") as seen, scene.comes_back() as told:
        scene.send(signal.SIGKILL, scene.pid())
    scene.require_on_the_way(told)
    first, *errors, last = seen
    assert (first, last) == ("read", "read")
    assert errors
    assert set(errors) <= LOST


def test_a_file_that_is_open_when_its_mount_is_killed_is_lost(scene: Scene) -> None:
    with scene.comes_back(), scene.site.in_use(VICTIM) as reader:
        scene.send(signal.SIGKILL, scene.pid())
        scene.site.await_mounts(VICTIM, OTHER)
        stdout, stderr = reader.communicate("\n")
        assert stdout == ""
        assert "cat: -: " in stderr


def test_a_write_that_is_cut_short_fails_and_works_when_it_is_done_again(scene: Scene) -> None:
    path = f"{VICTIM}/result.txt"
    command = ["python3", "-c", WRITER, path]
    with scene.node.popen(command, user="ubuntu", stdin=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with scene.comes_back() as told:
            scene.send(signal.SIGKILL, scene.pid())
        scene.require_on_the_way(told)
        _, stderr = writer.communicate("\n", timeout=PATIENCE)
        assert "OSError" in stderr
    # There is no half of it on S3, and nothing in the way of a whole.
    assert scene.s3.keys(scene.bucket) == [SEEN]
    scene.node.run(["sh", "-c", 'echo whole > "$0"', path], user="ubuntu")
    assert scene.s3.get(scene.bucket, "result.txt") == b"whole\n"
    scene.node.run(["rm", path], user="ubuntu")


@contextlib.contextmanager
def stopped(scene: Scene) -> Iterator[int]:
    """The mount hangs: its process is stopped, and goes on in the end if it still can."""
    pid = scene.pid()
    scene.send(signal.SIGSTOP, pid)
    try:
        yield pid
    finally:
        scene.node.run(["kill", "-CONT", str(pid)], check=False)


def await_state(scene: Scene, state: str) -> None:
    """Waits until `status` tells of this state."""
    until(lambda: scene.site.mount(VICTIM)["state"] == state, lambda: scene.site.mount(VICTIM))


def test_a_mount_that_hangs_is_ended_and_who_waits_for_it_is_free(scene: Scene) -> None:
    commands = (["cat", f"{VICTIM}/{SEEN}"], ["ls", VICTIM], ["touch", f"{VICTIM}/new"])
    with scene.comes_back() as told, contextlib.ExitStack() as ends, stopped(scene):
        waiting = [
            ends.enter_context(scene.node.popen(command, user="ubuntu")) for command in commands
        ]
        await_state(scene, "hung")
        assert [each.poll() for each in waiting] == [None] * 3
        for each in waiting:
            _, stderr = each.communicate(timeout=PATIENCE)
            assert each.returncode != 0
            assert VICTIM in stderr
    scene.require_on_the_way(told, "hung")
    assert told[VICTIM][:2] == ["ok", "hung"]
    assert told[VICTIM].count("hung") == 1


def test_a_mount_that_hangs_for_a_while_only_is_left_alone(scene: Scene) -> None:
    scene.site.set(scene.text(hung_after="20s"))
    before = scene.site.pids()
    with undisturbed(scene.node, OTHER):
        with contextlib.ExitStack() as end, stopped(scene):
            reader = end.enter_context(scene.node.popen(["cat", f"{VICTIM}/{SEEN}"]))
            await_state(scene, "hung")
            assert reader.poll() is None
            scene.send(signal.SIGCONT, before[VICTIM])
            assert reader.communicate(timeout=PATIENCE) == ("seen\n", "")
        await_state(scene, "ok")
    assert scene.site.pids() == before
    require_tidy(scene.node, VICTIM, OTHER)
    scene.site.set(scene.text())


@pytest.mark.parametrize("how", [[], ["-l"], ["-f"]], ids=["umount", "lazily", "by force"])
def test_a_mount_that_somebody_unmounts_comes_back(scene: Scene, how: list[str]) -> None:
    with scene.comes_back() as told:
        scene.node.run(["umount", *how, VICTIM])
    scene.require_on_the_way(told)


def test_a_mount_that_somebody_unmounts_lazily_under_a_writer_waits_for_him(scene: Scene) -> None:
    command = ["python3", "-c", WRITER, f"{VICTIM}/result.txt"]
    with scene.node.popen(command, user="ubuntu", stdin=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with scene.comes_back() as told:
            serves = scene.pid()
            scene.node.run(["umount", "-l", VICTIM])
            until(
                lambda: "python3 (pid " in scene.site.mount(VICTIM).get("pending", ""),
                lambda: scene.site.mount(VICTIM),
            )
            assert scene.site.mount(VICTIM)["state"] == "missing"
            scene.site.ask()
            answer = scene.site.agent("apply", code=4)
            assert "error [mount-busy]" in answer.stderr
            assert scene.site.pids()[VICTIM] == serves  # nor is there another, which it would end
            assert writer.communicate("\n", timeout=PATIENCE) == ("", "")
    assert set(told[VICTIM]) <= {"ok", *ON_THE_WAY}
    assert scene.s3.get(scene.bucket, "result.txt") == b"first\nsecond\n"
    scene.node.run(["rm", f"{VICTIM}/result.txt"], user="ubuntu")


@contextlib.contextmanager
def covered(scene: Scene) -> Iterator[None]:
    """Somebody has mounted something else over the mount, which nobody touches."""
    scene.node.run(["mount", "-t", "tmpfs", "tmpfs", VICTIM])
    scene.node.write(f"{VICTIM}/theirs.txt", "theirs")
    yield
    assert scene.node.read(f"{VICTIM}/theirs.txt") == "theirs"
    scene.node.run(["umount", VICTIM])


def test_a_mount_over_which_somebody_mounts_is_left_alone(scene: Scene) -> None:
    before = scene.site.pids()
    with undisturbed(scene.node, OTHER):
        with covered(scene):
            await_state(scene, "foreign")
            scene.site.ask()
            await_state(scene, "foreign")
        scene.site.await_mounts(VICTIM, OTHER)
    assert scene.site.pids() == before
    require_tidy(scene.node, VICTIM, OTHER)


def test_a_mount_that_is_killed_beneath_another_comes_back_when_that_goes(scene: Scene) -> None:
    mark = scene.site.mark()
    with scene.comes_back() as told, covered(scene):
        await_state(scene, "foreign")
        scene.send(signal.SIGKILL, scene.pid())
        scene.site.ask()
        await_state(scene, "foreign")
        assert ("start", VICTIM, "done") not in scene.site.events(mark)  # in vain
    scene.require_on_the_way(told, "foreign")
