"""The one function that decides what changes on a node: situation by situation."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fast.in_memory import parse_mount
from s3mount_agent.config import config_file
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Owner
from s3mount_agent.core.node_roles import Mode, Role
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.plan import (
    Action,
    Kind,
    Observed,
    Placed,
    Plan,
    Standing,
    Wanted,
    difference,
    plan,
)

DIRECTORY = "/mnt/s3"
OURS = {DIRECTORY: Presence.OURS}
OTHER = {DIRECTORY: Presence.FOREIGN}


def wanted(
    options: str = "--allow-other", *, bucket: str = "my-bucket", directory: str = DIRECTORY
) -> Wanted:
    mount = parse_mount(bucket, directory, options)
    command = ("/usr/bin/mount-s3", *mount.arguments(None))
    definition = Definition(bucket, directory, command, Mode.SYSTEMD, mount.read_only)
    return Wanted(mount, definition, "text of " + definition.to_json())


def placed(want: Wanted, *, active: bool = False, starting: bool = False) -> Placed:
    pid = 4711 if active or starting else None
    return Placed(want.mount.id, want.definition, want.text, active, starting, pid)


WANT = wanted()
UP = placed(WANT, active=True)
DOWN = placed(WANT)
RISING = placed(WANT, starting=True)
OTHER_OPTIONS = placed(wanted("--read-only"), active=True)
OTHER_BUCKET = placed(wanted(bucket="other-bucket"), active=True)
OTHER_TEXT = dataclasses.replace(UP, text="from an older agent")
UNSETTLED = dataclasses.replace(UP, settled=False)


def kinds(found: Plan) -> list[tuple[str, str]]:
    return [(action.kind.value, action.id) for action in found.actions]


@pytest.mark.parametrize(
    ("here", "presence", "expected"),
    [
        pytest.param(None, {}, ["start"], id="new"),
        pytest.param(UP, OURS, [], id="unchanged"),
        pytest.param(OTHER_OPTIONS, OURS, ["stop", "start"], id="options changed"),
        pytest.param(
            dataclasses.replace(OTHER_OPTIONS, active=False),
            {},
            ["stop", "start"],
            id="options changed while down",
        ),
        pytest.param(DOWN, {}, ["start"], id="down"),
        pytest.param(DOWN, OURS, ["start"], id="stale: process dead, mount left"),
        pytest.param(UP, {}, ["stop", "start"], id="process alive, mount vanished"),
        pytest.param(RISING, {}, [], id="starting"),
        pytest.param(RISING, OURS, [], id="starting, just mounted"),
        pytest.param(OTHER_TEXT, OURS, ["write"], id="text differs, same command"),
        pytest.param(UNSETTLED, OURS, ["write"], id="unit not enabled or not reloaded"),
        pytest.param(
            dataclasses.replace(RISING, text="old"), {}, ["write"], id="text differs, starting"
        ),
        pytest.param(
            dataclasses.replace(DOWN, text="old"), {}, ["start"], id="text differs and down"
        ),
    ],
)
def test_each_situation_has_its_actions(
    here: Placed | None, presence: dict[str, Presence], expected: list[str]
) -> None:
    found = plan([WANT], Observed({here.id: here} if here else {}, presence))
    assert kinds(found) == [(kind, WANT.mount.id) for kind in expected]
    assert found.foreign == ()
    assert bool(found) is bool(expected)
    assert all(action.because and action.directory == DIRECTORY for action in found.actions)


@pytest.mark.parametrize(
    ("here", "presence"),
    [
        pytest.param(None, OTHER, id="another file system"),
        pytest.param(None, OURS, id="a mount-s3 that the agent did not make"),
        pytest.param(UP, OTHER, id="over-mounted while up"),
        pytest.param(DOWN, OTHER, id="over-mounted while down"),
        pytest.param(OTHER_OPTIONS, OTHER, id="over-mounted, options changed"),
    ],
)
def test_what_the_agent_did_not_mount_is_reported_and_left_alone(
    here: Placed | None, presence: dict[str, Presence]
) -> None:
    found = plan([WANT], Observed({here.id: here} if here else {}, presence))
    assert found == Plan(foreign=(DIRECTORY,))


@pytest.mark.parametrize(
    ("here", "presence"),
    [(UP, {}), (UP, OURS), (RISING, {}), (RISING, OURS), (DOWN, {}), (DOWN, OURS), (DOWN, OTHER)],
)
def test_a_mount_that_is_no_longer_wanted_is_stopped(
    here: Placed, presence: dict[str, Presence]
) -> None:
    found = plan([], Observed({here.id: here}, presence))
    assert kinds(found) == [("stop", here.id)]
    assert found.actions[0].directory == DIRECTORY


@pytest.mark.parametrize("here", [UP, RISING])
def test_an_unwanted_mount_below_a_foreign_one_is_reported_and_not_stopped(here: Placed) -> None:
    """On its way out mount-s3 unmounts its directory, whatever lies uppermost by then."""
    assert plan([], Observed({here.id: here}, OTHER)) == Plan(foreign=(DIRECTORY,))


def test_another_bucket_on_the_same_directory_replaces_the_first() -> None:
    found = plan([WANT], Observed({OTHER_BUCKET.id: OTHER_BUCKET}, OURS))
    assert kinds(found) == [("stop", OTHER_BUCKET.id), ("start", WANT.mount.id)]
    assert [action.bucket for action in found.actions] == ["other-bucket", "my-bucket"]


def test_a_mount_that_moves_is_stopped_there_and_started_here() -> None:
    there = placed(wanted(directory="/mnt/old"), active=True)
    found = plan([WANT], Observed({there.id: there}, {"/mnt/old": Presence.OURS}))
    assert [(a.kind, a.directory) for a in found.actions] == [
        (Kind.STOP, "/mnt/old"),
        (Kind.START, DIRECTORY),
    ]


def test_one_mount_in_trouble_does_not_touch_the_others() -> None:
    wants = [wanted(directory=f"/mnt/{n}") for n in range(5)]
    here = {want.mount.id: placed(want, active=True) for want in wants}
    presence = {f"/mnt/{n}": Presence.OURS for n in range(5) if n != 3}
    found = plan(wants, Observed(here, presence))
    assert {action.directory for action in found.actions} == {"/mnt/3"}


def test_actions_can_be_had_by_kind() -> None:
    stop = Action(Kind.STOP, "1", "/a", "b", "x")
    start = Action(Kind.START, "1", "/a", "b", "x")
    found = Plan((stop, start))
    assert (found.of(Kind.STOP), found.of(Kind.WRITE), found.of(Kind.START)) == (
        (stop,),
        (),
        (start,),
    )


def test_nothing_wanted_and_nothing_there_is_nothing_to_do() -> None:
    assert plan([], Observed({}, OTHER)) == Plan()


SHARED = dataclasses.replace(
    WANT.definition,
    command=("/usr/bin/mount-s3", "--memory-target=1024", *WANT.definition.command[1:]),
    share=("--memory-target=1024",),
    memory_max=1280,
    environment=(("AWS_REGION", "eu-west-1"),),
)


def changed(**fields: object) -> Definition:
    return dataclasses.replace(SHARED, **fields)  # type: ignore[arg-type]


def another_share(mib: int) -> Definition:
    word = f"--memory-target={mib}"
    command = ("/usr/bin/mount-s3", word, *WANT.definition.command[1:])
    return changed(command=command, share=(word,), memory_max=mib * 5 // 4)


def planned(new: Definition, *, old: Definition = SHARED, active: bool = True) -> Plan:
    want = Wanted(WANT.mount, new, new.to_json())
    here = Placed(WANT.mount.id, old, old.to_json(), active=active)
    return plan([want], Observed({here.id: here}, OURS if active else {}))


@pytest.mark.parametrize(
    ("new", "because"),
    [
        (another_share(2048), "its share of the node changes, without a new mount"),
        (changed(memory_max=None), "its share of the node changes, without a new mount"),
        (
            changed(command=WANT.definition.command, share=(), memory_max=None),
            "its share of the node changes, without a new mount",
        ),
        (changed(mode=Mode.DIRECT), "its unit changes, without a new mount"),
        # A package has come in the place of what somebody had put there.
        (
            changed(command=("/usr/local/bin/mount-s3", *SHARED.command[1:])),
            "its unit changes, without a new mount",
        ),
    ],
)
def test_what_needs_no_new_mount_is_only_written(new: Definition, because: str) -> None:
    assert new.essence() == SHARED.essence()
    found = planned(new)
    assert [(action.kind, action.because) for action in found.actions] == [(Kind.WRITE, because)]
    # What is down is started with it.
    assert [action.kind for action in planned(new, active=False).actions] == [Kind.START]


@pytest.mark.parametrize("said", ["512", "0512"])
def test_a_share_that_is_spelled_out_needs_no_new_mount(said: str) -> None:
    bare = tuple(word for word in SHARED.command if word not in SHARED.share)
    share = ("--memory-target=512", "--maximum-throughput-gbps=5")
    left = changed(command=(bare[0], *share, *bare[1:]), share=share, memory_max=1024)
    spelled = changed(
        command=(bare[0], share[1], f"--memory-target={said}", *bare[1:]),
        share=share[1:],
        memory_max=None,
    )
    for old, new in ((left, spelled), (spelled, left)):
        assert [action.kind for action in planned(new, old=old).actions] == [Kind.WRITE]
    other = changed(
        command=(bare[0], share[1], "--memory-target=600", *bare[1:]),
        share=share[1:],
        memory_max=None,
    )
    assert [action.because for action in planned(other, old=left).actions] == [
        "it changed: +[--memory-target=600]"
    ] * 2


@pytest.mark.parametrize(
    ("new", "because"),
    [
        (changed(environment=()), "it changed: -[AWS_REGION=eu-west-1]"),
        (
            changed(environment=(("AWS_REGION", "eu-west-2"),)),
            "it changed: -[AWS_REGION=eu-west-1] +[AWS_REGION=eu-west-2]",
        ),
        (
            changed(environment=(("AWS_REGION", "eu-west-1"), ("NO_PROXY", "*"))),
            "it changed: +[NO_PROXY=*]",
        ),
        (
            changed(command=tuple(w for w in SHARED.command if w != "--allow-other")),
            "it changed: -[--allow-other]",
        ),
        # The user's own now, and not what the node gives.
        (
            dataclasses.replace(another_share(2048), share=()),
            "it changed: +[--memory-target=2048]",
        ),
        (
            changed(command=(SHARED.command[0], *SHARED.command[:0:-1])),
            "it changed: the order of its options",
        ),
    ],
)
def test_what_a_process_cannot_change_about_itself_takes_a_new_one(
    new: Definition, because: str
) -> None:
    found = planned(new)
    assert [action.kind for action in found.actions] == [Kind.STOP, Kind.START]
    assert {action.because for action in found.actions} == {because}


def test_a_difference_is_told_in_words_taken_away_and_added() -> None:
    old = wanted("--read-only --allow-other").definition
    new = wanted("--allow-delete --allow-other").definition
    assert difference(old, new) == "-[--read-only] +[--allow-delete]"
    assert difference(old, old) == "the order of its options"


def test_a_share_is_no_difference() -> None:
    both = changed(command=(*another_share(2048).command, "/x"), share=another_share(2048).share)
    assert difference(SHARED, both) == "+[/x]"


def test_a_definition_reads_back_as_it_was_written_also_an_older_one() -> None:
    assert Definition.from_json(SHARED.to_json()) == SHARED
    old = json.loads(WANT.definition.to_json())
    for name in ("share", "memory_max", "environment"):
        del old[name]
    assert Definition.from_json(json.dumps(old)) == WANT.definition


def test_a_mount_that_comes_disturbs_no_other() -> None:
    """Its share is taken from the others, which run on."""
    more = wanted(directory="/mnt/more")
    less = Wanted(WANT.mount, another_share(512), another_share(512).to_json())
    here = Placed(WANT.mount.id, SHARED, SHARED.to_json(), active=True)
    found = plan([less, more], Observed({here.id: here}, OURS))
    assert kinds(found) == [("write", WANT.mount.id), ("start", more.mount.id)]


# What the agent wrote of a mount before its options had a normal form: a unit's record, as it was.
RECORD = """\
{"bucket": "my-bucket", "command": ["/usr/bin/mount-s3", "--foreground", "--allow-delete", \
"--allow-other", "--dir-mode=0755", "--uid=1000", "--gid=1000", \
"--user-agent-prefix=s3mount-agent", "my-bucket", "/mnt/s3"], "directory": "/mnt/s3", \
"environment": [], "memory_max": 539, "mode": "direct", "read_only": false, "share": []}"""


@pytest.mark.parametrize(
    "options",
    [
        "--allow-delete --allow-other --dir-mode=0755",
        "--allow-other --allow-delete",
        "--allow-other --dir-mode 755 --allow-delete --max-threads 16",
        "--gid 1000 --allow-other --uid 1000 --allow-delete --file-mode=0644",
    ],
)
def test_a_change_of_no_consequence_restarts_nothing(options: str) -> None:
    old = Definition.from_json(RECORD)
    mount = parse_mount("my-bucket", DIRECTORY, options)
    share = ("--memory-target=512",)
    command = ("/usr/bin/mount-s3", *share, *mount.arguments(Owner(1000, 1000)))
    new = Definition(
        "my-bucket", DIRECTORY, command, Mode.DIRECT, read_only=False, share=share, memory_max=None
    )
    up = Placed(mount.id, old, "from an older agent", active=True, pid=4711)
    found = plan([Wanted(mount, new, "new text")], Observed({up.id: up}, OURS))
    assert kinds(found) == [("write", mount.id)]


def test_the_args_and_the_file_mean_the_same_mount() -> None:
    """The same options as an Args' text, as a text in the file, and as keys there."""
    file = """\
mounts:
- {bucket: my-bucket, directory: /mnt/a, options: --allow-other --uid 7 --dir-mode 0755}
- {bucket: my-bucket, directory: /mnt/a, uid: 7, allow_other: true}
- {bucket: my-bucket, directory: /mnt/a, options: --uid=7, allow_other: true, allow_delete: false}
"""
    rows = [config_file.parse(f"mounts:\n{row}\n", "x") for row in file.splitlines()[1:]]
    mounts = [row.mounts(Role.COMPUTE, "")[0] for row in rows]
    mounts.append(parse_mount("my-bucket", "/mnt/a", "--uid 7 --allow-other"))
    found = {
        Definition(
            "b", "/mnt/a", ("m", *mount.arguments(Owner(7, 8))), Mode.DIRECT, False
        ).essence()
        for mount in mounts
    }
    assert len(found) == 1


HANGS = Standing(hung=True)
WAITS = Standing(waits="S3 cannot be reached")
IN_USE = Standing(waits="it is in use", busy=True)


@pytest.mark.parametrize(
    ("want", "here", "presence", "known", "expected"),
    [
        pytest.param(WANT, UP, OURS, HANGS, ["kill"], id="hangs"),
        pytest.param(None, UP, OURS, HANGS, ["kill"], id="hangs and is to go"),
        pytest.param(WANT, OTHER_OPTIONS, OURS, HANGS, ["kill"], id="hangs and changes"),
        pytest.param(WANT, UP, OTHER, HANGS, [], id="what hangs is somebody else's"),
        pytest.param(WANT, RISING, {}, HANGS, [], id="ended, and on its way again"),
        pytest.param(WANT, None, {}, WAITS, ["wait"], id="not tried before its time"),
        pytest.param(WANT, DOWN, {}, WAITS, ["wait"], id="not started before its time"),
        pytest.param(None, DOWN, {}, WAITS, ["stop"], id="what failed can go"),
        pytest.param(None, UP, OURS, IN_USE, ["wait"], id="in use, and is to go"),
        pytest.param(WANT, OTHER_OPTIONS, OURS, IN_USE, ["wait"], id="in use, and changes"),
        pytest.param(WANT, UP, OURS, IN_USE, ["wait"], id="in use, and was to change"),
    ],
)
def test_what_is_remembered_decides_with_what_is_seen(
    want: Wanted | None,
    here: Placed | None,
    presence: dict[str, Presence],
    known: Standing,
    expected: list[str],
) -> None:
    observed = Observed({here.id: here} if here else {}, presence)
    todo = plan([want] if want else [], observed, records={WANT.mount.id: known})
    assert [action.kind.value for action in todo.actions] == expected
    assert bool(todo) is (expected not in ([], ["wait"]))


def test_a_bucket_waits_for_the_one_whose_directory_it_takes() -> None:
    observed = Observed({OTHER_BUCKET.id: OTHER_BUCKET}, OURS)
    todo = plan([WANT], observed, records={OTHER_BUCKET.id: IN_USE})
    assert kinds(todo) == [("wait", OTHER_BUCKET.id), ("wait", WANT.mount.id)]
    assert todo.foreign == ()
