"""A simulated Mobizon API: one method, its limit, and whatever can go wrong with it, over real HTTP.

`--demo` runs it in the exporter's own loop, the tests in a thread (`SimulatorThread`). The method, its
parameters and the fields of its answer are those of the page "taskqueue/getStatus" of Mobizon's API
documentation. How Mobizon keeps its limit is known to nobody outside; `limit` offers three guesses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import socket
import struct
import threading
import time
from collections import UserDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn, TypeAlias

from aiohttp import web

from exporter.model import Status, TaskSpec

DEMO_KEY: Final = "SimulatedKeyThatOpensTheDemoAndNoAccount"
NOT_FOUND: Final = 2
TOO_OFTEN: Final = 30
REGULAR: Final = -1  # as the code of a fault: whatever would have been answered without it

Limit: TypeAlias = Literal["strict", "lenient", "window", "off"]
Number: TypeAlias = float | str
Answer: TypeAlias = tuple[Number, Number] | int
"""What is said of a task: its progress and status, or the code of an error."""
Life: TypeAlias = Callable[[float], Answer]
"""How a task lives: what is said of it when it is that many seconds old."""
Act: TypeAlias = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""What a fault does with a request and the body that would have answered it."""


def waiting() -> Life:
    """Waits to be started, for ever."""
    return lambda _: (0, Status.WAITING)


def completed() -> Life:
    """Was done before anybody asked."""
    return lambda _: (100, Status.COMPLETED)


def missing() -> Life:
    """Does not exist: code 2."""
    return lambda _: NOT_FOUND


def stalled(at: int = 50) -> Life:
    """Is in progress and never moves from `at` percent."""
    return lambda _: (at, Status.IN_PROGRESS)


def growing(seconds: float, delay: float = 0.0) -> Life:
    """Waits for `delay` seconds, grows to 100 percent within `seconds`, and is completed."""

    def life(age: float) -> Answer:
        if age < delay:
            return 0, Status.WAITING
        if age < delay + seconds:
            return int(100 * (age - delay) / seconds), Status.IN_PROGRESS
        return 100, Status.COMPLETED

    return life


def rejected(after: float = 0.0, at: int = 0) -> Life:
    """Grows to `at` percent within `after` seconds, and is rejected there."""
    return lambda age: (int(at * age / after), Status.IN_PROGRESS) if age < after else (at, Status.REJECTED)


def repeating(period: float, life: Life) -> Life:
    """Lives the first `period` seconds of `life` again and again."""
    return lambda age: life(age % period)


def flaky(life: Life, *, code: int = 3, every: float = 60.0, lasting: float = 10.0) -> Life:
    """Answers `code` in the last `lasting` of `every` so many seconds, and lives on meanwhile."""
    return lambda age: code if age % every >= every - lasting else life(age)


def as_strings(life: Life) -> Life:
    """Says its numbers as JSON strings, which PHP does now and then."""

    def said(age: float) -> Answer:
        answer = life(age)
        return answer if isinstance(answer, int) else (str(answer[0]), str(answer[1]))

    return said


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in place of the regular answer; see `Simulator.faults`.

    `act` does it. `code` is the Mobizon code that the client gets to see, None if it sees none. `strikes`
    is asked once for each request, with the age of the simulator in seconds.
    """

    act: Act
    code: int | None = None
    strikes: Callable[[float], bool] = lambda _: True

    def only(
        self, *, times: float = math.inf, every: int = 1, since: float = 0.0, until: float = math.inf
    ) -> Fault:
        """The same fault, striking now and then.

        It strikes one in `every` requests, so many `times`, while the simulator is between `since` and
        `until` seconds old.
        """
        met = struck = 0

        def strikes(age: float) -> bool:
            nonlocal met, struck
            if struck >= times or not since <= age < until:
                return False
            met += 1
            strike = met % every == 0
            struck += strike
            return strike

        return replace(self, strikes=strikes)


def http(status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answers with another HTTP status, headers and body."""

    async def act(_request: web.Request, _body: bytes) -> web.StreamResponse:
        return _response(body, status, headers)

    return Fault(act)


def body(content: bytes, *, headers: Mapping[str, str] | None = None) -> Fault:
    """Answers HTTP 200 with these very bytes, which need not be JSON."""
    return http(200, headers=headers, body=content)


def code(number: int, *, data: Any = None, message: str | None = None) -> Fault:
    """Answers with a Mobizon code; 30 counts as refused."""
    return replace(body(_envelope(number, data, message)), code=number)


def refuse() -> Fault:
    """Answers that requests come too often, whether they do or not."""
    return code(TOO_OFTEN, data=[])


def redirect(url: str, status: int = 302) -> Fault:
    """Sends the client elsewhere."""
    return http(status, headers={"Location": url})


def delay(seconds: float, then: Fault | None = None) -> Fault:
    """Answers that much later: regularly, or as another fault has it."""

    async def act(request: web.Request, regular: bytes) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await then.act(request, regular) if then else _response(regular)

    return Fault(act, code=then.code if then else REGULAR)


def hang() -> Fault:
    """Never answers."""

    async def act(_request: web.Request, _body: bytes) -> web.StreamResponse:
        await _until_gone()

    return Fault(act)


def reset() -> Fault:
    """Aborts the connection, which the peer sees as "connection reset"."""

    async def act(request: web.Request, _body: bytes) -> web.StreamResponse:
        if request.transport is not None:
            # Without lingering the kernel sends RST in place of FIN.
            linger = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.transport.abort()
        await _until_gone()

    return Fault(act)


def huge(size: int) -> Fault:
    """Streams `size` bytes of a JSON string without an end, until the peer has had enough."""

    async def act(request: web.Request, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = size
        piece, left = b'{"code":0,"data":"'.ljust(65536, b"x"), size
        with contextlib.suppress(ConnectionError):  # the peer is free to leave
            await response.prepare(request)
            while left > 0:
                await response.write(piece[:left])
                piece, left = b"x" * len(piece), left - len(piece)
        return response

    return Fault(act)


def drip(interval: float, part: Literal["headers", "body"] = "body") -> Fault:
    """Sends the regular answer a byte every `interval` seconds, from its headers on or in its body alone.

    A time-out on single reads that is longer than `interval` never notices.
    """

    async def act(request: web.Request, regular: bytes) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            head += b"Content-Length: %d\r\n\r\n" % len(regular)
            if part == "body":
                transport.write(head)
            for byte in regular if part == "body" else head + regular:
                transport.write(bytes([byte]))
                await asyncio.sleep(interval)
            transport.close()
        await _until_gone()

    return Fault(act, code=REGULAR)


async def _until_gone() -> NoReturn:
    """Waits for the connection to be lost or the simulator to be stopped: both cancel the handler."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


def _envelope(number: int, data: Any, message: str | None = None) -> bytes:
    message = message if message is not None else f"simulated error {number}" if number else ""
    return json.dumps({"code": number, "data": data, "message": message}, separators=(",", ":")).encode()


def _response(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=content, status=status, headers={"Content-Type": "application/json", **(headers or {})}
    )


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

    `latency` (seconds, from and to) is waited out after the limit has been measured. `clock` drives lives
    and limit, never the waiting. Lives, keys and faults may be changed from any thread at any time.
    """

    def __init__(  # noqa: PLR0913 - all but the first are keywords with defaults
        self,
        lives: Mapping[int, Life],
        *,
        keys: Iterable[str] = (DEMO_KEY,),
        interval: float = 1.0,
        limit: Limit = "strict",
        latency: tuple[float, float] = (0.0, 0.0),
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
        regular = _envelope(number, data)
        await asyncio.sleep(self._random.uniform(*self.latency))
        return _response(regular) if fault is None else await fault.act(request, regular)

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


class SimulatorThread:
    """Runs a simulator in a thread with a loop of its own: `with SimulatorThread(Simulator({})) as sim:`."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)

    def __enter__(self) -> Simulator:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._simulator.start(), self._loop).result()
        except BaseException:
            self.__exit__()
            raise
        return self._simulator

    def __exit__(self, *_: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._simulator.stop(), self._loop).result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def demo_lives() -> list[tuple[TaskSpec, Life]]:
    """The tasks of the demo, which between them show every state within two minutes.

    The exporter does not ask again for what is completed or rejected, so that some wait, or are in
    progress, even after hours.
    """
    crm, marketing = {"team": "crm"}, {"team": "marketing"}
    return [
        (TaskSpec(101, "spring-sale-recipients", marketing), growing(45, delay=10)),
        (TaskSpec(102, "contacts-import-crm", crm), growing(4 * 3600)),
        (TaskSpec(103, "monthly-report"), completed()),
        (TaskSpec(104, "black-friday-recipients", marketing), waiting()),
        (TaskSpec(105, "contacts-import-legacy", crm), rejected(after=40, at=55)),
        (TaskSpec(106, "loyalty-recipients", marketing), stalled(at=37)),
        (TaskSpec(107, "delivery-report-deleted"), missing()),
        (TaskSpec(108, "newsletter-recipients", marketing), as_strings(growing(600, delay=30))),
        (TaskSpec(109, "campaign-report-weekly"), flaky(growing(1800), every=60, lasting=15)),
        (TaskSpec(110, "contacts-sync-nightly", crm), repeating(170, growing(150, delay=30))),
    ]
