"""The few S3 requests a mount needs, path-style, with the retries and errors of the real client."""

from __future__ import annotations

import base64
import calendar
import http.client
import os
import random
import re
import socket
import time
import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from . import VERSION
from .buckets import Location
from .cli import Arguments
from .errors import MountError
from .signing import canonical_query, find_credentials, sign

DEFAULT_REGION = "us-east-1"
DEFAULT_ATTEMPTS = 10
FIRST_PAUSE = 0.025
"""The real client starts at 0.5 s and gives up after 55 s on average: too long for tests."""
LONGEST_PAUSE = 20.0
CONNECT_SECONDS = 3.0
SILENCE_SECONDS = 30.0

FORBIDDEN = {"AccessDenied", "InvalidToken", "ExpiredToken", "SignatureDoesNotMatch"}
CRT_REFUSED = (1047, "aws-c-io: AWS_IO_SOCKET_CONNECTION_REFUSED, socket connection refused.")
CRT_TIMEOUT = (1048, "aws-c-io: AWS_IO_SOCKET_TIMEOUT, socket operation timed out.")
CRT_NO_ROUTE = (1049, "aws-c-io: AWS_IO_SOCKET_NO_ROUTE_TO_HOST, no route to host.")
CRT_CLOSED = (1051, "aws-c-io: AWS_IO_SOCKET_CLOSED, socket is closed.")
CRT_DNS = (1059, "aws-c-io: AWS_IO_DNS_INVALID_NAME, Host name was invalid for dns resolution.")
CRT_INTERNAL = (
    14357,
    "aws-c-s3: AWS_ERROR_S3_INTERNAL_ERROR, Response indicates internal server error",
)


class S3Error(OSError):
    """A request failed for good. `chain` says why in upstream's words, outermost first."""

    def __init__(self, *chain: str, status: int = 0, region: str = "") -> None:
        super().__init__(chain[-1])
        self.chain = chain
        self.status = status
        self.region = region


class Object(NamedTuple):
    """What S3 knows of one object."""

    key: str
    size: int
    modified: float
    etag: str


class Listing(NamedTuple):
    """One page of a listing."""

    objects: list[Object]
    prefixes: list[str]
    next_token: str


class Answer(NamedTuple):
    """A response that has been read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class S3:
    """A client of one bucket. It may be used by several threads at once."""

    def __init__(self, arguments: Arguments, bucket: str) -> None:
        self.bucket = bucket
        chosen = arguments.get("--region") or os.environ.get("AWS_REGION")
        self.region = chosen or DEFAULT_REGION
        self.region_is_guessed = not chosen
        endpoint = arguments.get("--endpoint-url") or os.environ.get("AWS_ENDPOINT_URL")
        self._endpoint = urlsplit(endpoint or f"https://s3.{self.region}.amazonaws.com")
        self._proxy = _proxy_for(self._endpoint)
        self._ca_bundle = arguments.get("--ca-bundle") or os.environ.get("AWS_CA_BUNDLE")
        self._attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or DEFAULT_ATTEMPTS)
        self._signs = not arguments.get("--no-sign-request")
        self._credentials = find_credentials(arguments.get("--profile")) if self._signs else None
        self._headers = _constant_headers(arguments)
        self._put_headers = _upload_headers(arguments)

    def list(self, prefix: str, *, delimiter: str, limit: int, token: str = "") -> Listing:
        query = {
            "list-type": "2",
            "delimiter": delimiter,
            "max-keys": str(limit),
            "prefix": prefix,
        }
        if token:
            query["continuation-token"] = token
        wanted = {"x-amz-optional-object-attributes": "RestoreStatus"}
        return _listing(self._request("GET", query=query, headers=wanted).body)

    def head(self, key: str) -> Object | None:
        try:
            headers = self._request("HEAD", key).headers
        except S3Error as error:
            if error.status == 404:
                return None
            raise
        for name in ("Last-Modified", "Content-Length", "ETag"):
            if name not in headers:
                raise _misunderstood(f"Header {name} not found")
        modified = time.strptime(headers["Last-Modified"], "%a, %d %b %Y %H:%M:%S GMT")
        size = int(headers["Content-Length"])
        return Object(key, size, float(_seconds(modified)), headers["ETag"])

    def get(self, key: str, start: int, length: int, etag: str) -> bytes:
        headers = {"Range": f"bytes={start}-{start + length - 1}", "If-Match": etag}
        return self._request("GET", key, headers=headers).body

    def put(self, key: str, body: BinaryIO, length: int) -> str:
        """Store an object and give back its ETag."""
        headers = {**self._put_headers, "Content-Length": str(length)}
        return str(self._request("PUT", key, headers=headers, body=body).headers["ETag"])

    def delete(self, key: str) -> None:
        self._request("DELETE", key)

    def _request(
        self,
        method: str,
        key: str = "",
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: BinaryIO | None = None,
    ) -> Answer:
        if self._signs and self._credentials is None:
            raise S3Error("Client error", "No signing credentials available, see CRT debug logs")
        pause = FIRST_PAUSE
        for attempt in range(1, self._attempts + 1):
            answer: Answer | None = None
            try:
                answer = self._send(method, key, query or {}, headers or {}, body)
                if answer.status < 300:
                    return answer
                error = _refusal(answer)
            except (OSError, http.client.HTTPException) as problem:
                error = _client_error(*_crt_error(problem))
            worth_it = answer is None or answer.status >= 500 or answer.status == 429
            if not worth_it or attempt == self._attempts:
                break
            time.sleep(random.uniform(0, min(pause, LONGEST_PAUSE)))  # noqa: S311  only a pause
            pause *= 2
        raise error

    def _send(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: BinaryIO | None,
    ) -> Answer:
        path = quote(f"{self._endpoint.path.rstrip('/')}/{self.bucket}/{key}".rstrip("/"))
        if key.endswith("/"):
            path += "/"
        text = canonical_query(query)
        headers = {"Host": self._endpoint.netloc, **self._headers, **headers}
        if self._credentials is not None:
            headers = sign(self._credentials, self.region, (method, path, text), headers)
        if body is not None:
            body.seek(0)
        connection = self._connect()
        try:
            target = f"{path}?{text}" if text else path
            if self._proxy and self._endpoint.scheme == "http":
                target = f"http://{self._endpoint.netloc}{target}"
                headers.update(_authorization(self._proxy))
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.hostname or "", self._endpoint.port
        if self._proxy:
            host, port = self._proxy.hostname or "", self._proxy.port
        connection: http.client.HTTPConnection
        if self._endpoint.scheme == "https":
            import ssl  # slow to load, and tests talk plain HTTP

            context = ssl.create_default_context(cafile=self._ca_bundle)
            connection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_SECONDS, context=context
            )
            if self._proxy:
                end = self._endpoint
                connection.set_tunnel(end.hostname or "", end.port, _authorization(self._proxy))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        connection.connect()
        connection.sock.settimeout(SILENCE_SECONDS)
        return connection


def _proxy_for(endpoint: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for an endpoint, as the CRT finds it: in lower case
    first, unless NO_PROXY has the host or the end of its name."""
    name = f"{endpoint.scheme}_proxy"
    url = os.environ.get(name) or os.environ.get(name.upper())
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    host = endpoint.hostname or ""
    if not url or any(each and host.endswith(each.strip()) for each in spared.split(",")):
        return None
    return urlsplit(url)


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{proxy.username}:{proxy.password or ''}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words).decode()}"}


def open_bucket(arguments: Arguments, location: Location) -> S3:
    """Make a client and prove it with the one request upstream sends before it mounts."""
    bundle = arguments.get("--ca-bundle")
    if bundle and not Path(bundle).is_file():
        raise MountError("Failed to create S3 client", f"CA bundle '{bundle}' cannot be read")
    client = S3(arguments, location.bucket)
    for redirected in (False, True):
        try:
            client.list(location.prefix, delimiter="", limit=0)
            break
        except S3Error as error:
            if error.region and client.region_is_guessed and not redirected:
                client.region = error.region
                continue
            what = f"initial ListObjectsV2 failed for bucket {client.bucket} in region"
            raise MountError(
                "Failed to create S3 client", f"{what} {client.region}", *error.chain
            ) from error
    return client


def _constant_headers(arguments: Arguments) -> dict[str, str]:
    agent = f"{arguments.get('--user-agent-prefix', '')} mountpoint-s3/{VERSION}".strip()
    headers = {"User-Agent": agent}
    if arguments.get("--requester-pays"):
        headers["x-amz-request-payer"] = "requester"
    if arguments.get("--expected-bucket-owner"):
        headers["x-amz-expected-bucket-owner"] = arguments.get("--expected-bucket-owner")
    return headers


def _upload_headers(arguments: Arguments) -> dict[str, str]:
    flags = {
        "x-amz-storage-class": "--storage-class",
        "x-amz-server-side-encryption": "--sse",
        "x-amz-server-side-encryption-aws-kms-key-id": "--sse-kms-key-id",
    }
    return {name: arguments.get(flag) for name, flag in flags.items() if arguments.get(flag)}


def _listing(body: bytes) -> Listing:
    try:
        page = Xml.fromstring(body)  # noqa: S314  the bucket is the test's own
    except Xml.ParseError as error:
        raise _misunderstood(f"XML parsing error: {error}") from error
    objects = [
        Object(
            entry.findtext("{*}Key", ""),
            int(entry.findtext("{*}Size", "0")),
            float(
                _seconds(
                    time.strptime(entry.findtext("{*}LastModified", "")[:19], "%Y-%m-%dT%H:%M:%S")
                )
            ),
            entry.findtext("{*}ETag", ""),
        )
        for entry in page.findall("{*}Contents")
    ]
    prefixes = [entry.findtext("{*}Prefix", "") for entry in page.findall("{*}CommonPrefixes")]
    return Listing(objects, prefixes, page.findtext("{*}NextContinuationToken", ""))


def _seconds(utc: time.struct_time) -> int:
    return calendar.timegm(utc)


def _refusal(answer: Answer) -> S3Error:
    """Tell what an answer of S3 means (upstream try_parse_generic_error)."""
    code, message = (_element(answer.body, name) for name in ("Code", "Message"))
    status = answer.status
    region = answer.headers.get("x-amz-bucket-region", "")
    if status == 301 and region:
        return S3Error("Client error", f"Wrong region (expecting {region})", region=region)
    if status == 403 or code in FORBIDDEN:
        return S3Error("Client error", f"Forbidden: {message or '<no message>'}", status=status)
    if code == "NoSuchBucket":
        return S3Error("Service error", "The bucket does not exist", status=status)
    if status == 404:
        return S3Error("Service error", "The key does not exist", status=status)
    if status in (429, 503):
        return S3Error("Client error", "Request throttled", status=status)
    if status >= 500:
        return _client_error(*CRT_INTERNAL)
    return S3Error("Client error", f"Unknown response error: {status} {code}", status=status)


def _element(body: bytes, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>".encode(), body, re.DOTALL)
    return found[1].decode() if found else ""


def _crt_error(problem: Exception) -> tuple[int, str]:
    if isinstance(problem, ConnectionRefusedError):
        return CRT_REFUSED
    if isinstance(problem, socket.timeout):
        return CRT_TIMEOUT
    if isinstance(problem, socket.gaierror):
        return CRT_DNS
    if isinstance(problem, OSError) and problem.errno in (101, 113):  # ENETUNREACH, EHOSTUNREACH
        return CRT_NO_ROUTE
    return CRT_CLOSED


def _misunderstood(what: str) -> S3Error:
    return S3Error("Client error", "Internal S3 client error", what)


def _client_error(number: int, text: str) -> S3Error:
    return S3Error("Client error", "Unknown CRT error", f"CRT error {number}: {text}")
