"""The simulated API's server: its methods, the check of the key, the limit."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiohttp import web

from exporter.simulator.campaigns import DEFAULT_LOAD, Campaigns
from exporter.simulator.faults import REGULAR, TOO_OFTEN, Fault, envelope, respond
from exporter.simulator.scenarios import Tasks

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    from exporter.simulator.campaigns import Reply
    from exporter.simulator.scenarios import Scenario

Limit: TypeAlias = Literal["strict", "lenient", "window", "off"]


DEMO_KEY: Final = "SimulatedKeyThatOpensTheDemoAndNoAccount"

GET_STATUS: Final = "taskqueue/getstatus"
ADD_RECIPIENTS: Final = "campaign/addrecipients"
SEND: Final = "campaign/send"
MODULES: Final = {"taskqueue", "campaign"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived: `at` is when its last byte had, in seconds of the simulator's clock.

    `code` is what was, or will be, answered; None if no Mobizon envelope is. `task_id` is the `id` of the
    form, which is a campaign's for the methods of campaigns. `method` is in lower case.
    """

    at: float
    key: str
    task_id: int | None
    code: int | None
    method: str = GET_STATUS


class Simulator:
    """Serves taskqueue/getStatus, campaign/addRecipients and campaign/send as Mobizon does.

    - `scenarios`: what each task does; its age counts from the first start, or from when it was added.
    - `load`: what the task does that `campaign/addRecipients` starts; see `Campaigns`.
    - `keys`: the keys that are accepted. Each has a limit of its own for each method, one request per
      `interval` seconds: "strict" refuses what comes less than `interval` after the previous request,
      accepted or not, "lenient" after the last accepted one, "window" accepts one request per `interval` of
      the clock.
    - `faults`: what goes wrong with getStatus, by task id, or for every task under None; a task's own comes
      first. A fault takes the place of any answer, even to a wrong key. The limit counts the request all the
      same.
    - `requests`: the last `history` requests that arrived. `accepted` and `refused` count getStatus requests
      with a known key, the latter those that came too early or met `refuse()`.

    `latency` (seconds, from and to) is waited out after the limit has been measured, and up to `jitter`
    seconds before, as if the network had taken them. `clock` drives scenarios and limit, never the waiting.
    With `tls` it serves HTTPS. Scenarios, keys and faults may be changed from any thread at any time.
    """

    def __init__(  # noqa: PLR0913 - all but the first are keywords with defaults
        self,
        scenarios: Mapping[int, Scenario],
        *,
        keys: Iterable[str] = (DEMO_KEY,),
        interval: float = 1.0,
        limit: Limit = "strict",
        latency: tuple[float, float] = (0.0, 0.0),
        jitter: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        history: int = 10_000,
        load: Scenario = DEFAULT_LOAD,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.scenarios = Tasks(clock, scenarios)
        self._campaigns = Campaigns(self.scenarios, load)
        self.keys = set(keys)
        self.faults: dict[int | None, Fault] = {}
        self.interval = interval
        self.limit: Limit = limit
        self.latency = latency
        self.jitter = jitter
        self.requests: deque[Request] = deque(maxlen=history)
        self.accepted = self.refused = 0
        self.url = ""
        self._tls = tls
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - picks delays and oddities, no secrets
        self._started_at: float | None = None
        self._last: dict[tuple[str, str], float] = {}  # by method and key
        self._handlers: dict[asyncio.Task[Any], web.Request] = {}
        self._changed = threading.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def in_flight(self) -> int:
        """How many requests are being answered at this moment."""
        return len(self._handlers)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; `url` tells where. OSError if the address cannot be had."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_shutdown.append(self._abort_connections)
        # No access log, as it would print keys.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024, ssl_context=self._tls).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        scheme, netloc = "https" if self._tls else "http", f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{netloc}:{runner.addresses[0][1]}"
        if self._started_at is None:
            self._started_at = self._clock()
            self.scenarios.start()

    async def stop(self) -> None:
        """Closes the port and every connection at once; the simulator can be started again."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
            await asyncio.sleep(0)  # lets the sockets of idle connections close, too

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Waits, in another thread, until requests that begin, arrive or end make `condition` true.

        TimeoutError if that takes longer than `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"not within {timeout} s")

    async def _abort_connections(self, _app: web.Application) -> None:
        handlers = list(self._handlers)
        for handler in handlers:
            transport = self._handlers[handler].transport
            if transport is not None:
                transport.abort()  # closing would wait for a peer that does not read
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        handler = asyncio.current_task()
        assert handler is not None  # noqa: S101 - aiohttp runs handlers in tasks; tells mypy
        with self._changed:
            self._handlers[handler] = request
            self._changed.notify_all()
        try:
            return await self._respond(request)
        finally:
            with self._changed:
                del self._handlers[handler]
                self._changed.notify_all()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        await request.read()  # waits for a body that is no form
        if self.jitter:
            await asyncio.sleep(self._random.uniform(0, self.jitter))
        at = self._clock()
        key = request.query.get("apiKey", "")
        method = request.path.lower().strip("/").removeprefix("service/")
        given = str(form.get("id", ""))
        number = int(given) if re.fullmatch("[1-9][0-9]{0,18}", given) else None
        with self._changed:
            fault = self._fault(number, at - (self._started_at or 0.0)) if method == GET_STATUS else None
            refused = fault is not None and fault.code == TOO_OFTEN
            code, data = self._error(request, key, method, at, refused=refused) or self._answer(
                method, number, form, at
            )
            seen = code if fault is None or fault.code == REGULAR else fault.code
            self.requests.append(Request(at, key, number, seen, method))
            self._changed.notify_all()
        # Without data PHP answers with one of these.
        regular = envelope(code, self._random.choice((None, [], "", False)) if data is None else data)
        await asyncio.sleep(self._random.uniform(*self.latency))
        return respond(regular) if fault is None else await fault.act(request, regular)

    def _fault(self, task_id: int | None, age: float) -> Fault | None:
        for key in dict.fromkeys((task_id, None)):
            fault = self.faults.get(key)
            if fault is not None and fault.applies(age):
                return fault
        return None

    def _error(
        self, request: web.Request, key: str, method: str, at: float, *, refused: bool
    ) -> Reply | None:
        """What every method checks before it answers."""
        module = method.partition("/")[0]
        checks = (
            (request.path.lower().startswith("/service/") and module in MODULES, 4),
            (method in {GET_STATUS, ADD_RECIPIENTS, SEND}, 5),
            ((request.query.get("output"), request.query.get("api")) == ("json", "v1"), 6),
            (key in self.keys, 8),
        )
        failed = next((code for passed, code in checks if not passed), None)
        if failed is not None:
            return failed, None
        if not self._within_limit(method, key, at, refused=refused):
            return TOO_OFTEN, None
        return None

    def _answer(self, method: str, number: int | None, form: Mapping[str, Any], at: float) -> Reply:
        if method == ADD_RECIPIENTS:
            return self._campaigns.add_recipients(number, form, at)
        if method == SEND:
            return self._campaigns.send(number, at)
        if number is None:
            return 1, {"id": "not a positive integer"}
        answer = self.scenarios.answer(number, at)
        if isinstance(answer, int):
            return answer, None
        return 0, {"progress": answer[0], "status": answer[1]}

    def _within_limit(self, method: str, key: str, at: float, *, refused: bool) -> bool:
        last = self._last.get((method, key))
        if self.limit != "off" and last is not None:
            if self.limit == "window":
                refused |= at // self.interval == last // self.interval
            else:
                refused |= at - last < self.interval
        if self.limit == "strict" or not refused:
            self._last[method, key] = at
        if method == GET_STATUS:
            self.refused += refused
            self.accepted += not refused
        return not refused
