"""The simulation's S3: a moto server in a thread of this process, which misbehaves on demand."""

from __future__ import annotations

import collections
import os
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import boto3
import botocore.config
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import s3_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REGION = "us-east-1"
# The tests' own access: never counted and never refused, or a test could not look at a bucket
# that it has just broken.
OPERATOR_KEY = "SIMULATIONOPERATOR"
SECRET = "simulation"


@dataclass(frozen=True)
class Fault:
    """What happens to every request for a bucket: first `delay` seconds, then an error.

    status: the HTTP status of the error; 200 for none, where only the delay is wanted.
    body: what is answered, with that status, in place of S3's XML; None for that.
    """

    status: int
    code: str
    message: str
    delay: float
    body: str | None


class FaultyApplication:
    """A WSGI application that counts the requests for each bucket and breaks some of them."""

    def __init__(self, application: WSGIApplication) -> None:
        self.requests: collections.Counter[str] = collections.Counter()
        self.faults: dict[str, Fault] = {}
        self.zeros: dict[str, int] = {}
        self.closing = threading.Event()
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request in moto's place, or let moto answer it."""
        if OPERATOR_KEY in environ.get("HTTP_AUTHORIZATION", ""):
            return self._application(environ, start_response)
        bucket = environ["PATH_INFO"].lstrip("/").partition("/")[0]
        with self._lock:
            self.requests[bucket] += 1
        fault = self.faults.get(bucket)
        if fault is None:
            size = self.zeros.get(environ["PATH_INFO"])
            answer = self._application if size is None else _zeros(environ, size)
            return answer(environ, start_response)
        self.closing.wait(fault.delay)
        if fault.body is not None:
            response = Response(fault.body, status=fault.status, mimetype="text/html")
            return response(environ, start_response)
        if fault.status == 200:
            return self._application(environ, start_response)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message>"
            f"<BucketName>{escape(bucket)}</BucketName><RequestId>SIMULATION</RequestId></Error>"
        )
        response = Response(body, status=fault.status, mimetype="application/xml")
        return response(environ, start_response)


def _zeros(environ: WSGIEnvironment, size: int) -> WSGIApplication:
    """The answer to HEAD or GET of an object that is nothing but zeros and lies nowhere."""
    headers = {
        "ETag": '"00000000000000000000000000000000"',
        "Last-Modified": "Tue, 01 Sep 2026 00:00:00 GMT",
        "Accept-Ranges": "bytes",
    }
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
    first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last + 1 - first)
    # Not an empty body, which would be given its own length.
    body = None if environ["REQUEST_METHOD"] == "HEAD" else bytes(last + 1 - first)
    return Response(body, status=206 if asked else 200, headers=headers)


class S3:
    """An S3 endpoint with path-style addressing, which takes any credentials.

    url: its address, as `http://10.83.0.1:34567`.

    moto keeps one store per process: two of these in one process share their buckets (not their
    counts and faults), and the store is emptied when the last of them closes.
    """

    _open = 0

    def __init__(self, address: str, log: Path) -> None:
        """Listen on a free port of `address`; every request is a line in the file `log`."""
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # whatever boto3 does in this process
        self._application = FaultyApplication(DomainDispatcherApplication(create_backend_app))
        self._log = log.open("a", encoding="utf-8")
        # A socket made here, because werkzeug would ask the DNS for the name of its own address.
        with socket.create_server((address, 0)) as listener:
            port = listener.getsockname()[1]
            self._server = make_server(
                address,
                port,
                self._application,
                threaded=True,
                request_handler=self._handler(),
                fd=listener.fileno(),  # which it duplicates
            )
        self.url = f"http://{address}:{port}"
        self._client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=OPERATOR_KEY,
            aws_secret_access_key=SECRET,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="s3", daemon=True
        )
        self._thread.start()
        S3._open += 1

    def _handler(self) -> type[MotoRequestHandler]:
        log = self._log

        class Handler(MotoRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                if not log.closed:  # a request may outlive the server
                    log.write(f"{self.log_date_time_string()} {message % args}\n")
                    log.flush()

        return Handler

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket; nothing happens where it exists."""
        self._client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object whole."""
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def put_zeros(self, bucket: str, key: str, size: int) -> None:
        """From now on there is an object of so many zeros, however many: mounts can read it by its
        name, but it is in no listing."""
        self._application.zeros[f"/{bucket}/{key}"] = size

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's content; raises botocore's NoSuchKey."""
        content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of all objects in a bucket, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def requests(self, bucket: str) -> int:
        """Return how many requests for a bucket have arrived, ours left out."""
        return self._application.requests[bucket]

    def fault(
        self,
        bucket: str,
        status: int = 403,
        code: str = "AccessDenied",
        message: str = "Access Denied",
        delay: float = 0.0,
        body: str | None = None,
    ) -> None:
        """From now on answer requests for `bucket` after `delay` seconds, and with an error.

        With status 200 the delay is all that happens, unless there is a `body`, which is then the
        answer. Replaces an earlier fault of the bucket.
        """
        self._application.faults[bucket] = Fault(status, code, message, delay, body)

    def heal(self, bucket: str | None = None) -> None:
        """End the fault of a bucket, or all faults."""
        if bucket is None:
            self._application.faults.clear()
        else:
            self._application.faults.pop(bucket, None)

    def close(self) -> None:
        """Stop listening; requests that a fault holds back are answered at once."""
        self._application.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._client.close()
        self._log.close()
        S3._open -= 1
        if S3._open == 0:
            s3_backends.reset()
