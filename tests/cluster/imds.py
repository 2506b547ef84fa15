"""The instance metadata service of a simulated node: gives a role's credentials, and counts."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from typing import TYPE_CHECKING

from cluster.s3 import REGION, SECRET

if TYPE_CHECKING:
    from types import TracebackType

ROLE = "hpc-compute"
_CREDENTIALS = "/latest/meta-data/iam/security-credentials/"
_TOKEN = "/latest/api/token"
_ANSWERS = {
    _TOKEN: "simulated-token",
    _CREDENTIALS: ROLE,
    f"{_CREDENTIALS}{ROLE}": json.dumps(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "SIMULATIONROLE",
            "SecretAccessKey": SECRET,
            "Token": "simulated-session",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": "2099-01-01T00:00:00Z",
        }
    ),
    "/latest/meta-data/placement/availability-zone/": f"{REGION}a",
}


class Imds:
    """IMDSv2 at an address of the cluster's: without its token nothing is said. A context manager.

    url: what AWS_EC2_METADATA_SERVICE_ENDPOINT is set to. requests: the path of each request.
    """

    def __init__(self, address: str) -> None:
        """Listen on a free port of `address`."""
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"requests": self.requests})
        self._server = _Server((address, 0), handler)
        self.url = f"http://{address}:{self._server.server_address[1]}"
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.05,), name="imds", daemon=True).start()

    def __enter__(self) -> Imds:
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


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    requests: list[str]

    def do_PUT(self) -> None:
        self._answer(known=self.path == _TOKEN)

    def do_GET(self) -> None:
        token = self.headers.get("X-aws-ec2-metadata-token")
        self._answer(known=token == _ANSWERS[_TOKEN] and self.path in _ANSWERS)

    def _answer(self, *, known: bool) -> None:
        self.requests.append(self.path)
        body = _ANSWERS[self.path].encode() if known else b""
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
