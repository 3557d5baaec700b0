"""The authorities whose certificates are trusted: connections share them, for they take long to be read."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

if TYPE_CHECKING:
    from collections.abc import Iterable

_SETTINGS: Final = ("options", "verify_flags", "minimum_version", "hostname_checks_common_name")


class Authorities:
    """What a PEM file holds; read anew for the next connection when the file has changed."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._lock = threading.Lock()  # for connections are made in threads
        self._read: tuple[int, ...] = ()  # what the file was like
        self._context: ssl.SSLContext

    def context(self) -> ssl.SSLContext:
        """For a connection; OSError if the file cannot be read or is none of certificates."""
        now = self._file.stat()
        found = (now.st_mtime_ns, now.st_size, now.st_ino)
        with self._lock:
            if found != self._read:
                context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(self._file)
                self._context, self._read = context, found
            return self._context


class _SharedContext(ssl.SSLContext):
    """As urllib3 makes one for a connection, but no connection changes it."""

    def __init__(self, _protocol: int) -> None:
        usual = create_urllib3_context()
        for name in _SETTINGS:
            setattr(self, name, getattr(usual, name))
        super().set_alpn_protocols(ALPN_PROTOCOLS)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Do nothing: OpenSSL may just be copying them for another connection."""
