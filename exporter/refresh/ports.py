"""What the refresher needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.errors import ApiError
    from exporter.model import Api, Reading


class Timer(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Call it off."""


class Loop(Protocol):
    """The part of an asyncio loop that is used here."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call back at that time."""


class Send(Protocol):
    """Starts a request. `sent` is called when it is on its way, `done` with what came of it."""

    def __call__(
        self,
        api: Api,
        task_id: int,
        sent: Callable[[float], None],
        done: Callable[[Reading | ApiError], None],
    ) -> None:
        """Return at once."""
