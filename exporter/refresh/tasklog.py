"""The lines that are logged of an account and its tasks: each change once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from exporter.errors import ApiError, Reason
from exporter.model import Reading, Status

if TYPE_CHECKING:
    from collections.abc import Container

    from exporter.refresh.task import TaskState

log = structlog.get_logger(__name__)


class TaskLog:
    """Logs for one account; `name` is its present one."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._failing: set[int] = set()  # tasks whose failure has been logged, but not yet its end
        self._unknown_status: dict[int, int] = {}  # by task, the undocumented status that has been logged

    def keep(self, task_ids: Container[int]) -> None:
        """Forget the other tasks: what happens to them once they are back is news."""
        self._failing = {task_id for task_id in self._failing if task_id in task_ids}
        self._unknown_status = {
            task_id: status for task_id, status in self._unknown_status.items() if task_id in task_ids
        }

    def task(self, task: TaskState, before: Reading | None, *, available: bool) -> None:
        """Log what an answer has changed for a task; `before` is its reading until then."""
        fields, failure, reading = self.fields(task), task.failure, task.reading
        if failure and failure.reason is not Reason.RATE_LIMITED and available:
            if task.spec.id not in self._failing:
                log.warning(
                    "Failed to read task", **fields, reason=failure.reason.value, detail=failure.detail
                )
            self._failing.add(task.spec.id)
        if failure is None and task.spec.id in self._failing:
            self._failing.discard(task.spec.id)
            log.info("Task readable again", **fields)
        if reading is None or (before and before.status == reading.status):
            return
        if reading.status in set(Status):
            state = Status(reading.status).name.lower()
            log.info("Task changed state", **fields, state=state, progress=reading.progress)
        elif self._unknown_status.get(task.spec.id) != reading.status:
            self._unknown_status[task.spec.id] = reading.status
            log.warning("Undocumented task status", **fields, status=reading.status)

    def account(self, outcome: Reading | ApiError, *, available: bool) -> None:
        """Log that the API has become unavailable for the account, or available again."""
        if not available and isinstance(outcome, ApiError):
            log.error(
                "API unavailable for account",
                **self.fields(),
                reason=outcome.reason.value,
                detail=outcome.detail,
            )
        else:
            log.info("API available again for account", **self.fields())

    def fields(self, task: TaskState | None = None) -> dict[str, object]:
        """The account and the task, as fields of a line."""
        fields: dict[str, object] = {"account": self.name} if self.name else {}
        if task:
            fields["task_id"] = task.spec.id
            if task.spec.name:
                fields["name"] = task.spec.name
        return fields
