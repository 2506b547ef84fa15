"""S3 that denies or does not answer for minutes: what a node does about it, by its role.

The bootstraps were started with the first test of the run; here they have had their time.
"""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster
from node.article import WRITABLE, states, status
from node.patient import DENIED, Outcome, Patient

# Alone, these tests wait for as long as a compute node tries.
pytestmark = [pytest.mark.node, pytest.mark.timeout(420)]


def require_told(outcome: Outcome, code: str, cause: str) -> None:
    """A compute node's last words."""
    assert outcome.returncode == 1
    lines = outcome.stderr.splitlines()
    assert len(outcome.stderr.encode()) < 4000
    assert lines[0].startswith(f"s3mount-agent: error [{code}]: ")
    assert cause in outcome.stderr
    assert lines[-1].startswith("  hint: ")


def test_access_denied_fails_a_compute_node(patient: dict[str, Patient]) -> None:
    require_told(patient["compute denied"].outcome(), "access-denied", "Forbidden: Access Denied")


def test_access_denied_does_not_fail_a_head_which_gets_it_later(
    cluster: Cluster, patient: dict[str, Patient]
) -> None:
    each = patient["head denied"]
    outcome = each.outcome()
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "error [access-denied]" in outcome.stdout
    assert "s3:ListBucket" in outcome.stdout
    assert states(each.node, wait=45) == {WRITABLE: "failed"}
    assert "denies access" in status(each.node)["mounts"][0]["reason"]
    assert each.node.run(["s3mount-agent", "status"], check=False).returncode == 1
    cluster.s3.heal(DENIED)
    each.node.run(["s3mount-agent", "apply"])
    assert states(each.node, wait=45) == {WRITABLE: "ok"}


def test_a_head_that_cannot_reach_s3_keeps_trying_and_succeeds(
    patient: dict[str, Patient],
) -> None:
    each = patient["head cut off"]
    outcome = each.outcome()
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "error [s3-unreachable]" in outcome.stdout
    assert "keeps trying" in outcome.stdout
    assert states(each.node)[WRITABLE] in {"retrying", "starting"}
    waited = each.node.run(["s3mount-agent", "status", "--wait", "1"], check=False)
    assert waited.returncode == 4
    assert each.node.run(["s3mount-agent", "status"], check=False).returncode == 3
    each.node.reconnect()
    assert each.node.run(["s3mount-agent", "status", "--wait", "100"], timeout=110).returncode == 0
    assert states(each.node) == {WRITABLE: "ok"}


def test_a_compute_node_that_cannot_reach_s3_fails_in_the_end(
    patient: dict[str, Patient],
) -> None:
    outcome = patient["compute cut off"].outcome()
    require_told(outcome, "s3-unreachable", "CRT error")
    assert f"{WRITABLE}: S3 cannot be reached" in outcome.stdout
