"""Lines on stderr and stdout that never hold up the one who writes them.

It imports little, for it is in place before everything else is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

MAX_PENDING: Final = 1024 * 1024  # characters


class LineWriter:
    """Writes lines to a stream from a daemon thread, in order. Never blocks and raises nothing.

    At most MAX_PENDING characters wait while the stream takes none. Lines beyond are lost and counted, and
    `describe_loss` makes the line that takes their place.
    """

    def __init__(self, stream: Callable[[], TextIO]) -> None:
        self.describe_loss: Callable[[int], str] = "{} lines lost".format
        self._stream = stream
        self._changed = threading.Condition()
        self._pending: list[str] = []
        self._size = 0
        self._lost = 0
        self._writing = False
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line written soon."""
        with self._changed:
            # once a line is lost those after it are, too, so that the order holds
            if self._lost or self._size + len(line) > MAX_PENDING:
                self._lost += 1
            else:
                self._pending.append(line)
                self._size += len(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait for what is pending, for so many seconds at most; whether all of it is written."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._pending or self._lost or self._writing), timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pending or self._lost)
                lines, self._pending, self._size = self._pending, [], 0
                lost, self._lost = self._lost, 0
                self._writing = True
            if lost:
                lines.append(self.describe_loss(lost))
            for line in lines:
                self._write(line)

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe costs the line alone
            stream = self._stream()
            stream.write(line + "\n")
            stream.flush()


stderr: Final = LineWriter(lambda: sys.stderr)
stdout: Final = LineWriter(lambda: sys.stdout)


def flush(timeout: float) -> bool:
    """Wait for both streams, for so many seconds at most; whether all that was given to them is written."""
    until = time.monotonic() + timeout
    written = stderr.flush(timeout)
    return stdout.flush(max(0.0, until - time.monotonic())) and written
