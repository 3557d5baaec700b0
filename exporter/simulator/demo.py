"""The demo's API: its tasks and its address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.model import TaskSpec
from exporter.simulator.scenarios import (
    as_strings,
    completed,
    flaky,
    growing,
    missing,
    rejected,
    repeating,
    stalled,
    waiting,
)
from exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from exporter.simulator.scenarios import Scenario

DEMO_PORT: Final = 10118


def demo_tasks() -> list[tuple[TaskSpec, Scenario]]:
    """The tasks of the demo, which together show every state within two minutes.

    Completed and rejected tasks are never asked for again, so some tasks wait, or are in progress, even
    after hours.
    """
    crm, marketing = {"team": "crm"}, {"team": "marketing"}
    return [
        (TaskSpec(101, "spring-sale-recipients", marketing), growing(45, delay=10)),
        (TaskSpec(102, "contacts-import-crm", crm), growing(4 * 3600)),
        (TaskSpec(103, "monthly-report"), completed()),
        (TaskSpec(104, "black-friday-recipients", marketing), waiting()),
        (TaskSpec(105, "contacts-import-legacy", crm), rejected(after=40, at=55)),
        (TaskSpec(106, "loyalty-recipients", marketing), stalled(at=37)),
        (TaskSpec(107, "delivery-report-deleted"), missing()),
        (TaskSpec(108, "newsletter-recipients", marketing), as_strings(growing(600, delay=30))),
        (TaskSpec(109, "campaign-report-weekly"), flaky(growing(1800), every=60, lasting=15)),
        (TaskSpec(110, "contacts-sync-nightly", crm), repeating(170, growing(150, delay=30))),
    ]


async def start_demo() -> Simulator:
    """The demo's API, listening on port 10118 on loopback, or on a free one if it is taken."""
    simulator = Simulator({spec.id: scenario for spec, scenario in demo_tasks()}, latency=(0.05, 0.25))
    try:
        await simulator.start(port=DEMO_PORT)
    except OSError:
        await simulator.start()
    return simulator
