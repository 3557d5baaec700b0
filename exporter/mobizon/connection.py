"""Connections on which a time-out bounds connecting, and again the request with its whole answer.

A time-out on each read never fires against a peer that sends a byte now and then, so each read gets what is
left of a deadline. Everything here is done by public means of http.client and urllib3.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.connection import allowed_gai_family

from exporter.mobizon.greenlets import GreenletSocket, in_thread

if TYPE_CHECKING:
    from exporter.mobizon.authorities import Authorities
    from exporter.mobizon.call import Call

MAX_RECEIVED: Final = 128 * 1024  # bytes of an answer, with its status line, headers and framing
GRACE: Final = 0.1  # seconds in which a connection may notice its time-out itself


class ResponseTooLarge(OSError):  # noqa: N818 - what happened
    """More than MAX_RECEIVED bytes have come."""


class IdleConnectionClosed(ConnectionError):  # noqa: N818 - same
    """The server closed a kept-alive connection while a request was being sent on it."""


class _Bounds:
    """What the answers on a connection may still cost."""

    def __init__(self, timeout: float) -> None:
        self.deadline = time.monotonic() + timeout
        self.received = 0

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def count(self, received: int) -> None:
        self.received += received
        if self.received > MAX_RECEIVED:
            raise ResponseTooLarge


class _BoundedReader(io.RawIOBase):
    """Reads from a socket within bounds."""

    def __init__(self, raw: io.RawIOBase, sock: Any, bounds: _Bounds) -> None:
        self._raw = raw
        self._sock = sock  # a GreenletSocket; in the thread that connects still a socket
        self._bounds = bounds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not isinstance(self._sock, GreenletSocket):
            self._sock.settimeout(self._bounds.seconds_left())
        while (received := self._read(buffer)) is None:
            self._sock.wait_until_readable(self._bounds.seconds_left())
        self._bounds.count(received)
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _read(self, buffer: Any) -> int | None:
        """As `readinto`; None as long as a GreenletSocket has nothing."""
        with contextlib.suppress(ssl.SSLWantReadError):
            return self._raw.readinto(buffer)
        return None


class _Response(http.client.HTTPResponse):
    """An answer that is read within bounds; also a proxy's."""

    def __init__(self, bounds: _Bounds, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, bounds))


class Connection(HTTPConnection):
    """A connection of urllib3 for greenlets; bodies of requests have to be a `Body`."""

    working: ClassVar[dict[tuple[str, int], str]] = {}  # the address of each host that answered last
    server_hostname: str | None = None

    def __init__(self, host: str, *args: Any, **options: Any) -> None:
        super().__init__(host, *args, **options)
        self._name = host
        self._bounds = _Bounds(0.0)
        self._used = False  # whether it has brought an answer
        self._held: list[bytes] | None = None
        self._connecting = False

    def connect(self) -> None:
        """Connect in a thread: looking up a name, for one, cannot be done otherwise."""
        self._connecting = True
        failure = in_thread(self._connect, (self.timeout or 0.0) + GRACE, self._abandoned)
        self._connecting = False
        if failure:
            try:
                raise failure
            finally:
                del failure  # which has this frame in its traceback
        self.sock = GreenletSocket(self.sock)

    def close(self) -> None:
        """As urllib3 has it, but not under the hands of the thread that connects."""
        if not self._connecting:
            super().close()

    def _abandoned(self) -> None:
        self._connecting = False
        self.close()

    def _connect(self) -> None:
        """Connect to the first address that answers, each having its share of the time that is left."""
        timeout = self.timeout or 0.0
        bounds, self._used = self._bound(timeout), False
        self._prepare()
        addresses = self._addresses()
        if not self.proxy:
            self.server_hostname = self._name
        try:
            for at, address in enumerate(addresses, 1):
                self.host = address
                self.timeout = bounds.seconds_left() / (len(addresses) - at + 1)
                try:
                    super().connect()
                except (ConnectTimeoutError, ConnectionError, TimeoutError) as error:
                    in_tunnel = self.proxy and not isinstance(error, ConnectTimeoutError)
                    if at == len(addresses) or in_tunnel:
                        raise
                    if self.sock is not None:
                        self.sock.close()
                else:
                    self.working[self._name, self.port] = address
                    return
        finally:
            self.host, self.timeout = self._name, timeout

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """As urllib3 has it, but that head and body leave together, and that the body's call is notified."""
        if self.sock is None:
            self.connect()
        call: Call = body.call
        self._bound(call.timeout)
        self._held = []
        try:
            super().request(method, url, body, headers, **options)
            request = b"".join(self._held)
        finally:
            self._held = None
        self.sock.settimeout(call.timeout)
        try:
            self.sock.sendall(request)
        finally:
            call.sent()

    def send(self, data: Any) -> None:
        """Send, or hold back until the request is whole."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> Any:
        """As urllib3 has it; IdleConnectionClosed if it was kept, and closed before any byte of an answer."""
        try:
            response = super().getresponse()
        except (ConnectionError, ssl.SSLEOFError) as error:
            if self._used and not self._bounds.received:
                raise IdleConnectionClosed from error
            raise
        self._used = True
        return response

    def _bound(self, timeout: float) -> _Bounds:
        """Bound what is read from now on."""
        self._bounds = _Bounds(timeout)
        self.response_class = cast("type[http.client.HTTPResponse]", partial(_Response, self._bounds))
        return self._bounds

    def _prepare(self) -> None:
        """Do what takes time before there is a connection."""

    def _addresses(self) -> list[str]:
        """The addresses of the host, beginning with the one that worked last time."""
        if self.proxy and self.proxy.scheme == "https":  # whose certificate urllib3 compares with `host`
            return [self._name]
        found = socket.getaddrinfo(
            self._name.strip("[]"), self.port, allowed_gai_family(), socket.SOCK_STREAM
        )
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        last = self.working.get((self._name, self.port))
        return sorted(addresses, key=lambda address: address != last)


class TlsConnection(Connection, HTTPSConnection):
    """The same over TLS, to a host or to a proxy that these authorities vouch for."""

    def __init__(self, authorities: Authorities, host: str, *args: Any, **options: Any) -> None:
        super().__init__(host, *args, **options)
        self._authorities = authorities

    def _prepare(self) -> None:
        self.ssl_context = self._authorities.context()
        if self.proxy_config:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.ssl_context)
