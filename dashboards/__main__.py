"""Writes the dashboards' JSON: `python -m dashboards [--output DIR]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dashboards import exporter, tasks
from dashboards.lib import to_json

BOARDS = {
    "mobizon-tasks.json": tasks.board,
    "mobizon-phone.json": tasks.phone_board,
    "mobizon-exporter.json": exporter.board,
}


def main(argv: list[str]) -> int:
    """Write every dashboard into the output directory, by default the one of this file."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR")
    output: Path = parser.parse_args(argv).output
    for name, board in BOARDS.items():
        (output / name).write_text(to_json(board()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
