"""The last readings across restarts: a small JSON file, replaced whole, without the key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.errors import StateError
from exporter.files import remove_leftovers, replace_file
from exporter.model import Reading, Remembered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exporter.model import Account, Secret

log = structlog.get_logger(__name__)

VERSION: Final = 2
READABLE: Final = (1, 2)  # in the first, an account was its key's fingerprint alone
SAVE_INTERVAL: Final = 2.0  # seconds
MAX_SAVE_SHARE: Final = 0.05  # of the time: ten thousand tasks take tenths of a second
MAX_SAVE_INTERVAL: Final = 30.0  # seconds
MAX_LAST_SAVE: Final = 1.0  # seconds
MAX_AHEAD: Final = 86400.0  # seconds: how far clocks may have been apart
MAX_STATUS: Final = 2**53  # as answers are validated
MAX_SHOWN: Final = 32  # characters
_ACCOUNT: Final = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16})?")
_ID: Final = re.compile(r"[1-9][0-9]{0,18}")


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
            memory, unusable = parse(self._path.read_bytes(), time.time())
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning(
                "Failed to read state file, starting without it", path=str(self._path), error=error.strerror
            )
        except StateError as error:
            aside = self._path.with_name(f"{self._path.name}.unusable-{int(time.time())}")
            kept: dict[str, str] = {}
            with contextlib.suppress(OSError):
                self._path.rename(aside)
                kept = {"kept_as": str(aside)}
            log.warning(
                "Invalid state file, starting without it", path=str(self._path), error=str(error), **kept
            )
        else:
            if unusable:
                log.warning(
                    "State file has invalid entries, ignoring them", path=str(self._path), entries=unusable
                )
            return memory
        return {}

    async def keep(self, mark: Callable[[], object], memory: Callable[[], Memory]) -> None:
        """Save again and again, whenever `mark` tells that there is something new; until cancelled."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, remove_leftovers, self._path)
        took = 0.0
        while True:
            await asyncio.sleep(max(SAVE_INTERVAL, min(took / MAX_SAVE_SHARE, MAX_SAVE_INTERVAL)))
            began = time.monotonic()
            try:
                await self.save(mark(), memory)
            except Exception:
                log.exception("Failed to save state")
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
            log.warning("Timed out writing state file", path=str(self._path))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _write(self, memory: Memory) -> bool:
        try:
            replace_file(self._path, dump(memory))
        except OSError as error:
            if not self._failing:
                log.warning("Failed to write state file", path=str(self._path), error=error.strerror)
            self._failing = True
            return False
        self._failing = False
        return True


def dump(memory: Memory) -> bytes:
    """The file: JSON, a task a line."""
    accounts = []
    for account, tasks in memory.items():
        lines = ",\n".join(
            f"{json.dumps(str(task_id))}: {json.dumps(_entry(known))}" for task_id, known in tasks.items()
        )
        accounts.append(f"{json.dumps(account)}: {{\n{lines}\n}}")
    return f'{{"version": {VERSION}, "accounts": {{\n{",".join(accounts)}\n}}}}\n'.encode()


def parse(content: bytes, now: float) -> tuple[Memory, int]:
    """The memory in a file's content, and how many entries of it cannot be used; raises StateError.

    `now` is Unix time: an entry whose times are more than a day ahead of it cannot be used.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise StateError("it is torn, or not JSON") from None
    if not isinstance(data, dict) or "version" not in data:
        raise StateError("it is not a state file")
    if data["version"] not in READABLE:
        found = repr(data["version"])[:MAX_SHOWN]
        raise StateError(f"its version is {found}, and only {VERSION} is understood")
    if not isinstance(data.get("accounts"), dict):
        raise StateError("its content is not that of a state file")
    memory: Memory = {}
    unusable = 0
    for account, tasks in data["accounts"].items():
        if not _ACCOUNT.fullmatch(account) or not isinstance(tasks, dict):
            unusable += 1
            continue
        memory[account] = {}
        for task_id, entry in tasks.items():
            try:
                memory[account][_whole(task_id)] = _remembered(entry, now)
            except (KeyError, TypeError, ValueError):
                unusable += 1
    return memory, unusable


def _entry(known: Remembered) -> dict[str, Any]:
    return {
        "progress": known.reading.progress,
        "status": known.reading.status,
        "taken_at": known.reading.taken_at,
        "changed_at": known.changed_at,
        "finished_at": known.finished_at,
        "first_read_at": known.first_read_at,
    }


def _remembered(entry: dict[str, Any], now: float) -> Remembered:
    """An entry as `_entry` makes it; raises KeyError, TypeError or ValueError for any other."""
    latest = now + MAX_AHEAD
    status = entry["status"]
    if type(status) is not int or abs(status) >= MAX_STATUS:
        raise ValueError("no status")
    reading = Reading(_number(entry["progress"], 100), status, _number(entry["taken_at"], latest))
    changed_at, finished_at = _number(entry["changed_at"], latest), entry["finished_at"]
    first_read_at = entry.get("first_read_at")
    if reading.final:
        finished_at = _number(finished_at, latest)
    elif finished_at is not None:
        raise ValueError("finished, but not final")
    if first_read_at is not None:
        first_read_at = _number(first_read_at, latest)
    return Remembered(reading, changed_at, finished_at, first_read_at)


def _number(value: Any, most: float) -> float:
    if type(value) not in {int, float} or not 0 <= value <= most:
        raise ValueError("no number of this range")
    return float(value)


def _whole(text: str) -> int:
    if not _ID.fullmatch(text):
        raise ValueError("no id")
    return int(text)
