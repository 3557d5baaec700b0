"""Sends answers to peers, fast and slow ones."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler

PIECE: Final = 64 * 1024  # bytes sent at a time, so that a peer that does not read is noticed
SEND_TIMEOUT: Final = 30.0  # seconds for a whole answer


async def send(request: web.Request, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Answer in pieces, so that many peers that do not read cost little memory."""
    if len(body) <= PIECE:
        return web.Response(body=body, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        async with _send_timeout(request):
            for at in range(0, len(body), PIECE):
                await response.write(body[at : at + PIECE])
    return response


@contextlib.asynccontextmanager
async def _send_timeout(request: web.Request) -> AsyncIterator[None]:
    """Hang up on a peer that has not taken its answer in time."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


@web.middleware
async def abort_slow_readers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: every answer, also a refusal, is taken in time or not at all."""
    response: web.StreamResponse
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        response = refusal
    async with _send_timeout(request):
        await response.prepare(request)
        await response.write_eof()
    return response


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header (RFC 9110, 12.5.3) allows gzip."""
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
