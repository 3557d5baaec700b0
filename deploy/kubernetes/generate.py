#!/usr/bin/env python3
"""Writes what Kubernetes takes of the rules and the dashboards: `python deploy/kubernetes/generate.py`.

`prometheusrule.yaml` from alerts/, `dashboards.yaml` from dashboards/; into monitoring/ beside this file, or
into the directory given.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = "# Made by deploy/kubernetes/generate.py from {source}; not to be edited.\n"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def prometheus_rule() -> dict[str, Any]:
    """All groups of rules, as one PrometheusRule."""
    groups = [
        group
        for path in sorted((ROOT / "alerts").glob("*.rules.yaml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "mobizon-exporter"},
        "spec": {"groups": groups},
    }


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
    """Write both files."""
    output = Path(arguments[0]) if arguments else HERE / "monitoring"
    for name, source, content in (
        ("prometheusrule.yaml", "alerts/", prometheus_rule()),
        ("dashboards.yaml", "dashboards/", dashboards()),
    ):
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        (output / name).write_text(HEADER.format(source=source) + text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
