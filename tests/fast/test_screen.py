"""How status looks to people: within 80 columns, with colour only where it is of use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount_agent.console import screen
from s3mount_agent.core.states import State
from s3mount_agent.decide.mount_status import MountStatus, NodeStatus
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.system import systemd

SINCE = "2026-11-23T17:05:35Z"
NODE = {"role": "compute", "mode": "direct", "cluster": "hpc-dev", "queue": "queue-1"}
NODE |= {"agent": "0.1.0", "mount_s3": "1.24.0"}
AGENT = Path(__file__).parents[2] / "agent"


def sight(
    path: str = "/mnt/s3",
    bucket: str = "my-bucket",
    state: State = State.OK,
    *,
    reason: str | None = None,
    hint: str | None = None,
    pending: str | None = None,
) -> MountStatus:
    return MountStatus(
        path,
        path,
        bucket,
        read_only=False,
        state=state,
        since=SINCE,
        pending=pending,
        pid=62 if state is State.OK else None,
        reason=reason,
        hint=hint,
    )


def shown(*sights: MountStatus, up: bool = True, colour: bool = False, **more: object) -> list[str]:
    seen = NodeStatus(NODE, sights, SINCE, "227 s ago", up)
    followed = more.get("followed")
    assert followed is None or isinstance(followed, Origin)
    return screen.table(seen, followed, None, colour=colour).splitlines()


def test_what_fits_has_a_line_for_each_mount() -> None:
    assert shown(sight("/mnt/a"), sight("/mnt/bb")) == [
        "ok: hpc-dev compute queue-1",
        "  mode direct, mount-s3 1.24.0, agent 0.1.0, seen just now (answers: 227 s ago)",
        f"  ok        /mnt/a   rw  s3://my-bucket  pid 62, since {SINCE}",
        f"  ok        /mnt/bb  rw  s3://my-bucket  pid 62, since {SINCE}",
    ]


def test_what_does_not_fit_has_two() -> None:
    bucket = "hpc-dev-mountpoint-sample-1"
    assert shown(sight("/mnt/s3-readonly", bucket), sight())[2:] == [
        f"  ok        /mnt/s3-readonly  rw  s3://{bucket}",
        f"            pid 62, since {SINCE}",
        "  ok        /mnt/s3           rw  s3://my-bucket",
        f"            pid 62, since {SINCE}",
    ]


def test_nothing_is_wider_than_80_columns_but_a_word_that_is() -> None:
    words = "a sentence that goes on " * 9
    wide = sight(
        "/mnt/" + "d" * 40,
        "b" * 63,
        State.FAILED,
        reason=words,
        hint=f"{words} `s3mount-agent apply --now`",
        pending=words,
    )
    origin = Origin("s3://bucket/" + "k" * 90, "v1", "v2", words)
    lines = shown(wide, sight(), up=False, followed=origin)
    too_wide = [line for line in lines if len(line) > 80]
    assert [line.split() for line in too_wide] == [[origin.url]]
    text = " ".join(" ".join(lines).split())
    assert f"reason: {words.strip()}" in text
    assert f"pending: {words.strip()}" in text
    assert f"s3://{'b' * 63}" in text
    assert "hint: " in text


@pytest.mark.parametrize("colour", [False, True])
def test_the_first_line_is_no_wider_either(
    monkeypatch: pytest.MonkeyPatch, *, colour: bool
) -> None:
    # The longest names that ParallelCluster takes for a cluster and a queue.
    long = {"cluster": "c" * 60, "queue": "q" * 25}
    monkeypatch.setattr(sys.modules[__name__], "NODE", NODE | long)
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in shown(sight(), colour=colour)]
    assert max(map(len, lines)) <= 80
    assert " ".join(lines[0].split() + lines[1].split()) == f"ok: {'c' * 60} compute {'q' * 25}"


@pytest.mark.parametrize(
    ("systemd_runs", "command"),
    [(True, "systemctl start s3mount-agent"), (False, "s3mount-agent apply")],
)
def test_what_starts_the_service_is_what_works_on_this_node(
    monkeypatch: pytest.MonkeyPatch, *, systemd_runs: bool, command: str
) -> None:
    monkeypatch.setattr(systemd, "runs", lambda: systemd_runs)
    assert shown(sight(), up=False)[-1] == f"  the agent's service is down: `{command}`"


@pytest.mark.parametrize(
    ("state", "up", "told"),
    [
        (State.OK, True, "seen just now (answers: 227 s ago)"),
        (State.OK, False, "looked at 227 s ago"),
        (State.DEGRADED, True, "looked at 227 s ago"),
    ],
)
def test_old_knowledge_alarms_nobody_while_all_is_well(state: State, up: bool, told: str) -> None:
    facts = " ".join(" ".join(shown(sight(state=state), up=up)[1:3]).split())
    assert told in facts


def test_colour_is_never_all_there_is() -> None:
    sights = [sight(f"/mnt/{state.value}", state=state) for state in State]
    plain, painted = shown(*sights), shown(*sights, colour=True)
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in painted] == plain
    assert "\x1b[32mok\x1b[0m" in "\n".join(painted)
    assert "\x1b[31mfailed\x1b[0m" in "\n".join(painted)
    assert "\x1b" not in "\n".join(plain)


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colour_needs_a_terminal_and_nobody_who_minds(
    terminal: bool, environment: dict[str, str], expected: bool
) -> None:
    import pty

    code = "from s3mount_agent.console.screen import has_colour; print(has_colour())"
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "TERM": "xterm", "PYTHONPATH": str(AGENT), **environment},
        stdout=theirs if terminal else subprocess.PIPE,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    said = os.read(ours, 100) if terminal else answer.stdout
    os.close(ours)
    assert said.split() == [str(expected).encode()]
