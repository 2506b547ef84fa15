"""Each Linux system on each processor: which packages it is given, and from where.

Nodes of x86_64 are booted (tests/node); arm64 is proven here and by what the payload has.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.versions import PINNED
from s3mount_agent.mountpoint.releases import OFFICIAL_URL, Release
from s3mount_agent.packages import systems
from s3mount_agent.system import node

# The beginning of each system's own /etc/os-release, and what mount-s3 needs there.
KNOWN = {
    "ubuntu2204": ('NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n', "deb", "libfuse2"),
    "ubuntu2404": ('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n', "deb", "libfuse2t64"),
    "debian12": ('NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n', "deb", "libfuse2"),
    "debian13": ('NAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n', "deb", "libfuse2t64"),
    "al2023": ('NAME="Amazon Linux"\nVERSION_ID="2023"\nID="amzn"\n', "rpm", "fuse-libs"),
    "rhel8": ('NAME="Red Hat"\nID="rhel"\nVERSION_ID="8.10"\n', "rpm", "fuse-libs"),
    "rhel9": ('NAME="Red Hat"\nID="rhel"\nVERSION_ID="9.6"\n', "rpm", "fuse-libs"),
    "rocky8": ('NAME="Rocky Linux"\nID="rocky"\nVERSION_ID="8.10"\n', "rpm", "fuse-libs"),
    "rocky9": ('NAME="Rocky Linux"\nID="rocky"\nVERSION_ID="9.6"\n', "rpm", "fuse-libs"),
}
# What the kernel calls a processor, and AWS in its releases.
PROCESSORS = {"x86_64": "x86_64", "aarch64": "arm64"}


@pytest.fixture
def os_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "os-release"
    monkeypatch.setattr(systems, "_OS_RELEASE", (path,))
    return path


def test_every_system_that_parallelcluster_has_is_in_the_table() -> None:
    assert {system.name for system in systems.SYSTEMS} == KNOWN.keys()


@pytest.mark.parametrize("machine", PROCESSORS)
@pytest.mark.parametrize("name", KNOWN)
def test_a_system_is_given_its_own_packages_for_its_processor(
    os_release: Path, monkeypatch: pytest.MonkeyPatch, name: str, machine: str
) -> None:
    text, kind, library = KNOWN[name]
    os_release.write_text(text)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    system = systems.of_this_node()
    assert (system.name, system.family.kind) == (name, kind)
    assert system.libraries == (library,)
    # On Ubuntu and Debian `fuse` would push out fuse3 and all that needs it.
    assert system.fuse == ("fuse3" if kind == "deb" else "fuse")
    processor = PROCESSORS[machine]
    assert f"{OFFICIAL_URL}/{Release().package(node.architecture(), kind)}" == (
        f"https://s3.amazonaws.com/mountpoint-s3-release/{PINNED}/{processor}/"
        f"mount-s3-{PINNED}-{processor}.{kind}"
    )
    latest = Release(version="latest").package(node.architecture(), kind)
    assert latest == f"latest/{processor}/mount-s3.{kind}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ID=void\n",
        'ID=ubuntu\nVERSION_ID="20.04"\n',
        "ID=debian\n",
        'ID="amzn"\nVERSION_ID="2"\n',
        'ID="rhel"\nVERSION_ID="80"\n',
        'ID="rocky"\nVERSION_ID="10.0"\n',
    ],
)
def test_another_system_is_refused_or_taken_for_one_of_a_family(
    os_release: Path, text: str
) -> None:
    os_release.write_text(text)
    with pytest.raises(AgentError) as caught:
        systems.of_this_node()
    assert caught.value.problem is Problem.NODE_UNSUPPORTED
    assert all(name in caught.value.message for name in KNOWN)
    for family in systems.FAMILIES:
        assert f"`--assume-family {family.kind}` has {family.runs} install it" in (
            caught.value.hint or ""
        )
        assert systems.of_this_node(family.kind).family is family
