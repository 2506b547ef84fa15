"""Each mount's part of a node: by weight, no less than mount-s3 needs, no more than is there."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.definition import Definition
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.plan import Placed
from s3mount_agent.core.resources import LEAST_MIB, Machine, Share, divide
from s3mount_agent.core.roles import Mode
from s3mount_agent.core.versions import Version
from s3mount_agent.mountpoint.command_line import parse_options
from s3mount_agent.reconcile import execute

NEW: Version = (1, 24, 0)


def mounts(*weights: int, options: str = "") -> list[Mount]:
    return [
        Mount(Bucket("my-bucket"), f"/mnt/{n}", parse_options(options), weight=weight)
        for n, weight in enumerate(weights)
    ]


def targets(
    of: list[Mount], machine: Machine, *, percent: int | None = None, version: Version = NEW
) -> list[int]:
    """The MiB of each mount, in their order."""
    shares = divide(of, machine, version, percent=percent)
    assert shares.keys() == {mount.id for mount in of}
    found = []
    for mount in of:
        (argument,) = shares[mount.id].arguments
        name, _, value = argument.partition("=")
        assert name == "--memory-target"
        found.append(int(value))
    return found


@pytest.mark.parametrize(
    ("weights", "machine", "percent", "expected"),
    [
        ((1,), Machine(8192), None, [4096]),
        ((1, 1), Machine(8192), None, [2048, 2048]),
        ((1, 3), Machine(8192), None, [1024, 3072]),
        ((3, 1), Machine(8192), None, [3072, 1024]),
        ((1, 1000), Machine(8192), None, [512, 3584]),
        ((1, 1, 1000), Machine(8192), None, [512, 512, 3072]),
        ((1, 2, 1000), Machine(2 * 1536), None, [512, 512, 512]),
        ((1,), Machine(8192), 90, [7372]),
        ((1, 1), Machine(8192), 25, [1024, 1024]),
        # Slurm promises its RealMemory to jobs: what is left, if that is less than half.
        ((1,), Machine(8192, 7000), None, [1192]),
        ((1,), Machine(8192, 2000), None, [4096]),
        ((1,), Machine(8192, 8192), None, [512]),
        ((1, 1), Machine(8192, 9999), None, [512, 512]),
        # Who says how much does not mean Slurm's.
        ((1,), Machine(8192, 7000), 50, [4096]),
        # Half is too little for all, but they fit.
        ((1, 1, 1), Machine(2048), None, [512, 512, 512]),
        ((1,) * 14, Machine(8192), None, [512] * 14),
    ],
)
def test_memory_is_divided_by_weight(
    weights: tuple[int, ...], machine: Machine, percent: int | None, expected: list[int]
) -> None:
    assert targets(mounts(*weights), machine, percent=percent) == expected


WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=40)


@given(WEIGHTS, st.integers(256, 2_000_000), st.none() | st.integers(0, 2_100_000), st.data())
def test_shares_never_exceed_what_there_is(
    weights: list[int], memory: int, slurm: int | None, data: st.DataObject
) -> None:
    percent = data.draw(st.none() | st.integers(1, 90))
    machine = Machine(memory, slurm)
    need = LEAST_MIB * len(weights)
    limit = memory * (90 if percent is None else percent) // 100
    try:
        found = targets(mounts(*weights), machine, percent=percent)
    except AgentError as error:
        refused = error
    else:
        assert sum(found) <= limit
        assert min(found) >= LEAST_MIB
        # Who weighs more never gets less, and the same weight gets the same but for rounding.
        pairs = sorted(zip(weights, found))
        for (light, less), (heavy, more) in zip(pairs, pairs[1:]):
            assert less <= more + (light == heavy)
            assert light != heavy or more - less <= 1
        if percent is None and need <= memory // 2 and slurm is None:
            assert sum(found) <= memory // 2
            assert sum(found) > memory // 2 - len(weights)
        return
    assert need > limit, "what fits into 90 % is not refused"
    assert refused.problem is Problem.SHARES_IMPOSSIBLE


@given(WEIGHTS, st.integers(600, 200_000), st.none() | st.integers(0, 200_000))
def test_what_fits_into_the_machine_is_never_refused_unasked(
    weights: list[int], memory: int, slurm: int | None
) -> None:
    fits = LEAST_MIB * len(weights) <= memory * 90 // 100
    if fits:
        targets(mounts(*weights), Machine(memory, slurm))
    else:
        with pytest.raises(AgentError):
            divide(mounts(*weights), Machine(memory, slurm), NEW)


@pytest.mark.parametrize(
    ("count", "machine", "percent", "arithmetic"),
    [
        (2, Machine(1024), None, "2 mounts need 2 x 512 = 1024 MiB, but may have 921 MiB (90 % of"),
        (4, Machine(8192), 10, "4 mounts need 4 x 512 = 2048 MiB, but may have 819 MiB (10 % of"),
        (1, Machine(8192, 8000), 1, "1 mounts need 1 x 512 = 512 MiB, but may have 81 MiB (1 % of"),
    ],
)
def test_an_impossible_division_shows_the_arithmetic(
    count: int, machine: Machine, percent: int | None, arithmetic: str
) -> None:
    with pytest.raises(AgentError) as caught:
        divide(mounts(*[1] * count), machine, NEW, percent=percent)
    assert caught.value.problem is Problem.SHARES_IMPOSSIBLE
    assert caught.value.problem.exit_code is Exit.USAGE
    assert arithmetic in caught.value.message
    assert f"{machine.memory} MiB)" in caught.value.message


@pytest.mark.parametrize(
    ("version", "share"),
    [
        ((), Share()),
        ((1, 22, 9), Share()),
        ((1, 23, 0), Share((), 4311)),
        ((1, 23, 9), Share((), 4311)),
        ((1, 24, 0), Share(("--memory-target=4096",), 5120)),
        ((2, 0, 0), Share(("--memory-target=4096",), 5120)),
    ],
)
def test_only_what_the_installed_version_knows_is_used(version: Version, share: Share) -> None:
    (mount,) = mounts(1)
    assert divide([mount], Machine(8192), version) == {mount.id: share}


@pytest.mark.parametrize("mib", [512, 600, 4096, 100_000])
def test_the_limit_of_the_cgroup_leaves_room_for_the_target(mib: int) -> None:
    (mount,) = mounts(1)
    machine = Machine(mib * 100 // 50)
    new = divide([mount], machine, (1, 24, 0))[mount.id].memory_max
    old = divide([mount], machine, (1, 23, 0))[mount.id].memory_max
    assert new is not None
    assert old is not None
    assert new >= mib * 1.2
    assert mib - 1 <= old * 95 // 100 <= mib, "1.23 takes 95 % of the limit for its target"


@pytest.mark.parametrize("version", [(1, 22, 0), (1, 23, 0), (1, 24, 0)])
def test_a_mounts_own_target_wins(version: Version) -> None:
    own, other = *mounts(1, options="--memory-target 4096"), mounts(1, 1)[1]
    shares = divide([own, other], Machine(8192), version)
    assert shares[own.id] == Share()
    if version >= (1, 24):
        assert shares[other.id].arguments == ("--memory-target=2048",)


@pytest.mark.parametrize(
    ("weights", "gbps", "expected"),
    [
        ((1,), 100, [100]),
        ((1, 1), 100, [50, 50]),
        ((1, 3), 100, [25, 75]),
        ((1, 1, 1), 100, [33, 33, 33]),
        ((1, 1000), 100, [1, 99]),
        ((1, 1, 1), 1, [1, 1, 1]),
        ((1, 1, 2), 10, [2, 2, 5]),
    ],
)
@pytest.mark.parametrize("version", [(), (1, 22, 0), (1, 24, 0)])
def test_bandwidth_is_divided_in_whole_numbers(
    weights: tuple[int, ...], gbps: int, expected: list[int], version: Version
) -> None:
    of = mounts(*weights)
    shares = divide(of, Machine(8192), version, gbps=gbps)
    last = [shares[mount.id].arguments[-1] for mount in of]
    assert last == [f"--maximum-throughput-gbps={part}" for part in expected]


@given(WEIGHTS, st.integers(1, 10_000))
def test_everybody_gets_bandwidth_and_not_much_too_much(weights: list[int], gbps: int) -> None:
    of = mounts(*weights)
    shares = divide(of, Machine(10**6), (), gbps=gbps)
    parts = [int(shares[mount.id].arguments[0].partition("=")[2]) for mount in of]
    assert min(parts) >= 1
    assert sum(part for part in parts if part > 1) <= gbps
    assert sum(parts) <= gbps + len(parts)


def test_a_mounts_own_bandwidth_wins() -> None:
    own, other = *mounts(1, options="--maximum-throughput-gbps 7"), mounts(1, 1)[1]
    shares = divide([own, other], Machine(8192), (), gbps=10)
    assert shares[own.id].arguments == ()
    assert shares[other.id].arguments == ("--maximum-throughput-gbps=5",)


def test_without_mounts_there_is_nothing_to_divide() -> None:
    assert divide([], Machine(1), NEW, percent=1) == {}


@given(WEIGHTS)
def test_the_order_of_the_mounts_does_not_matter(weights: list[int]) -> None:
    of = mounts(*weights)
    machine = Machine(100_000)
    assert divide(of, machine, NEW) == divide(of[::-1], machine, NEW)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(32 << 10, 1 << 20))
def test_equal_weights_have_equal_shares_whoever_they_are(weights: list[int], memory: int) -> None:
    of = mounts(*weights)
    found = targets(of, Machine(memory=memory))
    assert len(set(zip(weights, found))) == len(set(weights))


@pytest.mark.parametrize(
    ("options", "active", "limit"), [("", True, 2000), ("", False, 1000), ("-d", True, 1000)]
)
def test_only_the_limit_of_a_process_that_runs_on_is_not_lowered(
    options: str, active: bool, limit: int
) -> None:
    old = Definition("b-1", "/mnt/a", ("mount-s3",), Mode.SYSTEMD, False, memory_max=2000)
    new = dataclasses.replace(old, command=("mount-s3", *options.split()), memory_max=1000)
    placed = Placed("a", old, "", active=active)
    assert execute._not_lowered(new, placed).memory_max == limit
