"""Hides a key in a foreign text, however it is spelled there."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
# One character, also as a URL or JSON spells it. No pattern is made of a key, for `re` would keep it.
_CHARACTER: Final = re.compile(r"%[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[/\\\"]|.", re.DOTALL)


def mask(text: str, key: str) -> str:
    """The text with `***` for the key, in which any character may be escaped."""
    if not key:
        return text
    characters: list[str] = _CHARACTER.findall(text)
    readable = "".join(map(_unescape, characters))
    for wanted in key, "".join(map(_unescape, _CHARACTER.findall(key))):
        at = readable.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            characters[at:end] = [MASK] + [""] * (len(wanted) - 1)
            readable = readable[:at] + "\0" * len(wanted) + readable[end:]  # found once is enough
            at = readable.find(wanted, end)
    return "".join(characters).replace(key, MASK)


def _unescape(character: str) -> str:
    if len(character) == 1:
        return character
    return chr(int(character.lstrip("%\\u"), 16)) if character[1:2] not in '/\\"' else character[1]
