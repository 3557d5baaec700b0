"""Writes the alert rules: `python -m alerts [--values FILE] [--output DIR]`.

Made of rules.template.yaml and values.yaml; `--values` names a file with what differs from the latter. Writes
mobizon.rules.yaml for Prometheus, and the same as prometheusrule.yaml for the Prometheus Operator.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import jinja2
import yaml

HERE = Path(__file__).resolve().parent
MONITORING = HERE.parent / "deploy" / "kubernetes" / "monitoring"
RULES = "mobizon.rules.yaml"
PROMETHEUS_RULE = "prometheusrule.yaml"
KUBERNETES = """\
# Made by `make alerts` of the files in alerts/; not to be edited.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mobizon-exporter
spec:
"""
_UNITS = {"d": ("day", 86400), "h": ("hour", 3600), "m": ("minute", 60), "s": ("second", 1)}


class ValuesError(Exception):
    """Values that make no rules; the text says where and why."""


def values(*, changes: Any = None) -> dict[str, Any]:
    """The values of values.yaml with the changes; ValuesError where they do not fit."""
    found: dict[str, Any] = yaml.safe_load((HERE / "values.yaml").read_text("utf-8"))
    for name, alert in found["alerts"].items():
        found["alerts"][name] = {**alert, "labels": {}}
    _merge(found, {} if changes is None else changes, "values")
    for name, alert in found["alerts"].items():
        for key in {"window", "for", "age", "refresh"} & set(alert):
            seconds(alert[key], f"alerts.{name}.{key}")
        if "for" in alert and 2 * 60 < seconds(alert["for"]) < 10 * 60:
            raise ValuesError(f"alerts.{name}.for: expected at most 2m, or at least 10m, got {alert['for']}")
    seconds(found["memory"], "memory")
    return found


def _merge(into: dict[str, Any], changes: Any, path: str) -> None:
    if not isinstance(changes, dict):
        raise ValuesError(f"{path}: expected a mapping, got {changes!r}")
    for key, value in changes.items():
        where = key if path == "values" else f"{path}.{key}"
        known = into.get(key, "" if path.endswith("labels") else None)
        if known is None:
            raise ValuesError(f"{where}: unknown, expected one of {', '.join(into)}")
        if isinstance(known, dict):
            _merge(known, value, where)
        elif isinstance(known, str) and not isinstance(value, str):
            raise ValuesError(f"{where}: expected text, got {value!r}")
        elif isinstance(known, int) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValuesError(f"{where}: expected a number, got {value!r}")
        else:
            into[key] = value


def seconds(duration: Any, where: str = "duration") -> int:
    """A duration of Prometheus, such as 1h30m; ValuesError if it is none."""
    parts = re.findall(r"(\d+)([dhms])", str(duration))
    total = sum(int(number) * _UNITS[unit][1] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != str(duration) or total == 0:
        raise ValuesError(f"{where}: expected a duration such as 30m or 1h30m, got {duration!r}")
    return total


def words(duration: str) -> str:
    """A duration in words: 1 hour 30 minutes."""
    parts = re.findall(r"(\d+)([dhms])", duration)
    return " ".join(f"{n} {_UNITS[unit][0]}{'' if n == '1' else 's'}" for n, unit in parts)


def rules(given: dict[str, Any]) -> str:
    """The rules as a file for Prometheus."""
    # Not {{ }}: those are Prometheus's own, and stay.
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - makes YAML, no HTML
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>\n",
    )
    environment.filters |= {"seconds": seconds, "words": words}
    labels = {
        name: yaml.safe_dump(
            {"severity": alert["severity"], **given["labels"], **alert["labels"]},
            default_flow_style=True,
            sort_keys=False,
            allow_unicode=True,
            width=sys.maxsize,
        ).strip()
        for name, alert in given["alerts"].items()
    }
    template = environment.from_string((HERE / "rules.template.yaml").read_text("utf-8"))
    return template.render(given | given["alerts"] | {"labels": labels})


def main(argv: list[str]) -> int:
    """Write both files, by default where they are kept."""
    parser = argparse.ArgumentParser(prog="python -m alerts", description=__doc__)
    parser.add_argument("--values", type=Path, metavar="FILE", help="what differs from alerts/values.yaml")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write, instead of into the repository"
    )
    arguments = parser.parse_args(argv)
    try:
        changes = yaml.safe_load(arguments.values.read_text("utf-8")) if arguments.values else None
        text = rules(values(changes=changes))
    except (OSError, yaml.YAMLError, ValuesError) as error:
        print(f"{arguments.values}: {error}", file=sys.stderr)
        return 1
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output or HERE).joinpath(RULES).write_text(text, encoding="utf-8")
    kubernetes = KUBERNETES + textwrap.indent(text, "  ")
    (arguments.output or MONITORING).joinpath(PROMETHEUS_RULE).write_text(kubernetes, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
