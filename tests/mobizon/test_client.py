"""One request to Mobizon: what is sent, what is made of every answer, and what it may cost."""

from __future__ import annotations

import errno
import gc
import gzip
import itertools
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from exporter import __version__, simulator
from exporter.errors import ApiError, Reason, Scope
from exporter.mobizon import client as client_module
from exporter.mobizon import response as answer_module
from exporter.mobizon.client import LARGEST_ANSWER, PATH, Client
from exporter.mobizon.connection import Call, WatchedAdapter, _Lifeline
from exporter.model import Api, Reading, Secret
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
KEY = DEMO_KEY
NOW = 1767225600.0
SOON = 10.0  # seconds; more than anything here takes, so that it only ends what would not end by itself
GIB = 2**30
GOOD = b'{"code":0,"data":{"progress":40,"status":1},"message":""}'


class Gone(Exception):  # noqa: N818 - an event more than an error
    """The client has left."""


class Visit:
    """One connection to a Peer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read = b""

    def request(self) -> tuple[bytes, bytes]:
        """Head and body of the next request; Gone if there is none."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        length = int(header(head, "Content-Length") or 0)
        while len(self._read) < length:
            self._receive()
        body, self._read = self._read[:length], self._read[length:]
        return head, body

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone from None

    def answer(self, body: bytes = GOOD, *headers: str, status: str = "200 OK") -> None:
        self.send(head_of(f"Content-Length: {len(body)}", *headers, status=status) + body)

    def wait_until_gone(self) -> None:
        while True:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise Gone
        self._read += data


class Peer:
    """A server on a free loopback port that treats every connection as it is told to."""

    def __init__(self, treat: Callable[[Visit], None], *, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._treat = treat
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="peer")]
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the one who accepts
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(sock,), name="peer")
                with self._lock:
                    self._open.add(sock)
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        with suppress(Gone, OSError):
            if self._tls:
                sock = self._tls.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open.add(sock)
            self._treat(_Noted(sock, self))
        with self._lock:
            self._open -= {plain, sock}
        sock.close()
        plain.close()


class _Noted(Visit):
    """A visit whose requests the peer keeps."""

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        super().__init__(sock)
        self._peer = peer

    def request(self) -> tuple[bytes, bytes]:
        head, body = super().request()
        self._peer.heads.append(head)
        self._peer.bodies.append(body)
        return head, body


def head_of(*headers: str, status: str = "200 OK") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode()


def header(head: bytes, name: str) -> str | None:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def good(visit: Visit) -> None:
    """Answers every request, and keeps the connection."""
    while True:
        visit.request()
        visit.answer()


def sending(data: bytes) -> Callable[[Visit], None]:
    """Answers a request with these very bytes, and closes the connection."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.send(data)

    return treat


def chunked(*pieces: bytes) -> Callable[[Visit], None]:
    return sending(head_of("Transfer-Encoding: chunked") + b"".join(pieces))


def dripping(head: bytes, piece: bytes = b" ", interval: float = 0.02) -> Callable[[Visit], None]:
    """Answers with this head and then, for ever, another piece now and then."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.send(head)
        while True:
            visit.send(piece)
            time.sleep(interval)

    return treat


def streaming(head: bytes, size: int = 2 * GIB) -> Callable[[Visit], None]:
    """Answers with this head and then that many bytes, until the client has had enough."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.send(head)
        for _ in range(size // 65536):
            visit.send(b"x" * 65536)

    return treat


def silent(visit: Visit) -> None:
    """Never says anything, not in a TLS handshake either."""
    visit.wait_until_gone()


def resetting(visit: Visit) -> None:
    """Aborts the connection once the request is there."""
    visit.request()
    visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BROKEN: dict[str, Callable[[Visit], None]] = {
    "closed before the request": lambda visit: None,
    "closed without an answer": sending(b""),
    "reset": resetting,
    "garbage": sending(b"\x00\x01\x02 garbage \xff\r\n\r\n"),
    "another protocol": sending(b"220 mail.example ESMTP\r\n"),
    "closed within the body": sending(head_of("Content-Length: 500") + GOOD[:20]),
    "a whole document, but shorter than declared": sending(head_of("Content-Length: 500") + GOOD),
    "lengths that differ": sending(head_of("Content-Length: 5, 6") + GOOD),
    "endless header": sending(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000),
    "too many headers": sending(head_of(*(f"X-{n}: x" for n in range(200)))),
    "chunk of no size": chunked(b"zz\r\n", GOOD),
    "chunk of negative size": chunked(b"-5\r\n", GOOD),
    "chunk of all there is": chunked(b"-1\r\n", GOOD),
    "chunk cut short": chunked(b"100\r\n", GOOD),
    "chunks without an end": chunked(b"%x\r\n" % len(GOOD), GOOD, b"\r\n"),
}
"""Answers that are no HTTP: each is a connection_error."""


def api(url: str, key: str = KEY, timeout: float = SOON, **settings: Any) -> Api:
    return Api(url, Secret(key), timeout=timeout, **settings)


class Asking:
    """A request under way in a thread of its own."""

    def __init__(self, client: Client, settings: Api, task_id: int = 7) -> None:
        self.sent: list[float] = []
        self.call = Call(settings.timeout, self.sent.append, time.monotonic)
        self._outcome: Reading | ApiError | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(client, settings, task_id), name="asking")
        self._thread.start()

    def _run(self, client: Client, settings: Api, task_id: int) -> None:
        try:
            self._outcome = client.get_status(settings, task_id, self.call, lambda: NOW)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shall see it
            self._outcome = error

    def outcome(self) -> Reading | ApiError:
        self._thread.join(SOON)
        ended = not self._thread.is_alive()
        if not ended:
            self.call.expire()
            self._thread.join(SOON)
        assert ended, "the request did not end"
        assert isinstance(self._outcome, Reading | ApiError), self._outcome
        return self._outcome

    def failure(self) -> ApiError:
        outcome = self.outcome()
        assert isinstance(outcome, ApiError)
        return outcome


def ask(client: Client, settings: Api | str, task_id: int = 7) -> Reading | ApiError:
    return Asking(client, api(settings) if isinstance(settings, str) else settings, task_id).outcome()


def failure(client: Client, settings: Api | str) -> ApiError:
    outcome = ask(client, settings)
    assert isinstance(outcome, ApiError)
    return outcome


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that was listing
            found[entry.name] = str(entry.readlink())
    return found


def leading_to(port: int) -> int:
    """How many descriptors of this process are the near end of a connection to this port."""
    found = 0
    for number, opened in descriptors().items():
        if opened.startswith("socket:"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as sock:
                found += sock.family == socket.AF_INET and sock.getpeername()[1] == port
    return found


@contextmanager
def making(ca_file: str | None = None, proxy_url: str | None = None) -> Iterator[Client]:
    client = Client(ca_file, proxy_url, connections=8)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client() -> Iterator[Client]:
    with making() as made:
        yield made


@pytest.fixture
def mobizon() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_context(authority: Authority, *names: Any) -> ssl.SSLContext:
    pair = authority.issue("peer", *names) if names else authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.files)
    return context


URL = "https://api.mobizon.example"


# What is sent


def test_a_request_is_what_mobizon_documents(mobizon: responses.RequestsMock, client: Client) -> None:
    mobizon.post(URL + PATH, body=GOOD)
    assert ask(client, URL, 123) == Reading(40, 1, NOW)
    (call,) = mobizon.calls
    assert urlsplit(call.request.url).path == "/service/taskqueue/getStatus"
    query = parse_qs(str(urlsplit(call.request.url).query))
    assert query == {"output": ["json"], "api": ["v1"], "apiKey": [KEY]}
    assert call.request.body == "id=123"
    assert call.request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert call.request.headers["User-Agent"] == f"mobizon-exporter/{__version__}"
    assert call.request.headers["Accept-Encoding"] == "identity"


def data_segments(sock: socket.socket) -> int:
    """How many segments with data have arrived: tcpi_data_segs_in of Linux's struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", info, 152)[0])


@pytest.mark.parametrize("tls", [False, True])
def test_head_and_body_of_a_request_arrive_in_one_segment(authority: Authority, tls: bool) -> None:
    segments: list[int] = []

    def treat(visit: Visit) -> None:
        while True:
            visit.request()
            segments.append(data_segments(visit.sock))
            visit.answer()

    context = tls_context(authority) if tls else None
    with Peer(treat, tls=context) as peer, making(str(authority.cert)) as client:
        for _ in range(4):
            ask(client, peer.url)
    assert [after - before for before, after in itertools.pairwise(segments)] == [1, 1, 1]
    assert tls or segments[0] == 1  # else it is those of the handshake, too


def test_requests_of_one_account_at_the_same_time_do_not_mix(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [7, 80, 900, 123456789012]  # of as many lengths
    prepared = threading.Barrier(len(ids))

    def together(*arguments: Any, **named: Any) -> Any:
        prepared.wait(SOON)  # nothing is sent before all are ready to be
        return send(*arguments, **named)

    send = WatchedAdapter.send
    monkeypatch.setattr(WatchedAdapter, "send", together)
    with Peer(good) as peer:
        settings = api(peer.url)
        under_way = [Asking(client, settings, task_id) for task_id in ids]
        assert [asking.outcome() for asking in under_way] == [Reading(40, 1, NOW)] * len(ids)
        assert sorted(peer.bodies, key=len) == [b"id=%d" % task_id for task_id in ids]
        for head, body in zip(peer.heads, peer.bodies, strict=True):
            assert head.lower().count(b"content-length:") == 1
            assert header(head, "Content-Length") == str(len(body))


def test_accounts_that_share_a_client_send_each_its_own_key(client: Client) -> None:
    with Peer(good) as peer:
        for key in ("first", "second", "first"):
            ask(client, api(peer.url, key))
        queries = [parse_qs(urlsplit(head.split(b" ")[1].decode()).query) for head in peer.heads]
        assert [query["apiKey"] for query in queries] == [["first"], ["second"], ["first"]]


def test_a_key_of_any_characters_arrives_as_it_is(client: Client) -> None:
    key = "a+b/c=d&e%2Bf?g#h"
    with SimulatorThread(Simulator({7: simulator.stalled(50)}, keys=[key])) as sim:
        assert ask(client, api(sim.url, key)) == Reading(50, 1, NOW)


# Answers


@pytest.mark.parametrize(
    ("code", "reason", "scope"),
    [
        (2, Reason.NOT_FOUND, Scope.TASK),
        (8, Reason.UNAUTHORIZED, Scope.ACCOUNT),
        (12, Reason.API_ERROR, Scope.TASK),
        (14, Reason.ACCOUNT_BLOCKED, Scope.ACCOUNT),
        (15, Reason.API_ERROR, Scope.UNKNOWN),
        (30, Reason.RATE_LIMITED, Scope.UNKNOWN),
    ],
)
def test_a_code_becomes_an_error_of_its_reason_and_scope(
    mobizon: responses.RequestsMock, client: Client, code: int, reason: Reason, scope: Scope
) -> None:
    mobizon.post(URL + PATH, json={"code": code, "data": [], "message": "as it\nis"})
    error = failure(client, URL)
    assert (error.reason, error.scope) == (reason, scope)
    assert error.detail == f"code {code}: as it is"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (201, Reason.HTTP_ERROR),
        (204, Reason.HTTP_ERROR),
        (301, Reason.HTTP_ERROR),
        (400, Reason.HTTP_ERROR),
        (401, Reason.UNAUTHORIZED),
        (403, Reason.UNAUTHORIZED),
        (404, Reason.HTTP_ERROR),
        (429, Reason.RATE_LIMITED),
        (500, Reason.HTTP_ERROR),
        (503, Reason.HTTP_ERROR),
    ],
)
def test_any_http_status_but_200_is_an_error_whatever_the_body(
    mobizon: responses.RequestsMock, client: Client, status: int, reason: Reason
) -> None:
    mobizon.post(URL + PATH, status=status, body=GOOD)
    error = failure(client, URL)
    assert (error.reason, error.detail) == (reason, f"HTTP status {status}")
    assert error.scope is (Scope.ACCOUNT if reason is Reason.UNAUTHORIZED else Scope.UNKNOWN)


@pytest.mark.parametrize("location", ["{peer}/elsewhere", "/elsewhere", "http://[", "//", "\x80", "mailto:x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(client: Client, status: int, location: str) -> None:
    def treat(visit: Visit) -> None:
        while True:
            visit.request()
            visit.answer(b"moved", f"Location: {location.format(peer=peer.url)}", status=f"{status} Moved")

    with Peer(treat) as peer:
        error = failure(client, peer.url)
        assert error.reason is Reason.HTTP_ERROR
        assert error.detail == f"HTTP status {status}, a redirect, which is not followed"
        assert len(peer.heads) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("0", 0),
        ("30", 30),
        (" 7 ", 7),
        ("Thu, 01 Jan 2026 00:00:45 GMT", 45),
        ("Thu, 01 Jan 2026 01:00:45 +0100", 45),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0),
        ("soon", 0),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("1e9", 0),
        ("inf", 0),
        ("nan", 0),
        ("Thu, 99 Jan 2026 00:00:45 GMT", 0),
        ("Thu, 01 Jan 99999999999 00:00:45 GMT", 0),
        ("Thu, 01 Jan 2026 00:00:45 +99999999999", 0),
        ("3600", 3600),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_told_in_seconds_if_it_can_be_understood(
    mobizon: responses.RequestsMock, client: Client, status: int, value: str | None, seconds: float
) -> None:
    headers = {} if value is None else {"Retry-After": value}
    mobizon.post(URL + PATH, status=status, headers=headers)
    assert failure(client, URL).retry_after == seconds


@given(st.text(max_size=60) | st.from_regex(r"(Mon, )?\d{1,3} \w{3} \d{1,5} \d\d:\d\d:\d\d [+-]?\w{1,6}"))
def test_any_retry_after_is_a_number_of_seconds(value: str) -> None:
    assert client_module._retry_after(value, NOW) >= 0


def test_a_huge_retry_after_is_no_error(mobizon: responses.RequestsMock, client: Client) -> None:
    mobizon.post(URL + PATH, status=429, headers={"Retry-After": "9" * 5000})
    error = failure(client, URL)
    assert error.reason is Reason.RATE_LIMITED
    assert error.retry_after >= 60


def test_an_answer_as_long_as_is_allowed_is_read_and_a_longer_one_is_not(client: Client) -> None:
    def treat(visit: Visit) -> None:
        for size in (LARGEST_ANSWER, LARGEST_ANSWER + 1):
            visit.request()
            visit.answer(GOOD.ljust(size))

    with Peer(treat) as peer:
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        error = failure(client, peer.url)
    assert (error.reason, error.detail) == (Reason.INVALID_RESPONSE, "an answer of more than 64 KiB")


def test_a_chunked_answer_is_read_whole(client: Client) -> None:
    pieces = [b"5;name=value\r\n", GOOD[:5], b"\r\n", b"%X\r\n" % len(GOOD[5:]), GOOD[5:], b"\r\n0\r\n\r\n"]
    with Peer(chunked(*pieces)) as peer:
        assert ask(client, peer.url) == Reading(40, 1, NOW)


def test_an_answer_that_ends_with_the_connection_is_read_whole(client: Client) -> None:
    with Peer(sending(head_of("Connection: close") + GOOD)) as peer:
        assert ask(client, peer.url) == Reading(40, 1, NOW)


def test_an_answer_that_is_compressed_unasked_is_not_unpacked(client: Client) -> None:
    packed = gzip.compress(GOOD)
    with Peer(sending(head_of("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed)) as peer:
        error = failure(client, peer.url)
    assert (error.reason, error.detail) == (Reason.INVALID_RESPONSE, "not JSON")


def test_headers_cut_short_are_an_invalid_response(client: Client) -> None:
    with Peer(sending(b"HTTP/1.1 200 OK\r\nContent-Ty")) as peer:
        assert failure(client, peer.url).reason is Reason.INVALID_RESPONSE


# Failing connections


@pytest.mark.parametrize("treat", BROKEN.values(), ids=BROKEN)
def test_what_is_no_http_is_a_connection_error(client: Client, treat: Callable[[Visit], None]) -> None:
    with Peer(treat) as peer:
        error = failure(client, peer.url)
    assert (error.reason, error.scope) == (Reason.CONNECTION_ERROR, Scope.UNKNOWN)
    assert error.detail


def test_a_refused_connection_is_told_as_such_and_not_as_a_time_out(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    asking = Asking(client, api(f"http://127.0.0.1:{port}"))
    error = asking.failure()
    assert (error.reason, error.detail) == (Reason.CONNECTION_ERROR, "connection refused")
    assert asking.sent == []


def test_a_reset_connection_is_told_as_such(client: Client) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()})) as sim:
        sim.faults[7] = simulator.reset()
        error = failure(client, sim.url)
    assert (error.reason, error.detail) == (Reason.CONNECTION_ERROR, "connection reset by peer")


def test_a_name_that_cannot_be_resolved_is_told_as_such(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error = failure(client, "http://api.mobizon.example")
    assert (error.reason, error.detail) == (
        Reason.CONNECTION_ERROR,
        "the host's name cannot be resolved",
    )


def test_an_address_that_refuses_gives_way_to_the_next_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()
    with Peer(good) as peer:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in (dead, ("127.0.0.1", peer.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert ask(client, "http://api.mobizon.example") == Reading(40, 1, NOW)


def test_a_server_without_tls_is_told_as_such(client: Client) -> None:
    with Peer(lambda visit: visit.answer()) as peer:
        error = failure(client, peer.url.replace("http:", "https:"))
    assert error.reason is Reason.CONNECTION_ERROR
    assert error.detail.startswith("TLS failed: ")


# Connections that are kept


@pytest.mark.parametrize("tls", [False, True])
def test_requests_share_a_connection(authority: Authority, tls: bool) -> None:
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        for task_id in range(1, 6):
            assert ask(client, peer.url, task_id) == Reading(40, 1, NOW)
        assert peer.bodies == [b"id=%d" % task_id for task_id in range(1, 6)]
        assert peer.connections == 1


def test_a_connection_serves_on_after_an_answer_that_is_an_error(client: Client) -> None:
    def treat(visit: Visit) -> None:
        for status in ("500 Oops", "302 Found", "429 Slow down", "200 OK"):
            visit.request()
            visit.answer(b'{"code":3}', "Location: /", status=status)

    with Peer(treat) as peer:
        details = [failure(client, peer.url).detail for _ in range(4)]
        assert [detail[:15] for detail in details] == [
            "HTTP status 500",
            "HTTP status 302",
            "HTTP status 429",
            "code 3",
        ]
        assert peer.connections == 1


def test_a_connection_that_was_closed_while_idle_is_replaced(client: Client) -> None:
    closed = threading.Event()

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()
        visit.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    with Peer(treat) as peer:
        for _ in range(3):
            assert ask(client, peer.url) == Reading(40, 1, NOW)
            assert closed.wait(SOON)
            closed.clear()
            assert leading_to(peer.port) == 2  # of the one that is idle, and of none before
        assert peer.connections == 3


@pytest.mark.parametrize("tls", [False, True])
def test_an_idle_connection_holds_two_descriptors_and_one_of_a_closed_client_none(
    authority: Authority, tls: bool
) -> None:
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer:
        with making(str(authority.cert)) as client:
            for _ in range(3):
                ask(client, peer.url)
                assert leading_to(peer.port) == 2
        assert leading_to(peer.port) == 0
        assert peer.connections == 1


def test_a_connection_that_is_not_kept_is_closed_with_its_answer(client: Client) -> None:
    """Also what watches it: else the server would not see it closed."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer(GOOD, "Connection: close")
        with suppress(Gone):
            visit.wait_until_gone()
        gone.set()

    gone = threading.Event()
    gc.disable()  # so that only what is closed counts, and not what happens to be found later
    try:
        with Peer(treat) as peer:
            assert ask(client, peer.url) == Reading(40, 1, NOW)
            assert leading_to(peer.port) == 0
            assert gone.wait(SOON)
    finally:
        gc.enable()


def test_a_broken_connection_is_not_used_again(client: Client) -> None:
    def treat(visit: Visit) -> None:
        visit.request()
        if peer.connections == 1:
            visit.send(head_of("Content-Length: 70000") + b"x" * 70000)
            visit.wait_until_gone()
        visit.answer()

    with Peer(treat) as peer:
        assert failure(client, peer.url).reason is Reason.INVALID_RESPONSE
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert peer.connections == 2


def test_a_request_is_never_sent_twice_by_itself(client: Client) -> None:
    with Peer(resetting) as peer:
        asking = Asking(client, api(peer.url))
        assert asking.failure().reason is Reason.CONNECTION_ERROR
        assert len(peer.heads) == len(asking.sent) == 1


def test_closing_the_client_leaves_no_connection() -> None:
    with Peer(good) as peer:
        before = descriptors()
        with making() as client:
            for _ in range(2):
                ask(client, peer.url)
            assert len(descriptors()) > len(before)
        gone = threading.Event()
        for _ in range(1000):  # the peer closes its end in a thread of its own
            if descriptors() == before:
                break
            gone.wait(0.01)
        assert descriptors() == before


# What is not kept, and not looked at


def test_cookies_are_not_sent_back(client: Client) -> None:
    def treat(visit: Visit) -> None:
        while True:
            visit.request()
            visit.answer(GOOD, "Set-Cookie: session=1; Path=/")

    with Peer(treat) as peer:
        for _ in range(3):
            ask(client, peer.url)
        assert len(peer.heads) == 3
        assert [header(head, "Cookie") for head in peer.heads] == [None, None, None]


def test_proxies_netrc_and_authorities_of_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Peer(good) as proxy, Peer(good) as peer, Peer(good, tls=tls_context(authority)) as secure:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(authority.cert))
        with making() as client:
            assert ask(client, peer.url) == Reading(40, 1, NOW)
            assert failure(client, secure.url).detail.startswith("certificate not trusted")
        assert header(peer.heads[0], "Authorization") is None
        assert proxy.connections == 0


@pytest.mark.parametrize("excepted", ["*", "127.0.0.1", "api.mobizon.example"])
def test_the_environment_excepts_nothing_from_the_proxy_that_is_configured(
    monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, excepted)
    with Peer(proxying) as proxy, making(None, proxy.url) as client:
        assert ask(client, "http://api.mobizon.example") == Reading(40, 1, NOW)
        assert proxy.connections == 1


# TLS


def test_a_certificate_of_an_unknown_authority_is_refused_before_the_key_is_sent(
    authority: Authority, client: Client
) -> None:
    with Peer(good, tls=tls_context(authority)) as peer:
        asking = Asking(client, api(peer.url))
        error = asking.failure()
        assert error.reason is Reason.CONNECTION_ERROR
        assert error.detail.startswith("certificate not trusted: ")
        assert (asking.sent, peer.heads) == ([], [])


def test_a_certificate_of_the_authority_that_is_configured_is_trusted(authority: Authority) -> None:
    with Peer(good, tls=tls_context(authority)) as peer, making(str(authority.cert)) as client:
        assert ask(client, peer.url) == Reading(40, 1, NOW)


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    context = tls_context(authority, x509.DNSName("api.mobizon.example"))
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        asking = Asking(client, api(peer.url))
        error = asking.failure()
        assert error.reason is Reason.CONNECTION_ERROR
        assert error.detail.startswith("certificate not trusted: ")
        assert "127.0.0.1" in error.detail
        assert (asking.sent, peer.heads) == ([], [])


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server(days=-1).files)
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        assert "expired" in failure(client, peer.url).detail


@pytest.mark.parametrize("content", [b"", b"no certificate", None])
def test_authorities_that_cannot_be_read_are_a_connection_error(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with making(str(file)) as client:
        assert failure(client, "https://127.0.0.1:1").reason is Reason.CONNECTION_ERROR


# Proxies


def proxying(visit: Visit) -> None:
    """Serves CONNECT, and answers requests for absolute URIs itself."""
    head, _ = visit.request()
    method, target, _ = head.split(b"\r\n")[0].split(b" ")
    if method != b"CONNECT":
        visit.answer()
        good(visit)
    host, _, port = target.decode().rpartition(":")
    with socket.create_connection((host, int(port)), SOON) as onward:
        visit.send(head_of(status="200 Connected"))
        while True:
            ready, _, _ = select.select([visit.sock, onward], [], [])
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (onward if source is visit.sock else visit.sock).sendall(data)


def test_an_http_request_goes_through_the_proxy_that_is_configured() -> None:
    with Peer(proxying) as proxy, making(None, proxy.url) as client:
        assert ask(client, "http://api.mobizon.example") == Reading(40, 1, NOW)
        assert proxy.heads[0].startswith(b"POST http://api.mobizon.example/service/taskqueue/getStatus?")


def test_an_https_request_goes_through_a_tunnel_that_never_sees_the_key(authority: Authority) -> None:
    with (
        Peer(good, tls=tls_context(authority)) as peer,
        Peer(proxying) as proxy,
        making(str(authority.cert), proxy.url) as client,
    ):
        asking = Asking(client, api(peer.url))
        assert asking.outcome() == Reading(40, 1, NOW)
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert [head.split(b" HTTP")[0] for head in proxy.heads] == [b"CONNECT 127.0.0.1:%d" % peer.port]
        assert len(asking.sent) == 1
        assert not any(KEY.encode() in head for head in proxy.heads)
        assert all(KEY.encode() in head for head in peer.heads)


def test_the_credentials_of_a_proxy_are_sent_to_it_and_to_nobody_else(authority: Authority) -> None:
    with (
        Peer(good, tls=tls_context(authority)) as peer,
        Peer(proxying) as proxy,
        making(str(authority.cert), proxy.url.replace("//", "//user:word@")) as client,
    ):
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert header(proxy.heads[0], "Proxy-Authorization") == "Basic dXNlcjp3b3Jk"
        assert header(peer.heads[0], "Proxy-Authorization") is None


def test_a_certificate_is_verified_through_a_tunnel_too(authority: Authority) -> None:
    with (
        Peer(good, tls=tls_context(authority)) as peer,
        Peer(proxying) as proxy,
        making(None, proxy.url) as client,
    ):
        assert failure(client, peer.url).detail.startswith("certificate not trusted")


@pytest.mark.parametrize("answer", [head_of(status="407 Proxy Authentication Required"), b"garbage\r\n\r\n"])
def test_a_proxy_that_refuses_is_a_connection_error(answer: bytes) -> None:
    with Peer(sending(answer)) as proxy, making(None, proxy.url.replace("//", "//user:p4ss@")) as client:
        asking = Asking(client, api("https://api.mobizon.example"))
        error = asking.failure()
        assert error.reason is Reason.CONNECTION_ERROR
        assert "p4ss" not in error.detail
        assert asking.sent == []


def test_a_proxy_that_is_not_there_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with making(None, f"http://127.0.0.1:{port}") as client:
        error = failure(client, "https://api.mobizon.example")
        assert (error.reason, error.detail) == (Reason.CONNECTION_ERROR, "connection refused")


# A request that is ended


class Stage:
    """A peer that stops somewhere on the way, and tells when it has got there."""

    def __init__(self, treat: Callable[[Visit], None]) -> None:
        self.reached = threading.Event()
        self._treat = treat

    def __call__(self, visit: Visit) -> None:
        self._treat(visit)
        self.reached.set()
        visit.wait_until_gone()


def after_request(*data: bytes) -> Callable[[Visit], None]:
    def treat(visit: Visit) -> None:
        visit.request()
        for piece in data:
            visit.send(piece)

    return treat


STAGES: dict[str, Callable[[Visit], None]] = {
    "no answer": after_request(),
    "half the status line": after_request(b"HTTP/1."),
    "half the headers": after_request(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "half the body": after_request(head_of("Content-Length: 500"), GOOD[:9]),
    "half the body of a connection to be closed": after_request(
        head_of("Connection: close", "Content-Length: 500"), GOOD[:9]
    ),
    "a body without a length": after_request(head_of(), GOOD[:9]),
    "a body of HTTP/1.0": after_request(b"HTTP/1.0 200 OK\r\n\r\n", GOOD[:9]),
    "half a chunk": after_request(head_of("Transfer-Encoding: chunked"), b"ff\r\n", GOOD),
}


@pytest.mark.parametrize("treat", STAGES.values(), ids=STAGES)
def test_an_expired_request_ends_at_once_wherever_it_is(
    client: Client, treat: Callable[[Visit], None]
) -> None:
    stage = Stage(treat)
    before = descriptors()
    with Peer(stage) as peer:
        asking = Asking(client, api(peer.url, timeout=60))
        assert stage.reached.wait(SOON)
        began = time.monotonic()
        asking.call.expire()
        error = asking.failure()
        assert time.monotonic() - began < 2
        assert (error.reason, error.detail) == (Reason.TIMEOUT, "no complete answer within 60 s")
        assert len(asking.sent) == 1
    assert descriptors() == before


@pytest.mark.parametrize("through_proxy", [False, True])
def test_an_expired_request_ends_in_a_handshake_too(client: Client, through_proxy: bool) -> None:
    reached = threading.Event()

    def treat(visit: Visit) -> None:
        visit.sock.recv(1)
        reached.set()
        visit.wait_until_gone()

    with ExitStack() as stack:
        peer = stack.enter_context(Peer(treat))
        if through_proxy:
            proxy = stack.enter_context(Peer(proxying))
            client = stack.enter_context(making(None, proxy.url))
        asking = Asking(client, api(peer.url.replace("http:", "https:"), timeout=60))
        assert reached.wait(SOON)
        asking.call.expire()
        assert asking.failure().reason is Reason.TIMEOUT
        assert asking.sent == []


def test_an_expired_request_ends_while_it_waits_for_a_proxy() -> None:
    stage = Stage(after_request())
    with Peer(stage) as proxy, making(None, proxy.url) as client:
        asking = Asking(client, api("https://api.mobizon.example", timeout=60))
        assert stage.reached.wait(SOON)
        asking.call.expire()
        assert asking.failure().reason is Reason.TIMEOUT
        assert asking.sent == []


@contextmanager
def unanswering() -> Iterator[str]:
    """The URL of a port to which no connection comes about: its queue of those not accepted is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def tcp_connecting(port: int) -> int:
    """How many connections of this machine to a port are in the state SYN_SENT, which the kernel calls 02."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(f":{port:04X}") and state == "02" for _, _, remote, state, *_ in rows)


def test_an_expired_request_ends_while_it_connects(client: Client) -> None:
    with unanswering() as url:
        port = urlsplit(url).port or 0
        already = tcp_connecting(port)
        asking = Asking(client, api(url, timeout=60))
        deadline = time.monotonic() + SOON
        while tcp_connecting(port) == already:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        asking.call.expire()
        assert asking.failure().reason is Reason.TIMEOUT
        assert asking.sent == []


def test_a_connection_that_does_not_come_about_is_a_time_out(client: Client) -> None:
    with unanswering() as url:
        error = failure(client, api(url, timeout=0.2))
    assert (error.reason, error.detail) == (Reason.TIMEOUT, "no answer in time")


def test_a_request_that_has_expired_beforehand_is_not_sent(client: Client) -> None:
    with Peer(good) as peer:
        ask(client, peer.url)  # so that there is a connection to send it on
        sent: list[float] = []
        call = Call(SOON, sent.append, time.monotonic)
        call.expire()
        with pytest.raises(ApiError) as caught:
            client.get_status(api(peer.url), 8, call)
        assert caught.value.reason is Reason.TIMEOUT
        assert sent == []
        assert peer.bodies == [b"id=7"]


def test_a_request_that_expires_just_before_its_first_byte_is_not_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = 0

    def expiring(call: Call, lifeline: _Lifeline) -> None:
        nonlocal attached
        attached += 1
        if attached == 2:  # the connection is up
            call.expire()
        attach(call, lifeline)

    attach = Call.attach
    monkeypatch.setattr(Call, "attach", expiring)
    with Peer(good) as peer:
        asking = Asking(client, api(peer.url))
        assert asking.failure().reason is Reason.TIMEOUT
        assert attached == 2
        assert asking.sent == []
        gc.collect()  # what urllib3 raises is part of a cycle, and with it the frames it came through
        assert leading_to(peer.port) == 0
    assert peer.heads == []


@pytest.mark.parametrize(("scheme", "treat"), [("http:", after_request()), ("https:", silent)])
def test_a_request_that_nobody_watches_waits_for_longer_than_its_time_out(
    client: Client, scheme: str, treat: Callable[[Visit], None]
) -> None:
    """No read has a time-out of its own: it is `expire` that ends a request, and says so."""

    def waiting(visit: Visit) -> None:
        treat(visit)
        visit.wait_until_gone()

    with Peer(waiting) as peer:
        asking = Asking(client, api(peer.url.replace("http:", scheme), timeout=0.02))
        asking._thread.join(0.4)
        assert asking._thread.is_alive()
        asking.call.expire()
        error = asking.failure()
        assert (error.reason, error.detail) == (Reason.TIMEOUT, "no complete answer within 0.02 s")


def test_an_expired_request_does_not_cut_a_connection_that_serves_another(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, resume, asked, finish = (threading.Event() for _ in range(4))
    parse = answer_module.parse

    def slow(*arguments: Any) -> Reading:
        if not parsing.is_set():
            parsing.set()
            assert resume.wait(SOON)
        return parse(*arguments)

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()
        visit.request()
        asked.set()
        assert finish.wait(SOON)
        visit.answer()

    monkeypatch.setattr(client_module, "parse", slow)
    with Peer(treat) as peer:
        first = Asking(client, api(peer.url))
        assert parsing.wait(SOON)
        second = Asking(client, api(peer.url))
        assert asked.wait(SOON)
        first.call.expire()
        finish.set()
        resume.set()
        assert second.outcome() == Reading(40, 1, NOW)
        assert first.outcome() == Reading(40, 1, NOW)
        assert peer.connections == 1


# When a request counts as sent


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_is_reported_once_when_it_has_gone_out(authority: Authority, tls: bool) -> None:
    received, reported = threading.Semaphore(0), threading.Semaphore(0)

    def treat(visit: Visit) -> None:
        while True:
            visit.request()
            received.release()
            assert reported.acquire(timeout=SOON)  # so that it is not only told with the answer
            visit.answer()

    context = tls_context(authority) if tls else None
    with Peer(treat, tls=context) as peer, making(str(authority.cert)) as client:
        for _ in range(2):
            told: list[float] = []
            arrived: list[bool] = []

            def sent(when: float, told: list[float] = told, arrived: list[bool] = arrived) -> None:
                told.append(when)
                arrived.append(received.acquire(timeout=SOON))
                reported.release()

            before = time.monotonic()
            client.get_status(api(peer.url), 7, Call(SOON, sent, time.monotonic))
            assert before <= told[0] <= time.monotonic()
            assert arrived == [True]


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_is_never_said_to_be_sent_earlier_than_it_was(
    authority: Authority, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a thread that is held up before it sends would let the next request come too early."""
    now = [100.0]

    def held_up(sock: Any, data: Any, *flags: int) -> None:
        sending = threading.current_thread() is threading.main_thread()
        now[0] += 3 * sending
        sendall(sock, data, *flags)
        now[0] += 0.5 * sending

    kind = ssl.SSLSocket if tls else socket.socket
    sendall = kind.sendall
    monkeypatch.setattr(kind, "sendall", held_up)
    told: list[float] = []
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        call = Call(SOON, told.append, lambda: now[0])
        client.get_status(api(peer.url), 7, call)
    assert told == [103.5]
    assert call.deadline == 100 + SOON  # which counts from before


@pytest.mark.parametrize("cut", [False, True])
def test_a_request_whose_sending_fails_is_reported_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Nobody knows how much of it has arrived."""

    def failing(sock: Any, data: Any, *flags: int) -> None:
        if threading.current_thread().name == "asking":
            if not cut:
                raise OSError(errno.ENETDOWN, "told by a test")
            assert started.wait(SOON)
            asking.call.expire()
        sendall(sock, data, *flags)

    started = threading.Event()
    sendall = socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", failing)
    with Peer(good) as peer:
        asking = Asking(client, api(peer.url))
        started.set()
        assert asking.failure().reason is (Reason.TIMEOUT if cut else Reason.CONNECTION_ERROR)
        assert len(asking.sent) == 1
        assert leading_to(peer.port) == 0
    assert peer.heads == []


def test_the_deadline_counts_from_the_first_byte_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    deadlines: list[float | None] = []

    def connected_later(call: Call, lifeline: _Lifeline) -> None:
        attach(call, lifeline)
        now[0] += 2  # it took two seconds

    attach = Call.attach
    monkeypatch.setattr(Call, "attach", connected_later)
    with Peer(good) as peer:
        call = Call(5.0, lambda _: deadlines.append(call.deadline), lambda: now[0])
        assert call.deadline is None
        client.get_status(api(peer.url), 7, call)
    assert now[0] > 100
    assert deadlines == [now[0] + 5]


# Memory


MEASURED = """
import sys, time
from exporter.mobizon.client import Client
from exporter.mobizon.connection import Call
from exporter.model import Api
from exporter.errors import ApiError
from exporter.model import Secret
client = Client(None, None, 1)
try:
    call = Call(60, lambda when: None, time.monotonic)
    client.get_status(Api(sys.argv[1], Secret("key"), timeout=60), 7, call)
except ApiError as error:
    print(error.reason)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

HUGE: dict[str, tuple[Callable[[Visit], None], Reason]] = {
    "body": (streaming(head_of(f"Content-Length: {2 * GIB}")), Reason.INVALID_RESPONSE),
    "body without a length": (streaming(head_of()), Reason.INVALID_RESPONSE),
    "chunk": (streaming(head_of("Transfer-Encoding: chunked") + b"80000000\r\n"), Reason.INVALID_RESPONSE),
    "chunk of all there is": (
        streaming(head_of("Transfer-Encoding: chunked") + b"-1\r\n"),
        Reason.CONNECTION_ERROR,
    ),
    "redirect": (streaming(head_of("Location: /x", status="302 Found")), Reason.HTTP_ERROR),
    "error": (streaming(head_of(f"Content-Length: {2 * GIB}", status="500 Oops")), Reason.HTTP_ERROR),
    "headers": (streaming(b"HTTP/1.1 200 OK\r\nX: "), Reason.CONNECTION_ERROR),
    "status line": (streaming(b"HTTP/1.1 200 "), Reason.CONNECTION_ERROR),
}


@pytest.mark.parametrize(("treat", "reason"), HUGE.values(), ids=HUGE)
def test_an_answer_of_two_gigabytes_costs_little_memory(
    treat: Callable[[Visit], None], reason: Reason
) -> None:
    with Peer(treat) as peer:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, peer.url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    said, peak = done.stdout.split()
    assert said == reason
    assert int(peak) < 120 * 1024


def test_nothing_of_a_failed_request_is_kept(client: Client) -> None:
    """Neither the answer nor the key, which the frames of a traceback, or of a context, would hold."""
    with Peer(sending(head_of() + b"no JSON")) as peer, pytest.raises(ApiError) as caught:
        client.get_status(api(peer.url), 7, Call(SOON, lambda _: None, time.monotonic))
    error = caught.value
    assert (error.__context__, error.__cause__) == (None, None)
    kept = []
    link = error.__traceback__
    while link is not None:
        values = link.tb_frame.f_locals.values()
        kept += [value for value in values if isinstance(value, ApiError) and value is not error]
        link = link.tb_next
    assert kept
    assert all((inner.__traceback__, inner.__context__) == (None, None) for inner in kept)
