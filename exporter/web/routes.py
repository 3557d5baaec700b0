"""The handlers of all paths but the registry's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from exporter import __version__
from exporter.errors import ConfigError
from exporter.metrics.exposition import pack
from exporter.metrics.renderer import BusyError, Renderer
from exporter.slices import in_slices
from exporter.web import page
from exporter.web.sending import accepts_gzip, send
from exporter.web.tasks_json import tasks_json
from exporter.web.translations import language_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler

    from exporter.metrics.exposition import Exposition
    from exporter.refresh.refresher import Refresher

log = structlog.get_logger(__name__)

SCRAPE_TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
WAIT_WITHOUT_HEADER: Final = 9.5  # Prometheus's default scrape_timeout of 10 s, less the usual offset
MAX_SCRAPE_TIMEOUT: Final = 300.0  # seconds, whatever the header says
MAX_CHECK_WAIT: Final = 0.25  # seconds that a scrape waits for a check of the configuration files
RETRY_AFTER: Final = 1  # seconds, where too many pages are asked for at once
MAX_QUERY: Final = 200  # characters of the page's filter


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
        self._renderer = Renderer("page")  # its own, so that pages hold up no scrape
        self._looking: asyncio.Future[object] | None = None

    def application(self) -> web.Application:
        """An application with every route; 404 and 405 are aiohttp's."""
        app = web.Application(middlewares=[_log_unhandled_errors])
        app.on_response_prepare.append(_no_sniffing)

        async def close(_app: web.Application) -> None:
            self._renderer.close()

        app.on_cleanup.append(close)
        app.router.add_get("/", self._status)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/api/v1/tasks", self._tasks)
        app.router.add_get(self._telemetry_path, self._metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._ready)
        app.router.add_post("/-/reload", self._reload_now)
        return app

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        patience = self._patience(request)
        # what it waited for has to be rendered, too; a machine that stood still counts for little
        deadline = loop.time() + patience - min(self._exposition.render_seconds, patience / 4)
        with contextlib.suppress(TimeoutError):  # a slow disk holds up no scrape; the check goes on
            await asyncio.wait_for(self._check(), MAX_CHECK_WAIT)
        answered = asyncio.Event()
        asking, give_up = self._refresher.refresh(deadline, answered.set)
        try:
            await in_slices(asking)
            await answered.wait()
        finally:
            give_up()
        compress = accepts_gzip(request.headers.get("Accept-Encoding", ""))
        accept = ",".join(request.headers.getall("Accept", []))
        body, content_type = await self._exposition.render(accept, compress=compress)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compress:
            headers["Content-Encoding"] = "gzip"
        return await send(request, body, headers)

    def _patience(self, request: web.Request) -> float:
        """How long the scrape may wait to be answered, in seconds."""
        try:
            timeout = float(request.headers[SCRAPE_TIMEOUT_HEADER])
        except (KeyError, ValueError):
            return WAIT_WITHOUT_HEADER
        if not math.isfinite(timeout) or timeout <= 0:
            return WAIT_WITHOUT_HEADER
        return max(0.0, min(timeout, MAX_SCRAPE_TIMEOUT) - self._timeout_offset)

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """The status page. To look is to ask, but not to wait."""
        await self._look()
        language = language_of(request.headers.get("Accept-Language"))
        query = request.query.get("q", "")[:MAX_QUERY]

        async def begin() -> Callable[[], bytes]:
            accounts = await in_slices(self._refresher.views())
            return lambda: page.render(
                accounts,
                now=time.time(),
                language=language,
                version=__version__,
                telemetry_path=self._telemetry_path,
                query=query,
            ).encode()

        headers = {**page.HEADERS, "Content-Language": language}
        return await self._rendered(request, ("page", language, query), begin, headers)

    async def _tasks(self, request: web.Request) -> web.StreamResponse:
        """The same for programs."""
        await self._look()

        async def begin() -> Callable[[], bytes]:
            accounts = await in_slices(self._refresher.views())
            return lambda: json.dumps(tasks_json(accounts, time.time()), allow_nan=False).encode()

        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return await self._rendered(request, ("tasks",), begin, headers)

    async def _rendered(
        self,
        request: web.Request,
        wanted: tuple[str, ...],
        begin: Callable[[], Awaitable[Callable[[], bytes]]],
        headers: dict[str, str],
    ) -> web.StreamResponse:
        compress = accepts_gzip(request.headers.get("Accept-Encoding", ""))

        async def packed() -> Callable[[], bytes]:
            render = await begin()
            return lambda: pack(render(), compress=compress)

        try:
            body = await self._renderer.render((*wanted, compress), packed)
        except BusyError:
            return web.Response(
                status=503, text="503: too many pages at once\n", headers={"Retry-After": str(RETRY_AFTER)}
            )
        vary = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
        encoding = {"Content-Encoding": "gzip"} if compress else {}
        return await send(request, body, {**headers, "Vary": vary, **encoding})

    async def _static(self, request: web.Request) -> web.Response:
        file = page.static_files().get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        headers = dict(file.headers)
        if request.query.get("v") != file.version:  # asked for by a page of another version
            headers["Cache-Control"] = "no-cache"
        return web.Response(body=file.body, headers=headers)

    async def _look(self) -> None:
        """Ask for every task, and have the files looked at, without waiting for either."""
        await in_slices(self._refresher.ask())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._check())

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


@web.middleware
async def _log_unhandled_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log the error of a handler; its peer gets status 500 without details."""
    try:
        return await handler(request)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        log.exception("Failed to answer request", path=request.path)
        return web.Response(status=500, text="Internal error: see the log.\n")


async def _no_sniffing(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"
