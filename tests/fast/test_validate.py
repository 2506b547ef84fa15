"""validate: what it says of files, on any computer, and what it ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s3mount_agent.core.errors import Exit

EXAMPLE = Path(__file__).parents[2] / "docs/s3mount.example.yaml"
Run = Callable[..., "tuple[int, str, str]"]


def test_validate_says_who_mounts_what(run: Run) -> None:
    code, out, err = run("validate", str(EXAMPLE))
    assert (code, err) == (Exit.OK, "")
    assert out.splitlines() == [
        f"{EXAMPLE} is good.",
        "  head: /mnt/s3-readonly <- s3://hpc-dev-mountpoint-sample-1  rw",
        "  head: /mnt/s3 <- s3://hpc-dev-mountpoint-sample-2  rw",
        "  compute p1: /mnt/s3-readonly <- s3://hpc-dev-mountpoint-sample-1  ro",
        "  compute p1: /mnt/s3 <- s3://hpc-dev-mountpoint-sample-2  rw",
        "  compute p1: /mnt/genomes <- s3://hpc-dev-reference-data/genomes/  ro",
        "  compute, other queues: /mnt/s3-readonly <- s3://hpc-dev-mountpoint-sample-1  ro",
        "  compute, other queues: /mnt/s3 <- s3://hpc-dev-mountpoint-sample-2  rw",
        "  login: /mnt/s3-readonly <- s3://hpc-dev-mountpoint-sample-1  rw",
        "  login: /mnt/s3 <- s3://hpc-dev-mountpoint-sample-2  rw",
        "  note: files that can be open for writing at once: at least 47 on /mnt/s3-readonly, "
        "at least 47 on /mnt/s3",
    ]


def test_validate_knows_queues_and_pools_apart(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s3mount.yaml"
    path.write_text("""\
mounts:
- {bucket: one-bucket, directory: /mnt/1, queues: [p1, p2], on: compute}
- {bucket: two-bucket, directory: /mnt/2, queues: [pool], on: login}
- {bucket: Lab_Archive.2013, directory: /mnt/3, queues: p3, read_only: true}
""")
    code, out, err = run("validate", str(path))
    assert (code, err) == (Exit.OK, "")
    assert out.splitlines()[1:] == [
        "  head: nothing",
        "  compute p1: /mnt/1 <- s3://one-bucket  rw",
        "  compute p2: /mnt/1 <- s3://one-bucket  rw",
        "  compute p3: /mnt/3 <- s3://Lab_Archive.2013  ro",
        "  compute, other queues: nothing",
        "  login pool: /mnt/2 <- s3://two-bucket  rw",
        "  login, other pools: nothing",
        "  note: files that can be open for writing at once: at least 47 on /mnt/1, "
        "at least 47 on /mnt/2",
        "  note: Lab_Archive.2013: only a bucket of before 2018 can have this name",
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("memory_target: 4096", "at least 447 on /mnt/s3"),
        ("write_part_size: 67108864", "at least 5 on /mnt/s3"),
        ("write_part_size: 1073741824", "at least 1 on /mnt/s3"),
        ("roles: {head: {memory_target: 512}}, memory_target: 4096", "at least 47 on /mnt/s3"),
        ("read_only: true", ""),
    ],
)
@pytest.mark.parametrize("version", ["1.23.0", "1.24.0", "latest"])
def test_validate_tells_how_many_files_may_be_open_for_writing(
    run: Run, tmp_path: Path, keys: str, told: str, version: str
) -> None:
    path = tmp_path / "s3mount.yaml"
    mount = f"{{bucket: my-bucket, directory: /mnt/s3, {keys}}}"
    path.write_text(f"mounts: [{mount}]\ninstall: {{version: {version}}}\n")
    _, out, _ = run("validate", str(path))
    limited = version != "1.23.0"
    assert ("open for writing at once" in out) is bool(told and limited)
    if limited:
        assert told in out


def test_validate_of_no_mounts_says_what_that_means(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s3mount.yaml"
    path.write_text("mounts: []\nenvironment: {HTTPS_PROXY: 'http://me:hush@proxy:3128'}\n")
    code, out, err = run("validate", str(path))
    assert (code, err) == (Exit.OK, "")
    assert out.splitlines()[1:3] == [
        "  nothing",
        "  note: it names no mounts: a node that follows it takes down all that it has",
    ]
    assert "HTTPS_PROXY holds a password or a token" in out
    assert "hush" not in out


def test_validate_reads_several_files_and_tells_all_that_is_wrong(run: Run, tmp_path: Path) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text("mounts: [{bucket: my-bucket, directory: /mnt/s3}]")
    bad.write_text("version: 2\nmounts: [{bucket: x, directory: y}]\n")
    worse.write_bytes("mounts: [] # f\u00fcr".encode("latin-1"))
    code, out, err = run("validate", str(bad), str(good), str(worse))
    assert code == Exit.USAGE
    assert out.startswith(f"{good} is good.\n  /mnt/s3 <- s3://my-bucket  rw\n")
    assert [line.split(": ", 2)[2] for line in err.splitlines() if "error [" in line] == [
        f"{bad}:1:10: this agent knows version 1 of this format, but not version 2",
        f"{bad}:2:19: 'x' is not a bucket: its name has 1 character, not 3 to 255",
        f"{bad}:2:33: the directory 'y' is not absolute",
        f"{worse}:1:15: the byte 0xFC is not UTF-8 text (in Latin-1 it is '\u00fc')",
    ]
    assert "s3mount-agent validate" not in err


def test_validate_reads_the_standard_input() -> None:
    code = "import sys; from s3mount_agent.cli import main; sys.exit(main())"
    answer = subprocess.run(
        [sys.executable, "-c", code, "validate", "-"],
        input=b"\xef\xbb\xbfmounts: [{bucket: my-bucket, directory: /mnt/s3}]",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout.startswith(b"the standard input is good.\n")


def test_validate_tells_what_is_wrong_as_the_documents_show(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s3mount.yaml"
    path.write_text("mounts:\n  - bucket: my-bucket\n    directory: /mnt/s3\n    quues: [p1]\n")
    assert run("validate", str(path)) == (
        Exit.USAGE,
        "",
        f"s3mount-agent: error [config-invalid]: {path}:4:5: there is no key 'quues' here\n"
        "  cause:     quues: [p1]\n"
        "  cause:     ^\n"
        "  hint: did you mean queues?\n",
    )


@pytest.mark.parametrize("words", [[], ["none.yaml"], ["--json", "x"]])
def test_validate_needs_a_file(run: Run, words: list[str]) -> None:
    code, _, err = run("validate", *words)
    assert code == Exit.USAGE
    assert "[usage]" in err


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x00", b"mounts: {", b"#" * 300_000])
def test_validate_of_what_is_no_configuration_ends_with_2(
    run: Run, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "s3mount.yaml"
    path.write_bytes(data)
    code, out, err = run("validate", str(path))
    assert (code, out) == (Exit.USAGE, "")
    assert "[config-invalid]" in err


def test_validate_brings_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """It is to answer in less than 0.3 s, on a computer without AWS."""
    code = (
        "import sys, json\n"
        "from s3mount_agent.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", code, "validate", str(EXAMPLE)],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - began < 20
    assert answer.returncode == 0, answer.stderr
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert "yaml" in loaded
    heavy = "boto3 botocore psutil tenacity urllib.request requests asyncio ssl socket"
    assert loaded.isdisjoint(heavy.split())
    not_needed = "daemon reconcile supervisor state".split()
    assert not any(name.split(".")[1:2] in [[room] for room in not_needed] for name in loaded)
