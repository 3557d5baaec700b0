"""The languages of the status page: which one a reader wants, and how it says numbers and times."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from importlib import resources
from typing import Any, Final

LANGUAGES: Final = ("en", "ru")
_ACCEPTED: Final = re.compile(
    r"\s*([a-z]+|\*)(?:-[a-z0-9-]+)?\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?"
)


def language_of(accept_language: str | None) -> str:
    """The one of LANGUAGES that the header `Accept-Language` likes best; English where that tells nothing."""
    wanted: dict[str, tuple[float, int]] = {}
    for position, part in enumerate((accept_language or "").lower().split(",")):
        match = _ACCEPTED.fullmatch(part)
        if match:
            # Of equals the first: browsers list what their user likes best first.
            preference = float(match[2] or 1), -position
            wanted[match[1]] = max(preference, wanted.get(match[1], preference))
    anything = wanted.get("*", (0.0, -math.inf))
    best = max(LANGUAGES, key=lambda language: wanted.get(language, anything))
    return best if wanted.get(best, anything)[0] > 0 else LANGUAGES[0]


class Phrases:
    """What the page says in one language: `texts` as in `templates/en.toml`, and values put into words."""

    def __init__(self, language: str) -> None:
        texts = resources.files("exporter.web").joinpath("templates", f"{language}.toml").read_text("utf-8")
        self.texts: dict[str, Any] = tomllib.loads(texts)
        self._units: list[str] = self.texts["units"]

    def number(self, value: float, decimals: int = 1) -> str:
        """Without needless zeros, and rounded down: 99.99 percent are not yet 100."""
        if value == int(value):
            return str(int(value))
        scale = 10**decimals
        text = f"{math.floor(value * scale + 1e-6) / scale:.{decimals}f}"
        return text.rstrip("0").rstrip(".").replace(".", self.texts["point"])

    def percent(self, value: float) -> str:
        """A share, as `37.5%`."""
        return str(self.texts["percent"].format(self.number(value)))

    def seconds(self, value: float) -> str:
        """A short time precisely, as `1.05 s`."""
        return f"{self.number(value, decimals=2)}\N{NO-BREAK SPACE}{self._units[0]}"

    def duration(self, seconds: float) -> str:
        """A time as people say it: `12 s`, `5 min`, `2 h 5 min`, `3 d 4 h`."""
        minutes, rest = divmod(max(0, int(seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        counts = (rest, minutes, hours, days)
        largest = max((unit for unit, count in enumerate(counts) if count), default=0)
        units = (largest, largest - 1) if largest > 1 else (largest,)  # minutes are shown without seconds
        return " ".join(
            f"{counts[unit]}\N{NO-BREAK SPACE}{self._units[unit]}"
            for unit in units
            if counts[unit] or unit == largest
        )


@functools.cache
def phrases(language: str) -> Phrases:
    """The phrases of one of LANGUAGES."""
    return Phrases(language)
