"""SIGTERM, SIGINT and SIGHUP, from the first moment on and whatever the main thread is doing.

It imports little, for it is in place before everything else is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from exporter import output

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_WITHIN: Final = 4.5  # seconds from the signal to the end of the process, whatever hangs
MAX_FLUSH: Final = 0.3  # seconds for the last lines of the log
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context in which SIGTERM and SIGINT end the process with status 0, and SIGHUP does no harm.

    A thread receives them, so that a main thread that imports, reads a dead file system or waits for
    a lock holds up none. Until `on_stop` names who shuts down they end the process at once; a shutdown
    that takes longer than EXIT_WITHIN is cut short.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._hangup: Callable[[], object] | None = None
        self._missed_hangup = False
        self._stopping = False
        self._former: dict[signal.Signals, Any] = {}
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        if self._former:  # in force already
            return self
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._former_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGHUP):
            self._former[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._receive, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if not self._stopping:  # else the process is ending: a second signal must not change its status
            self.restore()

    def restore(self) -> None:
        """Have signals do again what they did before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self._former:
            signal.set_wakeup_fd(self._former_wakeup)
            os.close(self._write_end)  # which ends the thread
        self._former.clear()

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Have SIGTERM and SIGINT call this, on the thread, in place of ending the process."""
        with self._lock:
            self._stop = callback

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """Have SIGHUP call this, on the thread; at once if there was one already."""
        with self._lock:
            self._hangup = callback
            if self._missed_hangup:
                callback()

    def _receive(self) -> None:
        while received := os.read(self._read_end, 64):
            with self._lock:
                if any(number in received for number in _STOPPING):
                    self._begin_stop()
                elif signal.SIGHUP in received and self._hangup:
                    self._call(self._hangup)
                elif signal.SIGHUP in received:
                    self._missed_hangup = True
        os.close(self._read_end)

    def _begin_stop(self) -> None:
        self._stopping = True
        if self._stop is None:
            force_exit(0)
        self._call(self._stop)
        if not self._ended.wait(EXIT_WITHIN - MAX_FLUSH):
            force_exit(0)

    def _call(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: the process is ending
            callback()


def force_exit(status: int) -> NoReturn:
    """End the process now, whatever its threads are doing."""
    output.flush(MAX_FLUSH)
    os._exit(status)
