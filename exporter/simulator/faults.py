"""What can go wrong with an answer, and how it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn, TypeAlias

from aiohttp import web

TOO_OFTEN: Final = 30
REGULAR: Final = -1  # as the code of a fault: the code that is answered without the fault

Act: TypeAlias = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""What a fault does with a request and the body that would have answered it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Replaces the regular answer; see `Simulator.faults`.

    `act` answers. `code` is the Mobizon code that the client gets to see, None if it sees none. `applies`
    is called once for each request, with the age of the simulator in seconds.
    """

    act: Act
    code: int | None = None
    applies: Callable[[float], bool] = lambda _: True

    def only(
        self, *, times: float = math.inf, every: int = 1, since: float = 0.0, until: float = math.inf
    ) -> Fault:
        """The same fault for one in `every` requests, at most `times` of them.

        Only requests count that arrive while the simulator is between `since` and `until` seconds old.
        """
        seen = applied = 0

        def applies(age: float) -> bool:
            nonlocal seen, applied
            if applied >= times or not since <= age < until:
                return False
            seen += 1
            chosen = seen % every == 0
            applied += chosen
            return chosen

        return replace(self, applies=applies)


def http(status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answers with another HTTP status, headers and body."""

    async def act(_request: web.Request, _body: bytes) -> web.StreamResponse:
        return respond(body, status, headers)

    return Fault(act)


def body(content: bytes, *, headers: Mapping[str, str] | None = None) -> Fault:
    """Answers HTTP 200 with these very bytes, which need not be JSON."""
    return http(200, headers=headers, body=content)


def code(number: int, *, data: Any = None, message: str | None = None) -> Fault:
    """Answers with a Mobizon code; 30 counts as refused."""
    return replace(body(envelope(number, data, message)), code=number)


def refuse() -> Fault:
    """Answers that requests come too often, also where they do not."""
    return code(TOO_OFTEN, data=[])


def redirect(url: str, status: int = 302) -> Fault:
    """Redirects the client to `url`."""
    return http(status, headers={"Location": url})


def delay(seconds: float, then: Fault | None = None) -> Fault:
    """Answers that much later: regularly, or as another fault has it."""

    async def act(request: web.Request, regular: bytes) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await then.act(request, regular) if then else respond(regular)

    return Fault(act, code=then.code if then else REGULAR)


def hang() -> Fault:
    """Never answers."""

    async def act(_request: web.Request, _body: bytes) -> web.StreamResponse:
        await _wait_for_disconnect()

    return Fault(act)


def reset() -> Fault:
    """Aborts the connection, which the peer sees as "connection reset"."""

    async def act(request: web.Request, _body: bytes) -> web.StreamResponse:
        if request.transport is not None:
            # Without lingering the kernel sends RST in place of FIN.
            linger = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.transport.abort()
        await _wait_for_disconnect()

    return Fault(act)


def huge(size: int) -> Fault:
    """Streams `size` bytes of a JSON string without an end, or until the peer disconnects."""

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
        await _wait_for_disconnect()

    return Fault(act, code=REGULAR)


async def _wait_for_disconnect() -> NoReturn:
    """Waits for the connection to be lost or the simulator to be stopped: both cancel the handler."""
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


def envelope(number: int, data: Any, message: str | None = None) -> bytes:
    """The body of an answer; without a message of its own, an error gets one."""
    message = message if message is not None else f"simulated error {number}" if number else ""
    return json.dumps({"code": number, "data": data, "message": message}, separators=(",", ":")).encode()


def respond(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with that body, said to be JSON."""
    return web.Response(
        body=content, status=status, headers={"Content-Type": "application/json", **(headers or {})}
    )
