"""Who may ask: client certificates by name, basic auth; and headers on every answer.

For aiohttp.web, by what a WebConfig says. Every path is protected, the health checks too, as in
Prometheus's exporter-toolkit.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.typedefs import Handler, Middleware

    from exporter.model import Secret
    from exporter.web.webconfig import WebConfig

WAITING_CHECKS: Final = 16
RETRY_AFTER: Final = 5  # seconds; about what the waiting checks take at bcrypt's cost 12
MAX_PASSWORD: Final = 72  # bytes; bcrypt takes no more, and some of its libraries cut off the rest

# bcrypt takes "a" and "a\0a" for the same, and RFC 7617 forbids control characters anyhow
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def protect(app: web.Application, config: WebConfig) -> None:
    """Put all that `config` asks of requests before the handlers of `app`, and its headers on every answer.

    To be called before `app` runs. Requests so malformed that no handler sees them get aiohttp's bare 400.
    """
    guards: list[Middleware] = []
    if config.tls and config.tls.allowed_sans:
        guards.append(allowed_clients(config.tls.allowed_sans))
    if config.users:
        auth = BasicAuth(config.users)
        guards.append(auth.guard)
        app.on_cleanup.append(auth.close)
    for guard in reversed(guards):
        app.middlewares.insert(0, guard)
    if config.headers:
        app.on_response_prepare.append(extra_headers(config.headers))


class BasicAuth:
    """Basic authentication (RFC 7617) against bcrypt hashes, which one thread computes.

    One thread, so that guessing costs one core at most; at most WAITING_CHECKS checks wait for it, above
    which the answer is 503. The last good password of each user is remembered, as a digest under a key of
    this process, and is let in without bcrypt. Timing does not reveal which users exist: every check
    computes as much as the most expensive hash configured, for unknown names too.
    """

    def __init__(self, users: Mapping[str, Secret]) -> None:
        import bcrypt  # start-up time and memory of those who need it

        self._checkpw = bcrypt.checkpw
        self._users = users
        self._cost = max(_cost(hashed.reveal()) for hashed in users.values())
        self._key = secrets.token_bytes(32)
        self._no_proof = secrets.token_bytes(32)
        self._good: dict[str, bytes] = {}
        self._checks: dict[bytes, asyncio.Future[bool]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Authentication middleware: 401 without valid credentials, 503 when too many checks wait."""
        credentials = _credentials(request.headers.get("Authorization", ""))
        if credentials:
            try:
                admitted = await self._admits(*credentials)
            except _BusyError:
                return web.Response(
                    status=503,
                    text="503: too many logins at once\n",
                    headers={"Retry-After": str(RETRY_AFTER)},
                )
            if admitted:
                return await handler(request)
        challenge = {"WWW-Authenticate": 'Basic realm="mobizon-exporter", charset="UTF-8"'}
        return web.Response(status=401, text="401: Unauthorized\n", headers=challenge)

    async def close(self, _app: web.Application) -> None:
        """Forget the checks that wait; one that runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _admits(self, user: str, password: str) -> bool:
        proof = hashlib.blake2b(f"{user}:{password}".encode(), key=self._key, digest_size=32).digest()
        if hmac.compare_digest(self._good.get(user, self._no_proof), proof):
            return True
        check = self._checks.get(proof)
        if check is None:
            if len(self._checks) >= WAITING_CHECKS:
                raise _BusyError
            loop = asyncio.get_running_loop()
            check = loop.run_in_executor(self._pool, self._compare, user, password.encode())
            self._checks[proof] = check
            check.add_done_callback(lambda done: self._settle(user, proof, done))
        # shielded, for others may wait for the same check
        return await asyncio.shield(check)

    def _settle(self, user: str, proof: bytes, done: asyncio.Future[bool]) -> None:
        del self._checks[proof]
        if not done.cancelled() and not done.exception() and done.result():
            self._good[user] = proof

    def _compare(self, user: str, password: bytes) -> bool:
        stored = self._users.get(user)
        hashed = stored.reveal() if stored else _dummy(self._cost)
        good = self._checkpw(password, hashed.encode())
        # each step of cost doubles the work: own + own + own+1 + ... + dearest-1 = dearest
        for cost in range(_cost(hashed), self._cost):
            self._checkpw(password, _dummy(cost).encode())
        return good and stored is not None


def allowed_clients(sans: frozenset[str]) -> Middleware:
    """Middleware: 403, and the end of the connection, without one of these names in the client's certificate.

    OpenSSL has verified the certificate before; Python has no hook to refuse it in the handshake.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert") or {}
        names = {_san(kind, name) for kind, name in certificate.get("subjectAltName", ())}
        if names & sans:
            return await handler(request)
        refusal = web.Response(status=403, text="403: this client certificate is not allowed\n")
        refusal.force_close()
        return refusal

    return guard


def extra_headers(headers: Mapping[str, str]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal for `on_response_prepare`: these headers on every answer, errors included.

    They replace what a handler has set; but a Content-Security-Policy is sent in addition to the handler's
    own, as browsers then obey both.
    """

    async def add(_request: web.Request, response: web.StreamResponse) -> None:
        for name, value in headers.items():
            if name == "Content-Security-Policy":
                response.headers.add(name, value)
            else:
                response.headers[name] = value

    return add


class _BusyError(Exception):
    """Too many checks wait."""


def _credentials(header: str) -> tuple[str, str] | None:
    """User and password of an Authorization header; None if no user can have them."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, not ASCII before or not UTF-8 after decoding
        return None
    if not colon or _CONTROL.search(user + password) or len(password.encode()) > MAX_PASSWORD:
        return None
    return user, password


def _cost(hashed: str) -> int:
    return int(hashed[4:6])


def _dummy(cost: int) -> str:
    """A well-formed hash of this cost that no password is known to have."""
    return f"$2b${cost:02}${'.' * 53}"


def _san(kind: str, name: str) -> str:
    """A subject alternative name as Go writes it, by which the toolkit's configurations list it."""
    return str(ipaddress.ip_address(name.strip())) if kind == "IP Address" else name
