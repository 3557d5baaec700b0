"""Exporters in every state that the dashboards have to show, each a job of its own."""

from __future__ import annotations

from typing import Final

from tests.support import recorded
from tests.support.recorded import Account, Exporter, Task, always, failing, moving, then


def demo_tasks() -> list[Task]:
    return [
        Task(101, moving(90, 1.5), "spring-sale"),
        Task(102, moving(20, 0.4), "contacts-import"),
        Task(103, always(100, 2), "monthly-report"),
        Task(104, always(0, 0), "black-friday"),
        Task(105, then(moving(55, 2), 600, always(55, 3)), "legacy-import"),
        Task(106, always(37, 1), "loyalty"),
        Task(107, failing("not_found"), "deleted"),
        Task(108, then(moving(100, 1), 1800, always(100, 2))),
        Task(109, then(moving(40, 0.5), 60, failing("api_error")), "weekly"),
    ]


def mixed(number: int) -> list[Task]:
    """Every tenth waits, two of ten are completed, the others move at speeds of their own."""
    kinds = {0: always(0, 0), 1: always(100, 2), 2: then(always(0, 0), 1200, moving(100, 5))}
    return [
        Task(id_, kinds.get(id_ % 10) or moving(30 + id_ % 60, 0.3 + id_ % 7 / 10), f"campaign-{id_}")
        for id_ in range(1, number + 1)
    ]


EXPORTERS: Final = [
    Exporter("demo", [Account(demo_tasks())]),
    Exporter(
        "one-dead",
        [
            Account([Task(1, moving(50, 1)), Task(2, moving(80, 1))], "kazakhstan"),
            Account(
                [
                    Task(7001, failing("connection_error"), "black-friday"),
                    Task(7002, then(moving(60, 1), 120, lambda _: None)),
                    Task(7003, lambda _: None),
                ],
                "brazil",
                up=0,
            ),
        ],
    ),
    Exporter("all-dead", [Account([Task(1, failing("unauthorized")), Task(2, lambda _: None)], up=0)]),
    Exporter("one", [Account([Task(1, moving(50, 1), "spring-sale")])]),
    Exporter("sixty", [Account(mixed(60))]),
    Exporter("five-hundred", [Account(mixed(500))]),
    Exporter("none", [Account([])]),
    Exporter("finished", [Account([Task(1, always(100, 2)), Task(2, always(100, 2))])]),
    Exporter("gone", [Account(demo_tasks())], gone=900),
    Exporter(
        "just-started",
        [Account([Task(1, always(30, 1)), *(Task(id_, lambda _: None) for id_ in range(2, 61))])],
        watched=0,
    ),
    Exporter(
        "restored",  # readings of the state file, and no answer yet
        [Account([Task(1, moving(50, 1)), Task(2, always(100, 2))], up=None)],
    ),
    Exporter("taken-off", [Account([Task(1, moving(50, 1)), Task(2, always(100, 2), listed_until=900)])]),
    Exporter("broken-file", [Account([])], settings={"task_file_errors": 1}),
]


def samples() -> recorded.Samples:
    """All of them, some alerts, and another job of the same Prometheus."""
    found = recorded.Samples()
    for exporter in EXPORTERS:
        recorded.record(found, exporter)
    for name, state in (
        ("MobizonTaskRejected", "firing"),
        ("MobizonTaskStalled", "pending"),
        ("Other", "firing"),
    ):
        labels = {"alertname": name, "severity": "critical", "job": "demo", "task_id": "105"}
        found.add("ALERTS", {**labels, "alertstate": state}, recorded.END, 1)
        found.add("ALERTS_FOR_STATE", labels, recorded.END, recorded.END - 600)
    # Another job of the same Prometheus, which is down.
    found.add("up", {"job": "node", "instance": "node:9100"}, recorded.END, 0)
    return found
