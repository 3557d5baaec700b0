"""A key is found in a text in any spelling, and nothing else is touched."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from exporter.mobizon.masking import mask

KEYS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=8, max_size=40)
SPELLINGS = [
    str,
    quote,
    quote_plus,
    lambda key: quote(key, safe="").lower() if key.islower() else quote(key, safe=""),
    lambda key: "".join(f"%{ord(c):02x}" for c in key),
    lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    lambda key: json.dumps(key)[1:-1],
    lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    requests.utils.requote_uri,
]


@pytest.mark.parametrize("spell", SPELLINGS)
@given(key=KEYS, before=st.text("xyz &=?", max_size=9), after=st.text("xyz &=?", max_size=9))
def test_a_key_is_hidden_however_it_is_spelled(spell: object, key: str, before: str, after: str) -> None:
    assert callable(spell)
    if set(key) <= set("xyz &=?*"):
        return
    assert mask(f"{before}{spell(key)}{after}", key) == f"{before}***{after}"


@given(st.text(), st.text("0123456789abcdefABCDEF", min_size=30))
def test_a_text_without_the_key_stays_as_it_is(text: str, key: str) -> None:
    assert key in text or mask(text, key) == text


def test_a_key_is_hidden_wherever_it_is() -> None:
    assert mask("abcd %61bcd abc abcdabcd", "abcd") == "*** *** abc ******"
    assert mask("some text", "") == "some text"
