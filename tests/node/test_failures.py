"""What was asked for is right, but cannot be done: the cause is told, and help is possible."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cluster.cluster import ActionResult, Cluster
from node.article import (
    AGENT_UNIT,
    COMPUTE,
    HEAD,
    ONE,
    READONLY,
    SECOND,
    WRITABLE,
    eventually,
    set_environment,
    show,
    states,
    status,
)
from node.conftest import NewNode
from node.live_site import CONFIG

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

REFUSED = "/var/lib/s3mount-agent/refused"
VERIFIERS = ("/usr/bin/gpgv", "/usr/bin/sqv", "/usr/bin/gpg")
NO_BUCKET = ("bucket-that-is-nowhere", WRITABLE, "--allow-other")
# Holds dpkg's or rpm's lock the way they do, and says so; then once more while the agent's own
# transaction is on its way, if there is one soon.
HOLD_LOCK = """\
import fcntl, glob, sys, time
def hold():
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    fcntl.lockf(lock, fcntl.LOCK_UN)
def read(path):
    try:
        return open(path, "rb").read()
    except OSError:
        return b""
lock = open(sys.argv[1], "w")
hold()
while len(sys.argv) > 3:
    if any(sys.argv[3].encode() in read(path) for path in glob.glob("/proc/[0-9]*/cmdline")
           if "/self/" not in path and b"import" not in read(path)):
        hold()
        break
"""
# A node with dpkg and apt, and one with rpm and dnf.
FAMILIES = ("debian12", "rocky9")


def require_told(action: ActionResult, code: str, *causes: str) -> None:
    """A failure whose last words are its code, its cause and a hint, and no more than is kept."""
    assert action.returncode == 1, action.stdout + action.stderr
    lines = action.stderr.splitlines()
    assert len(action.stderr.encode()) < 4000
    assert lines[-1].startswith("  hint: ")
    assert any(line.startswith(f"s3mount-agent: error [{code}]: ") for line in lines)
    for cause in causes:
        assert cause in action.stderr
    assert "Traceback" not in action.stdout + action.stderr


@pytest.fixture(scope="module", params=FAMILIES)
def bare(new_module_node: NewNode, request: pytest.FixtureRequest) -> Node:
    """A compute node without mount-s3, on which no installation will succeed."""
    return new_module_node("compute", system=request.param)


@pytest.fixture(scope="module")
def ready(new_ready_module_node: NewNode) -> Node:
    """A compute node with mount-s3."""
    return new_ready_module_node("compute")


@pytest.fixture
def release(cluster: Cluster, package: Path, bare: Node, request: pytest.FixtureRequest) -> str:
    """A release of its own for the test to spoil; its version."""
    version = f"7.0.{abs(hash(request.node.name)) % 100000}"
    cluster.mirror.publish(cluster.rpm if bare.system.recipe.rpm else package, version)
    return version


def attempt(cluster: Cluster, bare: Node, release: str) -> ActionResult:
    """Bootstraps with a release, which must leave no package behind."""
    set_environment(bare, S3MOUNT_RELEASE_VERSION=release)
    action = cluster.custom_action(bare, COMPUTE)
    if bare.system.recipe.rpm:
        assert bare.run(["rpm", "-q", "mount-s3", "fuse"], check=False).returncode == 2
    else:
        assert bare.run(["dpkg-query", "-W", "mount-s3"], check=False).returncode == 1
        assert bare.run(["dpkg", "--audit"]).stdout == ""
    assert not bare.run(["find", "/tmp", "-name", "s3mount*"]).stdout
    return action


def test_a_bad_signature_is_told(cluster: Cluster, bare: Node, release: str) -> None:
    cluster.mirror.corrupt_signature(release)
    require_told(attempt(cluster, bare, release), "signature-bad", "cause: ")


def test_an_unknown_signing_key_is_told(cluster: Cluster, bare: Node, release: str) -> None:
    cluster.mirror.resign_with_unknown_key(release)
    require_told(attempt(cluster, bare, release), "signing-key-unknown", "FINGERPRINTS")


def test_a_key_of_the_mirrors_own_is_no_good_unless_it_is_pinned(
    cluster: Cluster, bare: Node, release: str
) -> None:
    set_environment(bare, S3MOUNT_RELEASE_FINGERPRINTS="")
    action = attempt(cluster, bare, release)
    set_environment(bare, S3MOUNT_RELEASE_FINGERPRINTS=cluster.mirror.fingerprint)
    require_told(action, "signing-key-unknown", cluster.mirror.fingerprint)


def test_a_truncated_package_is_told(cluster: Cluster, bare: Node, release: str) -> None:
    cluster.mirror.truncate(release)
    require_told(attempt(cluster, bare, release), "signature-bad", release)


def test_a_right_key_on_another_file_is_told_and_the_file_kept_for_root(
    cluster: Cluster, bare: Node, release: str, package: Path
) -> None:
    cluster.mirror.replace(release, package.read_bytes() + b"\n")
    action = attempt(cluster, bare, release)
    require_told(action, "signature-bad", "it is kept in /var/lib/s3mount-agent/refused")
    kept = bare.run(["ls", "-l", "/var/lib/s3mount-agent", REFUSED]).stdout
    assert "drwx------" in kept
    assert kept.count(f"mount-s3-{release}-") == 2  # and its signature
    assert ".refused\n" in kept
    # Nothing else is left of it.
    found = bare.run(["find", "/var", "/tmp", "/root", "/opt", "-name", f"*{release}*"]).stdout
    assert all(line.startswith(f"{REFUSED}/") for line in found.splitlines())
    assert not bare.exists("/var/lib/s3mount-agent/downloads")


def test_a_web_page_instead_of_a_package_is_told(
    cluster: Cluster, bare: Node, release: str
) -> None:
    cluster.mirror.replace(release, b"<!DOCTYPE html><title>Sign in</title>")
    require_told(attempt(cluster, bare, release), "package-broken", "is a web page", "proxy")


def test_a_node_that_cannot_tell_whose_a_package_is_installs_none(
    cluster: Cluster, bare: Node, release: str
) -> None:
    hidden = [path for path in VERIFIERS if bare.exists(path)]
    assert hidden
    for path in hidden:
        bare.run(["mv", path, f"{path}.hidden"])
    action = attempt(cluster, bare, release)
    for path in hidden:
        bare.run(["mv", f"{path}.hidden", path])
    require_told(action, "verifier-missing", "install gpgv, sqv or gpg")


def test_a_node_that_is_to_have_mount_s3_already_installs_none(
    cluster: Cluster, bare: Node
) -> None:
    asked = len(cluster.mirror.requests)
    action = attempt(cluster, bare, "present")
    require_told(action, "mount-s3-missing", "bake mount-s3 into the image")
    assert len(cluster.mirror.requests) == asked


def test_an_older_package_under_a_newer_name_is_told(
    cluster: Cluster, bare: Node, release: str
) -> None:
    """As validly signed as any: whoever holds the mirror could offer one with known faults."""
    action = attempt(cluster, bare, release)
    require_told(action, "package-other", cluster.version, release)


def test_a_release_that_the_mirror_lacks_is_told(cluster: Cluster, bare: Node) -> None:
    action = attempt(cluster, bare, "9.9.9")
    require_told(action, "download-failed", "404", "9.9.9")


def test_no_free_space_for_the_agent_is_told(cluster: Cluster, new_node: NewNode) -> None:
    node = new_node("compute")
    home = "/opt/s3mount-agent"
    node.run(["mkdir", home])
    node.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", home])
    action = cluster.custom_action(node, COMPUTE)
    require_told(action, "no-space", "No space left on device")
    # The lock is all that is left: another who unpacks may be waiting for it.
    assert node.run(["ls", "-A", home]).stdout == ".lock\n"
    node.run(["umount", home])
    assert cluster.custom_action(node, COMPUTE).returncode == 0


@pytest.mark.parametrize(
    ("system", "full", "size"),
    [
        ("debian12", "/var/cache/apt", "64k"),
        ("debian12", "/var/cache/apt/archives", "64k"),
        ("debian12", "/var/lib/s3mount-agent", "24k"),
        ("rocky9", "/var/cache/dnf", "64k"),
    ],
)
def test_no_free_space_for_the_packages_is_told(
    cluster: Cluster, new_node: NewNode, system: str, full: str, size: str
) -> None:
    node = new_node("compute", system=system)
    node.run(["mkdir", "-p", full])
    node.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", full])
    require_told(cluster.custom_action(node, COMPUTE), "no-space")
    node.run(["umount", full])
    assert cluster.custom_action(node, COMPUTE).returncode == 0


def test_a_node_without_dev_fuse_is_told(cluster: Cluster, new_ready_node: NewNode) -> None:
    node = new_ready_node("compute")
    node.run(["umount", "/dev/fuse"])
    node.run(["rm", "/dev/fuse"])
    action = cluster.custom_action(node, COMPUTE)
    require_told(action, "fuse-missing", "modprobe fuse")


def test_a_bucket_that_does_not_exist_is_told(cluster: Cluster, ready: Node) -> None:
    action = cluster.custom_action(ready, NO_BUCKET)
    require_told(action, "bucket-missing", NO_BUCKET[0], "The bucket does not exist")
    assert states(ready, wait=45) == {WRITABLE: "failed"}


def test_each_of_several_failing_mounts_is_told(cluster: Cluster, ready: Node) -> None:
    arguments = [word for n in range(8) for word in (f"nowhere-{n}", f"/mnt/{n}", "")]
    action = cluster.custom_action(ready, arguments)
    require_told(action, "bucket-missing", "nowhere-7")
    assert "0 of 8 mounts are up" in action.stdout


def test_a_bad_mount_does_not_take_the_good_one_down(cluster: Cluster, ready: Node) -> None:
    action = cluster.custom_action(ready, [*ONE, NO_BUCKET[0], READONLY, ""])
    require_told(action, "bucket-missing")
    assert eventually(lambda: show(ready, AGENT_UNIT, "ActiveState") == "active", 40)
    assert states(ready) == {WRITABLE: "ok", READONLY: "failed"}
    assert "1 of 2 mounts are up" in action.stdout
    answer = ready.run(["s3mount-agent", "status"], check=False)
    assert answer.returncode == 1
    assert "reason: " in answer.stdout
    assert "hint: " in answer.stdout


def test_missing_credentials_are_told(cluster: Cluster, new_ready_node: NewNode) -> None:
    node = new_ready_node("head")
    set_environment(node, AWS_ACCESS_KEY_ID="")
    with cluster.start_custom_action(node, ONE) as command:
        assert command.stdout is not None
        # Instance credentials may come late: it goes on trying, and takes them when they are there.
        for line in command.stdout:
            if f"{WRITABLE}: mount-s3 found no credentials" in line:
                break
        set_environment(node, AWS_ACCESS_KEY_ID="SIMULATIONNODE")
        stdout, stderr = command.stdout.read(), command.stderr.read() if command.stderr else ""
    assert command.wait() == 0, stderr
    assert "1 of 1 mounts are up" in stdout
    assert states(node) == {WRITABLE: "ok"}


def test_s3_that_is_back_in_time_is_good_enough(
    cluster: Cluster, new_ready_node: NewNode, break_s3: Callable[..., None]
) -> None:
    node = new_ready_node("compute")
    break_s3(SECOND, status=503, code="SlowDown", message="Please reduce your request rate")
    set_environment(node, AWS_MAX_ATTEMPTS="1")
    with cluster.start_custom_action(node, ONE) as command:
        assert command.stdout is not None
        for line in command.stdout:
            if f"{WRITABLE}: S3 throttles requests" in line:
                break
        cluster.s3.heal(SECOND)
        stdout = command.stdout.read()
    assert command.wait() == 0
    assert "1 of 1 mounts are up" in stdout


def test_a_head_continues_without_a_bucket_and_says_so(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("head")
    # It takes a while to find out: the service is started meanwhile, and is told in the end.
    cluster.s3.fault(NO_BUCKET[0], 404, "NoSuchBucket", "The bucket does not exist", delay=3)
    action = cluster.custom_action(node, [*NO_BUCKET[:1], READONLY, "", *ONE])
    cluster.s3.heal(NO_BUCKET[0])
    assert (action.returncode, action.stderr) == (0, "")
    assert f"[ wait ] {READONLY}: mount-s3 is starting (attempt 1, until " in action.stdout
    assert "error [bucket-missing]" in action.stdout
    assert "hint: " in action.stdout
    assert "1 of 2 mounts are up" in action.stdout
    # The daemon is ready when each mount is up or waits for somebody.
    assert eventually(lambda: show(node, AGENT_UNIT, "ActiveState") == "active", 40)
    assert states(node) == {READONLY: "failed", WRITABLE: "ok"}
    assert node.run(["s3mount-agent", "status"], check=False).returncode == 1
    # The agent keeps trying, and an administrator need not wait for it.
    cluster.s3.create_bucket(NO_BUCKET[0])
    node.run(["s3mount-agent", "apply"])
    assert states(node) == {READONLY: "ok", WRITABLE: "ok"}


def test_a_head_continues_without_mount_s3_and_gets_it_later(
    cluster: Cluster, new_node: NewNode
) -> None:
    node = new_node("head")
    good = f"{cluster.mirror.url}/mountpoint-s3-release"
    set_environment(node, S3MOUNT_RELEASE_URL=f"{cluster.mirror.url}/nothing-here")
    action = cluster.custom_action(node, HEAD)
    assert action.returncode == 0, action.stderr
    assert "error [download-failed]" in action.stdout
    told = status(node)
    assert {mount["state"] for mount in told["mounts"]} <= {"failed", "retrying"}
    assert all("downloaded" in mount["reason"] for mount in told["mounts"])
    # An administrator holds one of them down, and edits the configuration, which is his to apply.
    node.run(["s3mount-agent", "unmount", READONLY])
    node.write(CONFIG, node.read(CONFIG) + "# edited by hand\n")
    set_environment(node, S3MOUNT_RELEASE_URL=good)
    node.run(["s3mount-agent", "install-mount-s3"])  # as the daemon does, now and then
    assert eventually(lambda: states(node)[WRITABLE] == "ok", 45)
    assert states(node)[READONLY] == "missing"
    assert "was edited" in status(node)["config"]["pending"]
    node.run(["s3mount-agent", "apply"])
    assert states(node, wait=45) == {READONLY: "ok", WRITABLE: "ok"}
    assert "config" not in status(node)


def test_a_bootstrap_waits_for_apts_lock(cluster: Cluster, new_node: NewNode) -> None:
    node = new_node("compute")
    with node.popen(["python3", "-c", HOLD_LOCK, "/var/lib/dpkg/lock-frontend", "30"]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        began = time.monotonic()
        action = cluster.custom_action(node, COMPUTE)
    assert action.returncode == 0, action.stderr
    assert time.monotonic() - began > 25
    assert "[ wait ] packages: python3 (pid " in action.stdout
    assert states(node) == {READONLY: "ok", WRITABLE: "ok"}
    installed = node.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]).stdout
    assert "fuse3 installed" in installed.splitlines()
    assert "libfuse2 installed" in installed.splitlines()
    assert not any(line.startswith("fuse ") for line in installed.splitlines())


def test_a_bootstrap_waits_for_rpms_lock_and_for_dnfs(cluster: Cluster, new_node: NewNode) -> None:
    """rpm, which does not wait without a terminal, meets it in the midst of the transaction, too;
    dnf would wait without an end."""
    node = new_node("compute", system="al2023")
    # What dnf calls a lock: somebody who lives is named in a file.
    node.write("/var/lib/dnf/rpmdb_lock.pid", str(1))
    lock, ours = "/var/lib/rpm/.rpm.lock", "--comment=s3mount-agent"
    with node.popen(["python3", "-c", HOLD_LOCK, lock, "3", ours]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with cluster.start_custom_action(node, ONE) as command:
            assert command.stdout is not None
            waits = next(line for line in command.stdout if "[ wait ]" in line)
            assert "python3 (pid " in waits
            time.sleep(4)
            assert command.poll() is None, "dnf's own lock is still held"
            node.run(["rm", "/var/lib/dnf/rpmdb_lock.pid"])
            stdout, stderr = command.communicate(timeout=60)
        assert (command.returncode, stderr) == (0, ""), stdout
        assert holder.stdout.readline() == "locked\n"
    assert states(node) == {WRITABLE: "ok"}
    # rpm has refused once, and our waiting is what helped: it was not tried by chance.
    assert "Could not run transaction" in node.read("/var/log/dnf.log")
    assert "`dnf install` ended" not in stdout
