"""Which configuration is in force: the newest good one, whatever happens to where it comes from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fast.place import AWAY, BAD, GONE, LARGE, ONE, TWO, URL, WORSE, Answer, Place, made
from s3mount_agent.commands import bootstrap_check
from s3mount_agent.config import config_file, desired, environment
from s3mount_agent.config.source import Fetched
from s3mount_agent.console import parser
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.resources import Machine
from s3mount_agent.core.versions import Install
from s3mount_agent.daemon.surroundings import Surroundings
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import lock
from s3mount_agent.reconcile import refresh, session
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state import in_force, machine
from s3mount_agent.state.config_origin import Origin
from s3mount_agent.state.machine import Identity
from s3mount_agent.system import capacity, node


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return made(tmp_path, monkeypatch)


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
        bootstrap_check.as_user(parser.parse(parser.find("bootstrap"), ["--check", *words]), {})
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


def test_what_a_system_is_taken_for_lasts_with_whatever_brought_the_mounts(place: Place) -> None:
    place.source.now = Fetched(ONE + "install: {version: 1.24.0}", '"1"')
    desired.from_source(URL, {"family": "deb"}).save()
    assert desired.in_force().configuration.install == Install(version="1.24.0", family="deb")
    desired.from_arguments(("bucket", "/mnt/s3", ""), {"family": "rpm"}).save()
    assert desired.in_force().configuration.install == Install(family="rpm")


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
