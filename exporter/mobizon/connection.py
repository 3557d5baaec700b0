"""Connections that can be watched: a request's whole time is limited, not each of its reads.

It is here that requests, urllib3 and http.client are bent; exporter/mobizon/client.py uses what comes of it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """One request under way, with a deadline for the whole of it.

    A time-out on each read never fires against a peer that sends a byte now and then. So reads have none,
    and somebody has to watch the clock: `expire` cuts the connection, from any thread, and the request ends
    at once. `deadline` is None until the request has begun; from then `timeout` seconds are given to
    connect, and again from the first byte sent to the last byte read. `sent` is told when the request is on
    its way, by `clock`.
    """

    def __init__(self, timeout: float, sent: Callable[[float], None], clock: Callable[[], float]) -> None:
        self.timeout = timeout
        self.deadline: float | None = None
        self.expired = False
        self._sent = sent
        self._clock = clock
        self._lifeline: _Lifeline | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """The request starts to connect, or is about to be sent."""
        self.deadline = self._clock() + self.timeout

    def attach(self, lifeline: _Lifeline) -> None:
        """The connection that the request travels on; TimeoutError if the request has expired."""
        with self._lock:
            if self.expired:
                raise TimeoutError
            self._lifeline = lifeline

    def sent(self) -> None:
        """The last byte has gone out, or nobody knows whether it has."""
        # Told only now, for between a look at the clock and the sending other threads may have their turn:
        # a request is never later on the wire than it is said to be, and the next one never too early.
        self._sent(self._clock())

    def detach(self) -> None:
        """The request is over, and its connection may serve another."""
        with self._lock:
            self._lifeline = None

    def expire(self) -> None:
        """End the request now."""
        with self._lock:
            self.expired = True
            if self._lifeline is not None:
                self._lifeline.cut()


class _Lifeline:
    """What cuts a connection, from any thread: a descriptor of its own, closed when nobody holds it any more.

    It outlives the wrapping in TLS, and the closing by http.client of a connection whose answer is still
    being read; shutting it down ends whatever waits on the first.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._descriptor = -1  # for __del__, should there be none to spare
        self._descriptor = os.dup(connection.fileno())

    def cut(self) -> None:
        duplicate = socket.socket(fileno=self._descriptor)
        try:
            with contextlib.suppress(OSError):  # the peer has closed it already
                duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.detach()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


current = threading.local()
"""`current.call` is the call that this thread is making."""


class _Answer(http.client.HTTPResponse):
    """An answer that does not fall for a chunk of -1 bytes, which http.client takes for "all there is"."""

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise http.client.IncompleteRead(b"")
        read: bytes = super()._safe_read(amt)  # type: ignore[misc] # of http.client's
        return read


class _Untimed(socket.socket):
    """A connection without time-outs: urllib3 sets them twice a request, which is two system calls.

    With many accounts it is those that cost, as each lets other threads in. TLS has sockets of its own.
    """

    def settimeout(self, value: float | None) -> None:
        pass


class _Watched:
    """What both kinds of connection do for the call that uses them."""

    sock: Any
    response_class: Any = _Answer
    _lifeline: _Lifeline | None = None
    _held: list[bytes] | None = None

    def _new_conn(self) -> socket.socket:
        """As urllib3 has it, but that the call watches the connection while it comes about, too."""
        call: Call | None = getattr(current, "call", None)
        host, port, options = self._dns_host, self.port, self.socket_options  # type: ignore[attr-defined] # of urllib3's
        failure = OSError("no address")
        family = urllib3.util.connection.allowed_gai_family()
        for *kind, _, address in socket.getaddrinfo(host.strip("[]"), port, family, socket.SOCK_STREAM):
            sock = _Untimed(*kind)
            try:
                for option in options or ():
                    sock.setsockopt(*option)
                self._lifeline = _Lifeline(sock)
                if call:
                    call.attach(self._lifeline)
                    super(_Untimed, sock).settimeout(call.timeout)
                sock.connect(address)
                super(_Untimed, sock).settimeout(None)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc] # of http.client's, which takes any end for that of the headers
        call: Call | None = getattr(current, "call", None)
        if call and call.expired:
            raise TimeoutError

    def close(self) -> None:
        super().close()  # type: ignore[misc] # of urllib3's
        self._lifeline = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined] # else it would happen within, and count as sending
        call: Call | None = getattr(current, "call", None)
        if call:
            assert self._lifeline  # noqa: S101 - every connection is made by _new_conn; tells mypy
            call.attach(self._lifeline)
            call.begin()
        held = self._held = []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc] # of urllib3's
        finally:
            self._held = None
        try:
            self.sock.sendall(b"".join(held))
        finally:
            if call:
                call.sent()

    def send(self, data: Any) -> None:
        """As http.client has it, but that the head and the body of a request leave together."""
        if self._held is None:
            super().send(data)  # type: ignore[misc] # of http.client's
        else:
            self._held.append(data)


class _Released:
    """What both kinds of pool do for the call whose connection comes back: it is no longer its own."""

    def _put_conn(self, conn: Any) -> None:
        if call := getattr(current, "call", None):
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


class WatchedAdapter(HTTPAdapter):
    """The adapter of requests over connections that are watched."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As in requests, with pools of ours."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """As in requests, with pools of ours."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager
