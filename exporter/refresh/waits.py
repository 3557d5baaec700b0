"""Who waits: scrapes for the answers of all accounts, programs for the end of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.refresh.outlook import Outlook
    from exporter.refresh.ports import Timer


class WaitingScrape:
    """A scrape that waits for accounts, each by itself, until its deadline; `done` is called once."""

    def __init__(self, deadline: float, waiting: set[WaitingScrape], done: Callable[[], None]) -> None:
        self.deadline = deadline
        self._waiting = waiting  # all that wait, this one included while it does
        waiting.add(self)
        self.timer: Timer | None = None
        self._done: Callable[[], None] | None = done
        self._accounts: set[ScrapeWaits] = set()

    def wait_for(self, account: ScrapeWaits, ask: int) -> None:
        """Wait for the answers that the ask of this number wants."""
        account.asks[self] = ask
        self._accounts.add(account)

    def stop_waiting_for(self, account: ScrapeWaits) -> None:
        """The account has answered, or cannot in time."""
        account.asks.pop(self, None)
        self._accounts.discard(account)
        self.release_if_complete()

    def release_if_complete(self) -> None:
        """Let it go if it waits for no account."""
        if not self._accounts:
            self.release()

    def release(self) -> None:
        """Let it go with what is known."""
        done = self._done
        self.give_up()
        if done:
            done()

    def give_up(self) -> None:
        """Forget it: its peer has gone, or it has been answered."""
        self._done = None
        self._waiting.discard(self)
        if self.timer:
            self.timer.cancel()
        for account in self._accounts:
            del account.asks[self]
        self._accounts.clear()


class ScrapeWaits:
    """The scrapes that wait for one account, in the order of their asks."""

    def __init__(self) -> None:
        self.asks: dict[WaitingScrape, int] = {}

    def release_if_complete(self, outlook: Outlook) -> None:
        """Let those go that have the account's answers, or can no longer get them in time.

        What is still to come is the same for all of them, and computed once.
        """
        for scrape, ask in list(self.asks.items()):
            if outlook.pending(ask):
                break  # and so are the answers to the asks after it
            scrape.stop_waiting_for(self)
        if not self.asks:
            return
        latest = outlook.complete_at(next(reversed(self.asks.values())))
        if latest > min(scrape.deadline for scrape in self.asks):
            for scrape, ask in list(self.asks.items()):
                if outlook.complete_at(ask) > scrape.deadline:
                    scrape.stop_waiting_for(self)


class TaskWaits:
    """The programs that wait for tasks of one account, by the task's id."""

    def __init__(self) -> None:
        self.by_task: dict[int, dict[object, Callable[[], None]]] = {}

    def add(self, task_id: int, done: Callable[[], None]) -> Callable[[], bool]:
        """Call `done` when the wait ends. Returns what gives it up, and tells whether it was the last one."""
        waits, mark = self.by_task.setdefault(task_id, {}), object()
        waits[mark] = done

        def give_up() -> bool:
            was_there = waits.pop(mark, None) is not None
            if waits or not was_there:
                return False
            del self.by_task[task_id]
            return True

        return give_up

    def end(self, task_id: int) -> None:
        """Let all go that wait for a task."""
        for done in _emptied(self.by_task.pop(task_id, {})):
            done()


def _emptied(waits: dict[object, Callable[[], None]]) -> list[Callable[[], None]]:
    done = list(waits.values())
    waits.clear()
    return done
