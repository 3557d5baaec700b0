"""Simulates the shipped pacing code against three models of Mobizon's rate limit.

Run it: `python tests/support/pacing_simulation.py`.

How Mobizon enforces the limit is not documented, so the pacing has to do well under all three:
  strict   refused when the previous request, accepted or not, arrived less than a second before
  lenient  refused when the last accepted request arrived less than a second before
  window   one accepted request in each second of the server's clock
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from exporter.refresh.pacing import Pacer

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ("strict", "lenient", "window")
SEEDS = range(40)
ROUND_TRIP = 0.08
JITTERS = (0.005, 0.02, 0.08)  # seconds, at most
JITTER = 0.02
LATE = (0.0005, 0.0025)  # seconds, from and to, from when a request is due until it leaves
LEARNED = 300.0  # seconds after which the margin has found its size


class Client(Protocol):
    stops: float

    def answered(self, sent: float, *, ok: bool) -> float:
        """Handle the answer to the request sent at `sent`; return when the next is sent."""


@dataclass
class Exporter:
    """The exporter's pacing with a task always due, sent late by so many seconds."""

    pacer: Pacer
    late: Callable[[], float] = lambda: 0.0
    stops: float = float("inf")

    def answered(self, sent: float, *, ok: bool) -> float:
        self.pacer.started(sent)
        if ok:
            self.pacer.accepted()
        else:
            self.pacer.refused(sent + ROUND_TRIP)
        return max(self.pacer.earliest, sent + ROUND_TRIP) + self.late()


@dataclass
class Script:
    """A script that polls once a second, ignoring refusals."""

    stops: float = float("inf")

    def answered(self, sent: float, *, ok: bool) -> float:
        return sent + 1.0


@dataclass
class Outcome:
    seconds: float
    times: list[list[tuple[float, bool]]] = field(default_factory=list)  # per client: arrival, accepted

    def used(self, since: float = 0.0, client: int | None = None) -> float:
        """The accepted requests as a share of one a second."""
        rows = self.times if client is None else [self.times[client]]
        return sum(ok and at >= since for row in rows for at, ok in row) / (self.seconds - since)

    def refused(self) -> float:
        results = [ok for row in self.times for _, ok in row]
        return results.count(False) / len(results)

    def fairness(self) -> float:
        shares = [sum(ok for _, ok in row) for row in self.times]
        return min(shares) / max(shares)


def simulate(
    make: Callable[[random.Random], list[Client]],
    model: str,
    seed: int,
    seconds: float = 1800,
    refuse: tuple[float, float] = (0, 0),
    jitter: float = JITTER,
) -> Outcome:
    rng = random.Random(seed)
    clients = make(rng)
    events = [(rng.random(), at) for at in range(len(clients))]
    heapq.heapify(events)
    outcome = Outcome(seconds, [[] for _ in clients])
    last = -9.0
    while events:
        sent, which = heapq.heappop(events)
        if sent > seconds:
            break
        if sent > clients[which].stops:
            continue
        at = sent + ROUND_TRIP / 2 + rng.uniform(0, jitter)
        ok = int(at) != int(last) if model == "window" else at - last >= 1.0
        if refuse[0] < at < refuse[1]:
            ok = False
        elif ok or model == "strict":
            last = at
        outcome.times[which].append((at, ok))
        heapq.heappush(events, (clients[which].answered(sent, ok=ok), which))
    return outcome


def exporters(count: int) -> Callable[[random.Random], list[Client]]:
    return lambda rng: [Exporter(Pacer(1.0, rng)) for _ in range(count)]


def late_exporter(rng: random.Random) -> list[Client]:
    return [Exporter(Pacer(1.0, rng), lambda: rng.uniform(*LATE))]


def with_script(until: float) -> Callable[[random.Random], list[Client]]:
    return lambda rng: [Exporter(Pacer(1.0, rng)), Script(until)]


def main() -> None:
    """Print the mean and the worst seed of each scenario."""
    mean = statistics.mean
    for model in MODELS:
        for jitter in JITTERS:
            runs = [simulate(exporters(1), model, seed, jitter=jitter) for seed in SEEDS]
            used, refused = [run.used() for run in runs], [run.refused() for run in runs]
            learned = [run.used(since=LEARNED) for run in runs]
            late = [simulate(late_exporter, model, seed, jitter=jitter) for seed in SEEDS]
            print(
                f"{model:8} 1 exporter       used {mean(used):6.1%}"
                f", after {LEARNED:.0f} s {mean(learned):6.1%}"
                f" ({mean([run.used(since=LEARNED) for run in late]):.1%} if late)"
                f"  refused {mean(refused):6.1%} (most {max(refused):6.1%})"
                f"  jitter {jitter * 1000:.0f} ms: spacing alone {1 / (1 + jitter):.1%}"
            )
        for count in (2, 3):
            runs = [simulate(exporters(count), model, seed) for seed in SEEDS]
            used, refused = [run.used() for run in runs], [run.refused() for run in runs]
            shares = [run.fairness() for run in runs]
            print(
                f"{model:8} {count} exporters      "
                f"used {mean(used):6.1%} (least {min(used):6.1%})"
                f"  refused {mean(refused):6.1%} (most {max(refused):6.1%})"
                f"  smallest/largest share {mean(shares):.2f} (least {min(shares):.2f})"
            )
        runs = [simulate(exporters(1), model, seed, refuse=(300, 420)) for seed in SEEDS]
        rate = max(sum(330 < at < 420 for at, _ in run.times[0]) / 90 for run in runs)
        used = [run.used(since=420 + 120) for run in runs]
        print(
            f"{model:8} all refused     a request in {1 / rate:.1f} s; "
            f"from the third minute on used {min(used):6.1%}"
        )
        runs = [simulate(with_script(until=900), model, seed) for seed in SEEDS]
        used = [run.used(since=900 + 180, client=0) for run in runs]
        print(
            f"{model:8} after a script  "
            f"from the third minute on used {mean(used):6.1%} (least {min(used):6.1%})"
        )


if __name__ == "__main__":
    main()
