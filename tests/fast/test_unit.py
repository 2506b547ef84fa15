"""The text of a mount's unit: whatever a user gives stands for itself and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fast.in_memory import parse_mount
from fast.unit_reader import commands, environment, expanded, sections, words
from s3mount_agent.core.errors import AgentError, Exit
from s3mount_agent.core.masking import is_secret
from s3mount_agent.core.mount_definition import Definition
from s3mount_agent.core.mounts import Mount, Owner
from s3mount_agent.core.node_roles import Mode
from s3mount_agent.filesystem import paths
from s3mount_agent.supervisor.unit_text import read_definition, render

AGENT = ("/opt/s3mount-agent/current/bin/s3mount-agent",)
# What the template may set, and nothing else may appear.
KEYS = {
    "Unit": "Description Documentation Wants After Before RequiresMountsFor StartLimitIntervalSec "
    "StartLimitBurst",
    "Service": "Type Environment EnvironmentFile ExecStartPre ExecStart ExecStartPost ExecStop "
    "ExecStopPost Restart RestartSec RestartPreventExitStatus TimeoutStartSec TimeoutStopSec "
    "NotifyAccess "
    "StandardOutput StandardError NoNewPrivileges LockPersonality RestrictRealtime "
    "OOMScoreAdjust MemoryMax",
    "Install": "WantedBy",
    "X-S3Mount": "Record",
}
# Pieces that mean something to systemd, a shell, JSON or YAML, beside any text at all.
PIECES = st.one_of(
    st.sampled_from(
        [
            *"%$\\\"'`;#=@{}[]()&|<>*?~!-+:, aé漢🪣",
            *"%n %% $$ ${HOME} $(reboot) \\n \\x41 @COMMAND@ @RECORD@ ExecStart= [Service]".split(),
        ]
    ),
    st.text(max_size=3),
)
TEXT = st.lists(PIECES, max_size=8).map("".join)
NAMES = st.one_of(TEXT, st.sampled_from(["my-bucket", "hpc-dev-mountpoint-sample-2"]))
BUCKETS = st.one_of(TEXT, NAMES, TEXT.map(lambda t: f"s3://my-bucket/{t}/"))
DIRECTORIES = st.one_of(TEXT, TEXT.map(lambda t: f"/mnt/{t}"), TEXT.map(lambda t: f"/{t}/x"))
SHELL_QUOTED = TEXT.map(lambda t: "'" + t.replace("'", "'\"'\"'") + "'")
OPTIONS = st.one_of(
    TEXT,
    st.sampled_from(["", "--read-only --allow-other", "--allow-delete --allow-other"]),
    SHELL_QUOTED.map(lambda t: f"--user-agent-prefix={t} --allow-other"),
    SHELL_QUOTED.map(lambda t: f"--cache {t} --storage-class={t}"),
)


def template() -> str:
    return paths.template("mountpoint-s3.service")


def definition_of(
    mount: Mount,
    *,
    program: str = "/usr/bin/mount-s3",
    variables: dict[str, str] | None = None,
    memory_max: int | None = None,
) -> Definition:
    return Definition(
        bucket=str(mount.bucket),
        directory=mount.directory,
        command=(program, *mount.arguments(Owner(1000, 1000))),
        mode=Mode.SYSTEMD,
        read_only=mount.read_only,
        memory_max=memory_max,
        environment=tuple(sorted((variables or {}).items())),
    )


def require_exact(mount: Mount, definition: Definition | None = None) -> str:
    definition = definition or definition_of(mount)
    text = render(template(), definition, agent=AGENT)
    assert read_definition(text) == definition
    unit = sections(text)
    assert unit.keys() == KEYS.keys()
    for section, rows in unit.items():
        names = [name for name, _ in rows]
        once = [name for name in names if name != "EnvironmentFile"]
        assert len(set(once)) == len(once)
        assert set(names) == set(KEYS[section].split())
    directory = mount.directory
    assert commands(unit, "ExecStart") == [list(definition.command)]
    assert environment(unit) == dict(definition.environment)
    limit = "infinity" if definition.memory_max is None else f"{definition.memory_max}M"
    assert dict(unit["Service"])["MemoryMax"] == limit
    assert dict(unit["Service"])["RestartPreventExitStatus"] == "1 2"
    places = [f"{kind}={path}" for kind, path in definition.places]
    assert commands(unit, "ExecStartPre") == [[*AGENT, "unit-hook", "prepare", directory, *places]]
    assert commands(unit, "ExecStartPost") == [[*AGENT, "unit-hook", "ready", directory]]
    assert commands(unit, "ExecStop") == [[*AGENT, "unit-hook", "stop", directory]]
    assert commands(unit, "ExecStopPost") == [[*AGENT, "unit-hook", "clean", directory]]
    settings_of_unit = dict(unit["Unit"])
    description = expanded(settings_of_unit["Description"], variables=False)
    assert description == mount.description.strip()
    disks = [expanded(w, variables=False) for w in words(settings_of_unit["RequiresMountsFor"])]
    assert disks[0] == directory.rpartition("/")[0] or "/"
    assert set(disks[1:]) | {disks[0]} == {path for _, path in definition.places} | {disks[0]}
    return text


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(BUCKETS, DIRECTORIES, OPTIONS)
@example("my-bucket", "/mnt/a b;c", "--prefix='%n $HOME ${HOME} \\x41 \" ; /'")
@example("my-bucket", "/mnt/x\n[Service]\nExecStartPre=/bin/sh", "")
@example("s3://my-bucket/@RECORD@/%i/", "/mnt/@COMMAND@/$$x$$/'", "--cache '/a;' -d")
@example("s3://my-bucket/[X-S3Mount]/", "/mnt/#;", "--user-agent-prefix ';'")
def test_any_input_is_refused_as_usage_or_carried_literally(
    bucket: str, directory: str, options: str
) -> None:
    try:
        mount = parse_mount(bucket, directory, options)
    except AgentError as error:
        refusal = error
    else:
        require_exact(mount)
        return
    assert refusal.problem.exit_code is Exit.USAGE
    assert "\n".join(refusal.lines()).encode()


@settings(max_examples=200)
@given(TEXT, TEXT, TEXT)
def test_odd_but_valid_text_is_carried_literally(prefix: str, name: str, agent: str) -> None:
    """Like the test above, but most of what it draws is accepted."""
    prefix = "".join(c for c in prefix if c.isprintable())
    name = "".join(c for c in name if c.isprintable() and c not in "/\\").strip(".") or "x"
    agent = "".join(c for c in agent if c.isprintable() and c not in "'") or "x"
    assume(not is_secret(f"x{agent}"))  # which is refused
    options = f"--allow-other --user-agent-prefix='x{agent}'"
    require_exact(parse_mount(f"s3://my-bucket/{prefix}/", f"/mnt/{name}/s3", options))


# What the configuration's reader lets through: printable ASCII.
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
NAMES_OF_VARIABLES = st.sampled_from(["AWS_REGION", "AWS_ENDPOINT_URL", "HTTP_PROXY", "NO_PROXY"])


@settings(max_examples=200)
@given(st.dictionaries(NAMES_OF_VARIABLES, VALUES), st.none() | st.integers(1, 10**6))
@example({"AWS_REGION": '"; ExecStart=/bin/sh', "HTTP_PROXY": "%n $HOME ${HOME} \\x41 \\"}, 640)
@example({"AWS_REGION": "a AWS_PROFILE=b", "NO_PROXY": "'#;' @RECORD@"}, None)
def test_variables_and_limits_are_carried_literally(
    variables: dict[str, str], memory_max: int | None
) -> None:
    mount = parse_mount("my-bucket", "/mnt/s3", "")
    require_exact(mount, definition_of(mount, variables=variables, memory_max=memory_max))


@pytest.mark.parametrize(("mode", "restart"), [(Mode.SYSTEMD, "always"), (Mode.DIRECT, "no")])
def test_only_in_systemd_mode_systemd_restarts_the_mount(mode: Mode, restart: str) -> None:
    mount = parse_mount("my-bucket", "/mnt/s3", "")
    definition = Definition("my-bucket", "/mnt/s3", ("/x", *mount.arguments(None)), mode, False)
    unit = sections(render(template(), definition, agent=AGENT))
    assert dict(unit["Service"])["Restart"] == restart


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[Unit]\nDescription=mount\n[Service]\nExecStart=/usr/bin/mount-s3 bucket /mnt/s3\n",
        "[X-S3Mount]\nRecord={}\n",
        "[X-S3Mount]\nRecord={not json}\n",
        '[X-S3Mount]\nRecord={"bucket": "b", "directory": "/d", "command": 5}\n',
        '[X-S3Mount]\nRecord={"bucket":"b","directory":"/d","command":[],"mode":"x",'
        '"read_only":false}\n',
        "[Service]\nRecord={}\n",
    ],
)
def test_a_unit_of_somebody_else_has_no_definition(text: str) -> None:
    assert read_definition(text) is None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_itself_accepts_the_units_without_a_word(tmp_path: Path) -> None:
    odd = [
        ("my-bucket", "/mnt/s3", "--allow-delete --allow-other"),
        ("s3://my-bucket/%n %i $HOME ${HOME}/", "/mnt/a b/c d", ""),
        ("s3://my-bucket/;/[Service]/", "/mnt/;/x", "--cache '/c;d ; e'"),
        ("my-bucket", "/mnt/$(reboot)/$x", "--user-agent-prefix '%n%%$$\\\\x41\\n'"),
        ("s3://my-bucket/a\\/\"q\"/'s'/", "/mnt/\"q\"/'s'", '-l "/l\'"'),
        ("my-bucket", "/mnt/ünï/漢🪣/x", "--storage-class '='"),
        ("my-bucket", "/mnt/100%/deep/%", "--read-only"),
        ("my-bucket", "/mnt/@COMMAND@/#", "--read-only"),
    ]
    variables = {"AWS_REGION": "%n $HOME \\ ' \" ;", "NO_PROXY": "a b=c, #", "HTTP_PROXY": ""}
    paths = []
    for bucket, directory, options in odd:
        mount = parse_mount(bucket, directory, options)
        # `verify` looks whether the programs exist.
        definition = definition_of(mount, program="/bin/true", variables=variables, memory_max=640)
        path = tmp_path / mount.unit
        path.write_text(render(template(), definition, agent=["/bin/true"]), encoding="utf-8")
        paths.append(str(path))
    assert len(set(paths)) == len(odd)
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in answer.stderr.splitlines() if "mountpoint-s3-" in line]
    assert (answer.returncode, said) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_would_say_a_word_about_a_bad_unit(tmp_path: Path) -> None:
    """So that the silence above means something."""
    mount = parse_mount("my-bucket", "/mnt/s3", "")
    text = render(template(), definition_of(mount, program="/bin/true"), agent=["/bin/true"])
    path = tmp_path / mount.unit
    path.write_text(text.replace('"/bin/true"', '"/bin/true" "open'), encoding="utf-8")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert mount.unit in answer.stderr
