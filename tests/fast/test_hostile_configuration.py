"""A configuration may come from anywhere: no value of it reaches anything it was not meant for.

Any text in any field is refused, with its place, or a unit says exactly what was meant.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fast.in_memory import context
from fast.unit_reader import commands, environment, expanded, sections, words
from s3mount_agent.config import config_file, keys
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.mounts import Owner
from s3mount_agent.core.node_roles import Role
from s3mount_agent.core.resources import Machine
from s3mount_agent.decide.plan import Observed, Wanted
from s3mount_agent.filesystem import paths
from s3mount_agent.mountpoint.flags import FLAGS
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import execute
from s3mount_agent.supervisor.unit_text import read_definition, render
from s3mount_agent.system import capacity, node

NAME = "s3mount.yaml"
AGENT = ["/opt/s3mount-agent/current/bin/s3mount-agent"]
TEMPLATE = paths.template("mountpoint-s3.service")
SETTINGS = {section: [name for name, _ in rows] for section, rows in sections(TEMPLATE).items()}
PIECES = st.one_of(
    st.sampled_from(
        [*"%$\\\"'`;#=@{}[]()&|<>*?~!-+:, /.é漢🪣\n\r\t\0\x1b\x7f\x85\u2028\u202e\ufeff"]
    ),
    st.sampled_from(
        "%n %% $$ ${HOME} $(reboot) \\n \\x41 @COMMAND@ @RECORD@ ExecStart=/bin/sh [Service]"
        " [X-S3Mount] Record={} true false 1 512 0755 a/ /mnt/x https://x arn:aws:s3".split()
    ),
    st.text(max_size=3),
    st.characters(categories=["Cs", "Cc", "Cf", "Zl"]),
)
TEXT = st.lists(PIECES, max_size=6).map("".join)
INJECTIONS = (
    "x\nExecStartPre=/bin/touch /pwned",
    "/x\n[Service]\nExecStartPre=/bin/sh/",
    "/a\\",
    "/a\rb",
    "/a\x00b",
    "a\u2028b/",
    '/"; ExecStart=/bin/sh "',
    "/%n $HOME ${HOME} %%h $$/",
    "'a' --read-only /etc",
)


def escaped(text: str) -> str:
    """A YAML scalar that gets any text through, whatever it is."""
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


def document(**fields: str) -> str:
    """One mount, whose fields stand for themselves."""
    rows = {"bucket": "my-bucket", "directory": "/mnt/s3", **fields}
    return "mounts:\n- " + "\n  ".join(f"{name}: {value}" for name, value in rows.items()) + "\n"


def units_of(text: str) -> list[tuple[Role, Wanted, str]]:
    """What the nodes of every role would be given."""
    configuration = config_file.parse(text, NAME)
    queues = {queue for entry in configuration.rows for queue in entry.queues} or {""}
    found = []
    for role in Role:
        for queue in queues:
            around = context(configuration, role=role, queue=queue)
            wanted, failures = execute.want(
                dataclasses.replace(
                    around, mounts=tuple(dataclasses.replace(m, owner=None) for m in around.mounts)
                ),
                Installed("/usr/bin/mount-s3", (1, 24, 0)),
                Observed({}, {}),
            )
            assert failures == {}
            found += [
                (role, want, render(TEMPLATE, want.definition, agent=AGENT)) for want in wanted
            ]
    return found


def require_exact(want: Wanted, text: str) -> list[str]:
    """The unit has the template's settings, each once, and says what the definition says."""
    assert text.encode("utf-8")
    assert all(line.isprintable() for line in text.split("\n"))
    unit = sections(text)
    assert {section: [name for name, _ in rows] for section, rows in unit.items()} == SETTINGS
    assert read_definition(text) == want.definition
    (command,) = commands(unit, "ExecStart")
    assert command == list(want.definition.command)
    assert command[-2:] == [want.mount.bucket.name, want.mount.directory]
    assert command[0] == "/usr/bin/mount-s3"
    assert all(word.startswith("--") for word in command[1:-2])
    places = want.definition.places
    paths_ = [f"{kind}={path}" for kind, path in places]
    for key, hook, also in [
        ("ExecStartPre", "prepare", paths_),
        ("ExecStartPost", "ready", []),
        ("ExecStop", "stop", []),
    ]:
        assert commands(unit, key) == [[*AGENT, "unit-hook", hook, want.mount.directory, *also]]
    assert environment(unit) == dict(want.definition.environment)
    rows = dict(unit["Unit"])
    assert expanded(rows["Description"], variables=False) == want.mount.description.strip()
    disks = [expanded(word, variables=False) for word in words(rows["RequiresMountsFor"])]
    parent = want.mount.directory.rpartition("/")[0] or "/"
    assert disks == list(dict.fromkeys([parent, *(path for _, path in places)]))
    return command


def require_refusal(error: AgentError) -> None:
    assert error.problem.exit_code is Exit.USAGE
    assert error.message.startswith(f"{NAME}:"), error.message
    told = "\n".join(error.lines())
    assert told.encode("utf-8")
    assert all(line.isprintable() for line in told.split("\n")), told


def judge(text: str) -> list[tuple[Role, list[str], Wanted]]:
    """The exact commands, or none if the file was refused as it should be."""
    try:
        units = units_of(text)
    except AgentError as error:
        refused = error
    else:
        return [(role, require_exact(want, unit), want) for role, want, unit in units]
    require_refusal(refused)
    return []


@pytest.fixture(autouse=True)
def machine_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "read", lambda: Machine(65_536))
    monkeypatch.setattr(node, "owner", lambda name: Owner(7, 7))


FLAG_KEYS = [name.replace("-", "_") for name, flag in FLAGS.items() if not flag.reserved]
OWN_KEYS = [key.name for key in keys.MOUNT.keys if key.name not in FLAG_KEYS]
QUIET = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("key", [flag for flag in FLAG_KEYS if FLAGS[flag.replace("_", "-")].value])
@pytest.mark.parametrize("text", INJECTIONS)
def test_no_flag_lets_anything_out_of_its_word(key: str, text: str) -> None:
    flag = f"--{key.replace('_', '-')}"
    for role, command, _ in judge(document(**{key: escaped(text)})):
        assert f"{flag}={text}" in command, role


@QUIET
@given(st.sampled_from(FLAG_KEYS), TEXT)
@example("user_agent_prefix", "x\nExecStartPre=/bin/touch /pwned")
@example("storage_class", "\ud800")
@example("profile", "\udcff")
def test_any_text_in_any_flag_is_refused_or_one_word_of_the_command(key: str, text: str) -> None:
    flag = FLAGS[key.replace("_", "-")]
    for _, command, _ in judge(document(**{key: escaped(text)})):
        assert flag.value is not None  # a quoted text is no truth
        assert command.count(f"--{flag.name}={text}") == 1


@QUIET
@given(st.sampled_from(FLAG_KEYS), TEXT, st.sampled_from(Role))
def test_any_text_in_any_flag_of_a_role_changes_that_role_only(
    key: str, text: str, role: Role
) -> None:
    flag = FLAGS[key.replace("_", "-")]
    layer = f"{{{role.value}: {{{key}: {escaped(text)}}}}}"
    for each, command, _ in judge(document(roles=layer)):
        assert command.count(f"--{flag.name}={text}") == (each is role)


@QUIET
@given(st.sampled_from(OWN_KEYS), TEXT)
@example("directory", "/mnt/x\n[Service]")
@example("options", "--user-agent-prefix 'a\nb'")
@example("bucket", "s3://my-bucket/\x85/")
@example("owner", "root\n")
def test_any_text_in_any_other_field_of_a_mount(key: str, text: str) -> None:
    for _, command, want in judge(document(**{key: escaped(text)})):
        if key == "directory":
            assert [n for n in text.split("/") if n] == command[-1].split("/")[1:]
        if key == "bucket":
            assert text in (str(want.mount.bucket), f"s3://{want.mount.bucket}")


ODD = st.lists(PIECES, min_size=1, max_size=6).map(
    lambda pieces: "".join(c for c in "".join(pieces) if c.isprintable() and c != "\\")
)


@QUIET
@given(ODD, ODD, ODD)
def test_odd_but_good_text_is_carried_literally(prefix: str, name: str, agent: str) -> None:
    """Like the tests above, but what it draws is accepted."""
    name = name.replace("/", "").strip(".") or "x"
    assume(not is_secret(f"x{agent}"))  # x:y@z is one, and refused
    text = document(
        bucket=escaped(f"s3://my-bucket/{prefix}/"),
        directory=escaped(f"/mnt/x{name}/s3"),
        user_agent_prefix=escaped(f"x{agent}"),
        cache=escaped(f"/cache/{name}"),
    )
    found = judge(text)
    assert len(found) == len(Role)
    for _, command, _ in found:
        expected = {
            f"--prefix={prefix}/",
            f"--user-agent-prefix=x{agent}",
            f"--cache=/cache/{name}",
            f"/mnt/x{name}/s3",
        }
        assert expected <= set(command)


TOP_KEYS = [key.name for key in keys.TOP.keys]


@QUIET
@given(st.sampled_from(TOP_KEYS), TEXT)
def test_any_text_in_any_field_of_the_file(key: str, text: str) -> None:
    before = judge(document())
    fields = {} if key == "mounts" else {"mounts": "[{bucket: my-bucket, directory: /mnt/s3}]"}
    rows = "\n".join(f"{k}: {v}" for k, v in {**fields, key: escaped(text)}.items())
    for found in judge(rows):
        assert set(found[1]) >= {"--foreground", "my-bucket", "/mnt/s3"}
        assert len(found[1]) == len(before[0][1]) + (key == "bandwidth_gbps")


@QUIET
@given(st.sampled_from(keys.ENVIRONMENT.words), TEXT)
@example("AWS_REGION", 'x" "LD_PRELOAD=/tmp/x.so')
@example("AWS_REGION", "x LD_PRELOAD=/tmp/x.so")
@example("NO_PROXY", "\\")
@example("NO_PROXY", "%n $HOME ${HOME} 'a' \"b\" \\x41 ;#")
@example("HTTPS_PROXY", "http://user:password@proxy:3128")
def test_any_text_in_a_variable_is_refused_or_that_variable(name: str, text: str) -> None:
    text_of_file = document() + f"environment: {{{name}: {escaped(text)}}}"
    # A secret stands in a file of root's, not in the unit.
    kept = () if is_secret(text) else ((name, text),)
    for _, _, want in judge(text_of_file):
        assert want.definition.environment == kept


@pytest.mark.parametrize(
    "path", ["/dev/zero", "//proc/kmsg", "/etc/../dev/zero", "relative", "~/x"]
)
def test_a_variable_that_names_a_file_is_judged_like_a_flag(path: str) -> None:
    with pytest.raises(AgentError) as caught:
        config_file.parse(document() + f"environment: {{AWS_CA_BUNDLE: {path}}}", "x")
    assert caught.value.problem is Problem.CONFIG_INVALID
    good = document() + "environment: {AWS_CA_BUNDLE: /etc/ssl/certs/site.pem}"
    places = {want.definition.places for _, _, want in judge(good)}
    assert places == {(("ca-bundle", "/etc/ssl/certs/site.pem"),)}


@QUIET
@given(TEXT)
def test_no_other_variable_gets_through(name: str) -> None:
    found = judge(document() + f"environment: {{? {escaped(name)} : x}}")
    assert found == [] or name in keys.ENVIRONMENT.words


@QUIET
@given(st.sampled_from(["source", "url", "version", "fuse_conf"]), TEXT)
@example("url", "https://x\n")
@example("source", "s3://bucket\n")
@example("source", "/a b")
@example("version", "1.2.3\n")
@example("version", "1.2.3/../../x")
def test_any_text_in_the_install_settings(key: str, text: str) -> None:
    try:
        found = config_file.parse(f"mounts: []\ninstall: {{{key}: {escaped(text)}}}", NAME).install
    except AgentError as error:
        refused = error
    else:
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        assert text in (found.source, found.version, found.fuse_conf.value)
        return
    require_refusal(refused)


@QUIET
@given(st.lists(TEXT, min_size=1, max_size=2), TEXT)
def test_any_text_as_a_key_is_refused(path: list[str], value: str) -> None:
    node_ = escaped(value)
    for name in reversed(path):
        node_ = f"{{? {escaped(name)} : {node_}}}"
    assert judge(node_) == []


@pytest.mark.parametrize("key", ["endpoint_url", "otlp_endpoint"])
@pytest.mark.parametrize("value", ["https://user:PLANTED@host", "https://host/?token=PLANTED"])
def test_a_secret_in_a_flag_is_refused_and_not_quoted(key: str, value: str) -> None:
    """It would stand in `ps`, in the unit and in config.yaml."""
    text = document(**{key: f"'{value}'"})
    with pytest.raises(AgentError) as caught:
        config_file.parse(text, "s3mount.yaml")
    told = "\n".join(caught.value.lines())
    assert "holds a secret" in told
    assert "PLANTED" not in told
