"""A way to S3 on which answers can be turned into garbage."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GARBAGE = b"\x16\x03\x01\x02\x00 this is no HTTP \xff\xfe\r\n\r\n"


class Relay:
    """Passes connections on to S3, or answers them with garbage. ``url`` is its address."""

    def __init__(self, address: str, target: str) -> None:
        relay = self
        parts = urllib.parse.urlsplit(target)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                relay._serve(self.request, (parts.hostname or "", parts.port or 80))

        self.garbage = False
        self._server = socketserver.ThreadingTCPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextlib.contextmanager
    def talking_garbage(self) -> Iterator[None]:
        """As long as this lasts no answer makes sense."""
        self.garbage = True
        try:
            yield
        finally:
            self.garbage = False

    def _serve(self, client: socket.socket, target: tuple[str, int]) -> None:
        client.settimeout(60)
        with contextlib.suppress(OSError):
            if self.garbage:
                client.recv(65536)
                client.sendall(_GARBAGE)
                return
            with socket.create_connection(target) as server:
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join(60)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
