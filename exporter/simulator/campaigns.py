"""The simulated methods of campaigns: adding recipients, in the background or at once, and sending."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from exporter.model import Status
from exporter.simulator.scenarios import NOT_FOUND, Scenario, growing, rejected_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.simulator.scenarios import Tasks

NOT_UPDATED: Final = 10
INVALID_PARAMETER: Final = 12
BACKGROUND: Final = 100
SENT: Final = 2
MAX_LISTED: Final = 500
REJECTED_GROUP: Final = "13"
DEFAULT_LOAD: Final[Scenario] = growing(15, delay=3)
UNFINISHED: Final = frozenset({Status.WAITING, Status.IN_PROGRESS})

Reply: TypeAlias = tuple[int, Any]
"""The code and the data of an answer; None as data stands for what PHP has for "no data"."""


@dataclass(slots=True)
class _Campaign:
    recipients: int = 0  # added at once
    loads: list[int] = field(default_factory=list)  # ids of background tasks
    sent: bool = False


class Campaigns:
    """Campaigns by id: every positive integer is one, and has no recipients at first.

    Groups and files are loaded by a background task that follows the scenario `load`. A load is rejected
    half-way if it names the group 13 or a file without a digit. As Mobizon documents it, a campaign can
    neither be sent nor loaded while a load is unfinished (code 10), and is sent once.
    """

    def __init__(self, tasks: Tasks, load: Scenario) -> None:
        self.load = load
        self._tasks = tasks
        self._campaigns: dict[int, _Campaign] = {}
        self._message_ids = itertools.count(1)

    def add_recipients(self, campaign_id: int | None, form: Mapping[str, Any], at: float) -> Reply:
        """Answers campaign/addRecipients."""
        if campaign_id is None:
            return NOT_FOUND, None
        numbers = _values(form, "recipients") + _values(form, "recipientContacts")
        groups = _values(form, "recipientGroups")
        file = form.get("recipientsFile")
        if sum(map(bool, (numbers, groups, file))) != 1 or len(numbers) > MAX_LISTED:
            return INVALID_PARAMETER, None
        campaign = self._campaign(campaign_id)
        if campaign.sent or self._loads(campaign, at) & UNFINISHED:
            return NOT_UPDATED, None
        if numbers:
            campaign.recipients += len(numbers)
            return 0, [
                {"recipient": number, "code": 0, "messageId": next(self._message_ids)} for number in numbers
            ]
        content = file if isinstance(file, str) or file is None else file.file.read().decode("latin-1")
        refused = REJECTED_GROUP in groups or (content is not None and not re.search("[0-9]", content))
        campaign.loads.append(self._tasks.add(rejected_at(50, self.load) if refused else self.load))
        return BACKGROUND, campaign.loads[-1]

    def send(self, campaign_id: int | None, at: float) -> Reply:
        """Answers campaign/send."""
        if campaign_id is None:
            return NOT_FOUND, None
        campaign = self._campaign(campaign_id)
        loads = self._loads(campaign, at)
        if campaign.sent or loads & UNFINISHED or not (campaign.recipients or Status.COMPLETED in loads):
            return NOT_UPDATED, None
        campaign.sent = True
        return 0, SENT

    def _campaign(self, campaign_id: int) -> _Campaign:
        return self._campaigns.setdefault(campaign_id, _Campaign())

    def _loads(self, campaign: _Campaign, at: float) -> set[float]:
        """The statuses of a campaign's loads."""
        answers = (self._tasks.answer(task_id, at) for task_id in campaign.loads)
        return {float(answer[1]) for answer in answers if isinstance(answer, tuple)}


def _values(form: Mapping[str, Any], name: str) -> list[str]:
    """The elements of a parameter, in each of PHP's spellings: `a,b`, `name[]=a`, `name[0][recipient]=a`."""
    spelling = re.compile(rf"{name}(\[\w*\](\[recipient\])?)?")
    texts = [value for key, value in form.items() if spelling.fullmatch(key) and isinstance(value, str)]
    return [element.strip() for text in texts for element in re.split(r"[,\n]", text) if element.strip()]
