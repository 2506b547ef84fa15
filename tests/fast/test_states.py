"""From facts to judgement, to exit codes; and what a node is to its cluster."""

from __future__ import annotations

import itertools

import pytest

from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.node_roles import Conduct, Mode, NodeType, OnFailure, Role, conduct, role_of
from s3mount_agent.core.states import (
    Failure,
    NodeState,
    Presence,
    State,
    Stranger,
    node_state,
)
from s3mount_agent.decide.mount_status import MountStatus, judge, sum_up

ABSENT, OURS, OTHER = Presence.ABSENT, Presence.OURS, Presence.FOREIGN
COVERED = Presence.COVERED
BY_HAND = Stranger("/mnt/s3", "mountpoint-s3", "fuse", None, 12, "mount-s3 b /mnt/s3")
OF_FSTAB = Stranger("/mnt/s3", "mountpoint-s3", "fuse", in_fstab=True)
ABOVE = Stranger("/mnt", "fs-1:/", "nfs4")
BY_A_USER = Stranger("/mnt/s3", "mountpoint-s3", "fuse", 1000)
PERMANENT = Failure("bucket-missing", "the bucket x does not exist", "create it", True)
PASSING = Failure("s3-unreachable", "S3 cannot be reached", "check the route", False)


def facts_of(
    presence: Presence,
    alive: bool,
    starting: bool = False,
    held: bool = False,
    failure: Failure | None = None,
    hung: bool = False,
    s3: Failure | None = None,
    stranger: Stranger | None = None,
) -> MountStatus:
    """A mount of which just these facts are known."""
    return MountStatus(
        "585e79a6",
        "/mnt/s3",
        "my-bucket",
        read_only=False,
        presence=presence,
        alive=alive,
        starting=starting,
        held=held,
        failure=failure,
        hung=hung,
        s3=s3,
        stranger=stranger,
    )


# What decides about a mount, in every combination: the first three columns are the mount table, the
# process, and whether it is on its way; ANY is what makes no difference there.
ANY = ...
TABLE = [
    # presence, alive, starting, held, failure, hung, s3 -> state
    (OTHER, ANY, ANY, ANY, ANY, ANY, ANY, State.FOREIGN),
    (COVERED, ANY, ANY, ANY, ANY, ANY, ANY, State.FOREIGN),
    (OURS, True, ANY, ANY, ANY, True, ANY, State.HUNG),
    (OURS, True, ANY, ANY, ANY, False, PASSING, State.DEGRADED),
    (OURS, True, ANY, ANY, ANY, False, None, State.OK),
    (OURS, False, True, ANY, ANY, ANY, ANY, State.STARTING),
    (OURS, False, False, ANY, ANY, ANY, ANY, State.STALE),
    (ABSENT, ANY, ANY, True, ANY, ANY, ANY, State.MISSING),
    (ABSENT, ANY, ANY, False, PERMANENT, ANY, ANY, State.FAILED),
    (ABSENT, ANY, ANY, False, PASSING, ANY, ANY, State.RETRYING),
    (ABSENT, ANY, True, False, None, ANY, ANY, State.STARTING),
    (ABSENT, ANY, False, False, None, ANY, ANY, State.MISSING),
]
TRUTH = (False, True)
COMBINATIONS = list(
    itertools.product(
        Presence, TRUTH, TRUTH, TRUTH, (None, PERMANENT, PASSING), TRUTH, (None, PASSING)
    )
)


def test_all_facts_are_judged_by_exactly_one_row_of_the_table() -> None:
    assert len(COMBINATIONS) == 384
    for facts in COMBINATIONS:
        rows = [
            row[-1] for row in TABLE if all(a is ANY or a == b for a, b in zip(row[:-1], facts))
        ]
        assert [judge(facts_of(*facts)).state] == rows, facts


def test_no_row_of_the_table_is_there_for_nothing() -> None:
    assert {row[-1] for row in TABLE} == set(State)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (facts_of(OTHER, alive=True), "something else is mounted"),
        (facts_of(OURS, alive=True, hung=True), "does not answer"),
        (facts_of(OURS, alive=False, starting=True), "is starting"),
        (facts_of(OURS, alive=False), "left its mount behind"),
        (facts_of(ABSENT, alive=True), "mount-s3 runs, but its mount is gone"),
        (facts_of(ABSENT, alive=False), "it is not mounted"),
        (facts_of(ABSENT, alive=False, starting=True), "is starting"),
    ],
)
def test_states_that_look_alike_have_different_reasons(facts: MountStatus, words: str) -> None:
    assert words in str(judge(facts).reason)


@pytest.mark.parametrize(
    "facts",
    [
        facts_of(ABSENT, alive=False, failure=PERMANENT),
        facts_of(ABSENT, alive=False, failure=PASSING),
        facts_of(OURS, alive=True, s3=PASSING),
    ],
)
def test_a_failure_speaks_for_itself(facts: MountStatus) -> None:
    failure = facts.failure or facts.s3
    assert failure is not None
    judgement = judge(facts)
    assert (judgement.reason, judgement.hint) == (failure.reason, failure.hint)


@pytest.mark.parametrize(
    ("presence", "stranger", "reason", "hint"),
    [
        (OTHER, BY_HAND, "directory: mountpoint-s3 (fuse), served by pid 12: mount-s3 b", "umount"),
        (OTHER, OF_FSTAB, "which /etc/fstab mounts there", "take /mnt/s3 out of /etc/fstab"),
        (COVERED, ABOVE, "on /mnt, over the agent's mount: fs-1:/ (nfs4)", "`umount /mnt`"),
        (COVERED, BY_A_USER, "mounted by user 1000", "`umount /mnt/s3`"),
    ],
)
def test_what_is_in_the_way_is_named_with_its_mend(
    presence: Presence, stranger: Stranger, reason: str, hint: str
) -> None:
    judgement = judge(facts_of(presence, alive=True, hung=True, s3=PASSING, stranger=stranger))
    assert judgement.state is State.FOREIGN
    assert reason in str(judgement.reason)
    assert hint in str(judgement.hint)


def test_a_mount_taken_down_by_hand_says_so() -> None:
    assert "administrator" in str(judge(facts_of(ABSENT, alive=False, held=True)).reason)


def test_all_that_is_not_ok_has_a_reason() -> None:
    for facts in COMBINATIONS:
        judgement = judge(facts_of(*facts))
        assert (judgement.reason is None) is (judgement.state is State.OK), facts


@pytest.mark.parametrize(
    ("states", "expected", "code"),
    [
        ([], NodeState.OK, Exit.OK),
        ([State.OK, State.OK], NodeState.OK, Exit.OK),
        ([State.OK, State.STARTING], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.RETRYING], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.FOREIGN], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.MISSING, State.OK], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.STALE], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.HUNG], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.DEGRADED], NodeState.DEGRADED, Exit.DEGRADED),
        ([State.OK, State.FAILED, State.STALE], NodeState.FAILED, Exit.FAILED),
    ],
)
def test_a_node_is_as_well_as_its_worst_mount(
    states: list[State], expected: NodeState, code: Exit
) -> None:
    assert node_state(states) is expected
    assert node_state(states).exit_code is code


def test_the_exit_codes_are_frozen() -> None:
    assert {each.name: each.value for each in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "DEGRADED": 3,
        "PENDING": 4,
    }
    assert {problem.exit_code for problem in Problem} == {Exit.FAILED, Exit.USAGE}


def node_type(value: str, file: str = "/etc/chef/dna.json") -> NodeType:
    return NodeType(value, file)


@pytest.mark.parametrize(
    ("found", "role"),
    [
        ([], Role.STANDALONE),
        ([node_type("HeadNode")], Role.HEAD),
        ([node_type("ComputeFleet")], Role.COMPUTE),
        ([node_type("LoginNode")], Role.LOGIN),
        ([node_type("LoginNode"), node_type("LoginNode", "cfnconfig")], Role.LOGIN),
    ],
)
def test_a_node_type_tells_the_role(found: list[NodeType], role: Role) -> None:
    assert role_of(found) is role


@pytest.mark.parametrize(
    "found",
    [
        [node_type("")],
        [node_type("headnode")],
        [node_type("MasterServer")],
        [node_type("HeadNode"), node_type("MasterServer", "/etc/parallelcluster/cfnconfig")],
        [node_type("HeadNode"), node_type("ComputeFleet", "/etc/parallelcluster/cfnconfig")],
    ],
)
def test_unknown_and_contradictory_types_name_file_and_value(found: list[NodeType]) -> None:
    with pytest.raises(AgentError) as caught:
        role_of(found)
    assert caught.value.problem is Problem.NODE_TYPE
    assert found[-1].file in caught.value.message
    assert found[-1].value in caught.value.message


@pytest.mark.parametrize(
    ("role", "mode", "on_failure"),
    [
        (Role.HEAD, Mode.SYSTEMD, OnFailure.CONTINUE),
        (Role.COMPUTE, Mode.DIRECT, OnFailure.FAIL),
        (Role.LOGIN, Mode.SYSTEMD, OnFailure.CONTINUE),
        (Role.STANDALONE, Mode.SYSTEMD, OnFailure.FAIL),
    ],
)
def test_each_role_has_its_conduct(role: Role, mode: Mode, on_failure: OnFailure) -> None:
    assert conduct(role, systemd_runs=True) == Conduct(role, mode, on_failure)
    assert conduct(role, systemd_runs=False) == Conduct(role, Mode.DIRECT, on_failure)
    for other in OnFailure:
        assert conduct(role, systemd_runs=True, on_failure=other).on_failure is other
    for chosen in Mode:
        assert conduct(role, systemd_runs=True, mode=chosen).mode is chosen


def test_mode_systemd_needs_systemd() -> None:
    with pytest.raises(AgentError) as caught:
        conduct(Role.HEAD, systemd_runs=False, mode=Mode.SYSTEMD)
    assert caught.value.problem is Problem.MODE


def test_a_change_that_waits_is_seen_in_the_nodes_state() -> None:
    well = judge(facts_of(OURS, alive=True))
    waiting = well._replace(pending="its new options wait: /mnt/s3 is in use")
    assert sum_up([well]) is NodeState.OK
    assert sum_up([well, waiting]) is NodeState.DEGRADED
    failed = judge(facts_of(ABSENT, alive=False, failure=PERMANENT))
    assert sum_up([waiting, failed]) is NodeState.FAILED


def test_beside_a_process_stands_since_when_it_runs() -> None:
    mount = facts_of(OURS, alive=True)._replace(since="2026-01-01T00:00:00Z", pid=7)
    assert mount.to_json()["since"] == "2026-01-01T00:00:00Z"
    mount = mount._replace(started="2026-02-02T00:00:00Z")
    assert mount.to_json()["since"] == "2026-02-02T00:00:00Z"
