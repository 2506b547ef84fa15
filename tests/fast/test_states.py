"""From facts to judgement, to exit codes; and what a node is to its cluster."""

from __future__ import annotations

import itertools

import pytest

from s3mount_agent.model.errors import AgentError, Exit, Problem
from s3mount_agent.model.roles import Conduct, Mode, NodeType, OnFailure, Role, conduct, role_of
from s3mount_agent.model.states import Facts, Failure, NodeState, Presence, State, judge, node_state

ABSENT, OURS, OTHER = Presence.ABSENT, Presence.MOUNTPOINT_S3, Presence.OTHER
PERMANENT = Failure("bucket-missing", "the bucket x does not exist", "create it", True)
PASSING = Failure("s3-unreachable", "S3 cannot be reached", "check the route", False)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Facts(OURS, alive=True), State.OK),
        (Facts(OURS, alive=True, failure=PASSING), State.OK),
        (Facts(OURS, alive=True, held=True), State.OK),
        (Facts(OURS, alive=False), State.STALE),
        (Facts(OURS, alive=False, starting=True), State.STARTING),
        (Facts(OTHER, alive=True), State.FOREIGN),
        (Facts(OTHER, alive=False, held=True, failure=PERMANENT), State.FOREIGN),
        (Facts(ABSENT, alive=False), State.MISSING),
        (Facts(ABSENT, alive=True), State.MISSING),
        (Facts(ABSENT, alive=False, starting=True), State.STARTING),
        (Facts(ABSENT, alive=False, failure=PERMANENT), State.FAILED),
        (Facts(ABSENT, alive=False, failure=PASSING), State.RETRYING),
        (Facts(ABSENT, alive=False, starting=True, failure=PASSING), State.RETRYING),
        (Facts(ABSENT, alive=False, held=True), State.MISSING),
        (Facts(ABSENT, alive=False, held=True, failure=PERMANENT), State.MISSING),
    ],
)
def test_facts_are_judged(facts: Facts, state: State) -> None:
    assert judge(facts).state is state


def test_a_failure_speaks_for_itself() -> None:
    judgement = judge(Facts(ABSENT, alive=False, failure=PERMANENT))
    assert (judgement.reason, judgement.hint) == (PERMANENT.reason, PERMANENT.hint)


def test_a_mount_taken_down_by_hand_says_so() -> None:
    assert "administrator" in str(judge(Facts(ABSENT, alive=False, held=True)).reason)


@pytest.mark.parametrize("presence", Presence)
@pytest.mark.parametrize(
    ("alive", "starting", "held"), list(itertools.product((False, True), repeat=3))
)
@pytest.mark.parametrize("failure", [None, PERMANENT, PASSING])
def test_all_that_is_not_ok_has_a_reason(
    presence: Presence, alive: bool, starting: bool, held: bool, failure: Failure | None
) -> None:
    judgement = judge(Facts(presence, alive, starting, held, failure))
    assert (judgement.reason is None) is (judgement.state is State.OK)


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
