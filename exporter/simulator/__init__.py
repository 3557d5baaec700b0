"""A simulated Mobizon API: three methods, their limits, and what can go wrong with them, over real HTTP.

`--demo` runs it in the exporter's own loop, the tests in a thread (`SimulatorThread`). The methods, their
parameters and the fields of their answers are those of the pages "taskqueue/getStatus",
"campaign/addRecipients" and "campaign/send" of Mobizon's API documentation. How Mobizon keeps its limit is
not published; `limit` offers three guesses.
"""

from exporter.simulator.demo import demo_tasks, start_demo
from exporter.simulator.faults import (
    Fault,
    body,
    code,
    delay,
    drip,
    hang,
    http,
    huge,
    redirect,
    refuse,
    reset,
)
from exporter.simulator.scenarios import (
    Answer,
    Scenario,
    as_strings,
    completed,
    flaky,
    growing,
    missing,
    rejected,
    rejected_at,
    repeating,
    stalled,
    waiting,
)
from exporter.simulator.server import DEMO_KEY, Limit, Request, Simulator
from exporter.simulator.thread import SimulatorThread

__all__ = [
    "DEMO_KEY",
    "Answer",
    "Fault",
    "Limit",
    "Request",
    "Scenario",
    "Simulator",
    "SimulatorThread",
    "as_strings",
    "body",
    "code",
    "completed",
    "delay",
    "demo_tasks",
    "drip",
    "flaky",
    "growing",
    "hang",
    "http",
    "huge",
    "missing",
    "redirect",
    "refuse",
    "rejected",
    "rejected_at",
    "repeating",
    "reset",
    "stalled",
    "start_demo",
    "waiting",
]
