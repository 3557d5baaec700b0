"""`/api/v1/tasks/ID`: programs register a task, look at it, wait for its end, and stop watching it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from exporter.config.registration import parse_registration, parse_task_id
from exporter.config.registry_store import RegistryFullError, RegistryWriteError
from exporter.config.schema import describe
from exporter.config.settings import duration
from exporter.errors import ConfigError, ExporterError
from exporter.model import TaskSource
from exporter.web.tasks_json import failure_json, task_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.config.registry import Registry
    from exporter.model import TaskView
    from exporter.refresh.refresher import Refresher

    Handler = Callable[[web.Request], Awaitable[web.Response]]

log = structlog.get_logger(__name__)

MAX_BODY: Final = 16 * 1024  # bytes
BODY_TIMEOUT: Final = 10.0  # seconds for a whole body
DEFAULT_WAIT: Final = 25.0  # seconds; PHP and most proxies give up after 30
MAX_WAIT: Final = 600.0
MAX_WAITERS: Final = 1000
MAX_CHECK: Final = 0.25  # seconds that a look at the configuration files may take
RETRY_AFTER_FULL: Final = 60  # seconds; finished tasks leave by themselves, but not soon
RETRY_AFTER_BUSY: Final = 5


class RefusedError(ExporterError):
    """A request that is answered with this status and message."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class TaskApi:
    """The handlers of one task, over what is known of tasks; without a registry it changes nothing."""

    def __init__(
        self, refresher: Refresher, registry: Registry | None, check: Callable[[], Awaitable[object]]
    ) -> None:
        self._refresher = refresher
        self._registry = registry
        self._check = check
        self._waiters = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        task = {"GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete}
        app.router.add_route("*", "/api/v1/tasks/{id}", _dispatcher(task))
        app.router.add_route("*", "/api/v1/tasks/{id}/wait", _dispatcher({"GET": self._wait}))

    async def _get(self, request: web.Request) -> web.Response:
        account, task_id = await self._listed(request)
        return self._answer(200, account, self._view(account, task_id))

    async def _wait(self, request: web.Request) -> web.Response:
        """Answer when the task is finished or the time is up; until then it is asked about in its turn."""
        timeout = _wait_timeout(request)
        account, task_id = await self._listed(request)
        if self._waiters >= MAX_WAITERS:
            raise RefusedError(503, "too many programs wait", {"Retry-After": str(RETRY_AFTER_BUSY)})
        ended = asyncio.Event()
        self._waiters += 1
        give_up = self._refresher.wait_for_task(account, task_id, ended.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await ended.wait()
        finally:
            give_up()
            self._waiters -= 1
        view = self._view(account, task_id)
        if view.state in {"completed", "rejected"}:
            return self._answer(200 if view.state == "completed" else 409, account, view)
        if not ended.is_set():
            return self._answer(504, account, view)
        if view.state == "not_found":
            return self._answer(404, account, view)
        raise RefusedError(503, "the exporter is stopping", {"Retry-After": str(RETRY_AFTER_BUSY)})

    async def _put(self, request: web.Request) -> web.Response:
        registry = self._writable(request)
        task_id = parse_task_id(request.match_info["id"])
        registration = parse_registration(await _body(request))
        account = _only(self._accounts(request, registration.account))
        view = self._refresher.task_view(account, task_id)
        created = False
        if view is None or view.spec.source is TaskSource.REGISTRY:
            created = await registry.put(account, task_id, registration)
        elif registration.applied_to(view.spec) != view.spec:
            _refuse_listed(view, "with another name or labels")
        if created:
            log.info("Task registered", **_about(request, account, task_id))
        return self._answer(201 if created else 200, account, self._view(account, task_id))

    async def _delete(self, request: web.Request) -> web.Response:
        registry = self._writable(request)
        task_id = parse_task_id(request.match_info["id"])
        accounts = self._accounts(request)
        account = _only(self._listing(accounts, task_id) or accounts)
        view = self._refresher.task_view(account, task_id)
        if view and view.spec.source is not TaskSource.REGISTRY:
            _refuse_listed(view, "and leaves when it is taken out there")
        await registry.delete(account, task_id)
        if view:
            log.info("Task deleted", **_about(request, account, task_id))
        return web.Response(status=204)

    def _writable(self, request: web.Request) -> Registry:
        """The registry, if the request may change it."""
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise RefusedError(403, "web pages cannot register or delete tasks")
        if self._registry is None:
            raise RefusedError(403, "tasks cannot be registered: start with --registry.file")
        return self._registry

    async def _listed(self, request: web.Request) -> tuple[str | None, int]:
        """The account and the id of the task that a request is about."""
        task_id = parse_task_id(request.match_info["id"])
        accounts = self._accounts(request)
        if not self._listing(accounts, task_id):
            with contextlib.suppress(TimeoutError):  # it may be in a task file that came just now
                await asyncio.wait_for(asyncio.shield(self._check()), MAX_CHECK)
        listing = self._listing(accounts, task_id)
        if not listing:
            raise RefusedError(404, f"task {task_id} is not listed")
        return _only(listing), task_id

    def _accounts(self, request: web.Request, *given: str | None) -> list[str | None]:
        """The accounts that a request may be about: the one that it names, or all."""
        names = {*request.query.getall("account", ()), *filter(None, given)}
        if not names:
            return list(self._refresher.account_failures())
        if len(names) > 1:
            raise RefusedError(400, "account: two are given")
        (name,) = names
        if name not in self._refresher.account_failures():
            raise RefusedError(404, f"account: {describe(name)} is not configured")
        return [name]

    def _listing(self, accounts: list[str | None], task_id: int) -> list[str | None]:
        return [name for name in accounts if self._refresher.task_view(name, task_id)]

    def _view(self, account: str | None, task_id: int) -> TaskView:
        view = self._refresher.task_view(account, task_id)
        if view is None:
            raise RefusedError(404, f"task {task_id} is not listed any more")
        return view

    def _answer(self, status: int, account: str | None, view: TaskView) -> web.Response:
        """The task, with the failure of its account where it has none of its own."""
        task = task_json(account, view, time.time())
        task["error"] = task["error"] or failure_json(self._refresher.account_failures().get(account))
        return _json(status, task)


def _dispatcher(handlers: Mapping[str, Handler]) -> Handler:
    """A handler for every method, whose refusals are JSON."""

    async def dispatch(request: web.Request) -> web.Response:
        handler = handlers.get(request.method)
        try:
            if handler is None:
                allowed = ", ".join(sorted(handlers))
                raise RefusedError(405, f"method not allowed, only {allowed}", {"Allow": allowed})
            return await handler(request)
        except RefusedError as refused:
            return _json(refused.status, {"error": str(refused)}, refused.headers)
        except ConfigError as error:
            return _json(400, {"error": "; ".join(error.problems)})
        except RegistryFullError as error:
            return _json(429, {"error": str(error)}, {"Retry-After": str(RETRY_AFTER_FULL)})
        except RegistryWriteError as error:
            return _json(507, {"error": str(error)})

    return dispatch


def _json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(content, allow_nan=False).encode() + b"\n",
        headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
    )


def _only(accounts: list[str | None]) -> str | None:
    if len(accounts) != 1:
        raise RefusedError(400, "account is required: there are several")
    return accounts[0]


def _refuse_listed(view: TaskView, message: str) -> None:
    where = "the configuration" if view.spec.source is TaskSource.CONFIG else "a task file"
    raise RefusedError(409, f"task {view.spec.id} is listed in {where} {message}")


def _about(request: web.Request, account: str | None, task_id: int) -> dict[str, Any]:
    """Fields of a log line."""
    return {**({"account": account} if account else {}), "task_id": task_id, "client": request.remote}


def _wait_timeout(request: web.Request) -> float:
    written = request.query.get("timeout")
    if written is None:
        return DEFAULT_WAIT
    try:
        seconds = duration(written)
    except ValueError as error:
        raise RefusedError(400, f"timeout: {error}") from None
    if seconds > MAX_WAIT:
        raise RefusedError(400, f"timeout: expected at most {MAX_WAIT / 60:g}m")
    return seconds


async def _body(request: web.Request) -> bytes:
    """The body of a request, which is small, and JSON if there is any."""
    content, body = request.content, bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    break
    except TimeoutError:
        if not content.is_eof():  # else the rest has come while the process stood still
            raise RefusedError(408, f"the body has not arrived within {BODY_TIMEOUT:g} s") from None
        body += content.read_nowait()
    except web.RequestPayloadError:
        raise RefusedError(400, "the body cannot be read") from None
    if len(body) > MAX_BODY:
        raise RefusedError(413, f"expected a body of at most {MAX_BODY // 1024} KiB")
    if body and request.content_type != "application/json":
        raise RefusedError(415, "expected JSON, and the header Content-Type: application/json")
    return bytes(body)
