"""Scrapes of a running exporter as input series of promtool's unit tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client.utils import floatToGoString

from tests.support.processes import ExporterProcess, Samples

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = {"job": "mobizon", "instance": "a:10117"}


class Recording:
    """What Prometheus would have stored, stretched: a scrape stands for as many minutes as it is given.

    Timestamps keep their age at the moment of the scrape, on promtool's clock, which starts at 0.
    """

    def __init__(self) -> None:
        self.minutes = 0
        self._frames: list[tuple[int, dict[str, float]]] = []

    def scrape(self, exporter: ExporterProcess, minutes: int = 1) -> Samples:
        """Scrapes once, for so many minutes; the samples."""
        text = exporter.scrape()
        shift = self.minutes * 60 - time.time()
        samples = Samples(text)
        frame = {_series("up", JOB): 1.0}
        for name, labels, value in samples.rows:
            if name.startswith("mobizon_") and not name.endswith("_bucket"):
                stamp = name.endswith("_timestamp_seconds")
                frame[_series(name, JOB | labels)] = round(value + shift, 3) if stamp else value
        self._add(minutes, frame)
        return samples

    def miss(self, minutes: int = 1) -> None:
        """Scrapes that fail, for so many minutes."""
        self._add(minutes, {_series("up", JOB): 0.0})

    def _add(self, minutes: int, frame: dict[str, float]) -> None:
        self._frames.append((minutes, frame))
        self.minutes += minutes

    def input_series(self, step: int) -> list[dict[str, str]]:
        """The series, a sample every `step` seconds."""
        names = dict.fromkeys(name for _, frame in self._frames for name in frame)
        return [{"series": name, "values": " ".join(self._values(name, step))} for name in names]

    def _values(self, name: str, step: int) -> Iterator[str]:
        there = False
        for minutes, frame in self._frames:
            steps = minutes * 60 // step
            if name in frame:
                yield f"{floatToGoString(frame[name])}x{steps - 1}"  # type: ignore[no-untyped-call] # the library's
            else:
                # As Prometheus marks a series that was in the last scrape and is not in this one.
                yield from (["stale"] if there else []) + [f"_x{steps - there}"] * (steps > there)
            there = name in frame

    def unit_test(self, rules: str, step: int, expressions: list[dict[str, Any]]) -> dict[str, Any]:
        """A file for `promtool test rules`, the rules evaluated at every step."""
        return {
            "rule_files": [rules],
            "evaluation_interval": f"{step}s",
            "tests": [
                {
                    "interval": f"{step}s",
                    "input_series": self.input_series(step),
                    "promql_expr_test": expressions,
                }
            ],
        }


def _series(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}"
