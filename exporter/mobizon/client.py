"""One request to Mobizon, and what came of it: a reading, or one error of ours.

Only this folder knows `requests`. Mobizon takes its key in the URL, so whatever requests and urllib3 say may
contain it: nothing of theirs leaves this module, and their loggers are silenced.
"""

from __future__ import annotations

import email.utils
import errno
import functools
import http.client
import logging
import os
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

import requests
import urllib3

from exporter import __version__
from exporter.errors import ApiError, Reason
from exporter.mobizon.connection import Call, WatchedAdapter, current
from exporter.mobizon.response import parse, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.model import Api, Reading

PATH: Final = "/service/taskqueue/getStatus"
LARGEST_ANSWER: Final = 64 * 1024

_HTTP_OK: Final = 200
_HOSTS: Final = 64  # with idle connections; Mobizon has one for each country
_ACCOUNTS: Final = 4096  # of which something is kept ready
_REASONS: Final = {401: Reason.UNAUTHORIZED, 403: Reason.UNAUTHORIZED, 429: Reason.RATE_LIMITED}

for _name in ("urllib3", "requests"):
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False  # stops what their many child loggers say, too, as disabling would not


class Client:
    """Requests over connections that are kept alive; one client for all that share proxy and authorities.

    It may be used from several threads at once. Requests go straight to an adapter: what a session of
    requests adds (cookies, redirects, credentials and proxies from the environment) is not wanted here.
    """

    def __init__(self, ca_file: str | None, proxy_url: str | None, connections: int) -> None:
        self._verify = ca_file or True
        self._proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}
        self._adapter = WatchedAdapter(pool_connections=_HOSTS, pool_maxsize=connections, max_retries=0)

    def get_status(
        self, api: Api, task_id: int, call: Call, wall: Callable[[], float] = time.time
    ) -> Reading:
        """Ask for a task's status (Mobizon's taskqueue/getStatus); raises ApiError, and nothing else."""
        key = _in_any_spelling(api.key.reveal())
        call.begin()
        current.call = call
        try:
            return self._ask(api, key, task_id, wall)
        except ApiError as error:
            failure = error.with_traceback(None)  # which, like the context, would keep the key and the answer
            failure.__context__ = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it may print the key
            failure = _translate(error)
        finally:
            current.call = None
            call.detach()
        if call.expired:
            failure = ApiError(Reason.TIMEOUT, f"no complete answer within {call.timeout:g} s")
        # raised here, outside the handlers, so that no foreign exception hangs on to it as its context
        raise ApiError(
            failure.reason,
            key.sub("***", failure.detail),
            scope=failure.scope,
            retry_after=failure.retry_after,
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()

    def _ask(self, api: Api, key: re.Pattern[str], task_id: int, wall: Callable[[], float]) -> Reading:
        request = _prepared(api).copy()
        request.body = f"id={task_id}"
        request.prepare_content_length(request.body)
        with self._adapter.send(
            request,
            stream=True,
            timeout=None,  # the call is watched as a whole
            verify=self._verify,
            proxies=self._proxies,
        ) as response:
            body = response.raw.read(LARGEST_ANSWER + 1, decode_content=False)
            cut_short = bool(response.raw.length_remaining)
        if response.status_code != _HTTP_OK:
            reason = _REASONS.get(response.status_code, Reason.HTTP_ERROR)
            location = ", a redirect, which is not followed" if response.is_redirect else ""
            raise ApiError(
                reason,
                f"HTTP status {response.status_code}{location}",
                retry_after=_retry_after(response.headers.get("Retry-After"), wall()),
            )
        if len(body) > LARGEST_ANSWER:
            raise ApiError(Reason.INVALID_RESPONSE, f"an answer of more than {LARGEST_ANSWER // 1024} KiB")
        if cut_short:
            raise http.client.IncompleteRead(b"")
        return parse(body, wall(), key)


@functools.lru_cache(maxsize=_ACCOUNTS)  # to prepare one takes as long as to send it
def _prepared(api: Api) -> requests.PreparedRequest:
    """The request to an account, but for the task."""
    return requests.Request(
        "POST",
        api.url + PATH,
        params={"output": "json", "api": "v1", "apiKey": api.key.reveal()},
        headers={
            "User-Agent": f"mobizon-exporter/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # so that the cap on an answer's size is one
            "Connection": "keep-alive",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    ).prepare()


@functools.lru_cache(maxsize=_ACCOUNTS)  # to compile one, too
def _in_any_spelling(key: str) -> re.Pattern[str]:
    """Finds a key as it is and as a URL has it, in which any character may be written by its number."""
    return re.compile("".join(f"(?:{re.escape(c)}|(?i:%{ord(c):02x}))" for c in key))


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


def _translate(error: BaseException) -> ApiError:
    """An exception of requests as one of ours, telling only what cannot hold the key."""
    chain = _chain(error)
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if any(isinstance(link, timeouts) for link in chain):
        return ApiError(Reason.TIMEOUT, "no answer in time")
    told = next(filter(None, map(_told, chain)), None)
    if told is None:
        ended = any(
            isinstance(link, urllib3.exceptions.ProtocolError | http.client.HTTPException) for link in chain
        )
        told = (
            "the connection ended before the answer did, or it was not HTTP"
            if ended
            else f"failed with {type(error).__name__}"
        )
    return ApiError(Reason.CONNECTION_ERROR, told)


def _told(link: BaseException) -> str | None:
    """What one exception of a chain tells of a failed connection, if anything."""
    if isinstance(link, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {printable(link.verify_message)}"
    if isinstance(link, ssl.SSLError):
        return f"TLS failed: {printable(link.reason or 'no details')}"
    if isinstance(link, socket.gaierror):
        return "the host's name cannot be resolved"
    if isinstance(link, OSError) and link.errno in errno.errorcode:
        return os.strerror(link.errno or 0).lower()
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
