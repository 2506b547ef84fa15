"""The kernel's mount table, and fuse.conf."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount_agent.core.states import Presence
from s3mount_agent.filesystem import fuse, mountinfo
from s3mount_agent.filesystem.mountinfo import Entry, Table

PLAIN = "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw,discard"
OURS = (
    "96 22 0:54 / /mnt/s3 rw,nosuid,nodev,noatime shared:50 - fuse mountpoint-s3 "
    "rw,user_id=0,group_id=0,default_permissions,allow_other"
)


def table(path: Path, *lines: str) -> dict[str, Entry]:
    path.write_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"))
    return mountinfo.read(path)


def test_a_mount_of_mount_s3_is_known(tmp_path: Path) -> None:
    entry = table(tmp_path / "mountinfo", PLAIN, OURS)["/mnt/s3"]
    assert entry == Entry(
        "/mnt/s3",
        "mountpoint-s3",
        "fuse",
        read_only=False,
        minor=54,
        device="0:54",
        user=0,
        id=96,
        parent=22,
        peers=50,
    )
    assert entry.presence is Presence.OURS


@pytest.mark.parametrize(
    ("fstype", "source"),
    [
        ("ext4", "/dev/root"),
        ("fuse", "s3fs"),
        ("fuse.mountpoint-s3", "x"),
        ("nfs4", "mountpoint-s3"),
    ],
)
def test_everything_else_is_other(tmp_path: Path, fstype: str, source: str) -> None:
    line = OURS.replace("fuse mountpoint-s3", f"{fstype} {source}")
    entry = table(tmp_path / "mountinfo", line)["/mnt/s3"]
    assert entry.presence is Presence.FOREIGN


@pytest.mark.parametrize(
    ("escaped", "directory"),
    [
        ("/mnt/a\\040b", "/mnt/a b"),
        ("/mnt/a\\011b", "/mnt/a\tb"),
        ("/mnt/a\\012b", "/mnt/a\nb"),
        ("/mnt/a\\134b", "/mnt/a\\b"),
        ("/mnt/a\\134040b", "/mnt/a\\040b"),
        ("/mnt/a\\043b", "/mnt/a#b"),
        ("/mnt/ünï", "/mnt/ünï"),
        ("/mnt/\udcff", "/mnt/\udcff"),
        # The kernel escapes no other characters, whatever a text reader takes for a line's end.
        ("/mnt/a\rb", "/mnt/a\rb"),
        ("/mnt/a\x0cb", "/mnt/a\x0cb"),
        ("/mnt/a\x85b", "/mnt/a\x85b"),
        ("/mnt/a\u2028b", "/mnt/a\u2028b"),
    ],
)
def test_escapes_are_undone(tmp_path: Path, escaped: str, directory: str) -> None:
    found = table(tmp_path / "mountinfo", PLAIN, OURS.replace("/mnt/s3", escaped))
    assert found.keys() == {"/", directory}
    assert found[directory].presence is Presence.OURS


def test_the_uppermost_of_stacked_mounts_counts(tmp_path: Path) -> None:
    other = "97 96 0:60 / /mnt/s3 rw - tmpfs tmpfs rw"
    beneath = "97 22 0:60 / /mnt/s3 rw - tmpfs tmpfs rw"
    above = OURS.replace("96 22", "96 97")
    for lines in ((OURS, other), (other, OURS)):  # whatever their order
        assert table(tmp_path / "a", PLAIN, *lines)["/mnt/s3"].presence is Presence.FOREIGN
    assert table(tmp_path / "b", PLAIN, beneath, above)["/mnt/s3"].presence is Presence.OURS


def test_a_mount_over_a_parent_hides_what_lies_below(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    over = "120 22 0:61 / /mnt rw - tmpfs late rw"
    assert table(path, PLAIN, OURS, over).keys() == {"/", "/mnt"}
    whole = Table.read(path)
    assert [entry.id for entry in whole.layers("/mnt/s3")] == [96]
    at = whole.at("/mnt/s3")
    assert at is not None
    assert (at.id, whole.on("/mnt/s3")) == (120, None)
    # And what is mounted in it is there to be found.
    inside = "121 120 0:62 / /mnt/s3 rw - tmpfs inside rw"
    assert table(path, PLAIN, OURS, over, inside)["/mnt/s3"].source == "inside"


@pytest.mark.parametrize("owner", ["user_id=1000", "user_id=65534"])
def test_what_a_user_mounted_under_our_name_is_not_root_s(tmp_path: Path, owner: str) -> None:
    line = OURS.replace("user_id=0", owner)
    assert table(tmp_path / "mountinfo", PLAIN, line)["/mnt/s3"].presence is Presence.FOREIGN


def test_an_automounts_trigger_is_no_mount(tmp_path: Path) -> None:
    autofs = "40 22 0:37 / /mnt/s3 rw,relatime shared:16 - autofs systemd-1 rw,fd=52"
    assert table(tmp_path / "a", PLAIN, autofs).keys() == {"/"}
    upon = OURS.replace("96 22", "96 40")
    assert table(tmp_path / "b", PLAIN, autofs, upon)["/mnt/s3"].presence is Presence.OURS


@pytest.mark.parametrize(
    ("line", "read_only"),
    [
        (OURS, False),
        (OURS.replace("/mnt/s3 rw,", "/mnt/s3 ro,"), True),
        (OURS.replace(" rw,user_id", " ro,user_id"), True),
        (OURS.replace("default_permissions", "errors=remount-ro"), False),
    ],
)
def test_read_only_is_read(tmp_path: Path, line: str, read_only: bool) -> None:
    assert table(tmp_path / "mountinfo", line)["/mnt/s3"].read_only is read_only


@pytest.mark.parametrize("tags", ["", "shared:1 ", "master:3 propagate_from:2 ", "unbindable "])
def test_optional_fields_are_skipped(tmp_path: Path, tags: str) -> None:
    line = OURS.replace("shared:50 ", tags)
    assert table(tmp_path / "mountinfo", line)["/mnt/s3"].source == "mountpoint-s3"


def test_this_machines_own_table_can_be_read() -> None:
    assert "/proc" in mountinfo.read()
    assert mountinfo.presence("/proc") is Presence.FOREIGN
    assert mountinfo.presence("/no/such/directory") is Presence.ABSENT


def test_unmounting_what_is_not_mounted_is_no_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        mountinfo.unmount(str(tmp_path))
    mountinfo.unmount(str(tmp_path / "none"))


IN_A_NAMESPACE = """
import os, subprocess, sys
from s3mount_agent.filesystem import mountinfo
from s3mount_agent.core.errors import AgentError
home = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", home], check=True)
print(mountinfo.presence(home).value)
with open(home + "/open", "w"):
    try:
        mountinfo.unmount(home)
    except AgentError as error:
        print(error.problem.code)
mountinfo.unmount(home)
print(mountinfo.presence(home).value)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", home], check=True)
with open(home + "/open", "w"):
    mountinfo.unmount(home, lazy=True)
    print(mountinfo.presence(home).value)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_busy_mount_stays_unless_lazy(tmp_path: Path) -> None:
    home = tmp_path / "a b#c"
    home.mkdir()
    answer = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", IN_A_NAMESPACE, str(home)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.stdout.split() == ["foreign", "mount-busy", "absent", "absent"], answer.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "user_allow_other\n"),
        ("", "user_allow_other\n"),
        ("#user_allow_other\n", "user_allow_other\n"),
        ("# user_allow_other\nmount_max = 5\n", "user_allow_other\nmount_max = 5\n"),
        ("mount_max = 5", "mount_max = 5\nuser_allow_other\n"),
        ("mount_max = 5\n", "mount_max = 5\nuser_allow_other\n"),
        ("user_allow_other\n", "user_allow_other\n"),
        ("user_allow_other", "user_allow_other"),
        ("  user_allow_other  \n# end", "  user_allow_other  \n# end"),
        ("#user_allow_other\nuser_allow_other\n", "#user_allow_other\nuser_allow_other\n"),
        (
            "# user_allow_other - lets others in\n",
            "# user_allow_other - lets others in\nuser_allow_other\n",
        ),
        ("user_allow_others\n", "user_allow_others\nuser_allow_other\n"),
    ],
)
def test_user_allow_other_is_put_in_force_once(before: str | None, after: str) -> None:
    assert fuse.allow_other(before) == after
    assert fuse.allow_other(after) == after
