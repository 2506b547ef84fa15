"""What an administrator is told when something happens to a mount: journal, metrics and status."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.cluster import Cluster
from node.article import main_pid, status
from node.conftest import NewNode
from node.live_site import Site, document, unit_of, until
from s3mount_agent.decide.journal_events import Event

pytestmark = pytest.mark.node

# The first is the one that the administrator's page speaks of.
TOLD, KEPT = "/mnt/s3", "/mnt/kept"
QUICK = {
    "look_every": "5s",
    "check_s3_every": "8s",
    "hung_after": "10s",
    "retry_at_most_every": "5s",
}
FIGURES = "/var/lib/collector/s3mount.prom"
PAGE = Path(__file__).parents[2] / "docs/operations.md"
Entry = dict[str, str]


class Scene(Site):
    """A site with two mounts, of which one has a bucket to itself that can be broken."""

    broken = ""

    def text(self, **top: object) -> str:
        """The configuration, with quick health."""
        told = {**self.row(TOLD), "bucket": self.broken}
        return document(told, self.row(KEPT), health=QUICK, refresh="1d", **top)

    def kill(self) -> int:
        """Kills mount-s3; returns what its id was."""
        pid: int = self.mount(TOLD)["pid"]
        self.node.run(["kill", "-KILL", str(pid)])
        return pid

    def journal(self, *words: str) -> list[Entry]:
        """What journalctl finds."""
        answer = self.node.run(["journalctl", "--no-pager", "--quiet", "--output=json", *words])
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def of(self, event: Event, since: int = 0) -> list[Entry]:
        """The entries of a kind of event that tell of the mount, from a mark on."""
        return [
            entry
            for entry in self.told(since)
            if entry.get("MESSAGE_ID") == event.message_id and entry.get("S3MOUNT_MOUNT") == TOLD
        ]

    def await_event(self, event: Event, since: int = 0) -> Entry:
        """Waits until an event is told."""
        until(lambda: bool(self.of(event, since)), lambda: self.told(since)[-20:])
        return self.of(event, since)[0]

    def await_state(self, state: str) -> None:
        """Waits until status tells a state of the mount."""
        until(lambda: self.mount(TOLD)["state"] == state, lambda: status(self.node))

    def await_requests(self, number: int) -> None:
        """Waits until S3 has been asked so many times more."""
        before = self.cluster.s3.requests(self.broken)
        until(lambda: self.cluster.s3.requests(self.broken) >= before + number)

    def figures(self) -> dict[tuple[str, str], float]:
        """What Prometheus would know now, by name and directory; nothing without a file."""
        if not self.node.exists(FIGURES):
            return {}
        return {
            (sample.name, sample.labels["mount"]): sample.value
            for family in text_string_to_metric_families(self.node.read(FIGURES))
            for sample in family.samples
        }


@pytest.fixture(scope="module", params=["head", "compute"])
def scene(
    cluster: Cluster, new_ready_module_node: NewNode, request: pytest.FixtureRequest
) -> Scene:
    """A node of each role with two mounts."""
    scene = Scene(cluster, new_ready_module_node(request.param))
    scene.broken = f"{scene.bucket}-to-break"
    cluster.s3.create_bucket(scene.broken)
    scene.bootstrap(scene.text())
    scene.await_mounts(TOLD, KEPT)
    return scene


def test_the_end_of_a_mount_and_its_recovery_are_entries_with_fields(scene: Scene) -> None:
    mark = scene.mark()
    scene.kill()
    recovered = scene.await_event(Event.RECOVERED, mark)
    ended = scene.await_event(Event.ENDED, mark)
    for entry, event, priority in ((ended, Event.ENDED, "3"), (recovered, Event.RECOVERED, "6")):
        fields = {
            "MESSAGE_ID": event.message_id,
            "S3MOUNT_MOUNT": TOLD,
            "S3MOUNT_BUCKET": scene.broken,
            "S3MOUNT_ACTION": event.action,
            "S3MOUNT_RESULT": event.result,
            "SYSLOG_IDENTIFIER": "s3mount-agent",
            "PRIORITY": priority,
        }
        assert {name: entry.get(name) for name in fields} == fields
        assert TOLD in entry["MESSAGE"]
        assert "\n" not in entry["MESSAGE"]
    assert ended["S3MOUNT_ERROR_CODE"]
    assert "S3MOUNT_ERROR_CODE" not in recovered
    assert (len(scene.of(Event.ENDED, mark)), len(scene.of(Event.RECOVERED, mark))) == (1, 1)
    # Found by its identifier alone, and by the mount's directory alone.
    found = scene.journal(f"MESSAGE_ID={Event.ENDED.message_id}")
    assert ended["__CURSOR"] in {entry["__CURSOR"] for entry in found}
    assert {entry["S3MOUNT_RESULT"] for entry in found} == {"ended"}
    story = scene.journal(f"S3MOUNT_MOUNT={TOLD}")
    assert {entry["S3MOUNT_MOUNT"] for entry in story} == {TOLD}
    results = [entry["S3MOUNT_RESULT"] for entry in story]
    # In mode direct it is the agent that starts it, which it tells, too.
    assert [each for each in results if each != "done"] == ["ended", "recovered"]
    assert not [entry for entry in scene.told(mark) if entry.get("S3MOUNT_MOUNT") == KEPT]


def test_a_failure_has_mount_s3s_own_last_words_and_is_told_once(
    scene: Scene, break_s3: Callable[..., None]
) -> None:
    mark = scene.mark()
    break_s3(scene.broken, code="ExpiredToken", message="The provided token has expired.")
    scene.kill()
    failed = scene.await_event(Event.START_FAILED, mark)
    assert (failed["S3MOUNT_ERROR_CODE"], failed["PRIORITY"]) == ("credentials-expired", "3")
    scene.await_state("retrying")
    assert scene.mount(TOLD)["reason"] == failed["MESSAGE"]
    # In its own words, and not all of them.
    cause = failed["S3MOUNT_CAUSE"]
    assert "The provided token has expired." in cause
    unit = unit_of(scene.broken, TOLD)
    said = [entry["MESSAGE"] for entry in scene.journal(f"_SYSTEMD_UNIT={unit}")]
    assert [line for line in cause.splitlines() if line not in said] == []
    assert len(cause) <= 1500
    # It is tried again and again, and told no more.
    scene.await_requests(3)
    scene.cluster.s3.heal(scene.broken)
    scene.await_event(Event.RECOVERED, mark)
    scene.await_state("ok")
    assert len(scene.of(Event.START_FAILED, mark)) == 1


def test_a_degraded_mount_is_told_once_and_so_is_its_healing(
    scene: Scene, break_s3: Callable[..., None]
) -> None:
    mark, pids = scene.mark(), scene.pids()
    break_s3(scene.broken)
    degraded = scene.await_event(Event.DEGRADED, mark)
    assert (degraded["S3MOUNT_ERROR_CODE"], degraded["PRIORITY"]) == ("access-denied", "3")
    mount = scene.mount(TOLD)
    assert mount["state"] == "degraded"
    assert mount["reason"] in degraded["MESSAGE"]
    for _ in range(3):  # looks of both kinds, not seconds
        scene.await_requests(1)
        scene.node.run(["systemctl", "reload", "s3mount-agent"])
    scene.cluster.s3.heal(scene.broken)
    scene.await_event(Event.HEALED, mark)
    scene.await_state("ok")
    assert [event[0::2] for event in scene.events(mark)] == [
        ("health", "degraded"),
        ("health", "recovered"),
    ]
    assert scene.pids() == pids


# The command on the administrator's page, and what it is there to show.
SHOWN = {
    f"journalctl _UID=0 S3MOUNT_MOUNT={TOLD}": f"{TOLD} is mounted again",
    "journalctl _UID=0 -t s3mount-agent --since today": f"{TOLD} is mounted again",
    "journalctl -u 'mountpoint-s3-*' -b": rf"systemd\[1\]: Started .* at {TOLD}[\s\S]* Error: ",
    "journalctl _UID=0 -t mount-s3": "(?i)error|denied|forbidden",
    "journalctl _UID=0 S3MOUNT_ACTION=refresh": r"is in force\n[\s\S]*stays in force",
}


def test_the_five_commands_of_the_administrators_page_show_what_it_says(scene: Scene) -> None:
    page = PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^(journalctl .*?) +# .+$", page, re.MULTILINE)
    assert sorted(commands) == sorted(SHOWN)
    mark = scene.mark()
    scene.await_version(scene.edit(scene.text(busy_deadline="9m")))
    scene.edit("mounts: 7\n")
    until(lambda: "problem" in scene.config())
    scene.set(scene.text())
    scene.kill()
    scene.await_event(Event.RECOVERED, mark)
    for command in commands:
        answer = scene.node.run(["sh", "-c", command], check=False)
        assert (answer.returncode, answer.stderr) == (0, ""), command
        assert re.search(SHOWN[command], answer.stdout), (command, answer.stdout[-3000:])


def test_the_file_for_prometheus_follows_the_mounts(scene: Scene) -> None:
    assert scene.figures() == {}
    scene.set(scene.text(metrics={"prometheus": FIGURES}))
    up = {("s3mount_up", TOLD): 1.0, ("s3mount_up", KEPT): 1.0}
    until(lambda: up.items() <= scene.figures().items(), scene.figures)
    before = scene.figures()
    scene.kill()
    restarts = ("s3mount_restarts_total", TOLD)
    until(lambda: scene.figures()[restarts] == before[restarts] + 1, scene.figures)
    until(lambda: up.items() <= scene.figures().items(), scene.figures)
    now = scene.figures()
    assert now["s3mount_restarts_total", KEPT] == before["s3mount_restarts_total", KEPT]
    assert now["s3mount_recovery_seconds", TOLD] > 0
    until(lambda: ("s3mount_probe_seconds", KEPT) in scene.figures(), scene.figures)
    folder = PurePosixPath(FIGURES).parent
    assert scene.node.run(["ls", "-A", str(folder)]).stdout.split() == ["s3mount.prom"]
    scene.set(scene.text())
    until(lambda: not scene.node.exists(FIGURES))


def test_lines_for_cloudwatch_are_in_the_journal_only_while_they_are_asked_for(
    scene: Scene,
) -> None:
    def lines() -> list[Any]:
        found = scene.journal("SYSLOG_IDENTIFIER=s3mount-agent-metrics")
        return [json.loads(entry["MESSAGE"]) for entry in found]

    assert lines() == []
    scene.set(scene.text(metrics={"cloudwatch": True, "namespace": "Cluster/Mounts"}))
    until(lambda: len(lines()) >= 2)
    newest = {line["Mount"]: line for line in lines()}
    assert newest.keys() == {TOLD, KEPT}
    for line in newest.values():
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Cluster/Mounts"
        assert all(isinstance(line[each["Name"]], (int, float)) for each in directive["Metrics"])
        assert [[bool(line[name]) for name in each] for each in directive["Dimensions"]]
        assert isinstance(line["_aws"]["Timestamp"], int)
        assert (line["State"], line["s3mount_up"]) == ("ok", 1)
    mark = scene.mark()
    scene.set(scene.text())
    scene.kill()  # after which there would be news
    scene.await_event(Event.RECOVERED, mark)
    written = len(lines())
    before, mark = scene.pids()[TOLD], scene.mark()
    scene.kill()
    until(lambda: scene.mount(TOLD)["pid"] not in (None, before), lambda: scene.mount(TOLD))
    assert len(lines()) == written
    # Nor is it told again that the mount has ended, so soon after the first time.
    assert scene.of(Event.ENDED, mark) == []
    until(lambda: "mount-ended" not in scene.node.read("/run/s3mount-agent/status.json"))


def test_status_is_right_without_the_daemon_and_says_how_old_its_knowledge_is(
    scene: Scene,
) -> None:
    def told() -> str:
        answer = scene.node.run(["s3mount-agent", "status"], check=False)
        assert answer.stderr == ""
        return answer.stdout

    def age() -> int:
        found = re.search(r"looked at (\d+) s ago", told())
        assert found is not None
        return int(found[1])

    scene.await_state("ok")
    assert "daemon" not in status(scene.node)
    scene.node.run(["systemctl", "stop", "s3mount-agent"])
    known = status(scene.node)
    assert (known["daemon"], known["state"]) == ("down", "ok")
    assert "the agent's service is down" in told()
    young = age()
    until(lambda: age() > young)
    assert status(scene.node)["node"]["at"] == known["node"]["at"]
    # What the tests before have killed within this minute counts towards systemd's own limit.
    scene.node.run(["systemctl", "reset-failed", unit_of(scene.broken, TOLD)])
    pid = scene.kill()
    if status(scene.node)["node"]["mode"] == "systemd":
        until(lambda: scene.mount(TOLD)["pid"] not in (pid, None))
        scene.await_state("ok")
        assert scene.mount(TOLD)["pid"] == main_pid(scene.node, unit_of(scene.broken, TOLD))
    else:
        scene.await_state("missing")
        assert scene.mount(TOLD)["pid"] is None
        assert scene.agent("status", code=3)
    assert scene.mount(KEPT)["state"] == "ok"
    assert status(scene.node)["node"]["at"] == known["node"]["at"]
    scene.node.run(["systemctl", "start", "s3mount-agent"])
    scene.await_mounts(TOLD, KEPT)
    until(lambda: "daemon" not in status(scene.node))
    assert status(scene.node)["node"]["at"] > known["node"]["at"]
