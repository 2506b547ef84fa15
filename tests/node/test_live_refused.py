"""Edits that are wrong, and a source that is out of reach: what is in force stays in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from node.article import mounted, status
from node.conftest import NewNode
from node.listing import difference, written
from node.live_site import CONFIG, Site, Source, document, until

if TYPE_CHECKING:
    from cluster.node import Node

pytestmark = pytest.mark.node

ONE, TWO = "/mnt/one", "/mnt/two"


@pytest.fixture(scope="module", params=["head", "compute"])
def fresh(new_ready_module_node: NewNode, request: pytest.FixtureRequest) -> Node:
    """A node of each role, on which the agent has never been when the first test begins."""
    return new_ready_module_node(request.param)


@pytest.fixture(scope="module")
def site(cluster: Cluster, fresh: Node) -> Site:
    """The same, with two mounts."""
    site = Site(cluster, fresh)
    site.bootstrap(good(site))
    return site


def good(site: Site) -> str:
    """The version that is in force before each edit."""
    return document(site.row(ONE), site.row(TWO, "--read-only --allow-other"))


# First, while the node is as it was found. The agent itself stays: boto3, which asks a source,
# does not run out of an archive.
AGENT = ("/opt/s3mount-agent", "/usr/local", "/var/tmp", "/var/lib/systemd")


def test_a_first_bootstrap_without_its_source_fails_and_mounts_nothing(
    cluster: Cluster, fresh: Node
) -> None:
    source, before = Source(cluster), written(fresh, ignoring=AGENT)
    source.put("mounts: []\n")
    with source.cut_off():
        refused = cluster.custom_action(fresh, ["--config", source.url])
    missing = cluster.custom_action(fresh, ["--config", f"s3://{source.bucket}/not-there.yaml"])
    for action, words in (refused, "AccessDenied"), (missing, "NoSuchKey"):
        assert action.returncode == 1
        first, cause, hint = action.stderr.splitlines()
        assert first.startswith("s3mount-agent: error [source-failed]: ")
        assert words in cause
        assert hint.startswith("  hint: ")
    assert mounted(fresh) == {}
    assert not fresh.exists(CONFIG)
    assert difference(before, written(fresh, ignoring=AGENT)) == {}


def test_a_first_bootstrap_with_a_bad_file_is_wrong_usage_and_mounts_nothing(
    cluster: Cluster, fresh: Node
) -> None:
    source, before = Source(cluster), written(fresh, ignoring=AGENT)
    source.put("mounts:\n  - bukcet: hpc\n    directory: /mnt/s3\n")
    action = cluster.custom_action(fresh, ["--config", source.url])
    assert action.returncode == 2
    assert action.stderr.splitlines() == [
        f"s3mount-agent: error [config-invalid]: {source.url}:2:5: there is no key 'bukcet' here",
        "  cause:   - bukcet: hpc",
        "  cause:     ^",
        "  hint: did you mean bucket?",
    ]
    assert mounted(fresh) == {}
    assert difference(before, written(fresh, ignoring=AGENT)) == {}


def broken(site: Site) -> dict[str, tuple[str, str]]:
    """Edits that are wrong somewhere, though other parts of them are fine; and what is told."""
    new = site.row("/mnt/new")
    return {
        "unknown key": (
            good(site).replace("directory: /mnt/two", "directroy: /mnt/two"),
            "there is no key 'directroy' here",
        ),
        "directory twice": (
            document(site.row(ONE), new, site.row(ONE, "--allow-delete --allow-other")),
            "the directory /mnt/one is given twice",
        ),
        "options that exclude each other": (
            document(site.row(ONE), new, site.row(TWO, read_only=True, allow_delete=True)),
            "the options --read-only and --allow-delete exclude each other",
        ),
        "too many for this node's memory": (
            document(site.row(ONE), new, memory_percent=1),
            "need 2 x 512 = 1024 MiB, but may have",
        ),
        "nothing at all": ("", "the file is empty"),
    }


def test_a_broken_edit_changes_nothing_is_told_once_and_can_be_healed(site: Site) -> None:
    version = site.set(good(site))
    site.await_mounts(ONE, TWO)
    pids, mark = site.pids(), site.mark()
    text, problem = broken(site)["unknown key"]
    site.edit(text)
    site.await_problem(problem)
    followed = site.config()
    assert (followed["source"], followed["version"]) == (site.source.url, version)
    shown = site.agent("status").stdout
    assert shown.startswith("ok: ")  # the mounts are well
    words = " ".join(shown.split())  # in lines of 80 columns
    assert f"version {version} of {site.source.url}" in words
    assert f"problem: {followed['problem']}" in words
    # Asked again and again, by the daemon and by hand, it is told once.
    for _ in range(2):
        site.ask()
    refused = site.agent("apply", "--now", code=2)
    assert refused.stderr.startswith(f"s3mount-agent: error [config-invalid]: {site.source.url}:")
    assert f"{problem}; version {version} stays in force" in refused.stderr
    (refresh,) = (e for e in site.told(mark) if e.get("S3MOUNT_ACTION") == "refresh")
    assert refresh["S3MOUNT_RESULT"] == "refused"
    assert refresh["S3MOUNT_ERROR_CODE"] == "config-invalid"
    assert refresh["PRIORITY"] == "3"
    assert problem in refresh["MESSAGE"]
    assert refresh["MESSAGE"].endswith(f"; version {version} stays in force")
    found = site.node.run(["journalctl", "--no-pager", "-o", "cat", "S3MOUNT_ACTION=refresh"])
    assert refresh["MESSAGE"] in found.stdout.splitlines()
    assert site.node.read(CONFIG) == good(site)
    assert site.pids() == pids
    assert mounted(site.node).keys() == {ONE, TWO}
    # Healed.
    mark = site.mark()
    site.await_version(site.edit(document(site.row(ONE))))
    site.await_mounts(ONE)
    assert site.pids() == {ONE: pids[ONE]}
    assert ("refresh", "", "done") in site.events(mark)
    assert "problem" not in site.agent("status").stdout


def test_whatever_is_wrong_with_an_edit_all_of_it_is_refused(site: Site) -> None:
    version = site.set(good(site))
    site.await_mounts(ONE, TWO)
    pids = site.pids()
    for text, problem in broken(site).values():
        site.edit(text)
        site.await_problem(problem)
        assert site.config()["version"] == version
        assert site.node.read(CONFIG) == good(site)
        assert site.pids() == pids
    assert site.agent("plan").stdout.startswith("Nothing to change")


def test_a_broken_edit_taken_back_is_as_if_it_had_not_been(site: Site) -> None:
    version = site.set(good(site))
    site.await_mounts(ONE, TWO)
    pids = site.pids()
    site.edit("mounts: {}\n")
    until(lambda: "problem" in site.config(), site.config)
    site.edit(good(site))
    site.await_version(version)
    assert site.pids() == pids


def test_a_broken_edit_is_still_told_after_an_outage_of_the_source(site: Site) -> None:
    site.set(good(site))
    text, problem = broken(site)["unknown key"]
    site.edit(text)
    site.await_problem(problem)
    with site.source.cut_off():
        site.ask()
        site.await_problem("could not be read")
    site.ask()
    site.await_problem(problem)


def test_a_source_out_of_reach_is_told_once_and_over_when_it_is_back(site: Site) -> None:
    version = site.set(good(site))
    site.await_mounts(ONE, TWO)
    pids, mark = site.pids(), site.mark()
    with site.source.cut_off():
        site.ask()
        site.await_problem("could not be read")
        for _ in range(2):
            site.ask()
        assert site.config()["version"] == version
        assert site.agent("status").stdout.startswith("ok: ")
    site.ask()
    site.await_version(version)
    assert site.events(mark).count(("refresh", "", "failed")) == 1
    assert site.pids() == pids


def test_a_reboot_with_the_source_cut_off_gives_all_mounts(site: Site) -> None:
    version = site.set(good(site))
    with site.source.cut_off():
        site.node.reboot()
        site.agent("status", "--wait", "60")
        site.await_mounts(ONE, TWO)
        assert "ro" in mounted(site.node)[TWO].split(",")
        site.ask()
        site.await_problem("could not be read")
        assert site.config()["version"] == version
        site.await_mounts(ONE, TWO)
    site.ask()
    site.await_version(version)


def test_a_bootstrap_without_its_source_takes_the_last_good_copy_and_says_so(
    site: Site, cluster: Cluster
) -> None:
    version = site.set(good(site))
    site.await_mounts(ONE, TWO)
    pids = site.pids()
    with site.source.cut_off():
        action = cluster.custom_action(site.node, ["--config", site.source.url])
        assert (action.returncode, action.stderr) == (0, "")
        assert f"{site.source.url} could not be read: 403 AccessDenied: the last good" in (
            action.stdout
        )
        assert "2 of 2 mounts are up" in action.stdout
        assert site.pids() == pids
        assert site.config()["version"] == version
        assert "could not be read" in site.config()["problem"]
        # The copy is of this source: it does not stand in for another one.
        other = cluster.custom_action(site.node, ["--config", f"s3://{site.source.bucket}/other"])
        assert other.returncode == 1
        assert "error [source-failed]" in other.stderr
    site.ask()
    site.await_version(version)
    assert status(site.node)["state"] == "ok"
