#!/usr/bin/env python3
"""Writes what Kubernetes takes of the dashboards: `python deploy/kubernetes/generate.py`.

`dashboards.yaml` from dashboards/; into monitoring/ beside this file, or into the directory given. The alert
rules are written by `make alerts`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = "# Made by deploy/kubernetes/generate.py from dashboards/; not to be edited.\n"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dashboards() -> dict[str, Any]:
    """All dashboards in one ConfigMap, with the label by which Grafana's sidecar finds it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "mobizon-dashboards",
            "labels": {"grafana_dashboard": "1"},
            "annotations": {"grafana_folder": "Mobizon"},
        },
        "data": {path.name: path.read_text("utf-8") for path in sorted((ROOT / "dashboards").glob("*.json"))},
    }


def main(arguments: list[str]) -> None:
    """Write the file."""
    output = Path(arguments[0]) if arguments else HERE / "monitoring"
    text = yaml.dump(dashboards(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    (output / "dashboards.yaml").write_text(HEADER + text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
