"""Each mount's part of a node: by weight, no less than mount-s3 needs, no more than is there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount_agent.core.buckets import Bucket
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.core.options import LEAST_MIB, Buffers, room
from s3mount_agent.core.resources import Machine, Share, divide
from s3mount_agent.core.states import few_files
from s3mount_agent.core.versions import Version
from s3mount_agent.decide.plan import Placed
from s3mount_agent.mountpoint.flag_check import parse_options
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
        # On a small node, too: the README's two mounts, on 951 MiB.
        ((1, 1), Machine(951), None, [512, 512]),
        ((1,), Machine(300), None, [512]),
        ((1, 1), Machine(951, 903), None, [512, 512]),
    ],
)
def test_memory_is_divided_by_weight(
    weights: tuple[int, ...], machine: Machine, percent: int | None, expected: list[int]
) -> None:
    assert targets(mounts(*weights), machine, percent=percent) == expected


WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=40)


@given(
    WEIGHTS,
    st.integers(256, 2_000_000),
    st.none() | st.integers(0, 2_100_000),
    st.integers(1, 192),
    st.data(),
)
def test_shares_exceed_what_there_is_only_where_nobody_can_have_less(
    weights: list[int], memory: int, slurm: int | None, cpus: int, data: st.DataObject
) -> None:
    percent = data.draw(st.none() | st.integers(1, 90))
    machine = Machine(memory, slurm, cpus)
    need = LEAST_MIB * len(weights)
    limit = memory * (50 if percent is None else percent) // 100
    try:
        found = targets(mounts(*weights), machine, percent=percent)
    except AgentError as error:
        refused = error
    else:
        assert sum(found) <= max(limit, need)
        assert min(found) >= LEAST_MIB
        # Who weighs more never gets less, and the same weight gets the same.
        pairs = sorted(zip(weights, found))
        for (light, less), (heavy, more) in zip(pairs, pairs[1:]):
            assert less <= more
            assert light != heavy or more == less
        if percent is None and need <= limit and slurm is None:
            assert sum(found) > limit - len(weights)
        return
    assert percent is not None, "where nobody asked for a limit nobody is refused"
    assert need > limit
    assert refused.problem is Problem.SHARES_IMPOSSIBLE


# The memory and CPUs of what EC2 has with little memory for its CPUs, as Linux and ParallelCluster
# (RealMemory is 95 % of what the instance type has) tell them.
SHAPES = {
    "16 GiB, 4 CPUs": Machine(15_700, 15_564, 4),
    "16 GiB, 8 CPUs": Machine(15_500, 15_564, 8),
    "32 GiB, 16 CPUs": Machine(31_000, 31_129, 16),
    "192 GiB, 96 CPUs": Machine(188_000, 186_777, 96),
    "384 GiB, 192 CPUs": Machine(377_000, 373_555, 192),
}


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("machine", SHAPES.values(), ids=SHAPES)
def test_by_default_every_core_has_a_file_to_write(machine: Machine, count: int) -> None:
    of = mounts(*[1] * count)
    found = targets(of, machine)
    files = [mount.options.buffers.files(mib) or 0 for mount, mib in zip(of, found)]
    assert min(files) >= machine.cpus
    assert sum(found) <= machine.memory // 2


def test_parts_of_a_mount_are_looked_at_for_that() -> None:
    (small,), (large,) = mounts(1), mounts(1, options="--write-part-size=67108864")
    machine = Machine(15_500, 15_564, 8)
    assert divide([large], machine, NEW)[large.id].arguments == ("--memory-target=648",)
    assert large.options.buffers.files(648) == 8
    # But not beyond half of the machine: then for one, and it is told.
    crowded = Machine(1200, 1140, 8)
    assert divide([large], crowded, NEW)[large.id].arguments == ("--memory-target=512",)
    told = few_files("/mnt/0", large.options.buffers.files(512), crowded.cpus)
    assert told is not None
    assert "only 5 files can be open for writing at once on /mnt/0" in told
    assert few_files("/mnt/0", small.options.buffers.files(512), 47) is None
    assert few_files("/mnt/0", small.options.buffers.files(512), 48) is not None
    assert few_files("/mnt/0", None, 48) is None


@pytest.mark.parametrize(
    ("options", "target", "files"),
    [
        ("", 512, 47),
        ("", 1008, 109),
        ("", 4096, 447),
        ("--read-only", 512, None),
        ("--part-size=5242880", 512, 75),
        ("--read-part-size=402653184", 512, 0),
        ("--write-part-size=394264576", 512, 1),
        ("--write-part-size=394264577", 512, 0),
    ],
)
def test_how_many_files_may_be_open_for_writing(
    options: str, target: int, files: int | None
) -> None:
    """The first rows are mount-s3's own figures."""
    assert parse_options(options).buffers.files(target) == files
    assert parse_options(options).write_files is None
    if files:
        assert parse_options(f"{options} --memory-target={target}").write_files == files


PARTS = st.integers(5 << 20, 5 << 30)


@given(PARTS, PARTS, st.integers(1, 1000))
def test_the_least_target_for_some_files_is_the_least(read: int, write: int, files: int) -> None:
    buffers = Buffers(read, write)
    target = buffers.target(files)
    assert (buffers.files(target) or 0) >= files
    assert target == LEAST_MIB or (buffers.files(target - 1) or 0) < files
    assert room(target) >= read


def test_a_part_that_the_node_has_no_room_for_is_refused() -> None:
    (mount,) = mounts(1, options="--write-part-size=5368709120")
    with pytest.raises(AgentError) as caught:
        divide([mount], Machine(4096), NEW)
    assert caught.value.problem is Problem.SHARES_IMPOSSIBLE
    assert "need 5861 MiB before a file could be written" in caught.value.message
    divide([mount], Machine(4096), (1, 23, 0))  # which knows of no such limit
    divide([mount], Machine(8192), NEW)


@pytest.mark.parametrize(
    ("count", "machine", "percent", "arithmetic"),
    [
        (2, Machine(1024), 90, "2 mounts need 2 x 512 = 1024 MiB, but may have 921 MiB (90 % of"),
        (4, Machine(8192), 10, "4 mounts need 4 x 512 = 2048 MiB, but may have 819 MiB (10 % of"),
        (1, Machine(8192, 8000), 1, "1 mounts need 1 x 512 = 512 MiB, but may have 81 MiB (1 % of"),
    ],
)
def test_an_impossible_division_shows_the_arithmetic(
    count: int, machine: Machine, percent: int, arithmetic: str
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
        # It does not see the limit of its unit, and would be killed by it.
        ((1, 23, 0), Share()),
        ((1, 23, 9), Share()),
        ((1, 24, 0), Share(("--memory-target=4096",), 6144)),
        ((2, 0, 0), Share(("--memory-target=4096",), 6144)),
    ],
)
def test_only_what_the_installed_version_knows_is_used(version: Version, share: Share) -> None:
    (mount,) = mounts(1)
    assert divide([mount], Machine(8192), version) == {mount.id: share}


@pytest.mark.parametrize("mib", [512, 600, 4096, 100_000])
def test_the_limit_of_the_cgroup_is_a_net_well_above_the_target(mib: int) -> None:
    (mount,) = mounts(1)
    limit = divide([mount], Machine(mib * 2), NEW)[mount.id].memory_max
    assert limit is not None
    assert limit >= mib * 1.5
    assert limit >= mib + 512


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


TARGET = "--memory-target=2000"
OLD = Definition(
    "b-1", "/mnt/a", ("mount-s3", TARGET), Mode.SYSTEMD, False, share=(TARGET,), memory_max=2500
)
BLIND = dataclasses.replace(OLD, command=("mount-s3",), share=(), memory_max=539)
FREE = dataclasses.replace(OLD, memory_max=None)


@pytest.mark.parametrize(
    ("old", "options", "state", "limit"),
    [
        (OLD, "", "active", 2500),
        (OLD, "", "starting", 2500),
        (OLD, "", "down", 1024),
        (OLD, "-d", "active", 1024),
        # What was started without a target knows of no limit: it is taken off, whatever is to be.
        (BLIND, "", "active", None),
        (BLIND, "", "down", 1024),
        (FREE, "", "active", None),
    ],
)
def test_a_process_that_runs_on_gets_no_limit_that_it_does_not_know_of(
    old: Definition, options: str, state: str, limit: int | None
) -> None:
    share = ("--memory-target=512",)
    command = ("mount-s3", *share, *options.split())
    new = dataclasses.replace(old, command=command, share=share, memory_max=1024)
    placed = Placed("a", old, "", active=state == "active", starting=state == "starting")
    assert execute._not_lowered(new, placed).memory_max == limit
    # One that can no longer be told its target loses its limit at once.
    free = dataclasses.replace(new, command=("mount-s3",), share=(), memory_max=None)
    assert execute._not_lowered(free, placed).memory_max is None


@pytest.mark.parametrize(("target", "limit"), [(512, 1024), (600, None), (None, None)])
def test_a_process_that_came_back_with_its_target_gets_its_limit(
    target: int | None, limit: int | None
) -> None:
    """After an upgrade of mount-s3, which the process of before did not notice."""
    share = ("--memory-target=512",)
    here = dataclasses.replace(FREE, command=("mount-s3", *share), share=share)
    new = dataclasses.replace(here, memory_max=1024)
    words = [] if target is None else [f"--memory-target={target}"]
    wait = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *words]
    with subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        placed = Placed("a", here, "", active=True, pid=running.pid)
        assert execute._not_lowered(new, placed).memory_max == limit
        running.kill()
