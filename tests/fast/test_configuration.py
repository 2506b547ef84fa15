"""The configuration file: what each key takes, whom a mount is for, and how options are layered."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fast.in_memory import parse_mount
from s3mount_agent.config import config_file, keys, yaml_text
from s3mount_agent.config.configuration import Configuration, Row, WhenBusy
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.mounts import Mount
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.versions import FuseConf, Install
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.mountpoint.flags import FLAGS

NAME = "s3mount.yaml"
EXAMPLE = Path(__file__).parents[2] / "docs/s3mount.example.yaml"
MOUNT = "mounts:\n- bucket: my-bucket\n  directory: /mnt/s3\n"


def read(text: str) -> Configuration:
    return config_file.parse(text, NAME)


def refusal(text: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        read(text)
    assert caught.value.problem.exit_code is Exit.USAGE
    return caught.value


def only(text: str, role: Role = Role.COMPUTE, queue: str = "") -> Mount:
    """The one mount of a node."""
    (mount,) = read(text).mounts(role, queue)
    return mount


def options(text: str, role: Role = Role.COMPUTE) -> tuple[str, ...]:
    return only(MOUNT + text, role).options.arguments()


def test_the_smallest_file_has_nothing_to_mount() -> None:
    assert read("mounts: []") == Configuration()


def test_a_mount_needs_a_bucket_and_a_directory_and_no_more() -> None:
    assert only(MOUNT) == parse_mount("my-bucket", "/mnt/s3", "")


def test_one_mount_may_stand_without_a_list() -> None:
    assert only("mounts: {bucket: my-bucket, directory: /mnt/s3}") == only(MOUNT)


def test_the_article_is_three_lines_more() -> None:
    """The same bucket, read-only for jobs and writable on the head node."""
    text = """\
mounts:
  - bucket: hpc-dev-mountpoint-sample-1
    directory: /mnt/s3
    options: --allow-other
    roles:
      head: {allow_delete: true}
      compute: {read_only: true}
"""
    compute = parse_mount("hpc-dev-mountpoint-sample-1", "/mnt/s3", "--allow-other --read-only")
    head = parse_mount("hpc-dev-mountpoint-sample-1", "/mnt/s3", "--allow-other --allow-delete")
    login = parse_mount("hpc-dev-mountpoint-sample-1", "/mnt/s3", "--allow-other")
    assert only(text, Role.COMPUTE) == compute
    assert only(text, Role.HEAD) == head
    assert only(text, Role.LOGIN) == login
    assert (compute.read_only, head.read_only) == (True, False)
    assert compute.id == head.id == login.id


def test_the_example_of_the_documents_is_good() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=s3mount.schema.json"
    assert (EXAMPLE.parent / "s3mount.schema.json").is_file()
    configuration = read(text)
    directories = {
        (role, queue): [mount.directory for mount in configuration.mounts(role, queue)]
        for role, queue in [(Role.HEAD, ""), (Role.COMPUTE, "p1"), (Role.COMPUTE, "p2")]
    }
    both = ["/mnt/s3-readonly", "/mnt/s3"]
    assert directories == {
        (Role.HEAD, ""): both,
        (Role.COMPUTE, "p1"): [*both, "/mnt/genomes"],
        (Role.COMPUTE, "p2"): both,
    }


def test_everything_has_its_place_in_the_model() -> None:
    configuration = read("""\
version: 1
mounts:
  - bucket: my-bucket
    directory: /mnt/s3/
    on: [head, login]
    queues: p1
    owner: alice
    weight: 7
    when_busy: lazy
    on_failure: continue
role: login
mode: direct
on_failure: fail
when_busy: fail
busy_deadline: 2h
refresh: 90
memory_percent: 25
bandwidth_gbps: 100
health: {look_every: 30s, retry_at_most_every: 5m}
install:
  url: https://mirror.example.org/s3
  version: 1.24.0
  fuse_conf: leave
environment: {AWS_REGION: eu-west-1, AWS_MAX_ATTEMPTS: 5, AWS_EC2_METADATA_DISABLED: true}
""")
    (row,) = configuration.rows
    assert (row.directory, row.owner, row.weight) == ("/mnt/s3", "alice", 7)
    assert (row.on, row.queues) == ((Role.HEAD, Role.LOGIN), ("p1",))
    assert (row.when_busy, row.on_failure) == (WhenBusy.LAZY, OnFailure.CONTINUE)
    assert configuration == Configuration(
        configuration.rows,
        role=Role.LOGIN,
        mode=Mode.DIRECT,
        on_failure=OnFailure.FAIL,
        when_busy=WhenBusy.FAIL,
        busy_deadline=7200,
        refresh=90,
        look_every=30,
        retry_at_most_every=300,
        memory_percent=25,
        bandwidth_gbps=100,
        install=Install(
            "https://mirror.example.org/s3",
            "1.24.0",
            FuseConf.LEAVE,
        ),
        environment={
            "AWS_REGION": "eu-west-1",
            "AWS_MAX_ATTEMPTS": "5",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    (mount,) = configuration.mounts(Role.HEAD, "p1")
    assert (mount.owner, mount.weight) == ("alice", 7)


@pytest.mark.parametrize(
    ("text", "place", "typed", "hint"),
    [
        ("mount: []", "1:1", "mount", "did you mean mounts?"),
        ("mounts: []\nrefersh: 5m", "2:1", "refersh", "did you mean refresh?"),
        (MOUNT + "  quues: [p1]", "4:3", "quues", "did you mean queues?"),
        (MOUNT + "  read-only: true", "4:3", "read-only", "did you mean read_only?"),
        (MOUNT + "  readonly: true", "4:3", "readonly", "did you mean read_only?"),
        (
            MOUNT + "  roles:\n    head: {alow_delete: true}",
            "5:12",
            "alow_delete",
            "did you mean allow_delete?",
        ),
        ("mounts: []\nhealth: {look_evry: 5s}", "2:10", "look_evry", "did you mean look_every?"),
        ("mounts: []\ninstall:\n  ulr: x", "3:3", "ulr", "did you mean url?"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(
    text: str, place: str, typed: str, hint: str
) -> None:
    error = refusal(text)
    assert error.message == f"{NAME}:{place}: there is no key {typed!r} here"
    assert error.hint == hint


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (MOUNT + "  roles:\n    haed: {read_only: true}", "5:5", "did you mean head?"),
        (MOUNT + "  on: [compute, longin]", "4:17", "did you mean login?"),
        (MOUNT + "  when_busy: lasy", "4:14", "did you mean lazy?"),
        ("mounts: []\nenvironment: {AWS_REGOIN: x}", "2:15", "did you mean AWS_REGION?"),
        ("mounts: []\nmode: sistemd", "2:7", "did you mean systemd?"),
    ],
)
def test_a_mistyped_word_is_refused_with_a_suggestion(text: str, place: str, hint: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"{NAME}:{place}: one of ")
    assert error.hint == hint


@pytest.mark.parametrize("text", ["xyzzy: 1", MOUNT + "  xyzzy: 1", "mounts: []\nhealth: {q: 1}"])
def test_where_nothing_is_like_it_the_keys_are_listed(text: str) -> None:
    assert refusal(text).hint.startswith("known: ")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("[]", "1:1", Problem.CONFIG_INVALID),
        ("a text", "1:1", Problem.CONFIG_INVALID),
        ("version: 1", "1:1", Problem.CONFIG_INVALID),
        ("mounts: []\nversion: 2", "2:10", Problem.CONFIG_INVALID),
        ("mounts: 5", "1:9", Problem.CONFIG_INVALID),
        ("mounts:", "1:8", Problem.CONFIG_INVALID),
        ("mounts: [{}]", "1:10", Problem.CONFIG_INVALID),
        ("mounts:\n- bucket: my-bucket", "2:3", Problem.CONFIG_INVALID),
        ("mounts:\n- directory: /mnt/s3", "2:3", Problem.CONFIG_INVALID),
        ("mounts:\n- bucket: B\n  directory: /mnt/s3", "2:11", Problem.BUCKET_INVALID),
        ("mounts:\n- bucket: [my-bucket]\n  directory: /x", "2:11", Problem.CONFIG_INVALID),
        ("mounts:\n- bucket:\n  directory: /x", "2:10", Problem.CONFIG_INVALID),
        ("mounts:\n- bucket: my-bucket\n  directory: mnt", "3:14", Problem.DIRECTORY_INVALID),
        ("mounts:\n- bucket: my-bucket\n  directory: /etc", "3:14", Problem.DIRECTORY_RESERVED),
        (
            "mounts:\n- bucket: my-bucket\n  directory: /opt/slurm/x",
            "3:14",
            Problem.DIRECTORY_RESERVED,
        ),
        ('mounts:\n- bucket: my-bucket\n  directory: "/a\\nb"', "3:14", Problem.ARGUMENT_NOT_TEXT),
        (MOUNT + "  options: --read-onyl", "4:12", Problem.OPTION_UNKNOWN),
        (MOUNT + "  options: --foreground", "4:12", Problem.OPTION_RESERVED),
        (MOUNT + "  options: --uid 0", "4:12", Problem.OPTION_VALUE),
        (MOUNT + '  options: "\'"', "4:12", Problem.OPTIONS_UNBALANCED),
        (MOUNT + "  options: --read-only --allow-delete", "4:12", Problem.OPTION_CONFLICT),
        (MOUNT + "  read_only: true\n  allow_delete: true", "2:3", Problem.OPTION_CONFLICT),
        (MOUNT + "  options: --read-only\n  allow_delete: true", "2:3", Problem.OPTION_CONFLICT),
        (MOUNT + "  max_cache_size: 5", "2:3", Problem.OPTION_CONFLICT),
        (MOUNT + "  read_only: 1", "4:14", Problem.CONFIG_INVALID),
        (MOUNT + "  read_only: 'true'", "4:14", Problem.CONFIG_INVALID),
        (MOUNT + "  read_only:", "4:13", Problem.CONFIG_INVALID),
        (MOUNT + "  uid: 0", "4:8", Problem.CONFIG_INVALID),
        (MOUNT + "  uid: root", "4:8", Problem.CONFIG_INVALID),
        (MOUNT + "  uid: [5]", "4:8", Problem.CONFIG_INVALID),
        (MOUNT + "  dir_mode: 999", "4:13", Problem.CONFIG_INVALID),
        (MOUNT + "  prefix: x", "4:11", Problem.CONFIG_INVALID),
        (MOUNT + "  cache: -x", "4:10", Problem.CONFIG_INVALID),
        (MOUNT + "  bind: [eth0, []]", "4:16", Problem.CONFIG_INVALID),
        (MOUNT + "  foreground: true", "4:3", Problem.CONFIG_INVALID),
        (MOUNT + "  help: true", "4:3", Problem.CONFIG_INVALID),
        (MOUNT + "  owner: 'a b'", "4:10", Problem.CONFIG_INVALID),
        (MOUNT + "  owner: -x", "4:10", Problem.CONFIG_INVALID),
        (MOUNT + "  queues: ['']", "4:12", Problem.CONFIG_INVALID),
        (MOUNT + "  on: ParallelCluster", "4:7", Problem.CONFIG_INVALID),
        (MOUNT + "  on: {head: true}", "4:7", Problem.CONFIG_INVALID),
        (MOUNT + "  roles: [head]", "4:10", Problem.CONFIG_INVALID),
        (MOUNT + "  roles: {head: read_only}", "4:17", Problem.CONFIG_INVALID),
        (MOUNT + "  roles: {head: {owner: x}}", "4:18", Problem.CONFIG_INVALID),
        ("mounts: []\nhealth: 5", "2:9", Problem.CONFIG_INVALID),
        ("mounts: []\nhealth:", "2:8", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {source: ftp://x}", "2:19", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {source: ./x}", "2:19", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {source: s3://}", "2:19", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {source: /x, url: /y}", "2:10", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {url: ftp://x}", "2:16", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {url: 'https://a b'}", "2:16", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {version: 1.2}", "2:20", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {version: ../1.2.3}", "2:20", Problem.CONFIG_INVALID),
        ("mounts: []\ninstall: {version: '\u0661.\u0662.\u0663'}", "2:20", Problem.CONFIG_INVALID),
        (f"mounts: []\ninstall: {{fingerprints: {'A' * 40}}}", "2:11", Problem.CONFIG_INVALID),
        ("mounts: []\nenvironment: [AWS_REGION]", "2:14", Problem.CONFIG_INVALID),
        ("mounts: []\nenvironment: {AWS_REGION: [x]}", "2:27", Problem.CONFIG_INVALID),
        ("mounts: []\nenvironment: {AWS_REGION: }", "2:26", Problem.CONFIG_INVALID),
        ('mounts: []\nenvironment: {AWS_REGION: "a\\nb"}', "2:27", Problem.CONFIG_INVALID),
        ("mounts: []\nenvironment: {AWS_REGION: é}", "2:27", Problem.CONFIG_INVALID),
    ],
)
def test_every_error_has_its_place_and_quotes_the_line(
    text: str, place: str, problem: Problem
) -> None:
    error = refusal(text)
    assert error.problem is problem
    assert error.message.startswith(f"{NAME}:{place}: "), error.message
    line, column = map(int, place.split(":"))
    assert error.cause == f"{text.splitlines()[line - 1]}\n{' ' * (column - 1)}^"
    assert error.message.count(NAME) == 1


@pytest.mark.parametrize(
    "source", ["https://a:hunter2@x/y", "https://x/y?signature=hunter2", "https://x#h"]
)
def test_a_source_has_no_password_and_no_query(source: str) -> None:
    error = refusal(f"mounts: []\ninstall: {{source: '{source}'}}")
    assert error.problem is Problem.CONFIG_INVALID
    assert "hunter2" not in f"{error.message} {error.cause}"


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("memory_percent: {}", ["1", "90", "'50'"], ["0", "91", "-1", "1.5", "50%", "", "1e1"]),
        ("bandwidth_gbps: {}", ["1", "10000"], ["0", "10001", "0.5", "\u0661", "9999999999999"]),
        ("refresh: {}", ["10", "10s", "5m", "24h", "5 m", "'90'"], ["9s", "25h", "5d", "1.5h"]),
        ("busy_deadline: {}", ["0", "0s", "168h"], ["169h", "-1s", "forever", "99999999"]),
        ("health: {{look_every: {}}}", ["5", "1h"], ["4", "3601", "2h"]),
        ("health: {{retry_at_most_every: {}}}", ["5", "1h"], ["4", "3601", "m"]),
        ("mode: {}", ["systemd", "direct"], ["Systemd", "", "[direct]", "true"]),
        ("role: {}", [role.value for role in Role], ["HeadNode", "", "1"]),
        ("on_failure: {}", ["fail", "continue"], ["ignore", "true"]),
        ("when_busy: {}", ["wait", "lazy", "fail"], ["never", "no"]),
        ("version: {}", ["1", "'1'"], ["2", "1.0", ""]),
        ("install: {{version: {}}}", ["1.23.0", "latest", "present"], ["1.23", "1.2.3-x"]),
        (
            "install: {{source: {}}}",
            ["official", "https://x/y", "http://x", "s3://bucket", "s3://bucket/a/b", "/a"],
            ["aws", "''", "/a b", "s3:bucket", "file:///a"],
        ),
        ("install: {{fuse_conf: {}}}", ["add", "leave"], ["no", "[]"]),
    ],
)
def test_the_kinds_of_the_file_have_bounds(
    key: str, accepted: list[str], refused: list[str]
) -> None:
    for value in accepted:
        read(f"mounts: []\n{key.format(value)}")
    for value in refused:
        error = refusal(f"mounts: []\n{key.format(value)}")
        assert error.message.startswith(f"{NAME}:2:"), value


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("weight", ["1", "1000"], ["0", "1001", "-1", "0.5", "x", ""]),
        ("owner", ["alice", "a.b-c_d", "1000", "A"], ["", "a b", "-a", ".a", "ü", "a" * 65, "a:b"]),
        ("queues", ["p1", "[p1, q-2]", "[]"], ["p 1", "[[p1]]", "{p1: }"]),
        ("on", ["head", "[head, compute, login, standalone]"], ["all", "[head, all]", "[[head]]"]),
        ("uid", ["1", "4294967295", "'1000'"], ["0", "4294967296", "1.0", "0x10"]),
        ("dir_mode", ["0755", "755", "'0750'", "0777"], ["1777", "0o755", "888", "-1", "rwx"]),
        ("memory_target", ["512", "4096"], ["511", "1.5", "512M"]),
        ("maximum_throughput_gbps", ["1", "100"], ["0", "1.5"]),
        ("metadata_ttl", ["0", "60", "indefinite", "minimal"], ["never", "-1", "1.5"]),
        ("endpoint_url", ["http://127.0.0.1:5000"], ["s3.local", "ftp://x", "http://"]),
        ("sse", ["aws:kms", "AES256"], ["DES", "true"]),
        ("upload_checksums", ["crc32c", "off", "'off'"], ["on", "true", "md5"]),
        ("expected_bucket_owner", ["123456789012", "'000000000012'"], ["12", "12345678901x"]),
        ("prefix", ["a/", "'a b/'"], ["a", "''"]),
        ("cache", ["/tmp/c"], ["''", "true", "[/tmp/c]", "{}", "'false'", "/etc", "/a/../b"]),
    ],
)
def test_the_kinds_of_a_mount_have_bounds(
    key: str, accepted: list[str], refused: list[str]
) -> None:
    for value in accepted:
        read(f"{MOUNT}  {key}: {value}")
    for value in refused:
        error = refusal(f"{MOUNT}  {key}: {value}")
        assert error.message.startswith(f"{NAME}:"), value


def test_every_flag_of_mount_s3_that_a_user_may_give_has_a_key() -> None:
    named = {key.name.replace("_", "-") for key in keys.MOUNT.keys}
    assert named >= {flag.name for flag in FLAGS.values() if not flag.reserved}
    assert named.isdisjoint({flag.name for flag in FLAGS.values() if flag.reserved})


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("  options: '--read-only -d'", ("--read-only", "--debug")),
        ("  read_only: true", ("--read-only",)),
        ("  read_only: yes", ("--read-only",)),
        ("  read_only: false", ()),
        ("  dir_mode: 0750", ("--dir-mode=0750",)),
        ("  metadata_ttl: 3600", ("--metadata-ttl=3600",)),
        ("  upload_checksums: off", ("--upload-checksums=off",)),
        ("  options: --allow-other\n  debug: true", ("--allow-other", "--debug")),
        ("  debug: true\n  options: --allow-other", ("--allow-other", "--debug")),
        ("  options: --debug --allow-other\n  debug: false", ("--allow-other",)),
        ("  options: --uid 7 -d\n  uid: 8", ("--debug", "--uid=8")),
        ("  bind: eth0", ("--bind=eth0",)),
        ("  bind: [eth0, eth1]", ("--bind=eth0", "--bind=eth1")),
        ("  options: --bind a --bind b\n  bind: [c, d]", ("--bind=c", "--bind=d")),
        ("  options: --bind a --bind b -d\n  bind: []", ("--debug",)),
        # A role's layer lies upon all of that.
        ("  debug: true\n  roles: {compute: {read_only: true}}", ("--debug", "--read-only")),
        ("  debug: true\n  roles: {head: {read_only: true}}", ("--debug",)),
        ("  debug: true\n  roles: {compute: {debug: false}}", ()),
        ("  options: -d\n  roles: {compute: {options: --read-only}}", ("--read-only",)),
        ("  debug: true\n  roles: {compute: {options: --read-only}}", ("--read-only",)),
        ("  options: -d --uid 7\n  roles: {compute: {options: ''}}", ()),
        ("  roles: {compute: {debug: true, options: --read-only}}", ("--read-only", "--debug")),
        ("  bind: [a, b]\n  roles: {compute: {bind: [c]}}", ("--bind=c",)),
        ("  uid: 7\n  roles: {compute: {uid: 8}}", ("--uid=8",)),
        ("  roles: {compute: {}}", ()),
        # false takes away what has a value, too.
        ("  options: --cache /c -d\n  cache: false", ("--debug",)),
        ("  cache: /c\n  roles: {compute: {cache: false}}", ()),
        ("  uid: 7\n  roles: {compute: {uid: false}}", ()),
        ("  bind: [a, b]\n  roles: {compute: {bind: false}}", ()),
        ("  profile: p\n  roles: {compute: {profile: 'false'}}", ("--profile=false",)),
    ],
)
def test_options_are_layered(text: str, arguments: tuple[str, ...]) -> None:
    assert options(text) == arguments


def test_a_conflict_on_one_role_only_is_refused() -> None:
    text = MOUNT + "  allow_delete: true\n  roles: {login: {read_only: true}}"
    error = refusal(text)
    assert error.problem is Problem.OPTION_CONFLICT
    assert error.message.startswith(f"{NAME}:2:3: ")


def test_a_conflict_on_a_role_that_does_not_get_the_mount_is_none() -> None:
    text = MOUNT + "  on: head\n  allow_delete: true\n  roles: {login: {read_only: true}}"
    assert only(text, Role.HEAD).options.arguments() == ("--allow-delete",)
    assert read(text).mounts(Role.LOGIN, "") == ()


@pytest.mark.parametrize(
    "text", ["  prefix: b/", "  options: --prefix b/", "  roles: {login: {prefix: b/}}"]
)
def test_a_prefix_is_given_once(text: str) -> None:
    """As with the arguments: see test_mounts.py."""
    error = refusal(MOUNT.replace("my-bucket", "s3://my-bucket/a/") + text)
    assert error.problem is Problem.OPTION_CONFLICT
    assert "prefix is given twice" in error.message


def two(first: str, second: str, directory: str = "/mnt/s3") -> str:
    return (
        "mounts:\n"
        f"- {{bucket: bucket-one, directory: /mnt/s3, {first}}}\n"
        f"- {{bucket: bucket-two, directory: {directory}, {second}}}\n"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("on: head", "on: compute"),
        ("on: [head, login]", "on: [compute, standalone]"),
        ("queues: p1", "queues: [p2, p3]"),
        ("on: compute, queues: p1", "on: login, queues: p1"),
    ],
)
@pytest.mark.parametrize("directory", ["/mnt/s3", "/mnt/s3/below"])
def test_disjoint_nodes_may_use_the_same_directory(first: str, second: str, directory: str) -> None:
    configuration = read(two(first, second, directory))
    for role in Role:
        for queue in ("", "p1", "p2"):
            assert len(configuration.mounts(role, queue)) <= 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("weight: 1", "weight: 1"),
        ("on: head", "weight: 1"),
        ("on: [head, compute]", "on: [compute, login]"),
        ("queues: [p1, p2]", "queues: [p2, p3]"),
        ("on: compute", "on: compute, queues: p1"),
    ],
)
@pytest.mark.parametrize("directory", ["/mnt/s3", "/mnt/s3/", "/mnt/s3/below"])
def test_mounts_that_meet_on_one_node_are_kept_apart(
    first: str, second: str, directory: str
) -> None:
    error = refusal(two(first, second, directory))
    assert error.problem is Problem.DIRECTORY_TWICE
    assert error.message.startswith(f"{NAME}:")


def test_a_cache_is_shared_only_by_mounts_that_never_meet() -> None:
    read(two("on: head, cache: /c", "on: compute, cache: /c"))
    error = refusal(two("cache: /c", "roles: {login: {cache: /c/}}", "/mnt/other"))
    assert error.problem is Problem.OPTION_CONFLICT


def test_each_role_has_its_own_mounts_policies() -> None:
    configuration = read(
        two("on: head, when_busy: lazy, on_failure: fail", "on: compute, when_busy: fail")
        + "when_busy: wait\non_failure: continue"
    )
    policies = [
        (
            configuration.busy_policy("/mnt/s3", role, ""),
            configuration.failure_policy("/mnt/s3", role, ""),
        )
        for role in (Role.HEAD, Role.COMPUTE, Role.LOGIN)
    ]
    assert policies == [
        (WhenBusy.LAZY, OnFailure.FAIL),
        (WhenBusy.FAIL, None),
        (WhenBusy.WAIT, None),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PATH",
        "HOME",
        "PYTHONPATH",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CONFIG_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "UNSTABLE_MOUNTPOINT_CACHE_KEY",
        "NOTIFY_SOCKET",
        "aws_region",
        "'AWS_REGION '",
        '"AWS_REGION\\n"',
        '""',
        "X",
    ],
)
def test_only_the_environment_of_a_closed_list_is_let_through(name: str) -> None:
    error = refusal(f"mounts: []\nenvironment:\n  AWS_REGION: x\n  ? {name}\n  : x\n")
    assert error.problem is Problem.CONFIG_INVALID
    assert error.message.startswith(f"{NAME}:4:5: ")


@pytest.mark.parametrize("name", keys.ENVIRONMENT.words)
def test_what_is_on_the_list_is_let_through_literally(name: str) -> None:
    value = "/%n $HOME \\x41 'q' \"q\" a=b; #"  # one of them names a file
    quoted = value.replace("'", "''")
    assert read(f"mounts: []\nenvironment: {{{name}: '{quoted}'}}").environment == {name: value}


# 256 KiB at most, made to be slow to judge.
def hostile() -> dict[str, str]:
    def row(number: int, queues: str) -> str:
        return f"- {{bucket: abc, directory: /m/{number}, queues: [{queues}]}}\n"

    names = ",".join(f"q{n}" for n in range(30_000))
    mounts = "".join(f"- {{bucket: abc, directory: /m/{n}}}\n" for n in range(7_000))
    both = "".join(row(n, ",".join(f"q{n}x{m}" for m in range(99))) for n in range(95))
    crowd = "".join(row(n, ",".join(f"q{m}" for m in range(100))) for n in range(100))
    return {
        "mounts": f"mounts:\n{mounts}",
        "queues of one mount": f"mounts:\n- {{bucket: abc, directory: /m/x, queues: [{names}]}}",
        "mounts with queues": f"mounts:\n{both}",
        "as much as is allowed": f"mounts:\n{crowd}",
        "a long name": f"mounts: []\n{'x' * 250_000}: 1",
        "a long word": f"mounts: []\nmode: {'systemd' * 35_000}",
        "a long bucket": f"mounts: [{{bucket: {'a.' * 120_000}, directory: /x}}]",
        "a long directory": f"mounts: [{{bucket: abc, directory: {'/a' * 120_000}}}]",
        "long options": f"mounts: [{{bucket: abc, directory: /m/x, options: {'-d ' * 80_000}}}]",
        "a long option": f"mounts: [{{bucket: abc, directory: /m/x, options: --{'x' * 250_000}}}]",
        "a long value": f"mounts: [{{bucket: abc, directory: /m/x, cache: /{'x' * 250_000}}}]",
        "interfaces": f"mounts: [{{bucket: abc, directory: /m/x, bind: [{'a,' * 120_000}]}}]",
    }


HOSTILE = hostile()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_file_keeps_a_node_busy(text: str) -> None:
    assert len(text) <= yaml_text.LARGEST_BYTES
    began = time.process_time()
    try:
        read(text)
        told = ""
    except AgentError as error:
        told = "\n".join(error.lines())
    assert time.process_time() - began < 12
    assert len(told) < 4000


def test_a_hundred_mounts_and_queues_are_enough() -> None:
    rows = [f"- {{bucket: abc, directory: /m/{n}, queues: q{n}}}\n" for n in range(101)]
    assert len(read("mounts:\n" + "".join(rows[:100])).rows) == 100
    assert refusal("mounts:\n" + "".join(rows)).message.startswith(f"{NAME}:102:3: ")


def test_what_a_file_costs_does_not_grow_with_its_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 mounts with 100 queues each took 12.8 s at 12edeff: every queue was tried in every role,
    each time with all mounts made anew."""
    made: list[Role] = []
    real = Row.mount

    def counted(self: Row, role: Role) -> Mount:
        made.append(role)
        return real(self, role)

    monkeypatch.setattr(Row, "mount", counted)
    read(HOSTILE["as much as is allowed"])
    assert len(made) <= 100 * len(Role) * 2


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("[q1]", "[q2]", False),
        ("[q1, q2]", "[q2]", True),
        ("[]", "[q2]", True),
        ("[]", "[]", True),
    ],
)
def test_mounts_that_can_meet_on_no_node_may_have_one_directory(
    one: str, other: str, meet: bool
) -> None:
    rows = "".join(
        f"- {{bucket: abc{n}, directory: /m/x, queues: {queues}, on: compute}}\n"
        for n, queues in enumerate([one, other])
    )
    if meet:
        assert refusal("mounts:\n" + rows).problem is Problem.DIRECTORY_TWICE
    else:
        read("mounts:\n" + rows)


def test_an_error_has_no_patience() -> None:
    """Trying again does not help, and waiting for it would keep a node from booting."""
    error = refusal("mounts: 5")
    assert is_lasting(error)


@pytest.mark.parametrize(
    ("keys", "line", "told"),
    [
        ("memory_target: 512\n  read_part_size: 402653185", 2, "no room for a read part of"),
        ("memory_target: 512\n  write_part_size: 402653184", 2, "no room for a write part of"),
        ("options: --memory-target=512 --part-size=400000000", 4, "no room for a write part of"),
        ("read_part_size: 1024", 4, "from 5242880 (5 MiB)"),
        (
            "memory_target: 512\n  roles:\n    head: {part_size: 390000000}",
            2,
            "no room for a write part of",
        ),
    ],
)
def test_parts_that_cannot_work_are_refused_with_their_place(
    keys: str, line: int, told: str
) -> None:
    text = f"mounts:\n- bucket: my-bucket\n  directory: /mnt/s3\n  {keys}\n"
    with pytest.raises(AgentError) as caught:
        config_file.parse(text, "file.yaml")
    assert caught.value.problem.exit_code is Exit.USAGE
    assert caught.value.message.startswith(f"file.yaml:{line}:")
    assert told in caught.value.message
