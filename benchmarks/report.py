"""Figures as a table: each with its median, its spread, and the limit or the peer beside it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HEAD = "| what | median | from – to | compared with |\n|---|---|---|---|\n"


class Skipped(Exception):  # noqa: N818 - no error: the machine cannot do what is to be measured
    """A part cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Figure:
    """What was measured under a condition, once in each repetition, and its limit, ideal or peers."""

    what: str
    under: str
    values: Sequence[float]
    unit: str
    beside: str = ""

    def heading(self) -> str:
        """A line of the table for the condition, above the rows of what was measured under it."""
        return f"| **{self.under}** | | | |\n"

    def row(self) -> str:
        """A line of the table."""
        middle, least, most = statistics.median(self.values), min(self.values), max(self.values)
        spread = "" if len(self.values) == 1 else f"{number(least)} – {number(most)}"
        return f"| {self.what} | {number(middle)} {self.unit} | {spread} | {self.beside} |\n".replace(
            "  |", " |"
        )


def lines(figures: Iterable[Figure]) -> Iterator[str]:
    """The rows of the table, each as soon as its figure is known; a heading where the condition changes."""
    under = None
    for figure in figures:
        if figure.under != under:
            yield figure.heading()
        under = figure.under
        yield figure.row()


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def share(part: float, whole: float) -> float:
    """In percent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """With which power of the size a cost grows: the slope of the straight line through the logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    return statistics.linear_regression(xs, ys).slope
