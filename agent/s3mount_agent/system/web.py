"""Web servers: one GET, taken in pieces, with an end to how long and how large."""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any

_SILENCE_SECONDS = 20.0
_PIECE_BYTES = 1 << 20
_BUSY = (408, 429)


class WebError(Exception):
    """What a server refused, or why it could not be asked.

    ``status`` is HTTP's, None where there was no answer or only a part of one; ``final``: asked
    again it would refuse again.
    """

    def __init__(self, message: str, status: int | None = None, *, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


class TooLargeError(WebError):
    """There is more than the limit."""


def get(
    url: str,
    take: Callable[[bytes], object],
    *,
    limit: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    on_answer: Callable[[int, Mapping[str, str]], None] = lambda status, headers: None,
) -> Mapping[str, str]:
    """Hands the content behind ``url`` on in pieces, and returns the answer's headers, of which
    ``on_answer`` is told before, with HTTP's status.

    Raises WebError when it is not whole after ``seconds``, from the look-up of its name on, and
    TooLargeError beyond ``limit`` bytes; what ``take`` raises passes.
    """
    deadline = time.monotonic() + seconds
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310
        with _open(request, seconds) as answer:
            expected = int(answer.headers.get("Content-Length") or 0)
            if expected > limit:
                raise TooLargeError(f"{url} is too large")
            on_answer(answer.status, answer.headers)
            received = _take_all(url, answer, take, limit, deadline)
            if received < expected:
                # urllib does not mind an answer that breaks off.
                raise WebError(f"it broke off after {received} of {expected} bytes")
            return answer.headers  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        final = 400 <= error.code < 500 and error.code not in _BUSY
        raise WebError(str(error), error.code, final=final) from None
    except http.client.InvalidURL:
        # What it says of a URL may have the password that was written into that.
        raise WebError("it is no URL that can be asked", final=True) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        raise WebError(str(error)) from None
    except (TimeoutError, ValueError) as error:
        raise WebError(str(error)) from None


def _open(request: urllib.request.Request, seconds: float) -> Any:
    """The answer once its headers are there. Neither a name's look-up nor a header that comes in
    drops has a deadline of its own: they are waited for by a thread that can be left behind."""
    opener, opened = _opener(), queue.SimpleQueue[Any]()

    def work() -> None:
        try:
            opened.put(opener.open(request, timeout=min(seconds, _SILENCE_SECONDS)))
        except Exception as error:  # the caller's to judge
            opened.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = opened.get(timeout=seconds)
    except queue.Empty:
        raise WebError("it takes too long") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _take_all(
    url: str,
    answer: http.client.HTTPResponse,
    take: Callable[[bytes], object],
    limit: int,
    deadline: float,
) -> int:
    received = 0
    # read() would wait for a whole piece, however slowly it comes.
    while piece := answer.read1(_PIECE_BYTES):
        received += len(piece)
        if received > limit:
            raise TooLargeError(f"{url} is too large")
        if time.monotonic() > deadline:
            raise WebError("it takes too long")
        take(piece)
    return received


class _Careful(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from a line that nobody can write on to one that others can."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise http.client.InvalidURL(f"{req.full_url} leads to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> Any:
    """Made for each question: it keeps the proxies that the environment names when it is made."""
    return urllib.request.build_opener(_Careful)
