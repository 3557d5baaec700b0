"""One request to Mobizon: what is sent, what is made of every answer, and what it may cost."""

from __future__ import annotations

import errno
import gc
import gzip
import itertools
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from exporter import __version__, simulator
from exporter.errors import ApiError, Reason, Scope
from exporter.mobizon import client as client_module
from exporter.mobizon.adapter import Request
from exporter.mobizon.call import Call
from exporter.mobizon.client import MAX_BODY, PATH, Client
from exporter.mobizon.connection import Connection
from exporter.mobizon.greenlets import join_threads
from exporter.model import Reading
from exporter.simulator import Simulator, SimulatorThread
from tests.support.asking import (
    KEY,
    NOW,
    Asking,
    api,
    ask,
    descriptors,
    failure,
    get_status,
    leading_to,
    making,
    no_collection,
    on_loop,
)
from tests.support.certificates import Authority
from tests.support.peers import (
    BROKEN,
    GIB,
    GOOD,
    SOON,
    Gone,
    Peer,
    Visit,
    after_request,
    chunked,
    good,
    head_of,
    header,
    proxying,
    resetting,
    sending,
    silent,
    streaming,
    tls_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


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


URL = "https://api.mobizon.example"


# What is sent


def test_a_request_is_what_mobizon_documents(mobizon: responses.RequestsMock, client: Client) -> None:
    mobizon.post(URL + PATH, body=GOOD)
    assert ask(client, URL, 123) == Reading(40, 1, NOW)
    (call,) = mobizon.calls
    assert urlsplit(call.request.url).path == "/service/taskqueue/getStatus"
    query = parse_qs(str(urlsplit(call.request.url).query))
    assert query == {"output": ["json"], "api": ["v1"], "apiKey": [KEY]}
    assert call.request.body == b"id=123"
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


def test_requests_of_one_account_at_the_same_time_do_not_mix(client: Client) -> None:
    ids = [7, 80, 900, 123456789012]  # of as many lengths
    all_there = threading.Barrier(len(ids))

    def treat(visit: Visit) -> None:
        visit.request()
        all_there.wait(SOON)
        visit.answer()

    with Peer(treat) as peer:
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


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_url_may_have_a_path(through_proxy: bool) -> None:
    with Peer(good) as peer, Peer(proxying) as proxy:
        with making(None, proxy.url if through_proxy else None) as client:
            ask(client, f"{peer.url}/mobizon/kz")
        target = (proxy if through_proxy else peer).heads[0].split(b" ")[1].decode()
        assert urlsplit(target).path == f"/mobizon/kz{PATH}"
        assert target.startswith(peer.url) == through_proxy


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
        for size in (MAX_BODY, MAX_BODY + 1):
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


def test_a_server_without_tls_is_told_as_such(client: Client) -> None:
    with Peer(lambda visit: visit.answer()) as peer:
        error = failure(client, peer.url.replace("http:", "https:"))
    assert error.reason is Reason.CONNECTION_ERROR
    assert error.detail.startswith("TLS failed: ")


# Connections that are kept


def test_the_authorities_of_one_client_are_not_those_of_another(authority: Authority) -> None:
    with Peer(good, tls=tls_context(authority)) as peer, making(str(authority.cert)) as trusting:
        assert ask(trusting, peer.url) == Reading(40, 1, NOW)
        with making() as usual:
            assert "certificate not trusted" in failure(usual, peer.url).detail


@pytest.mark.parametrize("tls", [False, True])
def test_requests_share_a_connection(authority: Authority, tls: bool) -> None:
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        for task_id in range(1, 6):
            assert ask(client, peer.url, task_id) == Reading(40, 1, NOW)
        assert peer.bodies == [b"id=%d" % task_id for task_id in range(1, 6)]
        assert peer.connections == 1


def test_one_host_too_many_and_connections_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.mobizon.client.MAX_HOSTS", 2)
    with ExitStack() as stack:
        client = stack.enter_context(making())
        first, second, third = peers = [stack.enter_context(Peer(good)) for _ in range(3)]
        for peer in [first, first, second, third, second]:
            for path in ("", "/kz", "/ua"):
                assert ask(client, peer.url + path) == Reading(40, 1, NOW)
        assert [peer.connections for peer in peers] == [1, 2, 1]


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
            assert leading_to(peer.port) == 1  # the one that is idle, and none before
        assert peer.connections == 3


@pytest.mark.parametrize("tls", [False, True])
def test_an_idle_connection_holds_a_descriptor_and_one_of_a_closed_client_none(
    authority: Authority, tls: bool
) -> None:
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer:
        with making(str(authority.cert)) as client:
            for _ in range(3):
                ask(client, peer.url)
                assert leading_to(peer.port) == 1
        assert leading_to(peer.port) == 0
        assert peer.connections == 1


def test_after_a_failure_a_closed_client_holds_no_idle_connection_either(client: Client) -> None:
    """Although the failure, until garbage is collected, holds what the connection belongs to."""

    def treat(visit: Visit) -> None:
        while b"/slow" not in visit.request()[0]:
            visit.answer()
        visit.wait_until_gone()

    with no_collection(), Peer(treat) as peer:
        failing = Asking(client, api(f"{peer.url}/slow", timeout=0.2))
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert failing.failure().reason is Reason.TIMEOUT
        assert leading_to(peer.port) == 1
        on_loop(client.close).result(SOON)
        assert leading_to(peer.port) == 0


@pytest.mark.parametrize("what", ["not trusted", "no complete answer"])
def test_a_failure_keeps_nothing_until_garbage_is_collected(what: str, authority: Authority) -> None:
    """Nor the key, which is in the request."""
    context = tls_context(authority)
    ca_file = None if what == "not trusted" else str(authority.cert)
    with no_collection(), Peer(silent, tls=context) as peer, making(ca_file) as client:
        kept = []
        for _ in range(3):
            assert what in failure(client, api(peer.url, timeout=0.3)).detail
            join_threads(SOON)
            on_loop(lambda: None).result(SOON)
            kept.append(sum(isinstance(known, (Request, Connection)) for known in gc.get_objects()))
    assert kept == kept[:1] * 3


def test_what_connections_share_is_not_changed_by_one_of_them(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL may be copying it for another one at that moment."""
    protocols: list[str | None] = []

    def treat(visit: Visit) -> None:
        assert isinstance(visit.sock, ssl.SSLSocket)
        protocols.append(visit.sock.selected_alpn_protocol())
        after_request(head_of("Connection: close") + GOOD)(visit)

    changed: list[ssl.SSLContext] = []
    change = ssl.SSLContext.set_alpn_protocols

    def noting(context: ssl.SSLContext, names: Any) -> None:
        changed.append(context)
        change(context, names)

    context = tls_context(authority)
    context.set_alpn_protocols(["http/1.1"])
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", noting)
    with Peer(treat, tls=context) as peer, making(str(authority.cert)) as client:
        assert [ask(client, peer.url) for _ in range(3)] == [Reading(40, 1, NOW)] * 3
    assert protocols == ["http/1.1"] * 3
    assert len(changed) == 1


def closing_under_a_request(*first: bytes, reset: bool = False) -> Callable[[Visit], None]:
    """Answers one request, and closes the connection once the next one is there, after these bytes."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()
        visit.request()
        for piece in first:
            visit.send(piece)
        if reset:
            visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return treat


@pytest.mark.parametrize("tls", [False, True])
def test_a_new_connection_that_is_closed_under_a_request_is_a_failure(
    authority: Authority, tls: bool
) -> None:
    context = tls_context(authority) if tls else None
    with Peer(after_request(), tls=context) as peer, making(str(authority.cert)) as client:
        for _ in range(2):
            error = failure(client, peer.url)
            assert (error.reason, error.scope) == (Reason.CONNECTION_ERROR, Scope.UNKNOWN)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_an_idle_connection_that_is_closed_under_a_request_is_no_failure_of_the_task(
    authority: Authority, tls: bool, reset: bool
) -> None:
    context = tls_context(authority) if tls else None
    with (
        Peer(closing_under_a_request(reset=reset), tls=context) as peer,
        making(str(authority.cert)) as client,
    ):
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        asking = Asking(client, api(peer.url))
        error = asking.failure()
        assert (error.reason, error.scope) == (Reason.CONNECTION_ERROR, Scope.CONNECTION)
        assert error.detail == "the server closed an idle connection"
        assert len(asking.sent) == 1  # it may have arrived
        assert len(peer.heads) == 2


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", head_of("Content-Length: 9")])
def test_a_connection_that_is_closed_within_an_answer_is_a_failure(client: Client, first: bytes) -> None:
    with Peer(closing_under_a_request(first)) as peer:
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert failure(client, peer.url).scope is Scope.UNKNOWN


def test_a_connection_that_is_not_kept_is_closed_with_its_answer(client: Client) -> None:
    """Also what watches it: else the server would not see it closed."""

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer(GOOD, "Connection: close")
        with suppress(Gone):
            visit.wait_until_gone()
        gone.set()

    gone = threading.Event()
    with no_collection(), Peer(treat) as peer:
        assert ask(client, peer.url) == Reading(40, 1, NOW)
        assert leading_to(peer.port) == 0
        assert gone.wait(SOON)


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


def test_authorities_are_read_anew_for_new_connections_when_their_file_has_changed(
    tmp_path: Path, authority: Authority
) -> None:
    another, trusted = Authority(tmp_path, "another"), tmp_path / "trusted.pem"

    def trust(content: bytes) -> None:
        trusted.write_bytes(content.ljust(2_000, b"\n"))  # the size tells nothing

    with (
        Peer(good, tls=tls_context(authority)) as old,
        Peer(good, tls=tls_context(another)) as new,
        making(str(trusted)) as client,
    ):
        assert failure(client, new.url).detail == "no such file or directory"
        trust(b"none")
        for _ in range(2):
            assert failure(client, old.url).detail == "TLS failed: NO_CERTIFICATE_OR_CRL_FOUND"
        trust(authority.cert.read_bytes())
        assert ask(client, old.url) == Reading(40, 1, NOW)
        assert "not trusted" in failure(client, new.url).detail
        trust(another.cert.read_bytes())
        assert ask(client, new.url) == Reading(40, 1, NOW)
        assert ask(client, old.url) == Reading(40, 1, NOW)  # on the connection that it has


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


@pytest.mark.parametrize("tls", [False, True])
def test_a_proxy_may_be_reached_over_tls(authority: Authority, tls: bool) -> None:
    context = tls_context(authority)
    with (
        Peer(good, tls=context if tls else None) as peer,
        Peer(proxying, tls=context) as proxy,
        making(str(authority.cert), proxy.url) as client,
        making(None, proxy.url) as trusting_others,
    ):
        assert failure(trusting_others, peer.url).detail.startswith("certificate not trusted")
        assert [ask(client, peer.url) for _ in range(2)] == [Reading(40, 1, NOW)] * 2
        assert len(proxy.heads) == (1 if tls else 2)
        assert not tls or not any(KEY.encode() in head for head in proxy.heads)


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
            get_status(client, api(peer.url), 7, Call(SOON, sent, time.monotonic))
            assert before <= told[0] <= time.monotonic()
            assert arrived == [True]


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_is_never_said_to_be_sent_earlier_than_it_was(
    authority: Authority, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that is held up before it is sent would let the next request come too early."""
    now = [100.0]

    def held_up(sock: Any, data: Any, *flags: int) -> int:
        sending = b"getStatus" in bytes(data)
        now[0] += 3 * sending
        sent = send(sock, data, *flags)
        now[0] += 0.5 * sending
        return sent

    kind = ssl.SSLSocket if tls else socket.socket
    send = kind.send
    monkeypatch.setattr(kind, "send", held_up)
    told: list[float] = []
    context = tls_context(authority) if tls else None
    with Peer(good, tls=context) as peer, making(str(authority.cert)) as client:
        call = Call(SOON, told.append, lambda: now[0])
        get_status(client, api(peer.url), 7, call)
    assert told == [103.5]


def test_a_request_whose_sending_fails_is_reported_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown how much of it has arrived."""

    def failing(sock: Any, data: Any, *flags: int) -> int:
        if b"getStatus" in bytes(data):
            raise OSError(errno.ENETDOWN, "told by a test")
        return send(sock, data, *flags)

    send = socket.socket.send
    monkeypatch.setattr(socket.socket, "send", failing)
    with Peer(good) as peer:
        asking = Asking(client, api(peer.url))
        assert asking.failure().reason is Reason.CONNECTION_ERROR
        assert len(asking.sent) == 1
        assert leading_to(peer.port) == 0
    assert peer.heads == []


def test_the_time_out_counts_anew_from_the_first_byte_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout, most_of_it = 1.0, 0.6
    resolve = socket.getaddrinfo

    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(most_of_it)
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return resolve(*arguments, **named)

    def late(visit: Visit) -> None:
        visit.request()
        time.sleep(most_of_it)
        visit.answer()

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    with Peer(late) as peer:
        assert isinstance(ask(client, api(peer.url, timeout=timeout)), Reading)


def test_an_answer_that_is_there_counts_although_the_process_stood_still(client: Client) -> None:
    answered = threading.Event()

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()
        answered.set()

    def stand_still(_: float) -> None:
        assert answered.wait(SOON)
        time.sleep(0.2)

    with Peer(treat) as peer:
        reading = get_status(client, api(peer.url, timeout=0.1), 7, Call(0.1, stand_still, time.monotonic))
    assert reading.progress == 40


# Memory


MEASURED = """
import asyncio, sys, time
from exporter.mobizon import greenlets
from exporter.mobizon.client import Client
from exporter.mobizon.call import Call
from exporter.model import Api
from exporter.errors import ApiError
from exporter.model import Secret
client = Client(None, None, 1)
try:
    call = Call(60, lambda when: None, time.monotonic)
    api = Api(sys.argv[1], Secret("key"), timeout=60)
    asyncio.run(greenlets.run(lambda: client.get_status(api, 7, call)))
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
        Reason.INVALID_RESPONSE,
    ),
    "redirect": (streaming(head_of("Location: /x", status="302 Found")), Reason.HTTP_ERROR),
    "error": (streaming(head_of(f"Content-Length: {2 * GIB}", status="500 Oops")), Reason.HTTP_ERROR),
    "headers": (streaming(b"HTTP/1.1 200 OK\r\nX: "), Reason.CONNECTION_ERROR),
    "status line": (streaming(b"HTTP/1.1 200 "), Reason.CONNECTION_ERROR),
}


@pytest.mark.slow
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
        get_status(client, api(peer.url), 7, Call(SOON, lambda _: None, time.monotonic))
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


def test_no_exception_of_libraries_is_kept_either(client: Client) -> None:
    """Whatever it is, it may print the key."""
    with Peer(resetting) as peer, pytest.raises(ApiError) as caught:
        get_status(client, api(peer.url), 7, Call(SOON, lambda _: None, time.monotonic))
    link = caught.value.__traceback__
    while link is not None:
        if link.tb_frame.f_code.co_filename == client_module.__file__:
            kept = gc.get_referents(*link.tb_frame.f_locals.values(), link.tb_frame.f_locals)
            assert not [
                one for one in kept if isinstance(one, BaseException) and not isinstance(one, ApiError)
            ]
        link = link.tb_next
