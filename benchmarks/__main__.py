"""`python -m benchmarks`: measures, and prints a table.

With `--only` a part of it; with `--write` the rows of what was measured take the place of the former ones in
RESULTS.md; the summaries in docs/performance.md and the READMEs follow. `--quick` tries whether everything
runs, and its figures mean little.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import accounts, growth, netem, pacing, report, scrapes, soak, summary
from benchmarks.report import HEAD
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = {
    "pacing": pacing,
    "netem": netem,
    "accounts": accounts,
    "scrapes": scrapes,
    "growth": growth,
    "soak": soak,
}
UNASKED = [part for part in PARTS if part != "soak"]  # a soak takes two hours
PAGE = summary.TABLES


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is wanted, and tell each figure as soon as it is known."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        help="this part (repeatable); the soak, of two hours, runs only so",
    )
    parser.add_argument("--repeat", type=int, default=3, help="how often (default 3)")
    parser.add_argument("--quick", action="store_true", help="only to see whether it runs")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.relative_to(ROOT)}")
    flags = parser.parse_args(arguments)
    print(f"{machine()}\n\n{HEAD}", end="", flush=True)
    for part in flags.only or UNASKED:
        lines = ""
        try:
            for line in report.lines(PARTS[part].measure(flags.repeat, quick=flags.quick)):
                print(line, end="", flush=True)
                lines += line
        except report.Skipped as skipped:
            print(f"{part} is skipped: {skipped}", flush=True)
            continue
        if flags.write:
            PAGE.write_text(with_rows(PAGE.read_text(), part, lines))
    if flags.write:
        summary.write()
    return 0


def machine() -> str:
    """What the figures were measured on."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model.group(1) if model else 'unknown'}), "
        f"Linux, Python {platform.python_version()}"
    )


def with_rows(page: str, part: str, rows: str) -> str:
    """The page with other rows between the marks of a part, and the machine that they are of."""
    marks = re.compile(rf"(<!-- {part} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, found = marks.subn(lambda at: f"{at[1]}{machine()}\n\n{HEAD}{rows}{at[2]}", page)
    if not found:
        raise ValueError(f"{PAGE} has no place for {part}")
    return text


if __name__ == "__main__":
    sys.exit(main())
