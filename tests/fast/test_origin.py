"""The door to releases: a real web server, S3 by moto, and files; each as it fails."""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fast import small_web
from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.mountpoint import origin
from s3mount_agent.mountpoint.origin import MissingError

NAME = "1.24.0/arm64/mount-s3.deb"
CONTENT = bytes(range(256)) * 40_000  # more than one piece
LIMIT = len(CONTENT)


@dataclass
class Web:
    """A server of one file at ``/releases/NAME``; each of its answers breaks off after as many
    bytes as ``cuts`` says next. ``asked`` are the ranges of the requests."""

    url: str = ""
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    validator: tuple[str, str] | None = ("ETag", '"v1"')
    ranges: bool = True
    shift: int = 0
    asked: list[str | None] = field(default_factory=list)

    def range_of(self, handler: BaseHTTPRequestHandler) -> int:
        """Where the answer to a request begins."""
        asked, known = handler.headers["Range"], handler.headers["If-Range"]
        self.asked.append(asked)
        if not asked or not self.ranges or known != (self.validator or [None])[-1]:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-")) + self.shift


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == f"/moved/{NAME}":
                self.send_response(302)
                self.send_header("Location", f"/releases/{NAME}")
                self.end_headers()
                return
            there = self.path == f"/releases/{NAME}"
            code = site.codes.pop(0) if site.codes else 200 if there else 404
            if code != 200:
                self.send_response(code)
                self.end_headers()
                return
            at = site.range_of(self)
            self.send_response(206 if at else 200)
            if at:
                end = len(site.content)
                self.send_header("Content-Range", f"bytes {at}-{end - 1}/{end}")
            if site.validator:
                self.send_header(*site.validator)
            rest = site.content[at:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: site.cuts.pop(0)] if site.cuts else rest)

    with small_web.serving(Handler) as address:
        site.url = f"{address}/releases"
        yield site


@pytest.fixture
def s3(aws: Any) -> Any:
    """S3 as a node sees it, and who may fill it."""
    aws["s3"].create_bucket(Bucket="offline")
    aws["s3"].put_object(Bucket="offline", Key=f"mount-s3/{NAME}", Body=CONTENT)
    return aws["s3"]


@pytest.fixture
def places(web: Web, s3: Any, tmp_path: Path) -> dict[str, str]:
    """The same folder in all three ways."""
    file = tmp_path / "releases" / NAME
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return {"web": web.url, "s3": "s3://offline/mount-s3/", "path": f"{tmp_path}/releases/"}


WAYS = pytest.mark.parametrize("way", ["web", "s3", "path"])
Bring = Callable[..., bytes]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    target = tmp_path / "target"

    def bring(folder: str, name: str = NAME, limit: int = LIMIT, **given: Any) -> bytes:
        try:
            origin.fetch(folder, name, target, limit=limit, **given)
        except AgentError:
            assert not target.exists()
            raise
        return target.read_bytes()

    return bring


@WAYS
def test_a_file_of_the_folder_is_brought(places: dict[str, str], bring: Bring, way: str) -> None:
    assert bring(places[way]) == CONTENT


@WAYS
def test_what_the_folder_lacks_is_told_apart(
    places: dict[str, str], bring: Bring, way: str
) -> None:
    with pytest.raises(MissingError) as caught:
        bring(places[way], "manifest.json")
    error = caught.value
    assert (error.problem, error.retry_for) == (Problem.DOWNLOAD_FAILED, 0)
    assert f"{places[way].rstrip('/')}/manifest.json" in error.message


@WAYS
def test_more_than_was_meant_is_refused(places: dict[str, str], bring: Bring, way: str) -> None:
    with pytest.raises(AgentError) as caught:
        bring(places[way], limit=LIMIT - 1)
    assert caught.value.problem is Problem.PACKAGE_BROKEN


def test_a_redirect_is_followed(web: Web, bring: Bring) -> None:
    assert bring(web.url.replace("/releases", "/moved")) == CONTENT


@pytest.mark.parametrize("validator", [("ETag", '"v1"'), ("Last-Modified", "yesterday")])
def test_what_breaks_off_is_gone_on_with(
    web: Web, bring: Bring, monkeypatch: pytest.MonkeyPatch, validator: tuple[str, str]
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    web.validator, web.cuts = validator, [3_000_000, 1_000_000, 70_000]
    told: list[tuple[str, int, int]] = []
    assert bring(web.url, tell=lambda *line: told.append(line)) == CONTENT
    assert web.asked == [None, "bytes=3000000-", "bytes=4000000-", "bytes=4070000-"]
    assert told[-1] == ("mount-s3.deb", LIMIT, LIMIT)
    assert {whole for _, _, whole in told} == {LIMIT}


def test_what_comes_in_crumbs_is_left_to_another_attempt(web: Web, bring: Bring) -> None:
    """A thousand nodes would ask such a server as fast as it lets them."""
    web.validator, web.cuts = ("ETag", '"v1"'), [3_000_000, 5, 5, 5]
    with pytest.raises(AgentError, match="could not be downloaded"):
        bring(web.url)
    assert web.asked == [None, "bytes=3000000-"]


def test_a_password_in_a_url_is_not_shown(bring: Bring) -> None:
    with pytest.raises(AgentError) as caught:
        bring("http://bob:hunter2@127.0.0.1/releases")
    assert "hunter2" not in str(caught.value.cause)


@pytest.mark.parametrize("how", ["no ranges", "another file", "nothing to tell it by"])
def test_where_it_cannot_be_gone_on_with_it_begins_anew(web: Web, bring: Bring, how: str) -> None:
    web.cuts, web.ranges = [3_000_000], how != "no ranges"
    if how == "nothing to tell it by":
        web.validator = None
    if how == "another file":
        seen = itertools.count()
        new = CONTENT[::-1]

        def change(*_: object) -> None:
            if next(seen) == 0:
                web.validator, web.content = ("ETag", '"v2"'), new

        assert bring(web.url, tell=change) == new
    else:
        assert bring(web.url) == CONTENT
    assert len(web.asked) == 2


def test_what_brings_nothing_more_is_left_to_the_next_attempt(web: Web, bring: Bring) -> None:
    web.cuts = [3_000_000, 0]
    with pytest.raises(AgentError, match="could not be downloaded") as caught:
        bring(web.url)
    assert (caught.value.problem, caught.value.retry_for) == (Problem.DOWNLOAD_FAILED, math.inf)
    assert "it broke off" in str(caught.value.cause)


def test_another_part_than_was_asked_for_is_not_taken(web: Web, bring: Bring) -> None:
    web.cuts, web.shift = [3_000_000], 7
    with pytest.raises(AgentError) as caught:
        bring(web.url)
    assert "another part" in str(caught.value.cause)


def test_s3_that_breaks_off_is_gone_on_with(
    s3: Any, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.response

    read, left = botocore.response.StreamingBody.read, [1, 0]

    def cut(body: Any, amt: int | None = None) -> bytes:
        if left and left.pop() == 1:
            raise OSError(errno.ECONNRESET, "reset")
        return read(body, amt)

    monkeypatch.setattr(botocore.response.StreamingBody, "read", cut)
    told: list[int] = []
    assert bring("s3://offline/mount-s3", tell=lambda _, here, __: told.append(here)) == CONTENT
    assert told == sorted(told)
    assert left == []


def test_s3_that_denies_it_is_told_in_its_own_words(
    web: Web, s3: Any, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url.rpartition("/")[0])
    web.codes = [403]
    with pytest.raises(AgentError) as caught:
        bring("s3://offline/mount-s3")
    # A role that is new takes a while until S3 knows it.
    assert (caught.value.problem, caught.value.retry_for) == (Problem.DOWNLOAD_FAILED, 20)
    assert "403" in str(caught.value.cause)
    assert not isinstance(caught.value, MissingError)


@pytest.mark.parametrize("device", ["/dev/zero", "fifo"])
def test_no_device_and_no_pipe_is_waited_for(tmp_path: Path, bring: Bring, device: str) -> None:
    path = tmp_path / device  # what is absolute stays so
    if device == "fifo":
        os.mkfifo(path)
    with pytest.raises(AgentError) as caught:
        bring(str(path.parent), path.name)
    assert (caught.value.problem, caught.value.retry_for) == (Problem.DOWNLOAD_FAILED, 0)
    assert "no regular file" in str(caught.value.cause)


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_a_folder_on_a_file_system_that_hangs_is_not_waited_for(
    fuse: SmallFuse, bring: Bring
) -> None:
    fuse.hang()
    with pytest.raises(AgentError) as caught:
        bring(fuse.directory, seconds=0.3)
    assert (caught.value.problem, caught.value.retry_for) == (Problem.DOWNLOAD_FAILED, math.inf)
    assert "no answer within" in str(caught.value.cause)


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="has no /dev/full")
@WAYS
def test_a_full_disk_is_told_as_one(
    places: dict[str, str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Path] = []
    monkeypatch.setattr("s3mount_agent.filesystem.files.remove", kept.append)
    with pytest.raises(AgentError) as caught:
        origin.fetch(places[way], NAME, Path("/dev/full"), limit=LIMIT)
    assert caught.value.problem is Problem.NO_SPACE
    assert kept == [Path("/dev/full")]
