"""Lines of Prometheus's text formats, as `generate_latest` of prometheus_client writes them.

Samples are the same in the text format 0.0.4 and in OpenMetrics; counters' names in HELP and TYPE are not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

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
    number = _whole(value) if isinstance(value, int) else _number(value)
    return f"{series} {number}\n"


def series(name: str, labels: Mapping[str, str]) -> str:
    """A series, such as `mobizon_up{account="kz"}`."""
    return name + label_set(labels)


def label_set(labels: Mapping[str, str]) -> str:
    """What follows a series's name, such as `{account="kz"}`; nothing without labels."""
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call] # the library's
    return text


_whole: Final = lru_cache(maxsize=1024)(_number)  # accounts have the same counts again and again


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
