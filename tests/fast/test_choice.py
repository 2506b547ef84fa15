"""Which mount-s3 is meant, and which one a node gets."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import PINNED, Install, version_of
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.mountpoint import install, program, releases
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.mountpoint.releases import (
    DEFAULT_FINGERPRINTS,
    OFFICIAL_URL,
    Release,
)
from s3mount_agent.packages import apt


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("1.23.0", "1.23.0/arm64/mount-s3-1.23.0-arm64.deb"),
        ("latest", "latest/arm64/mount-s3.deb"),
    ],
)
def test_packages_lie_where_aws_puts_them(version: str, name: str) -> None:
    assert Release(version=version).package("arm64", "deb") == name
    assert Release(version=version).package("arm64", "rpm") == name[:-3] + "rpm"


def test_aws_and_its_keys_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "VERSION", "FINGERPRINTS"):
        monkeypatch.delenv(f"S3MOUNT_RELEASE_{name}", raising=False)
    assert Release.chosen(Install()) == Release(OFFICIAL_URL, PINNED, DEFAULT_FINGERPRINTS)
    assert set(DEFAULT_FINGERPRINTS) == {
        "8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B",
        "673FE4061506BB469A0EF857BE397A52B086DA5A",
    }


def test_a_mirror_with_keys_of_its_own_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3MOUNT_RELEASE_URL", "https://mirror.example.org/s3/")
    monkeypatch.setenv("S3MOUNT_RELEASE_VERSION", "1.24.0")
    monkeypatch.setenv("S3MOUNT_RELEASE_FINGERPRINTS", "8aef e705, AB:CD")
    theirs = Release("https://mirror.example.org/s3", "1.24.0", ("8AEFE705", "ABCD"))
    assert Release.chosen(Install()) == theirs
    # The node's own file wins over the cluster's.
    assert Release.chosen(Install("https://other.example.org", "1.22.0")) == theirs


def test_the_configuration_may_name_a_mirror_as_a_whole_or_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("URL", "VERSION", "FINGERPRINTS"):
        monkeypatch.delenv(f"S3MOUNT_RELEASE_{name}", raising=False)
    # Whatever the mirror: what it offers must be signed with the keys that are known.
    assert Release.chosen(Install("http://m.example.org/", "1.22.0")) == Release(
        "http://m.example.org", "1.22.0", DEFAULT_FINGERPRINTS
    )
    assert Release.chosen(Install(version="latest")) == Release(
        OFFICIAL_URL, "latest", DEFAULT_FINGERPRINTS
    )


PINNED_VERSION = version_of(PINNED)


@pytest.mark.parametrize(
    ("asked", "here", "wanted"),
    [
        (None, None, PINNED),
        (None, (1, 4, 0), None),
        (None, (1, 99, 0), None),
        ("present", (1, 4, 0), None),
        ("1.23.0", None, "1.23.0"),
        ("1.23.0", (1, 23, 0), None),
        ("1.23.0", (1, 22, 9), "1.23.0"),
        ("1.23.0", (1, 24, 0), "1.23.0"),
        ("1.10.0", (1, 9, 0), "1.10.0"),
        ("latest", None, "latest"),
        ("latest", (1, 4, 0), "latest"),
        ("latest", PINNED_VERSION, None),
        ("latest", (1, 99, 0), None),
    ],
)
@pytest.mark.parametrize("named_by", ["configuration", "node"])
def test_only_a_version_that_is_asked_for_takes_the_place_of_another(
    asked: str | None,
    here: tuple[int, ...] | None,
    wanted: str | None,
    named_by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("S3MOUNT_RELEASE_VERSION", raising=False)
    source = Install(version=asked)
    if named_by == "node" and asked:
        monkeypatch.setenv("S3MOUNT_RELEASE_VERSION", asked)
        source = Install(version="1.1.1")
    found = releases.to_install(source, here)
    assert (found.version if found else None) == wanted


def test_what_must_be_there_and_is_not_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S3MOUNT_RELEASE_VERSION", raising=False)
    with pytest.raises(AgentError) as caught:
        releases.to_install(Install(version="present"), None)
    assert caught.value.problem is Problem.MOUNT_S3_MISSING
    assert is_lasting(caught.value)


@pytest.mark.parametrize("text", ["1.24", "newest", "../1.24.0", "1.24.0/x", "1.24.0\n"])
def test_a_version_of_the_node_that_is_none_is_told(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3MOUNT_RELEASE_VERSION", text)
    with pytest.raises(AgentError, match="S3MOUNT_RELEASE_VERSION is ") as caught:
        releases.to_install(Install(), (1, 24, 0))
    assert caught.value.problem is Problem.ENVIRONMENT_INVALID


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.24.0", (1, 24, 0)),
        ("1.23.0+1.amzn2023", (1, 23, 0)),
        ("1.21.0-unofficial+0a1b2c3", (1, 21, 0)),
        ("1.21.0-1", (1, 21, 0)),
        ("1.9.1~rc1", (1, 9, 1)),
        ("1.10", (1, 10)),
    ],
)
def test_versions_are_compared_as_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version
    assert version_of("1.9.0") < version_of("1.10.0") < version_of("latest")


@pytest.mark.parametrize("text", ["", "x1.2.3", "1.2.3x", "1.", "1.2.3 4", "\u0661.2.3"])
def test_what_is_no_version_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        version_of(text)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="makes a Debian package")
@pytest.mark.parametrize(
    ("wanted", "offered", "here", "good"),
    [
        ("latest", "1.24.0", None, True),
        ("latest", "1.25.3-1", None, True),
        ("latest", "1.23.0", None, False),
        ("latest", "1.24.9", (1, 25, 0), False),
        ("latest", "1.25.0", (1, 25, 0), True),
        ("latest", "1.24", None, False),
        ("1.23.0", "1.23.0", None, True),
        ("1.23.0", "1.22.0", None, False),
        ("1.23.0", "1.23.0.1", None, False),
    ],
)
def test_no_older_release_is_taken_however_well_it_is_signed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    offered: str,
    here: tuple[int, ...] | None,
    good: bool,
) -> None:
    control = tmp_path / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: mount-s3\nVersion: {offered}\nArchitecture: all\n"
        "Maintainer: x <x@example.org>\nDescription: x\n"
    )
    package = tmp_path / "mount-s3.deb"
    subprocess.run(
        ["dpkg-deb", "--build", str(tmp_path / "tree"), str(package)],
        check=True,
        capture_output=True,
    )
    found = here and Installed("/usr/bin/mount-s3", here)
    monkeypatch.setattr(program, "find", lambda: found)
    if good:
        install._require_version(apt, package, Release(version=wanted))
        return
    with pytest.raises(AgentError, match="instead of mount-s3 1") as caught:
        install._require_version(apt, package, Release(version=wanted))
    assert caught.value.problem is Problem.PACKAGE_OTHER
