"""Basic auth and headers, as clients meet them."""

from __future__ import annotations

import asyncio
import base64
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import aiohttp
import bcrypt
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import Secret
from exporter.web import auth
from exporter.web.webconfig import WebConfig
from tests.support.certificates import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PASSWORD = "pässword"
CHEAP, DEAR = 4, 6


def hashed(password: str, cost: int = CHEAP) -> Secret:
    return Secret(bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode())


ALICE = hashed(PASSWORD)
BOB = hashed("bob's: own", DEAR)


class Calls:
    """Counts what bcrypt is asked, by cost; while `gate` is clear it does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.costs: list[int] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._checkpw = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, stored: bytes) -> bool:
        self.costs.append(int(stored[4:6]))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        return self._checkpw(password, stored)

    def work(self) -> int:
        """What was computed since the last call, in rounds."""
        costs, self.costs = self.costs, []
        return sum(2**cost for cost in costs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def application(config: WebConfig) -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello", headers={"Content-Security-Policy": "default-src 'none'"})

    async def broken(_request: web.Request) -> web.Response:
        raise RuntimeError

    app = web.Application()
    for path in ("/", "/-/healthy", "/-/ready"):
        app.router.add_get(path, hello)
    app.router.add_get("/broken", broken)
    auth.protect(app, config)
    return app


class Client:
    """Asks the server over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def ask(
        self, header: str | None = None, path: str = "/", method: str = "GET"
    ) -> tuple[int, Mapping[str, str]]:
        headers = {} if header is None else {"Authorization": header}
        async with self._session.request(method, self._url + path, headers=headers) as response:
            await response.read()
            return response.status, response.headers

    async def login(self, user: str, password: str) -> int:
        return (await self.ask(basic(f"{user}:{password}".encode())))[0]


def basic(credentials: bytes) -> str:
    return f"Basic {base64.b64encode(credentials).decode()}"


@pytest.fixture
async def client(calls: Calls) -> AsyncIterator[Client]:
    app = application(WebConfig(users={"alice": ALICE, "bob": BOB}))
    async with serving(app) as port, aiohttp.ClientSession() as session:
        yield Client(session, port)


async def test_users_are_let_in_and_others_are_not(client: Client) -> None:
    assert await client.login("alice", PASSWORD) == 200
    assert await client.login("bob", "bob's: own") == 200
    assert await client.login("alice", "bob's: own") == 401
    assert await client.login("carol", PASSWORD) == 401
    assert await client.login("", "") == 401


@pytest.mark.parametrize("prefix", ["$2a", "$2b", "$2y"])
async def test_every_kind_of_bcrypt_hash_is_understood(prefix: str) -> None:
    app = application(WebConfig(users={"alice": Secret(prefix + ALICE.reveal()[3:])}))
    async with serving(app) as port, aiohttp.ClientSession() as session:
        assert await Client(session, port).login("alice", PASSWORD) == 200
        assert await Client(session, port).login("alice", "x") == 401


@pytest.mark.parametrize(
    ("path", "method"),
    [("/", "GET"), ("/-/healthy", "GET"), ("/-/ready", "GET"), ("/missing", "GET"), ("/", "POST")],
)
async def test_every_path_is_protected_and_says_how_to_log_in(client: Client, path: str, method: str) -> None:
    status, headers = await client.ask(path=path, method=method)
    assert status == 401
    assert headers["WWW-Authenticate"] == 'Basic realm="mobizon-exporter", charset="UTF-8"'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YWxpY2U",  # no padding
        "Basic YWxp\u00e9",
        "Bearer " + basic(f"alice:{PASSWORD}".encode())[6:],
        basic(b"alice"),
        basic(b"alice:\xff\xfe"),
        basic(f"alice:{PASSWORD}\0".encode()),
        basic(f"alice:{PASSWORD}\0{PASSWORD}".encode()),  # which bcrypt takes for the password
        basic(b"alice:" + b"x" * 73),
        basic(f"alice:{'ö' * 37}".encode()),
        basic(b"x" * 5000),
    ],
)
async def test_a_malformed_header_is_a_401_without_bcrypt(
    client: Client, calls: Calls, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    assert (await client.ask(header))[0] == 401
    assert not calls.costs
    assert not caplog.records


async def test_the_longest_password_is_a_password() -> None:
    password = "x" * 72
    async with (
        serving(application(WebConfig(users={"alice": hashed(password)}))) as port,
        aiohttp.ClientSession() as session,
    ):
        assert await Client(session, port).login("alice", password) == 200
        assert await Client(session, port).login("alice", password + "x") == 401


async def test_the_scheme_is_case_insensitive(client: Client) -> None:
    header = basic(f"alice:{PASSWORD}".encode())
    assert (await client.ask(header.replace("Basic", "bAsIC")))[0] == 200


@given(st.text())
def test_no_header_raises(header: str) -> None:
    auth._credentials(header)
    auth._credentials(f"Basic {header}")


@given(st.binary())
def test_no_credentials_raise(credentials: bytes) -> None:
    found = auth._credentials(basic(credentials))
    assert found is None or ":".join(found).encode() == credentials


# What it costs


async def test_bcrypt_runs_once_for_many_requests_and_never_on_the_loop(client: Client, calls: Calls) -> None:
    answers = await asyncio.gather(*(client.login("bob", "bob's: own") for _ in range(20)))
    answers += [await client.login("bob", "bob's: own") for _ in range(5)]
    assert answers == [200] * 25
    assert calls.costs == [DEAR]
    assert threading.current_thread().name not in calls.threads
    assert len(calls.threads) == 1


async def test_a_check_under_way_is_shared_by_nobody_else(calls: Calls) -> None:
    users = auth.BasicAuth({"alice": ALICE, "bob": BOB})
    calls.gate.clear()
    try:
        checks = [asyncio.create_task(users._admits(user, PASSWORD)) for user in ("alice", "bob", "carol")]
        await asyncio.sleep(0)  # all have asked
    finally:
        calls.gate.set()
    assert await asyncio.gather(*checks) == [True, False, False]
    await users.close(web.Application())


async def test_a_bad_password_is_computed_anew_and_spoils_nothing(client: Client, calls: Calls) -> None:
    assert await client.login("bob", "bob's: own") == 200
    assert [await client.login("bob", "x") for _ in range(2)] == [401, 401]
    assert calls.costs == [DEAR] * 3
    assert await client.login("bob", "bob's: own") == 200
    assert calls.costs == [DEAR] * 3


async def test_every_failure_computes_the_same_whoever_it_is(client: Client, calls: Calls) -> None:
    for known in (False, True):
        if known:  # with good passwords remembered
            await client.login("alice", PASSWORD)
            await client.login("bob", "bob's: own")
            calls.work()
        for user in ("alice", "bob", "carol", ""):
            assert await client.login(user, "x") == 401
            assert calls.work() == 2**DEAR


async def test_a_flood_of_guesses_is_bounded_and_hinders_nobody_who_is_known(
    client: Client, calls: Calls
) -> None:
    assert await client.login("alice", PASSWORD) == 200
    calls.gate.clear()
    try:
        many = range(auth.WAITING_CHECKS + 3)
        guesses = [asyncio.create_task(client.login("bob", f"x{n}")) for n in many]
        refused: set[asyncio.Task[int]] = set()
        while len(refused) < 3:
            done, _ = await asyncio.wait({*guesses} - refused, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        assert [task.result() for task in refused] == [503] * 3
        status, headers = await client.ask(basic(b"carol:x"))
        assert (status, headers["Retry-After"]) == (503, str(auth.RETRY_AFTER))
        assert await client.login("alice", PASSWORD) == 200
    finally:
        calls.gate.set()
    assert sorted(await asyncio.gather(*guesses)) == [401] * auth.WAITING_CHECKS + [503] * 3
    assert await client.login("bob", "bob's: own") == 200


async def test_a_client_that_leaves_does_not_spoil_the_check_for_others(calls: Calls) -> None:
    users = auth.BasicAuth({"bob": BOB})
    calls.gate.clear()
    try:
        leaves, stays = (asyncio.create_task(users._admits("bob", "bob's: own")) for _ in range(2))
        await asyncio.sleep(0)  # both have asked
        leaves.cancel()
    finally:
        calls.gate.set()
    assert await stays
    assert leaves.cancelled()
    assert calls.costs == [DEAR]
    assert not users._checks
    await users.close(web.Application())


async def test_checks_that_wait_are_forgotten_at_the_end(calls: Calls) -> None:
    users = auth.BasicAuth({"bob": BOB})
    calls.gate.clear()
    try:
        guesses = [asyncio.create_task(users._admits("bob", f"x{n}")) for n in range(3)]
        await asyncio.sleep(0)  # all have asked
        await users.close(web.Application())
    finally:
        calls.gate.set()
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert not users._checks


def test_bcrypt_is_not_loaded_without_users() -> None:
    code = (
        "import sys; from aiohttp import web; from exporter.web import auth, webconfig;"
        "auth.protect(web.Application(), webconfig.WebConfig()); sys.exit('bcrypt' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_neither_password_nor_hash_is_kept_or_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    users = auth.BasicAuth({"alice": ALICE})
    assert await users._admits("alice", PASSWORD)
    assert not await users._admits("alice", "wr0ng")
    assert await client.login("alice", PASSWORD) == 200
    shown = f"{vars(users)!r} {caplog.text}"
    assert PASSWORD not in shown
    assert "wr0ng" not in shown
    assert ALICE.reveal() not in shown
    await users.close(web.Application())


# Headers


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [("/", "GET", 200), ("/missing", "GET", 404), ("/", "POST", 405), ("/broken", "GET", 500)],
)
async def test_headers_are_on_every_answer(path: str, method: str, expected: int) -> None:
    headers = {"X-Frame-Options": "deny", "Strict-Transport-Security": "max-age=60"}
    async with (
        serving(application(WebConfig(headers=headers))) as port,
        aiohttp.ClientSession() as session,
    ):
        status, got = await Client(session, port).ask(path=path, method=method)
    assert status == expected
    assert {name: got[name] for name in headers} == headers


async def test_headers_are_on_refusals_too() -> None:
    config = WebConfig(headers={"X-Frame-Options": "deny"}, users={"alice": ALICE})
    async with serving(application(config)) as port, aiohttp.ClientSession() as session:
        status, headers = await Client(session, port).ask()
    assert (status, headers["X-Frame-Options"]) == (401, "deny")


async def test_a_policy_stands_beside_the_page_s_own() -> None:
    config = WebConfig(headers={"Content-Security-Policy": "frame-ancestors 'none'"})
    async with (
        serving(application(config)) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as response,
    ):
        policies = response.headers.getall("Content-Security-Policy")
    assert policies == ["default-src 'none'", "frame-ancestors 'none'"]
