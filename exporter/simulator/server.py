"""The simulated API's server: its method, its key check, its limit."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import UserDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aiohttp import web

from exporter.simulator.demo import DEMO_KEY
from exporter.simulator.faults import REGULAR, TOO_OFTEN, Fault, envelope, respond
from exporter.simulator.scenarios import NOT_FOUND, Life

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Limit: TypeAlias = Literal["strict", "lenient", "window", "off"]


class _Lives(UserDict[int, Life]):
    """Lives by task id, each with the moment it began, for a task that is added or replaced starts anew."""

    def __init__(self, clock: Callable[[], float], lives: Mapping[int, Life]) -> None:
        self.clock = clock
        self.began: dict[int, float] = {}
        super().__init__(lives)

    def __setitem__(self, task_id: int, life: Life) -> None:
        self.began[task_id] = self.clock()  # first, as a request may come in between
        super().__setitem__(task_id, life)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived: `at` is when its last byte had, in seconds of the simulator's clock.

    `code` is what was, or will be, answered; None if no Mobizon envelope is.
    """

    at: float
    key: str
    task_id: int | None
    code: int | None


class Simulator:
    """Serves `POST /service/taskqueue/getStatus` as Mobizon does, for any number of keys.

    - `lives`: what each task does; its age counts from the first start, or from when it was added.
    - `keys`: the keys that are let in. Each has a limit of its own, one request per `interval` seconds:
      "strict" refuses what comes less than `interval` after the previous request, accepted or not,
      "lenient" after the last accepted one, "window" accepts one request per `interval` of the clock.
    - `faults`: what goes wrong, by task id, or for every task under None; a task's own comes first. A fault
      takes the place of any answer, even to a wrong key. The limit sees the request all the same.
    - `requests`: the last `history` requests that arrived. `refused` counts those of known keys that came too
      early or met `refuse()`, `accepted` the other ones that had any business with the limit.

    `latency` (seconds, from and to) is waited out after the limit has been measured, and up to `jitter`
    seconds before, as if the network had taken them. `clock` drives lives and limit, never the waiting.
    Lives, keys and faults may be changed from any thread at any time.
    """

    def __init__(  # noqa: PLR0913 - all but the first are keywords with defaults
        self,
        lives: Mapping[int, Life],
        *,
        keys: Iterable[str] = (DEMO_KEY,),
        interval: float = 1.0,
        limit: Limit = "strict",
        latency: tuple[float, float] = (0.0, 0.0),
        jitter: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        history: int = 10_000,
    ) -> None:
        self.lives = _Lives(clock, lives)
        self.keys = set(keys)
        self.faults: dict[int | None, Fault] = {}
        self.interval = interval
        self.limit: Limit = limit
        self.latency = latency
        self.jitter = jitter
        self.requests: deque[Request] = deque(maxlen=history)
        self.accepted = self.refused = 0
        self.url = ""
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - picks delays and oddities, no secrets
        self._began: float | None = None
        self._last: dict[str, float] = {}
        self._handlers: dict[asyncio.Task[Any], web.Request] = {}
        self._news = threading.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def in_flight(self) -> int:
        """How many requests are being answered at this moment."""
        return len(self._handlers)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; `url` tells where. OSError if the address cannot be had."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_shutdown.append(self._hang_up)
        # No access log, as it would print keys.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
        if self._began is None:
            self._began = self._clock()
            self.lives.began.update(dict.fromkeys(self.lives, self._began))

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
        with self._news:
            if not self._news.wait_for(condition, timeout):
                raise TimeoutError(f"not within {timeout} s")

    async def _hang_up(self, _app: web.Application) -> None:
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
        with self._news:
            self._handlers[handler] = request
            self._news.notify_all()
        try:
            return await self._respond(request)
        finally:
            with self._news:
                del self._handlers[handler]
                self._news.notify_all()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        await request.read()  # post() would not wait for a body that is no form
        if self.jitter:
            await asyncio.sleep(self._random.uniform(0, self.jitter))
        at = self._clock()
        form = await request.post()
        key = request.query.get("apiKey", "")
        given = str(form.get("id", ""))
        task_id = int(given) if re.fullmatch("[1-9][0-9]{0,17}", given) else None
        with self._news:
            fault = self._fault(task_id, at - (self._began or 0.0))
            refused = fault is not None and fault.code == TOO_OFTEN
            number, data = self._answer(request, key, task_id, at, refused=refused)
            seen = number if fault is None or fault.code == REGULAR else fault.code
            self.requests.append(Request(at, key, task_id, seen))
            self._news.notify_all()
        regular = envelope(number, data)
        await asyncio.sleep(self._random.uniform(*self.latency))
        return respond(regular) if fault is None else await fault.act(request, regular)

    def _fault(self, task_id: int | None, age: float) -> Fault | None:
        for key in dict.fromkeys((task_id, None)):
            fault = self.faults.get(key)
            if fault is not None and fault.strikes(age):
                return fault
        return None

    def _answer(
        self, request: web.Request, key: str, task_id: int | None, at: float, *, refused: bool
    ) -> tuple[int, Any]:
        """The code and the data of the regular answer."""
        service, module, method, *_ = (*request.path.lower().strip("/").split("/"), "", "", "")
        checks = (
            ((service, module) == ("service", "taskqueue"), 4),
            (method == "getstatus", 5),
            ((request.query.get("output"), request.query.get("api")) == ("json", "v1"), 6),
            (key in self.keys, 8),
        )
        failed = next((number for passed, number in checks if not passed), 0)
        nothing: Any = self._random.choice((None, [], "", False))  # what PHP has for "no data"
        if failed:
            return failed, nothing
        if not self._admits(key, at, refused=refused):
            return TOO_OFTEN, nothing
        if task_id is None:
            return 1, {"id": "not a positive integer"}
        life = self.lives.get(task_id)
        answer = NOT_FOUND if life is None else life(at - self.lives.began[task_id])
        if isinstance(answer, int):
            return answer, nothing
        return 0, {"progress": answer[0], "status": answer[1]}

    def _admits(self, key: str, at: float, *, refused: bool) -> bool:
        last = self._last.get(key)
        if self.limit != "off" and last is not None:
            if self.limit == "window":
                refused |= at // self.interval == last // self.interval
            else:
                refused |= at - last < self.interval
        if self.limit == "strict" or not refused:
            self._last[key] = at
        self.refused += refused
        self.accepted += not refused
        return not refused
