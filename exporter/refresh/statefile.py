"""The last readings across restarts: a small JSON file, replaced whole, without the key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.errors import StateError
from exporter.files import replace_file
from exporter.model import Reading, Remembered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporter.model import Account, Secret

log = structlog.get_logger(__name__)

VERSION: Final = 2
READABLE: Final = (1, 2)  # in the first, an account was its key's fingerprint alone
SAVED_EVERY: Final = 2.0  # seconds
MOST_OF_THE_TIME: Final = 0.05  # that saving may take: ten thousand tasks take tenths of a second
LONGEST_PAUSE: Final = 30.0  # seconds
MAX_LAST_SAVE: Final = 1.0  # seconds


Memory = dict[str, dict[int, Remembered]]
"""By the account's identity and the task's id."""


def fingerprint(key: Secret) -> str:
    """What tells that a file's account is the present one, and gives nothing of its key away."""
    return hashlib.sha256(b"mobizon-exporter account " + key.reveal().encode()).hexdigest()[:16]


def identity(account: Account) -> str:
    """An account in the file: its key's fingerprint, and its place's, which is its name and URL."""
    place = json.dumps([account.name, account.api.url])
    digest = hashlib.sha256(b"mobizon-exporter place " + place.encode()).hexdigest()[:16]
    return f"{fingerprint(account.api.key)}-{digest}"


class StateFile:
    """Saves in a thread of its own, at most every few seconds, and only what has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._saved: object = self  # the mark of what was saved last; at first one that equals no other
        self._failing = False

    def read(self) -> Memory:
        """What was saved last. A file that cannot be used is put aside with a warning, and nothing known."""
        try:
            return parse(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning(
                "State file cannot be read, starting without", path=str(self._path), error=error.strerror
            )
        except StateError as error:
            aside = self._path.with_name(f"{self._path.name}.unusable-{int(time.time())}")
            kept: dict[str, str] = {}
            with contextlib.suppress(OSError):
                self._path.rename(aside)
                kept = {"kept_as": str(aside)}
            log.warning(
                "State file cannot be used, starting without", path=str(self._path), error=str(error), **kept
            )
        return {}

    async def keep(self, mark: Callable[[], object], memory: Callable[[], Memory]) -> None:
        """Save again and again, whenever `mark` tells that there is something new; until cancelled."""
        took = 0.0
        while True:
            await asyncio.sleep(max(SAVED_EVERY, min(took / MOST_OF_THE_TIME, LONGEST_PAUSE)))
            began = time.monotonic()
            try:
                await self.save(mark(), memory)
            except Exception:
                log.exception("State cannot be saved")
            took = time.monotonic() - began

    async def save(self, mark: object, memory: Callable[[], Memory]) -> None:
        """Save now, unless `mark` is that of what was saved last."""
        if mark != self._saved:
            loop = asyncio.get_running_loop()
            if await loop.run_in_executor(self._thread, self._write, memory()):
                self._saved = mark

    async def save_finally(self, memory: Callable[[], Memory]) -> None:
        """Save a last time, for MAX_LAST_SAVE seconds at most: a disk that hangs holds up no end."""
        try:
            async with asyncio.timeout(MAX_LAST_SAVE):
                await self.save(None, memory)
        except TimeoutError:
            log.warning("State file cannot be written in time", path=str(self._path))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _write(self, memory: Memory) -> bool:
        try:
            replace_file(self._path, dump(memory))
        except OSError as error:
            if not self._failing:
                log.warning("State file cannot be written", path=str(self._path), error=error.strerror)
            self._failing = True
            return False
        self._failing = False
        return True


def dump(memory: Memory) -> bytes:
    """The file: JSON, a task a line."""
    accounts = []
    for account, tasks in memory.items():
        lines = ",\n".join(f'"{task_id}": {json.dumps(_plain(known))}' for task_id, known in tasks.items())
        accounts.append(f'"{account}": {{\n{lines}\n}}')
    return f'{{"version": {VERSION}, "accounts": {{\n{",".join(accounts)}\n}}}}\n'.encode()


def parse(content: bytes) -> Memory:
    """The memory in a file's content; raises StateError."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise StateError("it is torn, or not JSON") from None
    if not isinstance(data, dict) or "version" not in data:
        raise StateError("it is not a state file")
    if data["version"] not in READABLE:
        raise StateError(f"its version is {data['version']!r}, and only {VERSION} is understood")
    try:
        return {
            account: {int(task_id): _remembered(known) for task_id, known in tasks.items()}
            for account, tasks in data["accounts"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise StateError("its content is not that of a state file") from None


def _plain(known: Remembered) -> dict[str, Any]:
    return {
        "progress": known.reading.progress,
        "status": known.reading.status,
        "taken_at": known.reading.taken_at,
        "changed_at": known.changed_at,
        "finished_at": known.finished_at,
        "first_read_at": known.first_read_at,
    }


def _remembered(known: dict[str, Any]) -> Remembered:
    reading = Reading(float(known["progress"]), int(known["status"]), float(known["taken_at"]))
    changed_at, finished_at = float(known["changed_at"]), _time_or_none(known["finished_at"])
    first_read_at = _time_or_none(known.get("first_read_at"))
    if not all(map(math.isfinite, (reading.taken_at, changed_at, finished_at or 0.0, first_read_at or 0.0))):
        raise ValueError("a time that is none")
    if not 0 <= reading.progress <= 100:  # noqa: PLR2004 - percent
        raise ValueError("a progress that is none")
    return Remembered(reading, changed_at, finished_at, first_read_at)


def _time_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
