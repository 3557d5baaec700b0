"""A request ends within its time-out whatever the server does, with all versions of the libraries."""

from __future__ import annotations

import os
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from exporter import simulator
from exporter.errors import ApiError, Reason
from exporter.mobizon.greenlets import join_threads
from exporter.model import Api, Reading, Secret
from exporter.simulator import Simulator, SimulatorThread
from tests.support.asking import NOW, Asking, api, ask, leading_to, making, no_collection, on_loop
from tests.support.certificates import Authority
from tests.support.peers import (
    GOOD,
    SOON,
    Peer,
    Visit,
    after_request,
    dripping,
    good,
    head_of,
    proxying,
    silent,
    tls_context,
    unanswering,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 0.4
LIBRARIES = ("requests", "urllib3")


def timed_out(settings: Api, *, sent: bool = True, ca_file: str | None = None) -> None:
    """Asserts that a request ends as a time-out in time, and leaves nothing open."""
    proxy_url = settings.proxy_url.reveal() if settings.proxy_url else None
    port = urlsplit(proxy_url or settings.url).port or 443
    before = leading_to(port)
    with no_collection(), making(ca_file, proxy_url) as client:
        began = time.monotonic()
        asking = Asking(client, settings)
        error = asking.failure()
        took = time.monotonic() - began
        assert error.reason is Reason.TIMEOUT
        assert error.detail == f"no {'complete answer' if sent else 'connection'} within {TIMEOUT} s"
        assert TIMEOUT * 0.9 <= took < TIMEOUT + 1  # the machine may be busy
        assert len(asking.sent) == sent
        join_threads(SOON)  # which may have noticed the time-out a moment later
        on_loop(lambda: None).result(SOON)  # which closes what they have left
        assert leading_to(port) == before


def stopping(*data: bytes) -> Callable[[Visit], None]:
    """Sends this much of an answer, and nothing more."""

    def treat(visit: Visit) -> None:
        after_request(*data)(visit)
        visit.wait_until_gone()

    return treat


SLOW: dict[str, Callable[[Visit], None]] = {
    # Each lets every single read succeed long before a time-out of it.
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "endless headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "one informational answer after the other": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(head_of("Content-Length: 50000")),
    "body of a connection to be closed": dripping(head_of("Connection: close", "Content-Length: 50000")),
    "body without a length": dripping(head_of()),
    "body of HTTP/1.0": dripping(b"HTTP/1.0 200 OK\r\n\r\n"),
    "chunks": dripping(head_of("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "the extension of a chunk": dripping(head_of("Transfer-Encoding: chunked") + b"5;", b"x"),
    "trailers": dripping(head_of("Transfer-Encoding: chunked") + b"0\r\n", b"X: x\r\n"),
    "the body of an error": dripping(head_of("Content-Length: 50000", status="500 Oops")),
    "the body of a redirect": dripping(
        head_of("Content-Length: 50000", "Connection: close", "Location: /x", status="302 Found")
    ),
    # These stop.
    "no answer": silent,
    "half the status line": stopping(b"HTTP/1."),
    "half the headers": stopping(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "half the body": stopping(head_of("Content-Length: 500"), GOOD[:9]),
    "half the body of HTTP/1.0": stopping(b"HTTP/1.0 200 OK\r\n\r\n", GOOD[:9]),
    "half a chunk": stopping(head_of("Transfer-Encoding: chunked"), b"ff\r\n", GOOD),
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("treat", SLOW.values(), ids=SLOW)
def test_an_answer_that_drips_or_stops_is_a_time_out(
    tmp_path: Path, treat: Callable[[Visit], None], tls: bool
) -> None:
    authority = Authority(tmp_path)
    with Peer(treat, tls=tls_context(authority) if tls else None) as peer:
        timed_out(api(peer.url, timeout=TIMEOUT), ca_file=str(authority.cert))


def test_a_part_of_a_tls_record_that_comes_late_gives_no_more_time(tmp_path: Path) -> None:
    timeout = 1.0

    def treat(visit: Visit) -> None:
        visit.request()
        visit.answer()  # with it goes what TLS has to say first
        visit.request()
        time.sleep(0.8 * timeout)
        os.write(visit.sock.fileno(), b"\x17\x03\x03\x01\x00")  # the head of a record, and no more
        visit.wait_until_gone()

    authority = Authority(tmp_path)
    with Peer(treat, tls=tls_context(authority)) as peer, making(str(authority.cert)) as client:
        settings = api(peer.url, timeout=timeout)
        assert ask(client, settings) == Reading(40, 1, NOW)
        began = time.monotonic()
        assert Asking(client, settings).failure().reason is Reason.TIMEOUT
        assert time.monotonic() - began < 1.5 * timeout


def test_authorities_on_a_disk_that_hangs_are_a_time_out(tmp_path: Path) -> None:
    fifo = tmp_path / "authorities.pem"
    os.mkfifo(fifo)
    with Peer(good) as peer, making(str(fifo)) as client:
        began = time.monotonic()
        assert Asking(client, api("https://127.0.0.1:1", timeout=TIMEOUT)).failure().reason is Reason.TIMEOUT
        assert time.monotonic() - began < TIMEOUT + 1
        assert ask(client, peer.url) == Reading(40, 1, NOW)  # the loop goes on
        fifo.write_bytes(b"")  # lets the thread go on
        join_threads(SOON)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_the_simulators_drip_is_a_time_out(part: Any) -> None:
    with SimulatorThread(Simulator({7: simulator.stalled()})) as sim:
        sim.faults[7] = simulator.drip(0.05, part)
        timed_out(api(sim.url, timeout=TIMEOUT))


def dripping_handshake(visit: Visit) -> None:
    visit.sock.recv(1)
    visit.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB is to come
    while True:
        visit.send(b"\x00")
        time.sleep(0.02)


@pytest.mark.parametrize("through_proxy", [False, True])
@pytest.mark.parametrize("treat", [silent, dripping_handshake])
def test_a_handshake_that_drips_or_stops_is_a_time_out(
    treat: Callable[[Visit], None], through_proxy: bool
) -> None:
    with ExitStack() as stack:
        peer = stack.enter_context(Peer(treat))
        proxy = Secret(stack.enter_context(Peer(proxying)).url) if through_proxy else None
        url = peer.url.replace("http:", "https:")
        timed_out(api(url, timeout=TIMEOUT, proxy_url=proxy), sent=False)


@pytest.mark.parametrize(
    "treat",
    [
        silent,
        stopping(b"HTTP/1.1 200 Conn"),
        dripping(b"HTTP/1.1 200 Connected\r\n", b"X: x\r\n"),
        dripping(b"HTTP/1.1 200 Connected\r\nX: ", b"x"),
    ],
    ids=["no answer", "half an answer", "endless headers", "headers"],
)
def test_a_proxy_that_drips_or_stops_is_a_time_out(treat: Callable[[Visit], None]) -> None:
    with Peer(treat) as proxy:
        settings = api("https://api.mobizon.example", timeout=TIMEOUT, proxy_url=Secret(proxy.url))
        timed_out(settings, sent=False)


def test_a_connection_that_does_not_come_about_is_a_time_out() -> None:
    with unanswering() as url:
        timed_out(api(url, timeout=TIMEOUT), sent=False)


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_on_an_idle_connection_has_its_whole_time_and_no_more(tmp_path: Path, tls: bool) -> None:
    def treat(visit: Visit) -> None:
        for _ in range(2):
            visit.request()
            time.sleep(TIMEOUT * 0.6)
            visit.answer()
        dripping(head_of("Content-Length: 50000"))(visit)

    authority = Authority(tmp_path)
    with (
        Peer(treat, tls=tls_context(authority) if tls else None) as peer,
        making(str(authority.cert)) as client,
    ):
        settings = api(peer.url, timeout=TIMEOUT)
        assert [ask(client, settings) for _ in range(2)] == [Reading(40, 1, NOW)] * 2
        began = time.monotonic()
        error = ask(client, settings)
        assert isinstance(error, ApiError)
        assert error.reason is Reason.TIMEOUT
        assert TIMEOUT * 0.9 <= time.monotonic() - began < TIMEOUT + 0.5
        assert peer.connections == 1


# Versions of libraries


def test_the_next_major_versions_of_the_libraries_are_not_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = [bound for bound in project["dependencies"] if bound.startswith(LIBRARIES)]
    assert [bound.partition(",")[2] for bound in bounds] == ["<3", "<3"]
