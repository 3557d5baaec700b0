"""The authorities whose certificates are trusted: connections share them, for they take long to be read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from urllib3.util.ssl_ import create_urllib3_context

if TYPE_CHECKING:
    import ssl


class Authorities:
    """What a PEM file holds; read anew for the next connection when the file has changed."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._lock = threading.Lock()  # for connections are made in threads
        self._read: tuple[int, ...] = ()  # what the file was like
        self._context: ssl.SSLContext

    def context(self) -> ssl.SSLContext:
        """For a connection; OSError if the file cannot be read or is none of certificates."""
        with self._lock:
            now = self._file.stat()
            found = (now.st_mtime_ns, now.st_size, now.st_ino)
            if found != self._read:
                context = create_urllib3_context()
                context.load_verify_locations(self._file)
                self._context, self._read = context, found
            return self._context
