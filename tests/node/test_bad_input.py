"""What cannot be right is refused with a code and a hint, and leaves no trace on the node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cluster.cluster import Cluster
from cluster.parallelcluster import CFNCONFIG
from node.article import FIRST, HEAD, ONE, SECOND, WRITABLE, listed, states
from node.conftest import NewNode
from node.listing import difference, processes, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.node import Node

pytestmark = pytest.mark.node

DNA = "/etc/chef/dna.json"
PWNED = "/var/pwned"
OPTIONS = "--allow-other"

# Arguments, and the code of the refusal.
REFUSED = {
    "no arguments": ([], "args-not-triples"),
    "one argument": ([SECOND], "args-not-triples"),
    "two arguments": ([SECOND, WRITABLE], "args-not-triples"),
    "four arguments": ([*ONE, FIRST], "args-not-triples"),
    "bucket empty": (["", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket too short": (["ab", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket too long": (["a" * 256, WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket and directory swapped": ([WRITABLE, SECOND, OPTIONS], "bucket-invalid"),
    "options not quoted": (
        [SECOND, WRITABLE, "--allow-delete", "--allow-other", FIRST, "/mnt/x"],
        "bucket-invalid",
    ),
    "bucket as https URL": (["https://bucket/", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket that is an address": (["10.0.0.1", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket that looks like a flag": (["-bucket", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket's own ARN": ([f"arn:aws:s3:::{SECOND}", WRITABLE, OPTIONS], "bucket-invalid"),
    "prefix without slash": ([f"s3://{SECOND}/data", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket that is a command": (["$(reboot)", WRITABLE, OPTIONS], "bucket-invalid"),
    "bucket with semicolon": (["bucket;reboot", WRITABLE, OPTIONS], "bucket-invalid"),
    "directory relative": ([SECOND, "mnt/s3", OPTIONS], "directory-invalid"),
    "directory empty": ([SECOND, "", OPTIONS], "directory-invalid"),
    "directory with dots": ([SECOND, "/mnt/../etc/s3", OPTIONS], "directory-invalid"),
    "directory is the root": ([SECOND, "/", OPTIONS], "directory-reserved"),
    "directory is the root twice": ([SECOND, "//", OPTIONS], "directory-reserved"),
    "directory /usr": ([SECOND, "/usr", OPTIONS], "directory-reserved"),
    "directory /etc/": ([SECOND, "/etc/", OPTIONS], "directory-reserved"),
    "directory /home": ([SECOND, "/home", OPTIONS], "directory-reserved"),
    "directory below /usr/lib": ([SECOND, "/usr/lib/s3", OPTIONS], "directory-reserved"),
    "directory /opt/slurm/x": ([SECOND, "/opt/slurm/x", OPTIONS], "directory-reserved"),
    "directory through a link": ([SECOND, "/bin/s3", OPTIONS], "directory-reserved"),
    "directory is a file": ([SECOND, "/srv/file", OPTIONS], "directory-not-a-directory"),
    "directory below a file": ([SECOND, "/srv/file/s3", OPTIONS], "directory-not-a-directory"),
    "directory not empty": ([SECOND, "/srv/full", OPTIONS], "directory-not-empty"),
    "directory is a link": ([SECOND, "/srv/link", OPTIONS], "directory-invalid"),
    "directory is a mount": ([SECOND, "/srv/mount", OPTIONS], "directory-in-use"),
    "directory above a mount": ([SECOND, "/srv/above", OPTIONS], "directory-in-use"),
    "directory twice": ([*ONE, FIRST, WRITABLE, OPTIONS], "directory-twice"),
    "directory twice, spelt twice": ([*ONE, FIRST, "//mnt/s3/", OPTIONS], "directory-twice"),
    "directory inside another": ([*ONE, FIRST, f"{WRITABLE}/in", OPTIONS], "directory-twice"),
    "quote open": ([SECOND, WRITABLE, "--prefix 'a/"], "options-unbalanced"),
    "double quote open": ([SECOND, WRITABLE, '--prefix "a/'], "options-unbalanced"),
    "flag unknown": ([SECOND, WRITABLE, "--allow-everything"], "option-unknown"),
    "flag misspelt": ([SECOND, WRITABLE, "--alow-other"], "option-unknown"),
    "option that is no flag": ([SECOND, WRITABLE, "allow-other"], "option-unknown"),
    "option that is a command": ([SECOND, WRITABLE, "; reboot"], "option-unknown"),
    "flag without its value": ([SECOND, WRITABLE, "--region"], "option-value"),
    "flag with a value too much": ([SECOND, WRITABLE, "--allow-delete=yes"], "option-value"),
    "uid of root": ([SECOND, WRITABLE, "--uid 0"], "option-value"),
    "mode that is not octal": ([SECOND, WRITABLE, "--dir-mode 999"], "option-value"),
    "read-only but deleting": ([SECOND, WRITABLE, "--read-only --allow-delete"], "option-conflict"),
    "read-only but overwriting": (
        [SECOND, WRITABLE, "--read-only --allow-overwrite"],
        "option-conflict",
    ),
    "flag twice": ([SECOND, WRITABLE, "--allow-other --allow-other"], "option-conflict"),
    "prefix twice": ([f"s3://{SECOND}/a/", WRITABLE, "--prefix=b/"], "option-conflict"),
    "foreground": ([SECOND, WRITABLE, "--foreground"], "option-reserved"),
    "foreground, short": ([SECOND, WRITABLE, "-f"], "option-reserved"),
    "version": ([SECOND, WRITABLE, "-V"], "option-reserved"),
    "version, long": ([SECOND, WRITABLE, "--version"], "option-reserved"),
    "help": ([SECOND, WRITABLE, "--help"], "option-reserved"),
    "line break in the bucket": (["bucket\n", WRITABLE, OPTIONS], "argument-not-text"),
    "line break in the directory": (
        [SECOND, "/mnt/s3\nExecStart=/bin/touch /var/pwned", OPTIONS],
        "argument-not-text",
    ),
    "line break in the options": (
        [SECOND, WRITABLE, "--allow-other\n[Service]\nUser=nobody"],
        "option-unknown",
    ),
    "line break in an option": ([SECOND, WRITABLE, "--profile 'a\nb'"], "argument-not-text"),
    "escape sequence": ([SECOND, "/mnt/\x1b[2J", OPTIONS], "argument-not-text"),
    "backslash": ([SECOND, "/mnt/s3\\", OPTIONS], "directory-invalid"),
}
# Directories that stand for themselves, though a shell or systemd would read more into them.
LITERAL = (
    '/mnt/a b;$(touch /var/pwned)%n$HOME "q"',
    "/mnt/%i%%/${HOME}/`touch /var/pwned`",
    "/mnt/it's/-dash/#hash/ tail ",
    "/mnt/[Install]/WantedBy=x/é",
)


@pytest.fixture(scope="module")
def node(new_module_node: NewNode) -> Node:
    """A head node that no bootstrap has ever touched, with directories of every bad kind."""
    node = new_module_node("head")
    node.run(["mkdir", "-p", "/srv/full", "/srv/mount", "/srv/above/deep", "/srv/real"])
    node.run(["ln", "-s", "/srv/real", "/srv/link"])
    node.run(["touch", "/srv/file", "/srv/full/a-file"])
    for directory in ("/srv/mount", "/srv/above/deep"):
        node.run(["mount", "-t", "tmpfs", "mine", directory])
    return node


def require_refused(cluster: Cluster, node: Node, arguments: list[str], code: str) -> list[str]:
    """Runs a bootstrap that must be refused without a trace; returns what it said on stderr."""
    disk, running = written(node), processes(node)
    table = node.read("/proc/mounts")
    asked = len(cluster.mirror.requests)
    action = cluster.custom_action(node, arguments)
    lines = action.stderr.splitlines()
    assert action.returncode == 2, action.stderr
    assert lines[0].startswith(f"s3mount-agent: error [{code}]: ")
    assert lines[-1].startswith("  hint: ")
    assert len(lines[-1]) > len("  hint: ")
    assert len(lines) <= 3
    assert "Traceback" not in action.stdout + action.stderr
    assert difference(disk, written(node)) == {}
    assert processes(node) - running == set()
    assert node.read("/proc/mounts") == table
    assert len(cluster.mirror.requests) == asked
    return lines


@pytest.mark.parametrize(("arguments", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_and_nothing_has_changed(
    cluster: Cluster, node: Node, arguments: list[str], code: str
) -> None:
    require_refused(cluster, node, arguments, code)


def test_one_bad_mount_is_enough_to_refuse_all(cluster: Cluster, node: Node) -> None:
    lines = require_refused(
        cluster, node, [*HEAD, "third-bucket", "/usr", OPTIONS], "directory-reserved"
    )
    assert "/usr" in lines[0]


def test_bytes_that_are_no_text_are_refused(cluster: Cluster, node: Node) -> None:
    require_refused(cluster, node, [SECOND, "/mnt/\udcff", OPTIONS], "argument-not-text")


def test_a_misspelt_flag_gets_the_right_one_as_its_hint(cluster: Cluster, node: Node) -> None:
    lines = require_refused(cluster, node, [SECOND, WRITABLE, "--alow-other"], "option-unknown")
    assert "--allow-other" in lines[-1]


@pytest.fixture
def dna(node: Node) -> Iterator[dict[str, dict[str, str]]]:
    """The node's dna.json and cfnconfig, put back after the test."""
    before = {path: node.read(path) for path in (DNA, CFNCONFIG)}
    yield json.loads(before[DNA])
    for path, text in before.items():
        node.write(path, text)


def test_an_unknown_node_type_names_the_file_and_the_value(
    cluster: Cluster, node: Node, dna: dict[str, dict[str, str]]
) -> None:
    dna["cluster"]["node_type"] = "SpareNode"
    node.write(DNA, json.dumps(dna))
    lines = require_refused(cluster, node, list(ONE), "node-type")
    assert DNA in lines[0]
    assert "'SpareNode'" in lines[0]
    assert "--role" in lines[-1]


def test_an_unknown_node_type_in_cfnconfig_names_the_file_and_the_value(
    cluster: Cluster, node: Node, dna: object
) -> None:
    text = node.read(CFNCONFIG).replace("HeadNode", "MasterServer")
    node.write(CFNCONFIG, text)
    node.run(["rm", DNA])
    lines = require_refused(cluster, node, list(ONE), "node-type")
    assert CFNCONFIG in lines[0]
    assert "'MasterServer'" in lines[0]


def test_contradictory_node_types_name_both_files_and_values(
    cluster: Cluster, node: Node, dna: object
) -> None:
    node.write(CFNCONFIG, node.read(CFNCONFIG).replace("HeadNode", "ComputeFleet"))
    lines = require_refused(cluster, node, list(ONE), "node-type")
    for word in (DNA, "HeadNode", CFNCONFIG, "ComputeFleet"):
        assert word in lines[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '"cluster"',
        '{"cluster": []}',
        '{"cluster": {}}',
        '{"cluster": {"a": ""}}',
    ],
)
def test_a_broken_dna_json_is_named(cluster: Cluster, node: Node, dna: object, text: str) -> None:
    node.write(DNA, text)
    lines = require_refused(cluster, node, list(ONE), "node-type")
    assert DNA in lines[0]


def test_the_role_can_be_said_where_the_files_are_wrong(
    cluster: Cluster, node: Node, dna: object
) -> None:
    node.write(CFNCONFIG, node.read(CFNCONFIG).replace("HeadNode", "ComputeFleet"))
    before = written(node)
    action = cluster.custom_action(node, ["--role=head", "--check", *ONE])
    assert action.returncode == 0, action.stderr
    assert difference(before, written(node)) == {}


def test_what_a_shell_or_systemd_would_expand_is_mounted_literally(
    cluster: Cluster, new_node: NewNode
) -> None:
    node = new_node("head")
    arguments = [word for directory in LITERAL for word in (SECOND, directory, OPTIONS)]
    action = cluster.custom_action(node, arguments)
    assert action.returncode == 0, action.stderr
    assert states(node) == dict.fromkeys(LITERAL, "ok")
    assert all("YouCanLookThisFileFromS3.txt" in listed(node, each) for each in LITERAL)
    node.reboot()
    assert states(node, wait=20) == dict.fromkeys(LITERAL, "ok")
    assert not node.exists(PWNED)
    again = cluster.custom_action(node, arguments)
    assert "nothing to change" in again.stdout
    assert node.run(["s3mount-agent", "uninstall"]).returncode == 0
    assert node.run(["ls", "-A", "/mnt"]).stdout == ""
    assert not node.exists(PWNED)


def test_options_that_a_shell_would_expand_reach_mount_s3_literally(
    cluster: Cluster, new_ready_node: NewNode
) -> None:
    node = new_ready_node("compute")
    prefix = "$(touch /var/pwned)/%n ${HOME};\"'/"
    cluster.s3.create_bucket("strange-names")
    cluster.s3.put("strange-names", f"{prefix}inside", b"")
    quoted = prefix.replace("'", "'\\''")
    action = cluster.custom_action(
        node, ["strange-names", WRITABLE, f"--allow-other --prefix '{quoted}'"]
    )
    assert action.returncode == 0, action.stderr
    assert listed(node, WRITABLE) == ["inside"]
    assert not node.exists(PWNED)
