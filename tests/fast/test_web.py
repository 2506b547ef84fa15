"""One GET: all of it, in time and of a size that was meant, or an error that says why not."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from s3mount_agent.system import web
from s3mount_agent.system.web import TooLargeError, WebError

CONTENT = b"0123456789" * 1000


class Server(http.server.ThreadingHTTPServer):
    """Answers by the path that it is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole, /moved (to /whole), /endless (no length), /trickle (a byte now and then), /drip (the
    same of a header)."""

    server: Server

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/drip":
            self.flush_headers()
            while not self.server.over.wait(0.05):
                self.wfile.write(b"X")
            return
        self.send_header("ETag", '"e"')
        if self.path in ("/whole", "/trickle"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has seen enough
            self._send()

    def _send(self) -> None:
        if self.path == "/whole":
            self.wfile.write(CONTENT)
        while self.path == "/endless":
            self.wfile.write(CONTENT)
        while self.path == "/trickle" and not self.server.over.wait(0.05):
            self.wfile.write(b"0")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["whole", "moved"])
def test_the_whole_of_it_is_taken(server: Server, path: str) -> None:
    taken = bytearray()
    headers = web.get(server.url(path), taken.extend, limit=len(CONTENT), seconds=20)
    assert bytes(taken) == CONTENT
    assert headers["etag"] == '"e"'


@pytest.mark.parametrize("path", ["whole", "endless"])
def test_more_than_was_meant_is_not_taken(server: Server, path: str) -> None:
    taken = bytearray()
    with pytest.raises(TooLargeError):
        web.get(server.url(path), taken.extend, limit=len(CONTENT) - 1, seconds=20)
    assert len(taken) < len(CONTENT)


def test_what_trickles_in_is_not_waited_for(server: Server) -> None:
    taken = bytearray()
    with pytest.raises(WebError, match="too long") as caught:
        web.get(server.url("trickle"), taken.extend, limit=len(CONTENT), seconds=0.5)
    assert 0 < len(taken) < len(CONTENT)
    assert not caught.value.final


def test_neither_a_header_nor_a_name_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WebError, match="too long"):
        web.get(server.url("drip"), print, limit=1, seconds=0.5)
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent.wait(60))
    with pytest.raises(WebError, match="too long") as caught:
        web.get("http://mirror.example.org/", print, limit=1, seconds=0.5)
    assert not caught.value.final
    silent.set()


def test_the_takers_own_trouble_passes(server: Server) -> None:
    def take(piece: bytes) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        web.get(server.url("whole"), take, limit=len(CONTENT), seconds=20)


def test_no_redirect_leads_off_a_line_that_is_safe() -> None:
    careful = web._Careful()
    request = urllib.request.Request("https://mirror.example.org/x")
    headers = http.client.HTTPMessage()
    body: http.client.HTTPResponse = None  # type: ignore[assignment]
    with pytest.raises(http.client.InvalidURL):
        careful.redirect_request(request, body, 302, "Found", headers, "http://example.org/x")
    followed = careful.redirect_request(
        request, body, 302, "Found", headers, "https://other.example.org/x"
    )
    assert followed is not None
    assert followed.full_url == "https://other.example.org/x"
