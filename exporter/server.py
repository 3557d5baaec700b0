"""The HTTP side: routes, health, lifecycle, and what slow or hostile peers are allowed."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import errno
import logging
import math
import os
import resource
import socket
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from exporter import __version__
from exporter.errors import BindError, ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from exporter.exposition import Exposition
    from exporter.refresher import Refresher

log = structlog.get_logger(__name__)

SCRAPE_TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
WAIT_WITHOUT_HEADER: Final = 9.5  # Prometheus's default scrape_timeout of 10 s, less the usual offset
LONGEST_CHECK: Final = 0.25  # seconds that a scrape waits for a look at the configuration files
KEEPALIVE: Final = 10.0
# aiohttp waits twice as long for handlers, and they are all let go when a shutdown begins.
SHUTDOWN: Final = 1.5
HANDSHAKE: Final = 10.0
BACKLOG: Final = 1024
MOST_CONNECTIONS: Final = 2000
PIECE: Final = 64 * 1024  # bytes sent at a time, so that a peer that does not read is noticed
SEND_TIMEOUT: Final = 10.0  # seconds for each piece
TLS_BUFFER: Final = 32 * 1024  # asyncio's 256 KiB a connection is too much for hundreds of them


class Pages:
    """The handlers of all paths, over what they show."""

    def __init__(  # noqa: PLR0913 - the composer's table of parts
        self,
        refresher: Refresher,
        exposition: Exposition,
        *,
        telemetry_path: str,
        timeout_offset: float,
        check: Callable[[], Awaitable[object]],
        reload: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self._refresher = refresher
        self._exposition = exposition
        self._telemetry_path = telemetry_path
        self._timeout_offset = timeout_offset
        self._check = check
        self._reload = reload

    def application(self, middlewares: Sequence[Middleware] = ()) -> web.Application:
        """An application with every route; 404 and 405 are aiohttp's."""
        app = web.Application(middlewares=[_tell_bugs, *middlewares], client_max_size=64 * 1024)
        app.on_response_prepare.append(_name_server)
        app.router.add_get("/", self._index)
        app.router.add_get(self._telemetry_path, self._metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._ready)
        app.router.add_post("/-/reload", self._reload_now)
        return app

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience(request)
        with contextlib.suppress(TimeoutError):  # a slow disk holds up no scrape; the look goes on
            await asyncio.wait_for(asyncio.shield(self._check()), LONGEST_CHECK)
        answered = asyncio.Event()
        give_up = self._refresher.refresh(deadline, answered.set)
        try:
            await answered.wait()
        finally:
            give_up()
        compress = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        accept = ",".join(request.headers.getall("Accept", []))
        body, content_type = await self._exposition.render(accept, compress=compress)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compress:
            headers["Content-Encoding"] = "gzip"
        return await _send(request, body, headers)

    def _patience(self, request: web.Request) -> float:
        """How long the scrape may wait, in seconds."""
        try:
            timeout = float(request.headers[SCRAPE_TIMEOUT_HEADER])
        except (KeyError, ValueError):
            return WAIT_WITHOUT_HEADER
        if not math.isfinite(timeout) or timeout <= 0:
            return WAIT_WITHOUT_HEADER
        return max(0.0, timeout - self._timeout_offset)

    async def _index(self, _request: web.Request) -> web.Response:
        links = "".join(
            f'<li><a href="{path}">{path}</a></li>'
            for path in (self._telemetry_path, "/-/healthy", "/-/ready")
        )
        return web.Response(
            text=f"<!doctype html><title>mobizon-exporter</title><h1>mobizon-exporter {__version__}</h1><ul>{links}</ul>",
            content_type="text/html",
        )

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.Response(text="mobizon-exporter is healthy.\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        return web.Response(text="mobizon-exporter is ready.\n")

    async def _reload_now(self, _request: web.Request) -> web.Response:
        if self._reload is None:
            return web.Response(
                status=403, text="Lifecycle API is not enabled: start with --web.enable-lifecycle.\n"
            )
        try:
            await self._reload()
        except ConfigError as error:
            return web.Response(status=500, text=f"The last good configuration stays:\n{error}\n")
        return web.Response(text="Configuration reloaded.\n")


async def _send(request: web.Request, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Answer in pieces; a peer that takes none for a while is hung up on."""
    if len(body) <= PIECE:
        return web.Response(body=body, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        try:
            for at in range(0, len(body), PIECE):
                async with asyncio.timeout(SEND_TIMEOUT):
                    await response.write(body[at : at + PIECE])
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
    return response


@web.middleware
async def _tell_bugs(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A handler that fails is told of in the log, and its peer gets no details."""
    try:
        return await handler(request)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        log.exception("Request cannot be answered", path=request.path)
        return web.Response(status=500, text="Internal error: see the log.\n")


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "mobizon-exporter"
    response.headers["X-Content-Type-Options"] = "nosniff"


class _TooMany(asyncio.Protocol):
    """Hangs up on a peer for whom there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP has no other
        transport.abort()


class Server:
    """Listens, and stops without dropping anybody who waits."""

    def __init__(self, app: web.Application, tls: ssl.SSLContext | None = None) -> None:
        # What it logs of malformed requests is noise that anybody can make.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        self._tls = tls
        if tls:
            asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE, shutdown_timeout=SHUTDOWN, handle_signals=False
        )
        self._servers: list[asyncio.Server] = []

    async def start(self, addresses: Sequence[str]) -> list[str]:
        """Listen at every address; the addresses with their ports. Raises BindError."""
        await self._runner.setup()
        _raise_file_limit()
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
        crowded = len(self._runner.server.connections) >= MOST_CONNECTIONS
        return _TooMany() if crowded else self._runner.server()

    def close(self) -> None:
        """Accept nobody any more."""
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
        told = os.strerror(error.errno) if error.errno in errno.errorcode else str(error.strerror)
        raise BindError(f"cannot listen on {address!r}: {told.lower()}") from None


def _raise_file_limit() -> None:
    """A descriptor a connection, and some: without one asyncio can do nothing but log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS * 2
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _written(name: tuple[Any, ...]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header (RFC 9110, 12.5.3) allows gzip."""
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
