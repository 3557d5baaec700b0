"""What an earlier process knew of tasks that are not listed, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.refresh.statefile import Memory, identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import Remembered
    from exporter.refresh.account import AccountState
    from exporter.refresh.clock import Instant

KEPT_FOR: Final = 600.0  # seconds: a task file may be half-written at the start


class UnlistedTasks:
    """Keeps what was restored until its task is listed; not for ever."""

    def __init__(self) -> None:
        self._memory: Memory = {}
        self._until = 0.0  # monotonic

    def add(self, memory: Memory, now: float) -> None:
        """Remember more; of two readings of a task the newer one wins."""
        self._until = now + KEPT_FOR
        for account, tasks in memory.items():
            known = self._memory.setdefault(account, {})
            for task_id, remembered in tasks.items():
                if task_id not in known or known[task_id].reading.taken_at < remembered.reading.taken_at:
                    known[task_id] = remembered

    def restore_listed(self, accounts: Sequence[AccountState], at: Instant) -> None:
        """Give every account what is known of its tasks.

        Its own is what was known under its key, or under its name and URL if that key is not in use: readings
        outlive the rotation of a key.
        """
        if at.monotonic >= self._until:
            self._memory = {}
        if not self._memory:
            return
        identities = [identity(account.settings).split("-") for account in accounts]
        keys = {key for key, _ in identities}
        by_key: dict[str, list[dict[int, Remembered]]] = {}
        by_place: dict[str, list[dict[int, Remembered]]] = {}
        for account_id, tasks in self._memory.items():
            key, _, place = account_id.partition("-")
            by_key.setdefault(key, []).append(tasks)
            if key not in keys:
                by_place.setdefault(place, []).append(tasks)
        for account, (key, place) in zip(accounts, identities, strict=True):
            for tasks in (*by_key.get(key, ()), *by_place.get(place, ())):
                listed = tasks.keys() & account.schedule.tasks.keys()
                if listed:
                    account.schedule.restore({task_id: tasks.pop(task_id) for task_id in listed}, at)

    def memory(self, now: float) -> Memory:
        """What is still to be remembered."""
        if now >= self._until:
            self._memory = {}
        return {account: dict(tasks) for account, tasks in self._memory.items() if tasks}
