"""Lines of Prometheus's text formats, as `generate_latest` of prometheus_client writes them.

Samples are the same in the text format 0.0.4 and in OpenMetrics; counters' names in HELP and TYPE are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Mapping


def header(name: str, kind: str, documentation: str, *, openmetrics: bool) -> str:
    """The lines before a family's samples; `name` without `_total`."""
    if kind == "counter" and not openmetrics:
        name += "_total"
    return f"# HELP {name} {documentation}\n# TYPE {name} {kind}\n"


def sample(series: str, value: float) -> str:
    """One sample, such as `mobizon_up{account="kz"} 1.0`."""
    return f"{series} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call] # the library's


def series(name: str, labels: Mapping[str, str]) -> str:
    """A series, such as `mobizon_up{account="kz"}`."""
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
