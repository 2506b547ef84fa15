"""A source is asked for news: what is good comes into force; what is bad is told, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fast.place import AWAY, BAD, LARGE, ONE, TWO, URL, WORSE, Place, made
from s3mount_agent.config import desired, source
from s3mount_agent.config.source import Fetched
from s3mount_agent.core.errors import Problem
from s3mount_agent.decide.journal_events import Event
from s3mount_agent.filesystem import files, lock
from s3mount_agent.reconcile import refresh
from s3mount_agent.state import config_origin as origins
from s3mount_agent.state.config_origin import Origin


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return made(tmp_path, monkeypatch)


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


@pytest.mark.parametrize("boots", [False, True])
def test_what_is_wrong_with_a_version_is_known_again_when_the_source_is_back(
    place: Place, boots: bool
) -> None:
    place.begin()
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    wrong = place.origin_now()
    place.source.now = AWAY
    if boots:
        place.begin()
    else:
        refresh.refresh()
    assert place.origin_now().problem == AWAY.message
    place.source.now = Fetched(BAD, '"2"')
    refresh.refresh()
    refresh.refresh()
    assert place.origin_now() == wrong
    assert place.bucket == "bucket-one"


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
