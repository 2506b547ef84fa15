"""What ParallelCluster sees of the bootstrap file: its streams, its environment, its end."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from cluster.executor import PATH
from node.article import (
    COMPUTE,
    ENVIRONMENT,
    HEAD,
    ONE,
    READONLY,
    SECOND,
    SEEN,
    WRITABLE,
    listed,
    states,
)
from node.conftest import BOOTSTRAP, NewNode

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

SCRIPT = "/root/s3mount-bootstrap"
HOLDERS = """\
import os, sys
wanted = {os.readlink(f"/proc/self/fd/{n}") for n in (1, 2)}
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) in (os.getpid(), os.getppid()):
        continue
    try:
        held = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
        if held & wanted:
            print(pid, open(f"/proc/{pid}/cmdline").read().replace("\\0", " "))
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def node(new_ready_module_node: NewNode) -> Node:
    """A compute node with mount-s3 and the bootstrap file, to be run in any way."""
    node = new_ready_module_node("compute")
    node.write(SCRIPT, "", mode=0o755)
    (node.root / SCRIPT.lstrip("/")).write_bytes(BOOTSTRAP.read_bytes())
    return node


def test_no_child_keeps_stdout_or_stderr_open(node: Node) -> None:
    # The script's own streams are the pipes of this shell, which then looks who else has them.
    command = f'{SCRIPT} "$@" >&2; exec python3 -c "$HOLDERS"'
    answer = node.run(["sh", "-c", command, "sh", *COMPUTE], env={"HOLDERS": HOLDERS})
    assert answer.stdout == ""
    assert "2 of 2 mounts are up" in answer.stderr
    assert states(node) == {READONLY: "ok", WRITABLE: "ok"}


def test_the_executor_returns_as_soon_as_the_script_ends(cluster: Cluster, node: Node) -> None:
    action = cluster.custom_action(node, COMPUTE, timeout=30)
    assert (action.returncode, action.stderr) == (0, "")
    assert action.seconds < 25  # what it left behind never ends


def test_each_step_is_one_line_on_stdout_with_its_duration(cluster: Cluster, node: Node) -> None:
    lines = cluster.custom_action(node, COMPUTE).stdout.splitlines()
    assert len(lines) == 10
    for line in lines[:7]:
        assert re.fullmatch(r"\[  ok  \] [a-z.]+ +\d+\.\d\d s  .+", line)
    assert lines[7:9] == [
        f"  {directory} <- s3://{bucket}  mounted {access}"
        for (bucket, directory, _), access in zip((COMPUTE[:3], COMPUTE[3:]), ("ro", "rw"))
    ]
    assert re.fullmatch(r"2 of 2 mounts are up, with mount-s3 \d+\.\d+\.\d+", lines[9])


@pytest.mark.parametrize("cwd", ["/etc/chef", "/tmp", "/"])
def test_a_bare_environment_is_enough(node: Node, cwd: str) -> None:
    answer = node.run(["env", "-i", f"PATH={PATH}", SCRIPT, *COMPUTE], cwd=cwd)
    assert answer.stderr == ""


def test_an_odd_environment_does_no_harm(node: Node) -> None:
    odd = {
        "LC_ALL": "tlh_KL.KOI8-R",
        "PYTHONPATH": "/nonexistent",
        "PYTHONHOME": "/nonexistent",
        "PYTHONSTARTUP": "/etc/passwd",
        "TMPDIR": "/nonexistent",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "IFS": "/",
        "HOME": "/nonexistent",
    }
    answer = node.run([SCRIPT, *COMPUTE], env=odd, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_names_are_utf8_in_every_locale(node: Node) -> None:
    """At 12edeff the directory was made with other bytes than mount-s3 was given."""
    directory, locale = "/mnt/bücher", "de_DE.ISO-8859-1"
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", "--no-archive", f"--prefix={node.root}"]
    subprocess.run([*made, locale], check=True)
    odd = {"LC_ALL": locale}
    assert node.run(["locale", "charmap"], env=odd).stdout == "ISO-8859-1\n"
    arguments = [*COMPUTE, SECOND, directory, "--allow-other"]
    answer = node.run([SCRIPT, *arguments], env=odd, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"{directory} <- s3://{SECOND}" in answer.stdout
    assert states(node)[directory] == "ok"
    assert SEEN in listed(node, directory)
    assert "nothing to change" in node.run([SCRIPT, *arguments]).stdout  # in another locale
    for command in (["status"], ["unmount", directory]):
        shown = node.run(["s3mount-agent", *command], env=odd, check=False)
        assert directory in shown.stdout, shown.stderr
    assert node.run([SCRIPT, *COMPUTE], env=odd).stderr == ""
    assert listed(node, "/mnt") == ["s3", "s3-readonly"]


def test_a_narrow_umask_does_not_lock_users_out(cluster: Cluster, new_ready_node: NewNode) -> None:
    fresh = new_ready_node("head")
    (fresh.root / SCRIPT.lstrip("/")).write_bytes(BOOTSTRAP.read_bytes())
    fresh.run(["chmod", "755", SCRIPT])
    fresh.run(["sh", "-c", f'umask 077; exec {SCRIPT} "$@"', "sh", *HEAD])
    assert fresh.run(["s3mount-agent", "status"], user="nobody").stdout.startswith("ok: ")
    assert fresh.run(["ls", WRITABLE], user="ubuntu").stdout
    modes = fresh.run(["stat", "-c", "%a", "/etc/s3mount-agent/config.yaml", ENVIRONMENT]).stdout
    assert modes.split() == ["644", "600"]


def test_mounts_survive_the_end_of_the_session_that_made_them(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    for role in ("compute", "head"):
        fresh = new_ready_node(role)
        with cluster.start_custom_action(fresh, ONE) as command:
            command.communicate(timeout=60)
            # Everything that cloud-init's session still has ends with it.
            command.kill()
        fresh.run(["pkill", f"-{signal.SIGHUP.value}", "-x", "s3mount-agent"], check=False)
        assert states(fresh, wait=5) == {WRITABLE: "ok"}


def test_a_hangup_of_mount_s3_is_put_right(node: Node) -> None:
    before = states(node)
    # mount-s3 takes it as a request to end.
    node.run(["pkill", "-HUP", "-f", f"mount-s3 .*--foreground.* {WRITABLE}$"])
    assert states(node, wait=45) == before


def test_a_closed_stdout_is_no_reason_to_fail(node: Node) -> None:
    for streams in (">&-", "2>&-", ">&- 2>&-", "| true"):
        answer = node.run(["sh", "-c", f'{SCRIPT} "$@" {streams}', "sh", *COMPUTE], check=False)
        assert answer.returncode == 0, streams
        assert "Traceback" not in answer.stderr
    assert states(node) == {READONLY: "ok", WRITABLE: "ok"}


def test_help_version_and_check_change_nothing(cluster: Cluster, new_ready_node: NewNode) -> None:
    fresh = new_ready_node("compute")
    for arguments, word in ((["--help"], "usage: "), (["--version"], "s3mount-agent ")):
        action = cluster.custom_action(fresh, arguments)
        assert action.returncode == 0
        assert action.stdout.startswith(word)
    assert cluster.custom_action(fresh, ["--check", *COMPUTE]).returncode == 0
    assert not fresh.exists("/opt/s3mount-agent")
    assert not fresh.exists("/run/s3mount-agent")
    assert not fresh.exists("/var/lib/s3mount-agent")
