"""One request to Mobizon, and what came of it: a reading, or one error of ours.

Only this module knows `requests`. Mobizon takes its key in the URL, so whatever requests and urllib3 say
may contain it: nothing of theirs leaves this module, and their loggers are silenced.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import http.client
import logging
import os
import re
import socket
import ssl
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from exporter import __version__
from exporter.answer import parse, printable
from exporter.errors import ApiError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.config import Api
    from exporter.model import Reading

PATH: Final = "/service/taskqueue/getStatus"
LARGEST_ANSWER: Final = 64 * 1024

_HTTP_OK: Final = 200
_REASONS: Final = {401: Reason.UNAUTHORIZED, 403: Reason.UNAUTHORIZED, 429: Reason.RATE_LIMITED}

for _name in ("urllib3", "requests"):
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False  # stops what their many child loggers say, too, as disabling would not


class Call:
    """One request under way, with a deadline for the whole of it.

    A time-out on each read never fires against a peer that sends a byte now and then, so somebody has to
    watch the clock: `expire` cuts the connection, from any thread, and the request ends at once.
    `deadline` is None until the request has begun; from then `timeout` seconds are given to connect, and
    again from the first byte sent to the last byte read.
    """

    def __init__(self, timeout: float, sent: Callable[[float], None], clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.deadline: float | None = None
        self.expired = False
        self._sent = sent
        self._clock = clock
        self._lifeline: socket.socket | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """The request starts to connect, or has just been sent."""
        self.deadline = self._clock() + self.timeout

    def attach(self, connection: socket.socket) -> None:
        """The connection that the request travels on; TimeoutError if the request has expired.

        It is watched through a descriptor of the call's own. That one outlives the wrapping in TLS, and
        the closing by http.client of a connection whose answer is still being read; shutting it down
        ends whatever waits on the first.
        """
        lifeline = socket.socket(fileno=os.dup(connection.fileno()))
        self.detach()
        with self._lock:
            if not self.expired:
                self._lifeline = lifeline
                return
        lifeline.close()
        raise TimeoutError

    def detach(self) -> None:
        """The request is over, and its connection may serve another."""
        with self._lock:
            if self._lifeline is not None:
                self._lifeline.close()
                self._lifeline = None

    def sending(self) -> None:
        """The connection is up; the first byte goes out now."""
        if self.expired:
            raise TimeoutError
        self.begin()
        self._sent(self._clock())

    def expire(self) -> None:
        """End the request now."""
        with self._lock:
            self.expired = True
            if self._lifeline is not None:
                with contextlib.suppress(OSError):  # it is closed already
                    self._lifeline.shutdown(socket.SHUT_RDWR)


class Client:
    """Requests over connections that are kept alive; one client for all that share proxy and authorities.

    It may be used from several threads at once.
    """

    def __init__(self, ca_file: str | None, proxy_url: str | None, connections: int) -> None:
        self._session = _Session()
        self._session.trust_env = False  # no netrc, and no proxy that is not in the configuration
        self._session.verify = ca_file or True
        self._session.proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {
                "User-Agent": f"mobizon-exporter/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # so that the cap on an answer's size is one
            }
        )
        adapter = _Adapter(pool_connections=8, pool_maxsize=connections, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def get_status(
        self, api: Api, task_id: int, call: Call, wall: Callable[[], float] = time.time
    ) -> Reading:
        """Ask for a task's status (Mobizon's taskqueue/getStatus); raises ApiError, and nothing else."""
        key = _in_any_spelling(api.key.reveal())
        call.begin()
        _calls.current = call
        try:
            return self._ask(api, key, task_id, wall)
        except ApiError as error:
            failure = error.with_traceback(None)  # which, like the context, would keep the key and the answer
            failure.__context__ = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it may print the key
            failure = _translate(error)
        finally:
            _calls.current = None
            call.detach()
        if call.expired:
            failure = ApiError(Reason.TIMEOUT, f"no complete answer within {call.timeout:g} s")
        # raised here, outside the handlers, so that no foreign exception hangs on to it as its context
        raise ApiError(
            failure.reason,
            key.sub("***", failure.detail),
            about_task=failure.about_task,
            retry_after=failure.retry_after,
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    def _ask(self, api: Api, key: re.Pattern[str], task_id: int, wall: Callable[[], float]) -> Reading:
        with self._session.post(
            api.url + PATH,
            params={"output": "json", "api": "v1", "apiKey": api.key.reveal()},
            data={"id": str(task_id)},
            timeout=(api.timeout, api.timeout),  # to connect, and for each read; the call watches the whole
            allow_redirects=False,
            stream=True,
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


_calls = threading.local()


class _Session(requests.Session):
    """A session that leaves redirects alone.

    Also one that does not follow them prepares the next request: it reads the whole body, however long,
    and trips over a target that is no URL.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - of requests
        return None


class _Answer(http.client.HTTPResponse):
    """An answer that does not fall for a chunk of -1 bytes, which http.client takes for "all there is"."""

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise http.client.IncompleteRead(b"")
        read: bytes = super()._safe_read(amt)  # type: ignore[misc] # of http.client's
        return read


class _Watched:
    """What both kinds of connection do for the call that uses them."""

    sock: Any
    response_class: Any = _Answer

    def _new_conn(self) -> socket.socket:
        """As urllib3 has it, but that the call watches the connection while it comes about, too."""
        call: Call | None = getattr(_calls, "current", None)
        host, port, options = self._dns_host, self.port, self.socket_options  # type: ignore[attr-defined] # of urllib3's
        failure = OSError("no address")
        family = urllib3.util.connection.allowed_gai_family()
        for *kind, _, address in socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_STREAM):
            sock = socket.socket(*kind)
            try:
                for option in options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)  # type: ignore[attr-defined] # of urllib3's
                if call:
                    call.attach(sock)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc] # of http.client's, which takes any end for that of the headers
        call: Call | None = getattr(_calls, "current", None)
        if call and call.expired:
            raise TimeoutError

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined] # else it would happen within, and count as sending
        if call := getattr(_calls, "current", None):
            call.attach(self.sock)
            call.sending()
        super().request(*args, **kwargs)  # type: ignore[misc] # of urllib3's


class _Released:
    """What both kinds of pool do for the call whose connection comes back: it is no longer its own."""

    def _put_conn(self, conn: Any) -> None:
        if call := getattr(_calls, "current", None):
            call.detach()
        super()._put_conn(conn)  # type: ignore[misc] # of urllib3's


class _PlainConnection(_Watched, HTTPConnection):
    pass


class _TlsConnection(_Watched, HTTPSConnection):
    pass


class _PlainPool(_Released, HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(_Released, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """The adapter of requests over connections that are watched."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager


@functools.lru_cache(maxsize=4096)  # of accounts; to compile one takes as long as a request
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
