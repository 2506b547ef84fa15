"""plan, apply and bootstrap: what they say, and what they end with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fast.in_memory import Supervisor, context
from s3mount_agent.commands import bootstrap as bootstrap_face
from s3mount_agent.config import config_file, desired, environment, source
from s3mount_agent.config.configuration import Configuration
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.core.node_roles import OnFailure, Role
from s3mount_agent.core.resources import Machine
from s3mount_agent.core.states import Presence
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.decide.plan import Observed, Placed
from s3mount_agent.filesystem import paths
from s3mount_agent.mountpoint import program
from s3mount_agent.mountpoint.program import Installed
from s3mount_agent.reconcile import bootstrap, execute, preview, refresh
from s3mount_agent.state import config_origin, held_down, in_force
from s3mount_agent.system import capacity, journal, threads

OLD = """\
mounts:
- {bucket: bucket-one, directory: /mnt/one, read_only: true}
- {bucket: bucket-two, directory: /mnt/two, read_only: true}
- {bucket: bucket-three, directory: /mnt/three}
"""
NEW = """\
mounts:
- {bucket: bucket-one, directory: /mnt/one, read_only: true}
- {bucket: bucket-two, directory: /mnt/two, allow_delete: true}
- {bucket: bucket-four, directory: /mnt/four}
"""
NEWS = "version 2 of s3://b/k is in force"
Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codes of the bootstraps that failed, as the journal is told of them."""
    codes: list[str] = []

    def event(kind: Event, message: str, *, error_code: str, cause: str) -> None:
        assert kind is Event.BOOTSTRAP_FAILED
        codes.append(error_code)

    monkeypatch.setattr(journal, "event", event)
    return codes


class Node:
    """A node that has the mounts of ``OLD``, and a configuration."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.yaml"
        self.version = (1, 23, 0)
        self.presence: dict[str, Presence] = {}
        self.placed: dict[str, Placed] = {}
        self.memory = 65_536
        self.cpus = 8

    def gather(self, configuration: Configuration) -> object:
        return context(configuration, Supervisor())

    def put(self, text: str) -> None:
        """Makes the node have what a configuration says."""
        around = context(config_file.parse(text, "x"), Supervisor())
        bare = Observed({}, {})
        wanted, _ = execute.want(around, Installed("/usr/bin/mount-s3", self.version), bare)
        self.placed = {
            w.mount.id: Placed(w.mount.id, w.definition, w.text, active=True) for w in wanted
        }
        self.presence = {w.mount.directory: Presence.OURS for w in wanted}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node(tmp_path)
    monkeypatch.setattr(environment, "PATH", tmp_path / "environment")
    monkeypatch.setattr(config_file, "PATH", found.path)
    monkeypatch.setattr(paths, "CONFIG", found.path)
    monkeypatch.setattr(in_force, "PATH", tmp_path / "in-force.json")
    monkeypatch.setattr(config_origin.load, "__defaults__", (tmp_path / "origin.json",))
    monkeypatch.setattr(capacity, "read", lambda: Machine(found.memory, None, found.cpus))
    monkeypatch.setattr(preview, "gather", found.gather)
    monkeypatch.setattr(
        preview, "observe", lambda sup, also: Observed(found.placed, found.presence)
    )
    monkeypatch.setattr(program, "find", lambda: Installed("/usr/bin/mount-s3", found.version))
    found.put(OLD)
    found.path.write_text(OLD)
    return found


@pytest.mark.usefixtures("node")
def test_a_plan_without_changes_ends_with_0(run: Run) -> None:
    assert run("plan") == (
        Exit.OK,
        "Nothing to change: this node is as its configuration says.\n",
        "",
    )


def test_a_plan_shows_what_changes_and_ends_with_4(run: Run, node: Node) -> None:
    node.path.write_text(NEW)
    code, out, err = run("plan")
    assert (code, err) == (Exit.PENDING, "")
    assert out.splitlines() == [
        "  - /mnt/three  s3://bucket-three  (it is no longer wanted)",
        "  ~ /mnt/two    s3://bucket-two  (it changed: -[--read-only] +[--allow-delete])",
        "  + /mnt/four   s3://bucket-four  (it is new)",
        "Plan: 1 to add, 1 to change, 1 to remove.",
    ]
    assert node.path.read_text() == NEW


def test_what_was_unmounted_by_hand_is_not_called_new(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = next(i for i, placed in node.placed.items() if placed.definition.directory == "/mnt/two")
    del node.placed[down], node.presence["/mnt/two"]
    monkeypatch.setattr(held_down, "load", lambda: frozenset({down}))
    code, out, _ = run("plan")
    assert code == Exit.PENDING
    told = "  + /mnt/two  s3://bucket-two  (it was unmounted by hand, and apply mounts it again)"
    assert out.splitlines()[0] == told


@pytest.mark.usefixtures("node")
def test_a_plan_that_waits_for_its_source_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def slow(url: str, known: str = "") -> source.Fetched:
        asked.append(url)
        if len(asked) == 1:
            time.sleep(0.3)
            raise AgentError(Problem.SOURCE_FAILED, "it has no route to host", retry_for=60)
        return source.Fetched(NEW, "2")

    monkeypatch.setattr(threads, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(source, "fetch", slow)
    code, out, err = run("plan", "--config", "s3://bucket/s3mount.yaml")
    assert (code, "Plan: 1 to add" in out) == (Exit.PENDING, True)
    first, second = err.splitlines()
    assert re.fullmatch(
        r"s3mount-agent: asking s3://bucket/s3mount.yaml \(attempt 1, until "
        r"\d\d:\d\d:\d\d UTC at most; Ctrl-C ends it\)",
        first,
    )
    assert re.fullmatch(
        r"s3mount-agent: asking s3://bucket/s3mount.yaml: it has no route to host "
        r"\(attempt 1, until \d\d:\d\d:\d\d UTC; Ctrl-C ends it\)",
        second,
    )


def test_a_plan_for_another_file_changes_nothing(run: Run, node: Node, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(NEW)
    assert run("plan", "--config", str(other))[0] == Exit.PENDING
    assert run("plan")[0] == Exit.OK
    assert {path.name for path in tmp_path.iterdir()} == {"other.yaml", "config.yaml"}


def test_a_plan_as_json_is_one_line(run: Run, node: Node) -> None:
    node.path.write_text(NEW)
    node.presence["/mnt/four"] = Presence.FOREIGN
    code, out, _ = run("plan", "--json")
    assert (code, out.count("\n")) == (Exit.PENDING, 1)
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["foreign"] == ["/mnt/four"]
    assert [(c["kind"], c["directory"], c["bucket"]) for c in document["changes"]] == [
        ("remove", "/mnt/three", "bucket-three"),
        ("change", "/mnt/two", "bucket-two"),
    ]
    assert all(change["because"] and change["id"] for change in document["changes"])


@pytest.mark.usefixtures("node")
def test_an_empty_plan_as_json(run: Run) -> None:
    code, out, _ = run("plan", "--json")
    assert (code, json.loads(out)) == (0, {"schema": 1, "changes": [], "foreign": []})


def test_a_plan_shows_what_is_in_the_way(run: Run, node: Node) -> None:
    node.presence["/mnt/one"] = Presence.FOREIGN
    code, out, _ = run("plan")
    assert code == Exit.OK
    assert "  ! /mnt/one  (something else is mounted there: not touched)\n" in out


def test_a_changed_share_is_a_change_without_a_new_mount(run: Run, node: Node) -> None:
    node.version = (1, 24, 0)
    node.put(OLD)
    node.path.write_text(OLD + "memory_percent: 80\n")
    code, out, _ = run("plan")
    assert code == Exit.PENDING
    assert out.count("  ~ ") == 3
    assert out.count("(its share of the node changes, without a new mount)") == 3
    assert "Plan: 0 to add, 3 to change, 0 to remove." in out


def test_a_plan_tells_what_would_be_installed(run: Run, node: Node) -> None:
    node.path.write_text(OLD + "install: {version: 1.24.0}\n")
    code, out, _ = run("plan")
    assert code == Exit.PENDING
    first, *others = out.splitlines()
    assert first.startswith("  ~ mount-s3 1.24.0  (in the place of 1.23.0; what is mounted runs on")
    # With it, mounts can be told what memory they have; none of them is mounted anew for that.
    assert sum("(its share of the node changes, without a new mount)" in each for each in others)
    assert others[-1] == "Plan: 0 to add, 3 to change, 0 to remove."
    shown = json.loads(run("plan", "--json")[1])
    assert shown["install"] == {"mount_s3": "1.24.0", "instead_of": "1.23.0"}
    node.path.write_text(OLD + "install: {version: 1.23.0}\n")
    assert run("plan")[0] == Exit.OK
    # What only the later one knows is judged by that.
    later = OLD.replace("read_only: true", "memory_target: 600", 1)
    node.path.write_text(later)
    assert run("plan")[0] == Exit.USAGE
    node.path.write_text(later + "install: {version: 1.24.0}\n")
    assert run("plan")[0] == Exit.PENDING


def test_a_plan_tells_that_what_must_be_there_is_missing(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find", lambda: None)
    assert "  + mount-s3 1.24.0  (it is not there yet)\n" in run("plan")[1]
    node.path.write_text(OLD + "install: {version: present}\n")
    code, out, err = run("plan")
    assert (code, out) == (Exit.FAILED, "")
    assert err.startswith("s3mount-agent: error [mount-s3-missing]: ")


def test_a_plan_tells_how_many_files_may_be_open_for_writing(run: Run, node: Node) -> None:
    node.version = (1, 24, 0)
    node.put(OLD)
    assert run("plan")[1].splitlines() == [
        "Nothing to change: this node is as its configuration says.",
        "  files that can be open for writing at once: 1193 on /mnt/three",
    ]
    node.path.write_text(NEW + "memory_percent: 5\n")
    node.cpus = 102
    assert run("plan")[1].splitlines()[-2:] == [
        "  files that can be open for writing at once: 118 on /mnt/two, 118 on /mnt/four",
        "Plan: 1 to add, 2 to change, 1 to remove.",
    ]
    node.cpus = 128
    code, out_text, _ = run("plan")
    assert code == Exit.PENDING
    assert out_text.count("  warning: only 118 files can be open for writing at once on /mnt/") == 2
    assert "this node has 128 CPUs" in out_text
    shown = json.loads(run("plan", "--json")[1])
    assert shown["write_files"] == {"/mnt/two": 118, "/mnt/four": 118}
    assert len(shown["warnings"]) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mounts: [", Problem.CONFIG_INVALID),
        (OLD + "memory_percent: 1\n", Problem.SHARES_IMPOSSIBLE),
        (OLD.replace("read_only: true", "memory_target: 600", 1), Problem.OPTION_UNKNOWN),
        (OLD.replace("read_only: true", "owner: nobody-knows-me", 1), Problem.OWNER_UNKNOWN),
        (OLD.replace("/mnt/two", "/mnt/one"), Problem.DIRECTORY_TWICE),
    ],
)
def test_what_is_wrong_is_told_instead_of_a_plan(
    run: Run, node: Node, text: str, problem: Problem
) -> None:
    node.path.write_text(text)
    code, out, err = run("plan")
    assert (code, out) == (problem.exit_code, "")
    assert err.startswith(f"s3mount-agent: error [{problem.code}]: ")


def test_a_node_without_configuration_has_no_plan(run: Run, node: Node) -> None:
    node.path.unlink()
    code, _, err = run("plan")
    assert code == Exit.FAILED
    assert "[not-configured]" in err


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("url", ["s3mount.yaml", "ftp://x/y"])
def test_a_plan_for_what_is_no_place_is_wrong_usage(run: Run, url: str) -> None:
    code, _, err = run("plan", "--config", url)
    assert code == Exit.USAGE
    assert "[usage]" in err


def test_a_node_without_mount_s3_plans_for_what_it_will_have(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find", lambda: None)
    node.placed, node.presence = {}, {}
    code, out, _ = run("plan")
    assert code == Exit.PENDING
    assert "Plan: 3 to add, 0 to change, 0 to remove." in out


WAITING = AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use", retry_for=3600)
REFUSED = AgentError(Problem.MOUNT_BUSY, "/mnt/s3 is in use")
BROKEN = AgentError(Problem.BUCKET_MISSING, "the bucket does not exist")


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        ([], Exit.OK),
        ([WAITING], Exit.PENDING),
        ([WAITING, WAITING], Exit.PENDING),
        ([REFUSED], Exit.FAILED),
        ([BROKEN], Exit.FAILED),
        ([WAITING, BROKEN], Exit.FAILED),
        ([WAITING, REFUSED], Exit.FAILED),
    ],
)
@pytest.mark.parametrize("now", [True, False])
def test_apply_ends_with_what_became_of_it(
    run: Run,
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    failures: list[AgentError],
    code: Exit,
    now: bool,
) -> None:
    asked = []
    seen = []

    def applied(
        read: Callable[[], desired.Desired], by: str, news: str
    ) -> tuple[dict[str, AgentError], object]:
        assert (by, news) == ("apply", NEWS if now else "")
        seen.append(read())
        return {str(number): error for number, error in enumerate(failures)}, None

    def asks(*, anew: bool, say: object) -> refresh.News:
        asked.append(anew)
        return refresh.News(NEWS)

    monkeypatch.setattr(refresh, "refresh", asks)
    monkeypatch.setattr(bootstrap, "bootstrap", applied)
    found, out, err = run("apply", *(["--now"] if now else []))
    assert (found, out) == (code, "")
    assert bool(asked) is now
    assert err.count("error [") == len(failures)
    assert (err == "") is (not failures)
    (wanted,) = seen
    assert (wanted.text, wanted.origin) == (OLD, None)
    assert wanted.configuration == config_file.parse(OLD, "x")
    assert node.path.read_text() == OLD


@pytest.mark.parametrize("problem", [Problem.CONFIG_INVALID, Problem.SOURCE_FAILED])
def test_apply_now_fails_with_what_is_wrong_and_does_nothing(
    run: Run, node: Node, monkeypatch: pytest.MonkeyPatch, problem: Problem
) -> None:
    wrong = AgentError(problem, "s3://b/k:3:5: no; version 1 stays in force", cause="- x\n  ^")
    monkeypatch.setattr(refresh, "refresh", lambda **given: refresh.News(error=wrong))
    monkeypatch.setattr(bootstrap, "bootstrap", lambda *given: pytest.fail("it went on"))
    assert run("apply", "--now") == (
        problem.exit_code,
        "",
        f"s3mount-agent: error [{problem.code}]: s3://b/k:3:5: no; version 1 stays in force\n"
        f"  cause: - x\n  cause:   ^\n  hint: {problem.hint}\n",
    )
    assert node.path.read_text() == OLD


def test_apply_of_a_node_without_configuration_fails(run: Run, node: Node) -> None:
    node.path.unlink()
    code, _, err = run("apply")
    assert code == Exit.FAILED
    assert "[not-configured]" in err


@pytest.mark.parametrize(
    ("role", "own", "failure", "code"),
    [
        (Role.COMPUTE, "", BROKEN, Exit.FAILED),
        (Role.COMPUTE, "", WAITING, Exit.OK),
        (Role.COMPUTE, "", REFUSED, Exit.FAILED),
        (Role.COMPUTE, "on_failure: continue", BROKEN, Exit.OK),
        (Role.HEAD, "", BROKEN, Exit.OK),
        (Role.HEAD, "on_failure: fail", BROKEN, Exit.FAILED),
        (Role.HEAD, "", None, Exit.OK),
    ],
)
def test_a_bootstrap_fails_where_failing_helps(
    capsys: pytest.CaptureFixture[str],
    role: Role,
    own: str,
    failure: AgentError | None,
    code: Exit,
) -> None:
    text = f"mounts: [{{bucket: my-bucket, directory: /mnt/s3, {own}}}]"
    default = OnFailure.FAIL if role is Role.COMPUTE else OnFailure.CONTINUE
    around = context(config_file.parse(text, "x"), role=role, on_failure=default)
    (mount,) = around.mounts
    found = bootstrap_face.outcome({mount.id: failure} if failure else {}, around)
    assert found == code
    out, err = capsys.readouterr()
    assert (("error [" in err), ("error [" in out)) == (
        bool(failure and code),
        bool(failure and not code),
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["bootstrap", "--rolle", "head"], "usage"),
        (["bootstrap", "--check", "--rolle", "head"], None),
        (["apply", "--rolle", "head"], None),
        (["bootstrap", "my-bucket", "mnt", ""], "directory-invalid"),
    ],
)
def test_the_journal_knows_why_a_bootstrap_could_not_begin(
    run: Run, written: list[str], words: list[str], code: str | None
) -> None:
    assert run(*words)[0] == Exit.USAGE
    assert written == ([code] if code else [])


def test_the_journal_knows_which_mounts_a_bootstrap_failed_for(
    written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = """\
mounts:
- {bucket: my-bucket, directory: /mnt/one}
- {bucket: my-bucket, directory: /mnt/two, on_failure: continue}
"""
    around = context(config_file.parse(text, "x"))
    one, two = around.mounts
    silent = AgentError(Problem.MOUNT_SILENT, "/mnt/one is mounted but cannot be listed")
    assert bootstrap_face.outcome({one.id: silent, two.id: BROKEN}, around) == Exit.FAILED
    assert written == ["mount-silent"]
    assert "[mount-silent]" in capsys.readouterr().err


def test_each_role_fails_by_its_own_mount(capsys: pytest.CaptureFixture[str]) -> None:
    text = """\
mounts:
- {bucket: my-bucket, directory: /mnt/s3, on: compute, on_failure: continue}
- {bucket: my-bucket, directory: /mnt/s3, on: head, on_failure: fail}
"""
    for role, code in [(Role.COMPUTE, Exit.OK), (Role.HEAD, Exit.FAILED)]:
        around = context(config_file.parse(text, "x"), role=role)
        (mount,) = around.mounts
        assert bootstrap_face.outcome({mount.id: BROKEN}, around) == code
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "extra"], Exit.USAGE),
        (["plan", "--config"], Exit.USAGE),
        (["apply", "--soon"], Exit.USAGE),
        (["bootstrap", "--config"], Exit.USAGE),
        (["bootstrap", "--config", "s3://b/k", "my-bucket", "/mnt/s3", ""], Exit.USAGE),
        (["bootstrap", "--config", "relative.yaml"], Exit.USAGE),
        (["bootstrap", "--config", "/none/s3mount.yaml"], Exit.FAILED),
    ],
)
@pytest.mark.usefixtures("node")
def test_wrong_usage_is_told(run: Run, words: list[str], code: Exit) -> None:
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert err.startswith("s3mount-agent: error [")
