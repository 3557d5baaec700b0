"""A name with several addresses: a dead one costs part of one request's time, and is avoided from then on."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from exporter.errors import ApiError, Reason
from exporter.model import Api, Reading, Secret
from tests.support.asking import NOW, api, ask, making
from tests.support.certificates import Authority
from tests.support.peers import Peer, Visit, good, head_of, header, proxying, sending, silent, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "api.mobizon.example"
DEAD, LIVE = "127.0.0.2", "127.0.0.3"
TIMEOUT = 2.0
READING = Reading(40, 1, NOW)


class Resolver:
    """Answers for NAME; an address stays what it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses = [DEAD, LIVE]
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *arguments: Any, **named: Any) -> Any:
        if host.rstrip(".") != NAME:
            return self._resolve(host, port, *arguments, **named)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


@contextmanager
def swallowing(address: str, port: int) -> Iterator[None]:
    """An address to which no connection comes about: the queue of those not accepted is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


@contextmanager
def accepting(address: str, port: int) -> Iterator[None]:
    """An address of a server that hangs: it accepts, and says nothing in a handshake."""
    with Peer(silent, address=(address, port)):
        yield


@contextmanager
def refusing(address: str, port: int) -> Iterator[None]:
    """An address where nothing listens."""
    yield


def settings(peer: Peer, **more: Any) -> Api:
    scheme = peer.url.partition(":")[0]
    return api(f"{scheme}://{NAME}:{peer.port}", timeout=TIMEOUT, **more)


@pytest.mark.parametrize(
    ("dead", "tls"),
    [(refusing, False), (refusing, True), (swallowing, False), (swallowing, True), (accepting, True)],
)
def test_a_dead_address_gives_way_to_the_next_one_which_is_tried_first_from_then_on(
    resolver: Resolver, tmp_path: Path, dead: Callable[..., Any], tls: bool
) -> None:
    authority = Authority(tmp_path)
    context = tls_context(authority, x509.DNSName(NAME)) if tls else None

    def closing(visit: Visit) -> None:  # so that each request needs a new connection
        visit.request()
        visit.answer(b'{"code":0,"data":{"progress":40,"status":1}}', "Connection: close")

    with Peer(closing, tls=context, address=(LIVE, 0)) as peer, dead(DEAD, peer.port):
        with making(str(authority.cert)) as client:
            began = time.monotonic()
            assert ask(client, settings(peer)) == READING
            assert time.monotonic() - began < TIMEOUT
            for _ in range(3):
                began = time.monotonic()
                assert ask(client, settings(peer)) == READING
                assert time.monotonic() - began < TIMEOUT / 4
        assert peer.connections == 4
        assert {header(head, "Host") for head in peer.heads} == {f"{NAME}:{peer.port}"}


def test_an_address_that_the_name_has_no_more_is_not_tried(resolver: Resolver) -> None:
    with (
        Peer(sending(head_of("Connection: close") + b"{}"), address=(LIVE, 0)) as peer,
        Peer(good, address=(DEAD, peer.port)),
        making() as client,
    ):
        resolver.addresses = [LIVE]
        first = ask(client, settings(peer))
        assert isinstance(first, ApiError)
        assert first.reason is Reason.INVALID_RESPONSE
        resolver.addresses = [DEAD]
        assert ask(client, settings(peer)) == READING


def test_all_addresses_together_have_the_time_of_one(resolver: Resolver) -> None:
    with Peer(good, address=("127.0.0.4", 0)) as peer, ExitStack() as stack, making() as client:
        for address in (DEAD, LIVE):
            stack.enter_context(swallowing(address, peer.port))
        began = time.monotonic()
        error = ask(client, settings(peer))
        assert isinstance(error, ApiError)
        assert (error.reason, error.detail) == (Reason.TIMEOUT, f"no connection within {TIMEOUT:g} s")
        assert TIMEOUT * 0.9 < time.monotonic() - began < TIMEOUT + 0.5
        resolver.addresses.append("127.0.0.4")
        assert ask(client, settings(peer)) == READING


def test_a_certificate_is_compared_with_the_name_and_not_with_an_address(
    resolver: Resolver, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = tls_context(authority, x509.DNSName("another.example"))
    with Peer(good, tls=context, address=(LIVE, 0)) as peer, making(str(authority.cert)) as client:
        error = ask(client, settings(peer))
        assert isinstance(error, ApiError)
        assert error.detail.startswith("certificate not trusted")
        assert NAME in error.detail
        assert not peer.heads


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("dead", [refusing, swallowing])
def test_a_proxy_has_several_addresses_too(
    resolver: Resolver, tmp_path: Path, dead: Callable[..., Any], tls: bool
) -> None:
    authority = Authority(tmp_path)
    context = tls_context(authority) if tls else None
    with (
        Peer(good, tls=context) as peer,
        Peer(proxying, address=(LIVE, 0)) as proxy,
        dead(DEAD, proxy.port),
        making(str(authority.cert), f"http://{NAME}:{proxy.port}") as client,
    ):
        through = api(peer.url, timeout=TIMEOUT, proxy_url=Secret("said to the client"))
        assert ask(client, through) == READING
        assert ask(client, through) == READING
        assert proxy.connections == 1


def test_a_name_that_ends_in_a_dot_is_looked_up_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    resolve = socket.getaddrinfo

    def noting(host: str, *arguments: Any, **named: Any) -> Any:
        looked_up.append(host)
        return resolve("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", noting)
    with Peer(good) as peer, making() as client:
        assert ask(client, f"http://{NAME}.:{peer.port}") == READING
    assert looked_up[0] == f"{NAME}."
