"""A mount: its identity, its arguments, and the company it keeps."""

from __future__ import annotations

import pytest

from fast.in_memory import parse_mount
from s3mount_agent.config import config_file
from s3mount_agent.config.arguments import parse_arguments
from s3mount_agent.config.configuration import of_mounts
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mounts import Owner

UBUNTU = Owner(1000, 1000)


@pytest.mark.parametrize(
    ("bucket", "directory", "mount_id"),
    [
        ("hpc-dev-mountpoint-sample-2", "/mnt/s3", "585e79a6"),
        ("hpc-dev-mountpoint-sample-1", "/mnt/s3-readonly", "91ef1212"),
        ("hpc-dev-mountpoint-sample-2", "/mnt/s3/", "585e79a6"),
        ("s3://hpc-dev-mountpoint-sample-2", "//mnt/s3", "585e79a6"),
        ("s3://hpc-dev-mountpoint-sample-2/some/prefix/", "/mnt/s3", "585e79a6"),
    ],
)
def test_the_identity_of_a_mount_is_frozen(bucket: str, directory: str, mount_id: str) -> None:
    mount = parse_mount(bucket, directory, "--allow-other")
    assert mount.id == mount_id
    assert mount.unit == f"mountpoint-s3-{mount_id}.service"


def test_the_description_is_what_systemctl_shows() -> None:
    mount = parse_mount("s3://my-bucket/a/", "/mnt/s3", "")
    assert mount.description == "Mount s3://my-bucket/a/ at /mnt/s3"


@pytest.mark.parametrize(
    ("options", "owner", "expected"),
    [
        (
            "--allow-delete --allow-other",
            UBUNTU,
            "--allow-delete --allow-other --uid=1000 --gid=1000",
        ),
        ("--allow-other", None, "--allow-other"),
        ("--allow-other", Owner(0, 0), "--allow-other"),
        ("--allow-other", Owner(1000, 0), "--allow-other --uid=1000"),
        ("--allow-other --uid 7", UBUNTU, "--allow-other --uid=7 --gid=1000"),
        ("--allow-other --uid 7 --gid=8", UBUNTU, "--allow-other --uid=7 --gid=8"),
        ("--allow-root", UBUNTU, "--allow-root --uid=1000 --gid=1000"),
        (
            "--read-only",
            UBUNTU,
            "--read-only --dir-mode=0700 --file-mode=0600 --allow-other --uid=1000 --gid=1000",
        ),
        (
            "--dir-mode 0750",
            UBUNTU,
            "--dir-mode=0750 --file-mode=0600 --allow-other --uid=1000 --gid=1000",
        ),
    ],
)
def test_files_belong_to_the_owner_unless_the_options_say_otherwise(
    options: str, owner: Owner | None, expected: str
) -> None:
    arguments = parse_mount("my-bucket", "/mnt/s3", options).arguments(owner)
    assert arguments == (
        "--foreground",
        *expected.split(),
        "--user-agent-prefix=s3mount-agent",
        "my-bucket",
        "/mnt/s3",
    )


def test_a_prefix_in_the_bucket_becomes_an_option() -> None:
    arguments = parse_mount("s3://my-bucket/a b/", "/mnt/s3", "--allow-other").arguments(None)
    assert "--prefix=a b/" in arguments
    assert arguments[-2:] == ("my-bucket", "/mnt/s3")


def test_the_users_own_user_agent_stays() -> None:
    options = "--allow-other --user-agent-prefix mine"
    arguments = parse_mount("my-bucket", "/mnt/s3", options).arguments(None)
    assert [word for word in arguments if "user-agent" in word] == ["--user-agent-prefix=mine"]


@pytest.mark.parametrize("options", ["--read-only", "--allow-other --read-only"])
def test_read_only_is_known(options: str) -> None:
    assert parse_mount("my-bucket", "/mnt/s3", options).read_only
    assert not parse_mount("my-bucket", "/mnt/s3", "--allow-other").read_only


def test_the_articles_form_gives_its_mounts_in_order() -> None:
    mounts = parse_arguments(
        ["bucket-one", "/mnt/one", "--read-only --allow-other", "bucket-two", "/mnt/two", ""]
    )
    assert [(m.bucket.name, m.directory, m.read_only) for m in mounts] == [
        ("bucket-one", "/mnt/one", True),
        ("bucket-two", "/mnt/two", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], Problem.ARGS_NOT_TRIPLES),
        (["my-bucket"], Problem.ARGS_NOT_TRIPLES),
        (["my-bucket", "/mnt/s3"], Problem.ARGS_NOT_TRIPLES),
        (["my-bucket", "/mnt/s3", "", "other"], Problem.ARGS_NOT_TRIPLES),
        (["my-bucket", "/mnt/s3", "--read-only", "--allow-other"], Problem.ARGS_NOT_TRIPLES),
        (["/mnt/s3", "my-bucket", ""], Problem.BUCKET_INVALID),
        (["my-bucket", "--read-only", "/mnt/s3"], Problem.DIRECTORY_INVALID),
        (["my-bucket", "/mnt/s3", "", "other", "/mnt/s3", ""], Problem.DIRECTORY_TWICE),
        (["my-bucket", "/mnt/s3", "", "my-bucket", "/mnt/s3/", ""], Problem.DIRECTORY_TWICE),
        (["my-bucket", "/mnt/s3", "", "other", "/mnt/s3/sub", ""], Problem.DIRECTORY_TWICE),
        (["s3://my-bucket/a/", "/mnt/s3", "--prefix b/"], Problem.OPTION_CONFLICT),
        (["my-bucket", "/mnt/s3", "--foreground"], Problem.OPTION_RESERVED),
        (["my-bucket", "/mnt/s3", "--read-only '"], Problem.OPTIONS_UNBALANCED),
    ],
)
def test_bad_arguments_are_refused_with_their_code(arguments: list[str], problem: Problem) -> None:
    with pytest.raises(AgentError) as caught:
        parse_arguments(arguments)
    assert caught.value.problem is problem
    assert problem.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/var/tmp/cache", "/var/tmp/cache"),
        ("/var/tmp/cache", "/var/tmp/cache/"),
        ("/var/tmp/cache", "/var/tmp//cache"),
        ("/var/tmp/cache", "/var/tmp/./cache"),
        ("/var/tmp/cache", "//var/tmp/cache"),
        ("/var/tmp/cache", "/var/tmp/cache/mountpoint-cache/x"),
    ],
)
def test_two_mounts_cannot_share_a_cache_directory(one: str, two: str) -> None:
    with pytest.raises(AgentError, match="cache") as caught:
        parse_arguments(
            ["bucket-one", "/mnt/one", f"--cache {one}", "bucket-two", "/mnt/two", f"--cache {two}"]
        )
    assert caught.value.problem is Problem.OPTION_CONFLICT


def test_caches_of_their_own_are_accepted() -> None:
    options = ("--cache /var/tmp/one", "--cache /var/tmp/two")
    mounts = parse_arguments(
        ["bucket-one", "/mnt/one", options[0], "bucket-two", "/mnt/two", options[1]]
    )
    assert len(mounts) == 2


def test_a_hundred_mounts_are_enough_for_one_node() -> None:
    """101 as Args were accepted at 12edeff, and their own config.yaml refused."""

    def arguments(count: int) -> list[str]:
        return [word for n in range(count) for word in ("my-bucket", f"/mnt/{n}", "")]

    mounts = parse_arguments(arguments(100))
    text = config_file.render(of_mounts(mounts), mounts)
    assert len(config_file.parse(text, "config.yaml").rows) == 100
    with pytest.raises(AgentError) as caught:
        parse_arguments(arguments(101))
    assert caught.value.problem is Problem.MOUNTS_TOO_MANY


def test_two_mounts_whose_ids_collide_are_refused() -> None:
    """At 12edeff plan stopped and started one for the other for ever."""
    pair = ["my-bucket", "/mnt/c22057", "", "my-bucket", "/mnt/c117500", ""]
    assert {parse_mount(*pair[:3]).id, parse_mount(*pair[3:]).id} == {"c5bc075d"}
    with pytest.raises(AgentError, match="c5bc075d") as caught:
        parse_arguments(pair)
    assert caught.value.problem is Problem.DIRECTORY_TWICE


@pytest.mark.parametrize(
    "options",
    [
        f"--user-agent-prefix {'x' * 200_000}",
        f"--storage-class={'x' * 9000}",
        " ".join(f"--bind {'e' * 15}{n}" for n in range(5000)),
    ],
    ids=["one", "just too long", "many"],
)
def test_options_that_cannot_be_executed_are_refused_at_the_door(options: str) -> None:
    """One of 200 KB passed at 12edeff, and then no start worked."""
    with pytest.raises(AgentError) as caught:
        parse_mount("my-bucket", "/mnt/s3", options)
    assert caught.value.problem is Problem.OPTION_VALUE
    assert len("\n".join(caught.value.lines()).encode()) < 1000
