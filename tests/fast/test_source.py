"""Where a configuration comes from: real files, a real web server, and S3 and SSM by moto."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fast import small_web
from fast.small_fuse import MAY_MOUNT, SmallFuse
from s3mount_agent.config import source
from s3mount_agent.config.source import Fetched
from s3mount_agent.config.yaml_text import LARGEST_BYTES
from s3mount_agent.core.errors import AgentError, Exit, Problem
from s3mount_agent.decide.retry_policy import is_lasting
from s3mount_agent.system import web as doors_web

TEXT = "mounts: []  # é\n"
DATA = TEXT.encode()
FULL = b"#" * LARGEST_BYTES


def refusal(url: str, known: str = "") -> AgentError:
    with pytest.raises(AgentError) as caught:
        source.fetch(url, known)
    return caught.value


def failure(url: str, known: str = "") -> tuple[float, str]:
    """The patience with a source that could not be read, and the cause."""
    error = refusal(url, known)
    assert error.problem is Problem.SOURCE_FAILED
    assert url.partition("?")[0] in error.message
    assert error.cause
    assert error.retry_for is not None
    return error.retry_for, error.cause


@pytest.mark.parametrize(
    "url",
    [
        "",
        "config.yaml",
        "./config.yaml",
        "ftp://example.org/x",
        "file:///etc/passwd",
        "S3://bucket/key",
        "s3:bucket/key",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "ssm:",
        "data:,mounts: []",
    ],
)
def test_what_is_no_place_is_wrong_usage(url: str) -> None:
    error = refusal(url)
    assert error.problem is Problem.USAGE
    assert error.problem.exit_code is Exit.USAGE
    assert "s3://bucket/key" in error.hint
    assert is_lasting(error)


def test_a_file_is_read_and_told_from_its_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(DATA)
    first = source.fetch(str(path))
    assert first is not None
    assert first.text == TEXT
    assert source.fetch(str(path), first.version) is None
    path.write_bytes(DATA + b"#")
    second = source.fetch(str(path), first.version)
    assert second is not None
    assert second.version != first.version
    assert second.text == TEXT + "#"


def test_a_file_that_cannot_be_read_is_not_waited_for(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, tmp_path / "none/below"):
        assert failure(str(path))[0] == 0


def test_the_largest_file_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(FULL)
    found = source.fetch(str(path))
    assert found is not None
    assert len(found.text) == LARGEST_BYTES
    path.write_bytes(FULL + b"#")
    error = refusal(str(path))
    assert error.problem is Problem.CONFIG_INVALID
    assert "larger than 256 KiB" in error.message


@pytest.mark.parametrize("device", ["/dev/zero", "fifo"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, device: str) -> None:
    path = tmp_path / device  # what is absolute stays so
    if device == "fifo":
        os.mkfifo(path)
    retry_for, message = failure(str(path))
    assert retry_for == 0
    assert "it is no regular file" in message


@pytest.mark.skipif(not MAY_MOUNT, reason="mounts, which takes root and /dev/fuse")
def test_a_file_on_a_file_system_that_hangs_is_asked_for_again_for_a_while(
    fuse: SmallFuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_FILE_SECONDS", 0.3)
    fuse.hang()
    retry_for, message = failure(f"{fuse.directory}/config.yaml")
    assert retry_for == math.inf
    assert "no answer within" in message


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"mounts: []\n# \xff")
    error = refusal(str(path))
    assert error.problem is Problem.CONFIG_INVALID
    assert "not UTF-8" in error.message


@dataclass
class Web:
    """A server of one file; ``asked`` are the versions that its clients knew."""

    url: str = ""
    body: bytes = DATA
    etag: str | None = '"v1"'
    codes: list[int] = field(default_factory=list)
    how: str = ""
    refusal: bytes = b"refused"
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's ``content`` says."""

    protocol_version = "HTTP/1.1"
    content: Web
    done: threading.Event

    def do_GET(self) -> None:
        content = self.content
        self.close_connection = True
        known = self.headers.get("If-None-Match")
        content.asked.append(known)
        code = content.codes.pop(0) if content.codes else 200
        if content.how == "silent":
            self.done.wait(30)
        elif content.how == "garbage":
            self.wfile.write(b"\x00\xff not http\r\n\r\n")
        elif content.how != "hang up":
            same = code == 200 and content.etag is not None and known == content.etag
            self.answer(304 if same else code)

    def answer(self, code: int) -> None:
        content = self.content
        body = {200: content.body, 304: b""}.get(code, content.refusal)
        headers = {"ETag": content.etag, "Content-Length": str(len(body))}
        if code == 302:
            headers["Location"] = content.how
        if content.how == "no length":
            del headers["Content-Length"]
        if content.how == "chunked and cut":
            del headers["Content-Length"]
            headers["Transfer-Encoding"] = "chunked"
            body = b"ff\r\nmounts: []\n"
        self.send_response(code)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:-3] if content.how == "cut" else body)


@pytest.fixture
def web() -> Iterator[Web]:
    content = Web()
    done = threading.Event()
    handler = type("OneHandler", (Handler,), {"content": content, "done": done})
    with small_web.serving(handler) as address:
        content.url = f"{address}/s3mount.yaml"
        yield content
        done.set()


def test_a_web_server_is_asked_with_the_version_that_is_known(web: Web) -> None:
    assert source.fetch(web.url) == Fetched(TEXT, '"v1"')
    assert source.fetch(web.url, '"v1"') is None
    web.etag, web.body = '"v2"', b"mounts: [] # 2"
    assert source.fetch(web.url, '"v1"') == Fetched("mounts: [] # 2", '"v2"')
    assert web.asked == [None, '"v1"', '"v1"']


def test_a_web_server_without_versions_is_held_against_what_it_sends(web: Web) -> None:
    web.etag = None
    first = source.fetch(web.url)
    assert first is not None
    assert first == Fetched(TEXT, hashlib.sha256(DATA).hexdigest()[:16])
    assert source.fetch(web.url, first.version) is None
    web.body += b"#"
    assert source.fetch(web.url, first.version) is not None


@pytest.mark.parametrize(
    ("code", "patience"),
    [
        (400, 0),
        (401, 0),
        (403, 0),
        (404, 0),
        (410, 0),
        (408, math.inf),
        (429, math.inf),
        (500, math.inf),
        (502, math.inf),
        (503, math.inf),
        (504, math.inf),
    ],
)
def test_a_refusing_web_server_is_asked_again_only_where_that_can_help(
    web: Web, code: int, patience: float
) -> None:
    web.codes = [code]
    found, cause = failure(web.url)
    assert (found, str(code) in cause) == (patience, True)


@pytest.mark.parametrize("how", ["hang up", "garbage", "cut", "chunked and cut"])
def test_half_an_answer_is_none_and_worth_another_try(web: Web, how: str) -> None:
    """The first half of a configuration may be a good one that unmounts the rest."""
    web.how = how
    assert failure(web.url)[0] == math.inf


def test_an_answer_without_a_length_is_fine(web: Web) -> None:
    web.how = "no length"
    assert source.fetch(web.url) == Fetched(TEXT, '"v1"')


def test_a_silent_web_server_is_not_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors_web, "_SILENCE_SECONDS", 0.3)
    web.how = "silent"
    assert failure(web.url)[0] == math.inf


def test_a_web_server_that_is_not_there_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}/x")[0] == math.inf


@pytest.mark.parametrize(
    "url", ["http://a b/x", "http://127.0.0.1:port/x", "http://me:secret@host/x", "http:///x"]
)
def test_an_address_that_cannot_be_one_is_told_and_no_fault_of_ours(url: str) -> None:
    assert refusal(url).problem in (Problem.SOURCE_FAILED, Problem.USAGE)


@pytest.mark.parametrize("how", ["file:///etc/passwd", "/etc/passwd?"])
def test_a_redirect_leads_to_no_file_of_the_node(web: Web, how: str) -> None:
    web.codes, web.how = [302] * 12, how
    error = refusal(web.url)
    assert error.problem is Problem.SOURCE_FAILED
    assert "root:" not in "\n".join(error.lines())


@pytest.mark.parametrize("how", ["", "no length"])
def test_more_than_a_configuration_is_refused(web: Web, how: str) -> None:
    web.body, web.how = FULL * 3, how
    assert "larger than 256 KiB" in refusal(web.url).message


def test_what_is_not_utf8_is_refused(web: Web) -> None:
    web.body = b"mounts: []\n#\xe9"
    error = refusal(web.url)
    assert (error.problem, error.message) == (
        Problem.CONFIG_INVALID,
        f"{web.url}:2:2: the byte 0xE9 is not UTF-8 text (in Latin-1 it is 'é')",
    )


def test_s3_is_asked_with_the_version_that_is_known(aws: Any) -> None:
    url = "s3://configurations/cluster/s3mount.yaml"
    aws["s3"].put_object(Bucket="configurations", Key="cluster/s3mount.yaml", Body=DATA)
    first = source.fetch(url)
    assert first == Fetched(TEXT, f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"')
    assert source.fetch(url, first.version) is None
    aws["s3"].put_object(Bucket="configurations", Key="cluster/s3mount.yaml", Body=b"mounts: []")
    second = source.fetch(url, first.version)
    assert second is not None
    assert (second.text, second.version != first.version) == ("mounts: []", True)


@pytest.mark.parametrize("key", ["none", "a b+c%20é", "/slash", "?x=y#z"])
def test_s3_keys_are_taken_literally(aws: Any, key: str) -> None:
    url = f"s3://configurations/{key}"
    assert refusal(url).retry_for == 0
    aws["s3"].put_object(Bucket="configurations", Key=key, Body=DATA)
    found = source.fetch(url)
    assert found is not None
    assert found.text == TEXT
    aws["s3"].delete_object(Bucket="configurations", Key=key)


@pytest.mark.parametrize(
    "url", ["s3://configurations/none.yaml", "s3://no-such-bucket-here/none.yaml"]
)
def test_what_does_not_exist_on_s3_is_not_waited_for(aws: Any, url: str) -> None:
    patience, cause = failure(url)
    assert (patience, "NoSuch" in cause) == (0, True)
    assert refusal(url, '"known"').retry_for == 0


def test_more_than_a_configuration_on_s3_is_refused(aws: Any) -> None:
    aws["s3"].put_object(Bucket="configurations", Key="large", Body=FULL + b"#")
    aws["s3"].put_object(Bucket="configurations", Key="full", Body=FULL)
    aws["s3"].put_object(Bucket="configurations", Key="latin", Body=b"\xe9")
    assert "larger than 256 KiB" in refusal("s3://configurations/large").message
    assert source.fetch("s3://configurations/full") is not None
    assert "not UTF-8" in refusal("s3://configurations/latin").message


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without botocore's own attempts: their pauses take seconds."""
    from botocore.config import Config

    monkeypatch.setattr(
        "botocore.config.Config",
        lambda **given: Config(**{**given, "retries": {"max_attempts": 0}}),
    )


@pytest.mark.usefixtures("aws", "impatient")
@pytest.mark.parametrize("code", [500, 503])
def test_a_busy_s3_is_worth_another_try(
    web: Web, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url.rpartition("/")[0])
    web.codes = [code] * 9
    assert failure("s3://configurations/x")[0] == math.inf


@pytest.mark.usefixtures("aws", "impatient")
@pytest.mark.parametrize("how", ["hang up", "cut", "garbage"])
def test_half_an_answer_of_s3_is_none(web: Web, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url.rpartition("/")[0])
    web.how = how
    assert failure("s3://configurations/x")[0] == math.inf


@pytest.mark.usefixtures("aws", "impatient")
@pytest.mark.parametrize(("code", "patience"), [(403, 20), (404, 0), (429, math.inf)])
def test_a_refusal_of_s3_lasts_but_a_role_may_be_new(
    web: Web, monkeypatch: pytest.MonkeyPatch, code: int, patience: float
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url.rpartition("/")[0])
    web.codes = [code] * 9
    assert failure("s3://configurations/x")[0] == patience


@pytest.mark.usefixtures("aws", "impatient")
@pytest.mark.parametrize(
    ("reason", "words", "meant", "patience"),
    [
        (
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            Problem.CLOCK_WRONG,
            math.inf,
        ),
        ("AccessDenied", "Request has expired", Problem.CLOCK_WRONG, math.inf),
        ("SignatureDoesNotMatch", "It does not match", Problem.SIGNATURE_WRONG, 20),
        ("ExpiredToken", "It has expired.", Problem.CREDENTIALS_EXPIRED, math.inf),
        ("InvalidAccessKeyId", "It is not known.", Problem.CREDENTIALS_INVALID, 20),
        ("AccessDenied", "Access Denied", Problem.SOURCE_FAILED, 20),
        ("AllAccessDisabled", "It has been disabled.", Problem.SOURCE_FAILED, 20),
    ],
)
def test_each_reason_of_a_refusal_has_its_own_patience_and_hint(
    web: Web,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    words: str,
    meant: Problem,
    patience: float,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url.rpartition("/")[0])
    web.codes, web.etag = [403] * 3, None
    web.refusal = f"<Error><Code>{reason}</Code><Message>{words}</Message></Error>".encode()
    error = refusal("s3://configurations/x")
    assert (error.problem, error.hint) == (Problem.SOURCE_FAILED, meant.hint)
    assert error.retry_for == patience
    assert reason in error.message


@pytest.mark.usefixtures("aws", "impatient")
@pytest.mark.parametrize("url", ["s3://configurations/x", "ssm:/s3mount"])
def test_without_network_or_credentials_another_try_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert failure(url)[0] == math.inf
    # An instance profile may come late.
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert failure(url)[0] == math.inf


def test_a_parameter_is_told_from_its_other_versions(aws: Any) -> None:
    put = aws["ssm"].put_parameter
    put(Name="/cluster/s3mount", Value=TEXT, Type="SecureString")
    first = source.fetch("ssm:/cluster/s3mount")
    assert first == Fetched(TEXT, "1")
    assert source.fetch("ssm:/cluster/s3mount", "1") is None
    put(Name="/cluster/s3mount", Value="mounts: []", Type="SecureString", Overwrite=True)
    assert source.fetch("ssm:/cluster/s3mount", "1") == Fetched("mounts: []", "2")


@pytest.mark.usefixtures("aws")
def test_a_parameter_that_does_not_exist_is_not_waited_for() -> None:
    patience, cause = failure("ssm:/none")
    assert (patience, "ParameterNotFound" in cause) == (0, True)


def test_the_region_of_a_parameter_is_the_nodes(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 reads AWS_DEFAULT_REGION only; mount-s3, and so our users, AWS_REGION."""
    aws["ssm"].put_parameter(Name="/s3mount/region", Value=TEXT, Type="String")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    found = source.fetch("ssm:/s3mount/region")
    assert found is not None
    assert found.text == TEXT


def test_a_node_that_nobody_told_its_region_asks_imds(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody does on a node of ParallelCluster."""
    from botocore.utils import InstanceMetadataRegionFetcher

    aws["ssm"].put_parameter(Name="/s3mount/imds", Value=TEXT, Type="String")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setattr(InstanceMetadataRegionFetcher, "retrieve_region", lambda self: "us-east-1")
    found = source.fetch("ssm:/s3mount/imds")
    assert found is not None
    assert found.text == TEXT


@pytest.mark.usefixtures("aws")
def test_a_node_without_any_region_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "region" in failure("ssm:/s3mount/region")[1].lower()
