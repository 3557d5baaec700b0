"""One request to Mobizon, and its outcome: a reading, or one error of ours.

Only this folder knows `requests`. Mobizon takes its key in the URL, so the texts of requests and urllib3 may
contain it: nothing of theirs leaves this module, and their loggers are silenced.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import http.client
import logging
import os
import socket
import ssl
import time
import traceback
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from exporter import __version__
from exporter.errors import ApiError, Reason, Scope
from exporter.mobizon.adapter import BoundedAdapter, Request
from exporter.mobizon.call import Body
from exporter.mobizon.connection import IdleConnectionClosed, ResponseTooLarge
from exporter.mobizon.masking import mask
from exporter.mobizon.response import parse, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.mobizon.call import Call
    from exporter.model import Api, Reading

PATH: Final = "/service/taskqueue/getStatus"
MAX_BODY: Final = 64 * 1024  # bytes of an answer
MAX_HOSTS: Final = 64  # with idle connections; Mobizon has one for each country

_HTTP_OK: Final = 200
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_REASONS_BY_STATUS: Final = {
    401: Reason.UNAUTHORIZED,
    403: Reason.UNAUTHORIZED,
    429: Reason.RATE_LIMITED,
}
_HEADERS: Final = {
    "User-Agent": f"mobizon-exporter/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # so that the cap on an answer's size is one
    "Content-Type": "application/x-www-form-urlencoded",
}

for _name in ("urllib3", "requests"):
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False  # stops their many child loggers, too, as disabling would not


class RawResponse(NamedTuple):
    """An answer as it came; `body` has at most MAX_BODY bytes and one."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Requests over connections that are kept alive; one client for all that share proxy and authorities.

    It is used in greenlets of one event loop. Requests go straight to an adapter: what a session of
    requests adds (cookies, redirects, credentials and proxies from the environment) is not wanted here.
    """

    def __init__(self, ca_file: str | None, proxy_url: str | None, connections: int) -> None:
        self._proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}
        self._adapter = BoundedAdapter(ca_file, connections, MAX_HOSTS)

    def get_status(
        self,
        api: Api,
        task_id: int,
        call: Call,
        wall: Callable[[], float] = time.time,
        received: Callable[[RawResponse], None] = lambda _: None,
    ) -> Reading:
        """Ask, in a greenlet, for a task's status (Mobizon's taskqueue/getStatus); raises ApiError only.

        `received` is called with an answer that came whole, before it is read.
        """
        key = api.key.reveal()
        try:
            return self._ask(api, key, task_id, call, wall, received)
        except ApiError as error:
            failure = error.with_traceback(None)  # which, like the context, would keep the key and the answer
            failure.__context__ = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it may print the key
            failure = _translate(error, call)
            _clear_frames(error)
        # raised here, outside the handlers, so that no foreign exception hangs on to it as its context
        raise ApiError(
            failure.reason, mask(failure.detail, key), scope=failure.scope, retry_after=failure.retry_after
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()

    def _ask(  # noqa: PLR0913, PLR0917 - the parts of one request
        self,
        api: Api,
        key: str,
        task_id: int,
        call: Call,
        wall: Callable[[], float],
        received: Callable[[RawResponse], None],
    ) -> Reading:
        request = _request(api, key, task_id, call)
        answered: Any = self._adapter.send(request, stream=True, timeout=api.timeout, proxies=self._proxies)
        with contextlib.closing(answered) as response:
            body = response.raw.read(MAX_BODY + 1, decode_content=False)
            cut_short = bool(response.raw.length_remaining)
        received(RawResponse(response.status_code, response.headers, body))
        if response.status_code != _HTTP_OK:
            reason = _REASONS_BY_STATUS.get(response.status_code, Reason.HTTP_ERROR)
            redirect = response.status_code in _REDIRECTS and "Location" in response.headers
            location = ", a redirect, which is not followed" if redirect else ""
            raise ApiError(
                reason,
                f"HTTP status {response.status_code}{location}",
                retry_after=_retry_after(response.headers.get("Retry-After"), wall()),
            )
        if len(body) > MAX_BODY:
            raise ResponseTooLarge
        if cut_short:
            raise http.client.IncompleteRead(b"")
        return parse(body, wall(), key)


def request_url(api: Api, key: str) -> str:
    """Where requests go; holds the key."""
    return api.url + _query(key)


def _query(key: str) -> str:
    return f"{PATH}?output=json&api=v1&apiKey={urllib.parse.quote(key, safe='*')}"


def _request(api: Api, key: str, task_id: int, call: Call) -> Request:
    # put together by hand, because requests takes as long to prepare one as to send it
    request, url, query = Request(), urllib.parse.urlsplit(api.url), _query(key)
    request.method, request.url = "POST", api.url + query
    request.origin, request.target = (url.scheme, url.netloc), url.path + query
    request.body = body = Body(b"id=%d" % task_id)
    request.headers = {**_HEADERS, "Content-Length": str(len(body))}
    body.call = call
    return request


def _retry_after(value: str | None, now: float) -> float:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), 0 for none or one that is not understood."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


def _translate(error: BaseException, call: Call) -> ApiError:
    """An exception of requests as one of ours, with nothing in it that could hold the key."""
    chain = _chain(error)
    if any(isinstance(link, TimeoutError) for link in chain):
        return call.timed_out()
    if any(isinstance(link, ResponseTooLarge) for link in chain):
        return ApiError(Reason.INVALID_RESPONSE, f"an answer of more than {MAX_BODY // 1024} KiB")
    if any(isinstance(link, IdleConnectionClosed) for link in chain):
        return ApiError(
            Reason.CONNECTION_ERROR, "the server closed an idle connection", scope=Scope.CONNECTION
        )
    detail = next(filter(None, map(_detail, chain)), f"failed with {type(error).__name__}")
    return ApiError(Reason.CONNECTION_ERROR, detail)


def _clear_frames(error: BaseException) -> None:
    """Let go of request and connection: exceptions and frames of libraries hold each other, and them."""
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)


def _detail(link: BaseException) -> str | None:
    """What one exception of a chain says of a failed connection, if anything."""
    if isinstance(link, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {printable(link.verify_message)}"
    if isinstance(link, ssl.SSLError):
        return f"TLS failed: {printable(link.reason or 'no details')}"
    if isinstance(link, socket.gaierror):
        return "the host's name cannot be resolved"
    if isinstance(link, OSError) and link.errno in errno.errorcode:
        return os.strerror(link.errno or 0).lower()
    if isinstance(link, http.client.HTTPException):
        return "the connection ended before the answer did, or it was not HTTP"
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and all that it was raised from or carries; each once."""
    links: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        link = queue.pop(0)
        if isinstance(link, BaseException) and link not in links:
            links.append(link)
            queue += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return links
