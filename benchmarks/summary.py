"""What the documents tell of the tables: `python -m benchmarks.summary` puts their figures in.

A figure keeps its number of decimals; the words around it are written by hand, and may have to follow.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from benchmarks.pacing import CONDITIONS, REJECTIONS
from benchmarks.peers import KINDS
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TABLES: Final = ROOT / "benchmarks" / "RESULTS.md"
_FIGURE: Final = r"\d[\d,]*(?:\.\d+)?"


class Source(NamedTuple):
    """A row of the tables: the median of this exporter, or what it was compared with."""

    under: str
    what: str
    peer: str = ""


Figures: TypeAlias = "Mapping[Source, float]"
GIVEN: Final = None  # a figure that was not measured
ANY: Final = ""  # condition

_FORTY = str(CONDITIONS[0])
_MANY = next(str(each) for each in CONDITIONS if each.tasks == 300)  # noqa: PLR2004 - the size that the summary names
_REJECTED = f"{REJECTIONS}, scraped every second"
_HUNDRED, _TEN_THOUSAND = (
    f"{tasks} tasks, over HTTP, one request a second meanwhile" for tasks in ("100", "10,000")
)
_ACCOUNTS = [
    f"{number} accounts of 10 tasks over TLS, answers of 75 ms ± 33 %" for number in ("400", "1,000")
]
USED, REFUSED = "budget used", "requests refused"
MEDIAN, OLDEST = "age of readings, median", "age of readings, oldest"

SUMMARY: Final[Sequence[Sequence[Source | None]]] = [
    [Source(_FORTY, USED), GIVEN, Source(_FORTY, USED, "in-turn")],
    [Source(_FORTY, REFUSED), GIVEN, Source(_FORTY, REFUSED, "in-turn")],
    [Source(_FORTY, MEDIAN), Source(_FORTY, OLDEST), GIVEN, GIVEN],
    [Source(_MANY, MEDIAN), Source(_MANY, OLDEST), GIVEN, GIVEN],
    [
        Source(_REJECTED, "from “rejected” at the API to the exposition, median"),
        Source(_REJECTED, "the same, longest"),
        GIVEN,
        GIVEN,
    ],
    [Source(_HUNDRED, "scrape"), Source(_HUNDRED, "scrape", "generate_latest")],
    [Source(_TEN_THOUSAND, "scrape"), Source(_TEN_THOUSAND, "scrape", "generate_latest")],
    [Source(_HUNDRED, "resident memory"), Source(_TEN_THOUSAND, "resident memory"), GIVEN, GIVEN],
    [
        *(Source(number, "budget of all accounts used") for number in _ACCOUNTS),
        *(Source(number, "longest scrape") for number in _ACCOUNTS),
        *[GIVEN] * 4,
    ],
    [Source(ANY, "most of the last third, above the most of the second"), GIVEN],
]
README: Final[Sequence[Sequence[Source | None]]] = [
    [Source(_FORTY, USED), *(Source(_FORTY, USED, kind) for kind in KINDS)],
    [Source(_FORTY, REFUSED), *(Source(_FORTY, REFUSED, kind) for kind in KINDS)],
    [GIVEN, *(Source(_FORTY, OLDEST, kind) for kind in KINDS)],  # the ages are of all tasks
]
DOCUMENTS: Final = {
    "docs/performance.md": ("| question | measured |", SUMMARY),
    "README.md": ("| measured | this exporter |", README),
    "README.ru.md": ("| измерено | этот экспортёр |", README),
}
"""Of each, how the head of the table begins, and where the figures of its rows are from."""


def measured(tables: str) -> dict[Source, float]:
    """What the tables say."""
    found, under = {}, ""
    for line in tables.splitlines():
        match [cell.strip() for cell in line.strip("|").split("|")]:
            case [what, "", "", ""]:
                under = what.strip("*")
            case [what, median, _, beside] if re.match(_FIGURE, median):
                found[Source(under, what)] = found[Source(ANY, what)] = _number(median.split()[0])
                for peer, figure in re.findall(
                    rf"(in-turn|at-once|generic|generate_latest) ({_FIGURE})", beside
                ):
                    found[Source(under, what, peer)] = _number(figure)
    return found


def told(document: str, text: str, figures: Figures) -> str:
    """The text of a document with these figures in its table."""
    head, sources = DOCUMENTS[document]
    lines = text.splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if line.startswith(head)) + 2
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[first:]))
    russian = document.endswith(".ru.md")
    lines[first : first + len(rows)] = [
        _row(row, of, figures, russian=russian) for row, of in zip(rows, sources, strict=True)
    ]
    return "".join(lines)


def _row(row: str, sources: Sequence[Source | None], figures: Figures, *, russian: bool) -> str:
    _, question, cells = row.split("|", 2)
    if russian:
        cells = cells.replace(",", ".")
    found = re.findall(_FIGURE, cells)
    new = [
        f"{figures[source]:,.{len(figure.partition('.')[2])}f}" if source else figure
        for figure, source in zip(found, sources, strict=True)
    ]
    cells = "".join(itertools.chain(*zip(re.split(_FIGURE, cells), [*new, ""], strict=True)))
    return f"|{question}|{cells.replace('.', ',') if russian else cells}"


def _number(figure: str) -> float:
    return float(figure.replace(",", ""))


def write() -> None:
    """Put the figures into the documents."""
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(told(document, path.read_text("utf-8"), measured(TABLES.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    write()
