"""An HTTP proxy on the cluster's bridge: for nodes that have no other way out."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import socketserver
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

# Of TEST-NET-1, which no node has a route to: whoever asks for it asks through the proxy.
OUTSIDE = "192.0.2.10"
_PIECE = 65536
_SILENCE_SECONDS = 60.0


class Proxy:
    """Forwards plain HTTP to the bridge's address, whatever the host; a context manager.

    url: its address, with `user:password@` where it asks for one. requests: the URL of each request
    in the order of arrival. refused: how many came without the password.
    """

    def __init__(self, address: str, password: str = "") -> None:
        """Listen on a free port of `address`."""
        self.requests: list[str] = []
        self.refused = 0
        self._address = address
        words = f"user:{password}".encode()
        self._wanted = b"Basic " + base64.b64encode(words) if password else b""
        self._server = _Server((address, 0), self._serve)
        port = self._server.server_address[1]
        who = f"user:{password}@" if password else ""
        self.url = f"http://{who}{address}:{port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Proxy:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(_PIECE)
            if not piece:
                return
            head += piece
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, url, version = first.split(b" ", 2)
        headers = {line.split(b":", 1)[0].lower(): line for line in lines}
        given = headers.pop(b"proxy-authorization", b":").split(b":", 1)[1].strip()
        if self._wanted and given != self._wanted:
            self.refused += 1
            client.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
            )
            return
        self.requests.append(url.decode())
        target = urlsplit(url.decode())
        path = target.path + (f"?{target.query}" if target.query else "") or "/"
        # One request a connection: what comes after it needs no reading.
        headers[b"connection"] = b"Connection: close"
        asked = b"\r\n".join(
            [method + b" " + path.encode() + b" " + version, *headers.values(), b"", rest]
        )
        host = self._address if target.hostname == OUTSIDE else target.hostname
        with socket.create_connection((host, target.port or 80), 10) as server:
            server.sendall(asked)
            _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Pass on what either says until the server has said all."""
    while True:
        ready, _, _ = select.select([client, server], [], [], _SILENCE_SECONDS)
        if not ready:
            return
        for end in ready:
            piece = end.recv(_PIECE)
            if not piece:
                return
            (server if end is client else client).sendall(piece)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], serve: object) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    serve(self.request)  # type: ignore[operator]

        super().__init__(address, Handler)
