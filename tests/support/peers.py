"""Servers and proxies for tests of the client: each does with a connection what a test wants of it."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.certificates import Authority

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
    """A server on a free loopback port that treats every connection with the given handler."""

    def __init__(
        self,
        treat: Callable[[Visit], None],
        *,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._treat = treat
        self._tls = tls
        self._listener = socket.create_server(address)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="peer")]
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{address[0]}:{self.port}"

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


def tls_context(authority: Authority, *names: Any) -> ssl.SSLContext:
    pair = authority.issue("peer", *names) if names else authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.files)
    return context


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


def after_request(*data: bytes) -> Callable[[Visit], None]:
    def treat(visit: Visit) -> None:
        visit.request()
        for piece in data:
            visit.send(piece)

    return treat


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
