"""Which configuration is in force: the newest good one, whatever happens to where it comes from."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Union

import pytest

from s3mount_agent.commands import check
from s3mount_agent.config import config_file, desired, environment, source
from s3mount_agent.config.source import Fetched
from s3mount_agent.console import parser
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.resources import Machine
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import files, lock, paths
from s3mount_agent.reconcile import refresh, session
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state import in_force, machine, secrets
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.state.machine import Identity
from s3mount_agent.system import capacity, journal, node

URL = "s3://configurations/s3mount.yaml"
ONE = "mounts:\n- {bucket: bucket-one, directory: /mnt/s3}\n"
TWO = "mounts:\n- {bucket: bucket-two, directory: /mnt/s3}\n"
BAD = "mounts:\n- {bucket: bucket-two, directory: /mnt/s3}\n- {bucket: x, directory: /etc}\n"
WORSE = "mounts: ["
GONE = AgentError(Problem.SOURCE_FAILED, f"the configuration {URL} could not be read")
AWAY = AgentError(Problem.SOURCE_FAILED, "S3 does not answer", retry_for=math.inf)
LARGE = AgentError(Problem.CONFIG_INVALID, f"{URL} is larger than 256 KiB")

Answer = Union[Fetched, AgentError]


class Source:
    """What the URL gives; ``asked`` are the versions that were known to who asked."""

    def __init__(self) -> None:
        self.now: Answer = Fetched(ONE, '"1"')
        self.asked: list[str] = []

    def fetch(self, url: str, known: str = "") -> Fetched | None:
        assert url == URL
        self.asked.append(known)
        if isinstance(self.now, AgentError):
            raise self.now
        return None if self.now.version == known else self.now


@dataclasses.dataclass
class Place:
    """The files of a node, the source that they come from, and what the journal was told."""

    config: Path
    origin: Path
    source: Source
    told: list[tuple[Event, str]]
    writes: list[str]
    codes: list[str] = dataclasses.field(default_factory=list)

    @property
    def bucket(self) -> str:
        (mount,) = desired.in_force().configuration.mounts(Role.COMPUTE, "")
        return mount.bucket.name

    def origin_now(self) -> Origin:
        found = origins.load()
        assert found is not None
        return found

    def begin(self, **overrides: str) -> None:
        desired.from_source(URL, overrides).save()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(tmp_path / "config.yaml", tmp_path / "origin.json", Source(), [], [])
    monkeypatch.setattr(config_file, "PATH", found.config)
    monkeypatch.setattr(paths, "CONFIG", found.config)
    monkeypatch.setattr(environment, "NODE", tmp_path / "environment")
    monkeypatch.setattr(environment, "MOUNTS", tmp_path / "mounts.env")
    monkeypatch.setattr(machine, "PATH", tmp_path / "machine.json")
    monkeypatch.setattr(secrets, "PATH", tmp_path / "secrets.json")
    monkeypatch.setattr(in_force, "PATH", tmp_path / "in-force.json")
    monkeypatch.setattr(origins.load, "__defaults__", (found.origin,))
    monkeypatch.setattr(origins.save, "__defaults__", (found.origin,))
    monkeypatch.setattr(source, "fetch", found.source.fetch)
    monkeypatch.setattr(desired, "_FIRST_SECONDS", 0.0)

    def event(kind: Event, message: str, *, error_code: str = "", cause: str = "") -> None:
        if kind is Event.DAMAGED:  # a file of ours, of which codec's own tests tell
            return
        assert kind.action == "refresh"
        assert kind.is_bad is bool(error_code)
        found.told.append((kind, message))
        found.codes.append(error_code)

    write = files.write

    def counted(path: Path, text: str, **given: int) -> bool:
        changed = write(path, text, **given)
        if changed:
            found.writes.append(path.name)
        return changed

    monkeypatch.setattr(journal, "event", event)
    monkeypatch.setattr(files, "write", counted)
    return found


def test_the_arguments_have_no_origin_and_replace_one(place: Place) -> None:
    place.begin()
    assert place.origin.exists()
    wanted = desired.from_arguments(["my-bucket", "/mnt/s3", "--read-only"], {"role": "head"})
    assert (wanted.configuration.role, wanted.origin) == (Role.HEAD, None)
    assert wanted.save()
    assert not place.origin.exists()
    assert place.bucket == "my-bucket"
    assert desired.in_force().configuration == wanted.configuration
    assert not desired.from_arguments(
        ["my-bucket", "/mnt/s3", "--read-only"], {"role": "head"}
    ).save()


def test_arguments_whose_own_file_could_not_be_read_are_refused(
    place: Place,
) -> None:
    """At once, with nothing written: each mount by itself may have as long options."""
    long = f"--prefix {'x' * 6000}/"
    words = [w for n in range(60) for w in (f"bucket-{n}", f"/mnt/s3-{n}", long)]
    with pytest.raises(AgentError) as caught:
        desired.from_arguments(words, {})
    assert caught.value.problem is Problem.CONFIG_INVALID
    assert "larger than 256 KiB" in caught.value.message
    with pytest.raises(AgentError, match="larger than 256 KiB"):
        check.as_user(parser.parse(parser.find("bootstrap"), ["--check", *words]), {})
    assert not place.config.exists()
    fits = desired.from_arguments(words[: 3 * 30], {})
    assert config_file.parse(fits.text, "x").rows == fits.configuration.rows


def test_nothing_is_written_before_it_is_saved(place: Place) -> None:
    wanted = desired.from_source(URL, {})
    assert not place.config.exists()
    assert not place.origin.exists()
    assert wanted.save()
    assert place.config.read_text() == ONE
    assert place.origin_now() == Origin(URL, '"1"', '"1"')
    assert place.origin_now().shown == "1"
    assert not desired.from_source(URL, {}).save()


def test_an_answer_is_outdated_once_something_else_is_in_force(place: Place) -> None:
    """A bootstrap asks without the lock: what its holder puts in force meanwhile may be newer."""
    place.begin()
    asking = desired.Following(URL, {"role": "head"})
    place.source.now = Fetched(TWO, '"2"')
    place.begin()
    assert asking.read() is None
    asking.ask()
    wanted = asking.read()
    assert wanted is not None
    assert (wanted.text, wanted.configuration.role) == (TWO, Role.HEAD)
    assert wanted.origin == Origin(URL, '"2"', '"2"', None, {"role": "head"})


def test_a_session_asks_anew_without_the_lock_until_its_answer_is_not_outdated(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    @contextlib.contextmanager
    def hold(purpose: str, **given: object) -> Iterator[None]:
        held.append(True)
        yield
        held.append(False)

    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(session, "read_node", lambda wanted: wanted)
    monkeypatch.setattr(node, "require_root", lambda: None)
    answers = iter([None, None, desired.from_source(URL, {})])
    asked: list[list[bool]] = []
    with session.node_session(
        "bootstrap", lambda: next(answers), again=lambda: asked.append(list(held))
    ) as found:
        assert found is not None
        assert held == [True, False, True, False, True]
    assert asked == [[True, False], [True, False, True, False]]


def test_a_session_has_the_environment_file_as_it_is_once_the_lock_is_held(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "administrators"

    @contextlib.contextmanager
    def hold(purpose: str, **given: object) -> Iterator[None]:
        path.write_text("AWS_PROFILE=newer\n")  # while we wait for it
        yield

    monkeypatch.setattr(environment, "PATH", path)
    monkeypatch.setattr(os, "environ", {**os.environ, "AWS_PROFILE": "older"})
    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(session, "read_node", lambda wanted: wanted)
    monkeypatch.setattr(node, "require_root", lambda: None)
    place.begin()
    with session.node_session("apply"):
        assert os.environ["AWS_PROFILE"] == "newer"


def test_a_session_does_not_ask_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "hold", lambda purpose, **given: contextlib.nullcontext())
    monkeypatch.setattr(node, "require_root", lambda: None)
    outdated = session.node_session("bootstrap", lambda: None, again=lambda: None)
    with pytest.raises(AgentError) as caught, outdated:
        pytest.fail("there is nothing to go on with")
    assert caught.value.problem is Problem.LOCKED


def test_the_bootstraps_options_win_and_last(place: Place) -> None:
    place.source.now = Fetched(ONE + "role: login\nmode: systemd\non_failure: fail", '"1"')
    overrides = {"role": "head", "mode": "direct"}
    wanted = desired.from_source(URL, overrides)
    wanted.save()
    for found in (wanted.configuration, desired.in_force().configuration):
        assert (found.role, found.mode, found.on_failure) == (
            Role.HEAD,
            Mode.DIRECT,
            OnFailure.FAIL,
        )
    assert place.origin_now().overrides == overrides
    place.source.now = Fetched(TWO + "role: login", '"2"')
    assert refresh.refresh()
    found = desired.in_force().configuration
    assert (found.role, found.mode, found.on_failure) == (Role.HEAD, Mode.DIRECT, None)
    # The next bootstrap may say something else.
    place.begin(on_failure="continue")
    found = desired.in_force().configuration
    assert (found.role, found.mode, found.on_failure) == (Role.LOGIN, None, OnFailure.CONTINUE)


@pytest.mark.parametrize("answer", [AWAY, GONE])
def test_the_last_good_copy_is_in_force_while_the_source_is_out_of_reach(
    place: Place, capsys: pytest.CaptureFixture[str], answer: AgentError
) -> None:
    place.begin()
    place.source.now = answer
    wanted = desired.from_source(URL, {"role": "head"})
    assert [m.bucket.name for m in wanted.configuration.mounts(Role.HEAD, "")] == ["bucket-one"]
    assert wanted.configuration.role is Role.HEAD
    assert wanted.origin == Origin(URL, '"1"', '"1"', answer.message, {"role": "head"})
    assert "the last good copy is in force" in capsys.readouterr().out
    assert wanted.save()  # with another role
    assert not wanted.save()
    assert place.config.read_text() == ONE


def test_without_a_good_copy_a_source_out_of_reach_is_an_error(place: Place) -> None:
    place.source.now = AWAY
    with pytest.raises(AgentError) as caught:
        desired.from_source(URL, {})
    assert caught.value is AWAY
    assert list(place.config.parent.iterdir()) == []


def test_a_copy_of_another_source_is_none(place: Place) -> None:
    place.begin()
    origins.save(place.origin_now()._replace(url="s3://other/s3mount.yaml"))
    place.source.now = AWAY
    with pytest.raises(AgentError) as caught:
        desired.from_source(URL, {})
    assert caught.value.problem is Problem.SOURCE_FAILED


def test_a_copy_of_the_arguments_is_none(place: Place) -> None:
    desired.from_arguments(["my-bucket", "/mnt/s3", ""], {}).save()
    place.source.now = AWAY
    with pytest.raises(AgentError):
        desired.from_source(URL, {})
    assert place.bucket == "my-bucket"


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("answer", [Fetched(BAD, '"2"'), Fetched(WORSE, '"2"'), LARGE])
def test_what_is_wrong_with_a_file_is_told_at_a_bootstrap_and_changes_nothing(
    place: Place, copy: bool, answer: Answer
) -> None:
    if copy:
        place.begin()
    before = {path.name: path.read_text() for path in place.config.parent.iterdir()}
    place.source.now = answer
    with pytest.raises(AgentError) as caught:
        desired.from_source(URL, {})
    assert caught.value.message.startswith(URL)
    assert caught.value.problem is not Problem.SOURCE_FAILED
    assert {path.name: path.read_text() for path in place.config.parent.iterdir()} == before


def test_a_node_without_a_source_has_nothing_to_refresh(place: Place) -> None:
    desired.from_arguments(["my-bucket", "/mnt/s3", ""], {}).save()
    assert not refresh.refresh()
    assert place.source.asked == []


def test_nothing_new_changes_nothing(place: Place) -> None:
    place.begin()
    place.writes.clear()
    for _ in range(3):
        assert not refresh.refresh()
    assert place.source.asked[1:] == ['"1"'] * 3
    assert (place.writes, place.told) == ([], [])


def test_a_good_new_version_is_in_force_and_told_once(place: Place) -> None:
    place.begin()
    place.source.now = Fetched(TWO, '"2"')
    assert refresh.refresh()
    assert (place.bucket, place.origin_now()) == ("bucket-two", Origin(URL, '"2"', '"2"'))
    assert place.config.read_text() == TWO
    assert not refresh.refresh()
    assert place.told == [(Event.REFRESHED, f"version 2 of {URL} is in force")]


def test_the_same_text_in_a_new_version_changes_no_mount(place: Place) -> None:
    place.begin()
    place.writes.clear()
    place.source.now = Fetched(ONE, '"2"')
    assert not refresh.refresh()
    assert place.writes == ["origin.json"]
    assert place.origin_now().version == '"2"'
    assert [kind for kind, _ in place.told] == [Event.REFRESHED]


@pytest.mark.parametrize("text", [BAD, WORSE, "", "\x00", "mounts: []\nrefersh: 5m"])
def test_a_bad_new_version_is_refused_as_a_whole_and_looked_at_once(
    place: Place, text: str
) -> None:
    place.begin()
    place.writes.clear()
    place.source.now = Fetched(text, '"2"')
    assert not refresh.refresh()
    origin = place.origin_now()
    assert (origin.version, origin.seen) == ('"1"', '"2"')
    assert origin.problem is not None
    assert origin.problem.startswith(f"{URL}:")
    assert (place.bucket, place.config.read_text()) == ("bucket-one", ONE)
    for _ in range(3):
        assert not refresh.refresh()
    assert place.source.asked[2:] == ['"2"'] * 3
    assert place.origin_now() == origin
    assert place.writes == ["origin.json"]
    ((kind, message),) = place.told
    assert kind is Event.REFUSED
    assert place.codes[0] in {problem.code for problem in Problem}
    assert place.codes != [Problem.SOURCE_FAILED.code]
    assert message == f"{origin.problem}; version 1 stays in force"


def test_what_cannot_even_be_read_is_refused_and_told_once(place: Place) -> None:
    place.begin()
    place.source.now = LARGE
    for _ in range(3):
        assert not refresh.refresh()
    assert place.origin_now().problem == LARGE.message
    assert place.told == [(Event.REFUSED, f"{LARGE.message}; version 1 stays in force")]
    assert place.codes == [Problem.CONFIG_INVALID.code]
    assert place.bucket == "bucket-one"


def test_a_bad_version_is_followed_by_a_good_one(place: Place) -> None:
    place.begin()
    for text, version in [(BAD, '"2"'), (WORSE, '"3"')]:
        place.source.now = Fetched(text, version)
        assert not refresh.refresh()
        assert place.origin_now().seen == version
    place.source.now = Fetched(TWO, '"4"')
    assert refresh.refresh()
    assert place.origin_now() == Origin(URL, '"4"', '"4"')
    assert [kind for kind, _ in place.told] == [Event.REFUSED, Event.REFUSED, Event.REFRESHED]


def test_a_bad_version_may_be_taken_back(place: Place) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    place.source.now = Fetched(ONE, '"1"')
    assert not refresh.refresh()
    assert place.origin_now() == Origin(URL, '"1"', '"1"')
    assert [kind for kind, _ in place.told] == [Event.REFUSED, Event.REFRESHED]


def test_a_source_out_of_reach_is_told_once_and_forgotten_when_it_is_back(place: Place) -> None:
    place.begin()
    place.source.now = AWAY
    for _ in range(3):
        assert not refresh.refresh()
    assert place.origin_now() == Origin(URL, '"1"', '"1"', AWAY.message)
    assert place.told == [(Event.UNREACHABLE, f"{AWAY.message}; version 1 stays in force")]
    assert place.codes == [Problem.SOURCE_FAILED.code]
    place.source.now = Fetched(ONE, '"1"')
    assert not refresh.refresh()
    assert place.origin_now() == Origin(URL, '"1"', '"1"')
    place.source.now = AWAY
    refresh.refresh()
    assert [kind for kind, _ in place.told] == [Event.UNREACHABLE, Event.UNREACHABLE]


def test_what_is_wrong_with_a_version_is_known_again_when_the_source_is_back(
    place: Place,
) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    wrong = place.origin_now()
    place.source.now = AWAY
    refresh.refresh()
    assert place.origin_now().problem == AWAY.message
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    refresh.refresh()
    assert place.origin_now() == wrong
    assert place.bucket == "bucket-one"


def test_what_is_wrong_with_a_version_is_known_again_after_a_boot_without_the_source(
    place: Place,
) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    wrong = place.origin_now()
    place.source.now = AWAY
    place.begin()
    assert place.origin_now().problem == AWAY.message
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    assert place.origin_now() == wrong


def test_a_source_that_comes_back_with_news_is_followed(place: Place) -> None:
    place.begin()
    place.source.now = AWAY
    refresh.refresh()
    place.source.now = Fetched(TWO, '"2"')
    assert refresh.refresh()
    assert place.origin_now() == Origin(URL, '"2"', '"2"')
    assert [kind for kind, _ in place.told] == [Event.UNREACHABLE, Event.REFRESHED]


def test_a_bootstrap_heals_what_a_refresh_refused(place: Place) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    place.source.now = Fetched(TWO, '"3"')
    assert desired.from_source(URL, {}).save()
    assert place.origin_now() == Origin(URL, '"3"', '"3"')


class PowerLossError(BaseException):
    pass


@pytest.mark.parametrize("lost_before", ["config.yaml", "origin.json"])
@pytest.mark.parametrize("by", [refresh.refresh, lambda: desired.from_source(URL, {}).save()])
def test_the_power_may_go_between_two_files(
    place: Place, monkeypatch: pytest.MonkeyPatch, lost_before: str, by: Callable[[], bool]
) -> None:
    place.begin()
    place.source.now = Fetched(TWO, '"2"')
    write = files.write

    def interrupted(path: Path, text: str, **given: int) -> bool:
        if path.name == lost_before:
            raise PowerLossError
        return write(path, text, **given)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", interrupted)
        with pytest.raises(PowerLossError):
            by()
    assert place.bucket in ("bucket-one", "bucket-two")
    refresh.refresh()
    assert (place.bucket, place.origin_now()) == ("bucket-two", Origin(URL, '"2"', '"2"'))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '"x"', "null", '{"version": "1"}', '{"a": 1}']
)
def test_an_origin_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "origin.json"
    path.write_text(text)
    assert origins.load(path) is None


def test_an_origin_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "var/origin.json"
    origin = Origin(URL, '"1"', '"2"', "é is wrong", {"role": "head"})
    origins.save(origin, path)
    assert origins.load(path) == origin
    origins.save(None, path)
    assert origins.load(path) is None
    origins.save(None, path)


def test_an_edit_by_hand_waits_until_it_is_put_in_force(place: Place) -> None:
    place.begin()
    assert desired.pending() is None
    place.config.write_text(TWO)
    assert place.bucket == "bucket-one"
    told = desired.pending()
    assert told == f"{place.config} was edited: `s3mount-agent apply` puts it in force"
    # A refresh without news does not carry it out in passing.
    assert not refresh.refresh()
    assert (place.bucket, place.config.read_text()) == ("bucket-one", TWO)
    wanted, wrong = Surroundings().begin()
    assert wrong is None
    assert wanted == desired.in_force().configuration
    assert (place.bucket, desired.pending()) == ("bucket-two", None)
    assert place.told == [(Event.REFRESHED, f"{place.config} is in force as it was edited")]


def test_with_a_broken_file_the_service_begins_with_the_last_good_one(place: Place) -> None:
    place.begin()
    place.config.write_text(TWO + "  quues: [p1]\n")
    wanted, wrong = Surroundings().begin()
    assert wanted == desired.in_force().configuration
    assert wrong is not None
    assert wrong.message.startswith(f"{place.config}:3:3: ")
    told = desired.pending()
    assert told == f"{wrong.message}; what was in force before it stays so"
    assert place.bucket == "bucket-one"


def test_with_a_file_that_this_node_cannot_have_the_service_begins_with_the_last_good_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "read", lambda: Machine(4096))
    place.begin()
    place.config.write_text(TWO + "memory_percent: 1\n")
    wanted, wrong = Surroundings().begin()
    assert wrong is not None
    assert wrong.problem is Problem.SHARES_IMPOSSIBLE
    assert wanted == desired.in_force().configuration
    assert (place.bucket, in_force.is_edited()) == ("bucket-one", True)


def test_a_broken_file_without_a_good_one_is_an_error(place: Place) -> None:
    place.config.write_text(WORSE)
    with pytest.raises(AgentError) as caught:
        Surroundings().begin()
    assert caught.value.problem is Problem.CONFIG_INVALID


@pytest.mark.parametrize("text", ["", "mounts:\n- {bucket: buc", None])
def test_a_damaged_configuration_is_fetched_again_though_nothing_is_new(
    place: Place, text: str | None
) -> None:
    place.begin()
    if text is None:
        place.config.unlink()
    else:
        place.config.write_text(text)
    assert refresh.refresh()
    assert place.source.asked[1:] == [""]
    assert place.config.read_text() == ONE
    ((kind, told),) = place.told or [(Event.REFRESHED, "damaged")]
    assert (kind, "damaged" in told) == (Event.REFRESHED, True)
    kept = place.config.with_name("config.yaml.bad")
    assert kept.exists() is (text is not None)
    assert not refresh.refresh()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 5}', '{"url": "x", "overrides": [1]}'])
def test_a_damaged_origin_does_not_end_the_following_of_the_source(place: Place, text: str) -> None:
    place.begin(role="head")
    place.origin.write_text(text)
    assert place.origin_now() == Origin(URL, overrides={"role": "head"})
    place.source.now = Fetched(TWO, '"2"')
    assert refresh.refresh()
    assert place.origin_now() == Origin(URL, '"2"', '"2"', None, {"role": "head"})
    assert [kind for kind, _ in place.told][-1] is Event.REFRESHED


def test_the_source_is_asked_without_the_lock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.begin()
    held: list[bool] = []

    @contextlib.contextmanager
    def hold(purpose: str, *, timeout: float, on_wait: object) -> Iterator[None]:
        held.append(True)
        yield
        held.clear()

    def fetch(url: str, known: str = "") -> Fetched | None:
        assert not held
        return Fetched(TWO, '"2"')

    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr(source, "fetch", fetch)
    assert refresh.refresh()


def test_what_was_fetched_is_dropped_where_another_bootstrap_was_quicker(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.begin()
    asked = []

    def fetch(url: str, known: str = "") -> Fetched | None:
        asked.append(url)
        if len(asked) == 1:  # meanwhile
            desired.from_arguments(["my-bucket", "/mnt/s3", ""], {}).save()
        return Fetched(TWO, '"2"')

    monkeypatch.setattr(source, "fetch", fetch)
    assert not refresh.refresh()
    assert (place.bucket, asked) == ("my-bucket", [URL])
    assert origins.load() is None


def test_apply_now_looks_again_at_a_version_that_was_refused(place: Place) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    first = refresh.refresh()
    again = refresh.refresh(anew=True)
    for news in (first, again):
        assert not news
        assert news.error is not None
        assert news.error.problem.exit_code == 2
        assert news.error.message.startswith(f"{URL}:3:12: ")
        assert news.error.message.endswith("; version 1 stays in force")
    assert len(place.told) == 1


@pytest.mark.parametrize(
    ("kept", "here", "another"),
    [
        (Identity("i-1", "m1"), Identity("i-1", "m1"), False),
        (Identity("i-1", "m1"), Identity("i-2", "m1"), True),  # an image with its machine id
        (Identity("i-1", "m1"), Identity("i-1", "m2"), False),  # a new id for the same instance
        (Identity("", "m1"), Identity("i-1", "m1"), False),
        (Identity("", "m1"), Identity("i-1", "m2"), True),
        (Identity("", ""), Identity("i-1", "m2"), False),  # nothing is known: an upgrade
    ],
)
def test_an_image_on_another_machine_is_recognised(
    kept: Identity, here: Identity, another: bool
) -> None:
    assert kept.is_another(here) is another


def test_on_another_machine_nothing_counts_until_a_bootstrap(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = place.config.with_name("machine-id")
    monkeypatch.setattr(machine, "MACHINE_ID", machine_id)
    monkeypatch.setattr(machine, "CLOUD_INIT", place.config.with_name("instance-id"))
    monkeypatch.setattr(machine, "ASSET_TAG", place.config.with_name("asset-tag"))
    machine_id.write_text("0123\n")
    place.begin()
    machine.PATH.unlink()  # as a version before this one would have left it
    Surroundings().begin()
    assert machine.is_foreign() is False
    machine_id.write_text("4567\n")
    for look in (desired.in_force, desired.on_disk, Surroundings().begin):
        with pytest.raises(AgentError) as caught:
            look()
        assert caught.value.problem is Problem.FOREIGN_MACHINE
    asked = len(place.source.asked)
    assert not refresh.refresh()
    assert len(place.source.asked) == asked
    place.source.now = AWAY  # the image's copy of it is not this machine's
    with pytest.raises(AgentError) as caught:
        desired.from_source(URL, {})
    assert caught.value.problem is Problem.SOURCE_FAILED
    place.source.now = Fetched(TWO, '"2"')
    place.begin()
    assert place.bucket == "bucket-two"
