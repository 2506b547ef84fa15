"""What dnf and rpm print is read rightly; that they print it, tests on nodes show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import Install, version_of
from s3mount_agent.mountpoint import choice, program
from s3mount_agent.packages import dnf, systems
from s3mount_agent.packages import lock_holder as holder
from s3mount_agent.system import process
from s3mount_agent.system.process import Completed

TABLE = """\
================================================================================
WARNING:
  A newer release of "Amazon Linux" is available.

  Available Versions:

  Version 2023.9.20251117:
    Run the following command to upgrade to 2023.9.20251117:

      dnf upgrade --releasever=2023.9.20251117
================================================================================
Dependencies resolved.
================================================================================
 Package            Architecture  Version            Repository            Size
================================================================================
Installing:
 mount-s3           x86_64        1.24.0-1           @commandline          30 M
     replacing  mount-s3-tools.x86_64 1.0-1
Upgrading:
 glibc              x86_64        2:2.34-1.amzn2023  amazonlinux          1.9 M
Installing dependencies:
 a-package-with-a-name-that-does-not-fit
                    noarch        1-1                amazonlinux           80 k
 fuse-common        x86_64        2.9.9-1            extras               280 \n
Enabling module streams:
 nodejs                           18
Installing module profiles:
 nodejs/common

Transaction Summary
================================================================================
Install  3 Packages
Upgrade  1 Package
"""
REPOSITORIES = """\
[amazonlinux]
name=Amazon Linux
gpgcheck = {amazonlinux}
[extras]
name=without a word about it
"""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Has each program say the same from now on; gives what is run."""

    def set_up(stdout: str = "", stderr: str = "", code: int = 0) -> list[list[str]]:
        asked: list[list[str]] = []

        def run(arguments: list[str], **options: object) -> Completed:
            asked.append(arguments)
            return Completed(tuple(arguments), code, stdout, stderr)

        monkeypatch.setattr(process, "run", run)
        return asked

    return set_up


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Writes dnf.conf and a file of repositories."""

    def write(main: str, amazonlinux: str) -> None:
        (tmp_path / "dnf.conf").write_text(f"[main]\n{main}\n")
        text = REPOSITORIES.format(amazonlinux=amazonlinux)
        (tmp_path / "own.repo").write_text(text)

    monkeypatch.setattr(dnf, "_CONF", tmp_path / "dnf.conf")
    monkeypatch.setattr(dnf, "_REPOSITORIES", (tmp_path,))
    return write


def test_what_would_be_new_is_read_from_dnfs_table(
    says: Callable[..., list[list[str]]], configured: Callable[[str, str], None]
) -> None:
    configured("gpgcheck=1", "1")
    says(TABLE, "Operation aborted.\n", 1)
    brought = dnf.would_install(["/x/mount-s3.rpm"])
    assert brought == {"mount-s3", "a-package-with-a-name-that-does-not-fit", "fuse-common"}


def test_nothing_to_do_is_nothing_new(says: Callable[..., list[list[str]]]) -> None:
    says("Dependencies resolved.\nNothing to do.\nComplete!\n")
    assert dnf.would_install(["fuse"]) == frozenset()


@pytest.mark.parametrize(
    ("main", "own", "unchecked"),
    [
        ("gpgcheck=1", "1", None),
        ("gpgcheck=True", "yes", None),
        ("gpgcheck=1", "0", "amazonlinux"),
        ("gpgcheck=1", "maybe", "amazonlinux"),
        ("gpgcheck=0", "1", "extras"),
        ("", "1", "extras"),  # dnf's own default is not to look
        ("no setting at all", "1", "extras"),
    ],
)
def test_a_repository_that_nobody_checks_is_refused(
    says: Callable[..., list[list[str]]],
    configured: Callable[[str, str], None],
    main: str,
    own: str,
    unchecked: str | None,
) -> None:
    configured(main, own)
    says(TABLE, "Operation aborted.\n", 1)
    if unchecked is None:
        dnf.would_install(["mount-s3"])
        return
    with pytest.raises(AgentError, match=unchecked) as caught:
        dnf.would_install(["mount-s3"])
    assert caught.value.problem is Problem.REPOSITORY_UNCHECKED


@pytest.mark.parametrize(
    ("section", "older"), [("Removing dependent packages", True), ("Downgrading", False)]
)
def test_what_would_take_something_away_is_refused(
    says: Callable[..., list[list[str]]], section: str, older: bool
) -> None:
    says(TABLE.replace("Upgrading:", f"{section}:"), "Operation aborted.\n", 1)
    with pytest.raises(AgentError, match="glibc") as caught:
        dnf.would_install(["mount-s3"], older=older)
    assert caught.value.problem is Problem.PACKAGES_FAILED


@pytest.mark.parametrize(
    ("words", "problem", "patience"),
    [
        ("Error: GPG check FAILED", Problem.SIGNATURE_BAD, 0),
        ("At least 5MB more space needed on the / filesystem.", Problem.NO_SPACE, 0),
        ("[Errno 28] No space left on device", Problem.NO_SPACE, 0),
        ("Error: Unable to find a match: fuse", Problem.PACKAGES_FAILED, float("inf")),
    ],
)
def test_why_dnf_failed_is_told(
    says: Callable[..., list[list[str]]], words: str, problem: Problem, patience: float
) -> None:
    says("", f"{words}\n", 1)
    with pytest.raises(AgentError) as caught:
        dnf.install(["fuse"])
    error = caught.value
    assert (error.problem, error.retry_for) == (problem, patience)
    assert words in str(error.cause)


HISTORY = """\
Transaction ID : 7
Return-Code    : Failure: 1
Comment        : {comment}
Packages Altered:
 ** Install fuse-libs-2.9.9-1.el9.x86_64 @baseos
 ** Upgrade mount-s3-1.24.0-1.x86_64     @@commandline
    Install fuse-2.9.9-1.el9.x86_64      @baseos
"""


@pytest.mark.parametrize(
    ("comment", "half"), [("s3mount-agent", {"fuse-libs", "mount-s3"}), ("", set())]
)
def test_only_what_our_own_last_transaction_has_left_is_half_installed(
    says: Callable[..., list[list[str]]], comment: str, half: set[str]
) -> None:
    """Of another's, perhaps of the whole system, nothing is forgotten."""
    says(HISTORY.format(comment=comment))
    assert dnf.half_installed({"fuse", "fuse-libs", "mount-s3", "glibc"}) == half


def test_each_system_is_known_by_its_os_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(systems, "_OS_RELEASE", (tmp_path / "os-release",))
    for id_, version, name in (
        ("amzn", "2023", "al2023"),
        ("rhel", "8.10", "rhel8"),
        ("rhel", "9", "rhel9"),
        ("rocky", "8.4", "rocky8"),
        ("rocky", "9.6", "rocky9"),
    ):
        (tmp_path / "os-release").write_text(f'ID="{id_}"\nVERSION_ID="{version}"\n')
        assert systems.of_this_node().name == name
        assert systems.family_of_this_node() == systems.RPM
    (tmp_path / "os-release").write_text('ID="rocky"\nVERSION_ID="90"\n')
    with pytest.raises(AgentError):
        systems.of_this_node()
    assert systems.of_this_node("rpm").family == systems.RPM


@pytest.mark.parametrize(
    ("wanted", "offered", "source", "own"),
    [
        (None, "1.23.0", None, "1.23.0"),
        ("1.23.0", "1.23.0", None, "1.23.0"),
        (None, None, None, None),  # a release from before it was there
        ("1.24.0", "1.23.0", None, None),
        ("latest", "1.23.0", None, None),
        (None, "1.23.0", "https://mirror.example.org/s3", None),
        (None, "1.23.0", "official", "1.23.0"),
    ],
)
def test_the_systems_own_mount_s3_comes_first_unless_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str | None,
    offered: str | None,
    source: str | None,
    own: str | None,
) -> None:
    for name in ("URL", "VERSION"):
        monkeypatch.delenv(f"S3MOUNT_RELEASE_{name}", raising=False)
    monkeypatch.setattr(dnf, "version_offered", lambda name: offered)
    (al2023,) = (each for each in systems.SYSTEMS if each.own)
    asked = Install(source, wanted)
    assert choice.own(al2023, asked) == own
    assert choice.own(al2023._replace(own=False), asked) is None
    monkeypatch.setattr(systems, "of_this_node", lambda assumed: al2023)
    monkeypatch.setattr(program, "find", lambda: None)
    # By it flags are judged before it is there.
    will_run = own or ("1.24.0" if wanted is None else wanted)
    assert choice.version_to_be(asked) == version_of(will_run)


HOLDS = """\
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("seen", [True, False])
def test_who_holds_the_lock_for_too_long_is_named(
    says: Callable[..., list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seen: bool,
) -> None:
    """Also where it is rpm that says so, in the midst of the transaction."""
    asked = says("", "RPM: error: can't create transaction lock on /x (Resource ...)\n", 1)
    monkeypatch.setattr(dnf, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(dnf, "_POLL_SECONDS", 0.05)
    lock = tmp_path / ".rpm.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        looks = iter([] if seen else [None])
        monkeypatch.setattr(dnf, "lock_holder", lambda: next(looks, holder.of_file(lock)))
        with pytest.raises(AgentError) as caught:
            dnf.install(["fuse"])
        other.stdin.close()
    assert f"(pid {other.pid})" in caught.value.message
    assert len(asked) == (0 if seen else 1)
    assert (caught.value.problem, caught.value.retry_for) == (
        Problem.PACKAGES_FAILED,
        float("inf"),
    )


def test_a_pid_file_that_was_left_behind_names_nobody(tmp_path: Path) -> None:
    """The number may be another program's by now, which has nothing to do with packages."""
    file = tmp_path / "rpmdb_lock.pid"
    file.write_text(f"{os.getpid()}\n")
    named = holder.of_pid_files([tmp_path / "none", file])
    assert named is not None
    assert named.endswith(f"(pid {os.getpid()})")
    os.utime(file, (1_000_000, 1_000_000))
    assert holder.of_pid_files([file]) is None
    file.write_text("4194305\n")
    assert holder.of_pid_files([file]) is None
