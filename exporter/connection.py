"""Connections that can be watched: a request's whole time is limited, not only each of its reads.

It is here that requests, urllib3 and http.client are bent; exporter/client.py uses what comes of it.
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


current = threading.local()
"""`current.call` is the call that this thread is making."""


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
        call: Call | None = getattr(current, "call", None)
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
        call: Call | None = getattr(current, "call", None)
        if call and call.expired:
            raise TimeoutError

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined] # else it would happen within, and count as sending
        if call := getattr(current, "call", None):
            call.attach(self.sock)
            call.sending()
        super().request(*args, **kwargs)  # type: ignore[misc] # of urllib3's


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
