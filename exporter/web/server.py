"""Listening: addresses, TLS, and what slow, silent or hostile peers are allowed."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web, web_response

from exporter.errors import BindError, LimitError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

KEEPALIVE: Final = 10.0
# aiohttp waits twice as long for handlers, and they are all let go when a shutdown begins.
SHUTDOWN: Final = 1.5
HANDSHAKE: Final = 10.0
BACKLOG: Final = 128  # also how many connections asyncio accepts before it looks at any
MAX_CONNECTIONS: Final = 3000  # open files of all kinds, in truth: a third may be for requests to Mobizon
RESERVE: Final = BACKLOG + 72  # files that are not for connections
MIN_FILES: Final = 384  # leaves 60 to peers when every thread that the limit allows has a request under way
COUNT_INTERVAL: Final = 0.1  # seconds
TLS_BUFFER: Final = 32 * 1024  # asyncio's 256 KiB a connection is too much for hundreds of them


class Server:
    """Listens, and stops without dropping requests under way."""

    def __init__(self, app: web.Application, tls: ssl.SSLContext | None = None) -> None:
        # What it logs of malformed requests is noise that any client can make.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        # also of answers that no handler makes; aiohttp has no setting for it
        web_response.SERVER_SOFTWARE = "mobizon-exporter"  # type: ignore[attr-defined]
        self._tls = tls
        if tls:
            asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # what a peer that has hung up waited for is not waited for any more
            keepalive_timeout=KEEPALIVE,
            shutdown_timeout=SHUTDOWN,
        )
        self._servers: list[asyncio.Server] = []
        self._max_open = MAX_CONNECTIONS
        self._open = 0
        self._count_again_at = 0.0

    async def start(self, addresses: Sequence[str]) -> list[str]:
        """Listen at every address; the addresses with their ports. Raises BindError and LimitError."""
        files = _raise_file_limit()
        if files < MIN_FILES:
            raise LimitError(
                f"the limit of open files is {files}, and at least {MIN_FILES} are needed:"
                " raise it (ulimit -n, LimitNOFILE=)"
            )
        await self._runner.setup()
        self._max_open = min(MAX_CONNECTIONS, files - RESERVE)
        loop = asyncio.get_running_loop()
        sockets = [_bind(address) for address in addresses]
        for sock in sockets:
            options: dict[str, Any] = {"ssl_handshake_timeout": HANDSHAKE} if self._tls else {}
            server = await loop.create_server(
                self._protocol, sock=sock, ssl=self._tls, backlog=BACKLOG, **options
            )
            self._servers.append(server)
        return [_written(sock.getsockname()) for sock in sockets]

    def _protocol(self) -> asyncio.Protocol:
        """What speaks with a new peer."""
        assert self._runner.server is not None  # noqa: S101 - made by setup(); for the type checker
        now = asyncio.get_running_loop().time()
        if now >= self._count_again_at:
            self._count_again_at, self._open = now + COUNT_INTERVAL, _open_files()
        self._open += 1
        if self._open > self._max_open:
            # asyncio closes the connection, and in silence; a protocol that hangs up would be notified
            # only after a handshake of TLS, and many unfinished ones are an attack themselves
            raise ConnectionAbortedError
        return self._runner.server()

    def close(self) -> None:
        """Accept no further connections."""
        for server in self._servers:
            server.close()

    async def stop(self) -> None:
        """Wait for those being answered, and close."""
        self.close()
        await self._runner.cleanup()


def _bind(address: str) -> socket.socket:
    """A socket bound to `host:port`; no host is every interface, over IPv4 and IPv6."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the largest port
        raise BindError(f"cannot listen on {address!r}: expected host:port or :port")
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        # the socket module adds the address to what the system says, and this line has it already
        reason = os.strerror(error.errno or 0) if error.errno in errno.errorcode else str(error.strerror)
        raise BindError(f"cannot listen on {address!r}: {reason.lower()}") from None


def _raise_file_limit() -> int:
    """How many files may be open: without one to spare asyncio can do nothing but log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS * 2
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _open_files() -> int:
    """How many files are open; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - ten times a second, perhaps
    except OSError:
        return 0


def _written(name: tuple[Any, ...]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
