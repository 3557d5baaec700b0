"""A simulated Mobizon API: one method, its limit, and whatever can go wrong with it, over real HTTP.

`--demo` runs it in the exporter's own loop, the tests in a thread (`SimulatorThread`). The method, its
parameters and the fields of its answer are those of the page "taskqueue/getStatus" of Mobizon's API
documentation. How Mobizon keeps its limit is known to nobody outside; `limit` offers three guesses.
"""

from exporter.simulator.demo import DEMO_KEY, demo_lives
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
    Life,
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
from exporter.simulator.server import Limit, Request, Simulator
from exporter.simulator.thread import SimulatorThread

__all__ = [
    "DEMO_KEY",
    "Answer",
    "Fault",
    "Life",
    "Limit",
    "Request",
    "Simulator",
    "SimulatorThread",
    "as_strings",
    "body",
    "code",
    "completed",
    "delay",
    "demo_lives",
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
    "repeating",
    "reset",
    "stalled",
    "waiting",
]
