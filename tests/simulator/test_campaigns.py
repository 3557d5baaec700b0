"""The simulated methods of campaigns, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from exporter import simulator
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

QUERY = {"output": "json", "api": "v1", "apiKey": DEMO_KEY}


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sim(clock: Clock) -> Iterator[Simulator]:
    load = simulator.growing(20, delay=5)
    with SimulatorThread(
        Simulator({1001: simulator.waiting()}, limit="off", clock=clock, load=load)
    ) as running:
        yield running


def call(sim: Simulator, method: str, form: Mapping[str, Any], **more: Any) -> tuple[int, Any]:
    url = f"{sim.url}/service/{method}"
    answer = requests.post(url, params=more.pop("query", QUERY), data=form, timeout=5, **more)
    assert answer.status_code == 200
    return answer.json()["code"], answer.json()["data"]


def load(sim: Simulator, **form: Any) -> int:
    """The id of the task that a load starts."""
    code, data = call(sim, "campaign/addRecipients", {"id": 1, **form})
    assert code == 100
    return int(data)


def status(sim: Simulator, task_id: int) -> int:
    code, data = call(sim, "taskqueue/getStatus", {"id": task_id})
    assert code == 0
    return int(data["status"])


def test_a_load_by_group_goes_from_waiting_to_completed(sim: Simulator, clock: Clock) -> None:
    task_id = load(sim, recipientGroups="7,8")
    seen = []
    for age in (0, 4.9, 5, 24.9, 25, 1000):
        clock.now = 1000 + age
        seen.append(status(sim, task_id))
    assert seen == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "form", [{"recipientGroups": "13"}, {"recipientGroups[0]": 7, "recipientGroups[1]": 13}]
)
def test_a_load_of_group_13_is_rejected_half_way(sim: Simulator, clock: Clock, form: dict[str, Any]) -> None:
    task_id = load(sim, **form)
    seen = []
    for age in (0, 5, 14.9, 15, 1000):
        clock.now = 1000 + age
        seen.append(status(sim, task_id))
    assert seen == [0, 1, 1, 3, 3]


@pytest.mark.parametrize(("content", "last"), [("77010000000\n77010000001\n", 2), ("no numbers", 3)])
def test_a_load_by_file_is_rejected_if_it_holds_no_number(
    sim: Simulator, clock: Clock, content: str, last: int
) -> None:
    files = {"recipientsFile": ("numbers.csv", content)}
    code, task_id = call(sim, "campaign/addRecipients", {"id": 1}, files=files)
    assert code == 100
    clock.now += 30
    assert status(sim, int(task_id)) == last


def test_each_load_is_a_task_of_its_own_with_an_unused_id(sim: Simulator, clock: Clock) -> None:
    assert [load(sim, id=campaign, recipientGroups=7) for campaign in (1, 2)] == [1002, 1003]


@pytest.mark.parametrize(
    "form",
    [
        {"recipients": "77010000000,77010000001"},
        {"recipients": "77010000000\n77010000001"},
        {"recipients[]": ["77010000000", "77010000001"]},
        {"recipients[0]": "77010000000", "recipients[1]": "77010000001"},
        {
            "recipients[0][recipient]": "77010000000",
            "recipients[0][name]": "A",
            "recipients[1][recipient]": "77010000001",
        },
    ],
)
def test_a_plain_list_is_added_at_once(sim: Simulator, form: dict[str, Any]) -> None:
    code, data = call(sim, "campaign/addRecipients", {"id": 1, **form})
    assert code == 0
    assert data == [
        {"recipient": "77010000000", "code": 0, "messageId": 1},
        {"recipient": "77010000001", "code": 0, "messageId": 2},
    ]
    assert call(sim, "campaign/send", {"id": 1}) == (0, 2)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"recipients": "77010000000", "recipientGroups": "7"},
        {"recipients": ",".join(str(77010000000 + n) for n in range(501))},
    ],
)
def test_recipients_of_no_kind_of_two_kinds_or_too_many_are_a_wrong_parameter(
    sim: Simulator, form: dict[str, Any]
) -> None:
    assert call(sim, "campaign/addRecipients", {"id": 1, **form})[0] == 12


@pytest.mark.parametrize("method", ["campaign/addRecipients", "campaign/send"])
@pytest.mark.parametrize("campaign", ["", "0", "spring"])
def test_a_campaign_has_a_positive_integer_as_its_id(sim: Simulator, method: str, campaign: str) -> None:
    assert call(sim, method, {"id": campaign, "recipientGroups": 7})[0] == 2


def test_a_campaign_is_locked_while_its_recipients_are_loaded(sim: Simulator, clock: Clock) -> None:
    load(sim, recipientGroups=7)
    for age in (0, 5, 24.9):
        clock.now = 1000 + age
        assert call(sim, "campaign/send", {"id": 1})[0] == 10
        assert call(sim, "campaign/addRecipients", {"id": 1, "recipientGroups": 8})[0] == 10
    clock.now = 1025
    assert call(sim, "campaign/send", {"id": 1}) == (0, 2)


def test_a_campaign_is_sent_once(sim: Simulator) -> None:
    call(sim, "campaign/addRecipients", {"id": 1, "recipients": "77010000000"})
    assert [call(sim, "campaign/send", {"id": 1})[0] for _ in range(2)] == [0, 10]
    assert call(sim, "campaign/addRecipients", {"id": 1, "recipientGroups": 8})[0] == 10


def test_a_campaign_without_recipients_cannot_be_sent(sim: Simulator, clock: Clock) -> None:
    assert call(sim, "campaign/send", {"id": 1})[0] == 10
    load(sim, recipientGroups=13)
    clock.now += 30
    assert call(sim, "campaign/send", {"id": 1})[0] == 10
    load(sim, recipientGroups=7)
    clock.now += 30
    assert call(sim, "campaign/send", {"id": 1}) == (0, 2)


@pytest.mark.parametrize("method", ["campaign/addRecipients", "campaign/send"])
@pytest.mark.parametrize(("changed", "code"), [({"apiKey": "wrong"}, 8), ({"api": "v2"}, 6)])
def test_methods_of_campaigns_check_what_every_method_checks(
    sim: Simulator, method: str, changed: dict[str, str], code: int
) -> None:
    assert call(sim, method, {"id": 1, "recipients": "77010000000"}, query={**QUERY, **changed})[0] == code


def test_there_are_no_other_methods_of_campaigns(sim: Simulator) -> None:
    assert call(sim, "campaign/create", {})[0] == 5


def test_each_method_has_a_limit_of_its_own(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock)) as sim:
        methods = ("taskqueue/getStatus", "campaign/addRecipients", "campaign/send")
        forms: tuple[dict[str, Any], ...] = ({"id": 7}, {"id": 1, "recipients": "77010000000"}, {"id": 1})
        codes = [
            call(sim, method, form)[0] for _ in range(2) for method, form in zip(methods, forms, strict=True)
        ]
        assert codes == [0, 0, 0, 30, 30, 30]
        assert (sim.accepted, sim.refused) == (1, 1), "getStatus alone is counted"
        assert [request.method for request in sim.requests][:3] == [method.lower() for method in methods]


def test_faults_of_get_status_leave_campaigns_alone(sim: Simulator) -> None:
    sim.faults[None] = simulator.code(8)
    assert call(sim, "campaign/addRecipients", {"id": 1, "recipients": "77010000000"})[0] == 0
