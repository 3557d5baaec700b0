"""Dataclasses as schemas, apart from what the configuration makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NewType

import pytest

from exporter.config.schema import Schema, ValidationErrors, describe, text
from exporter.config.yaml_document import Document
from exporter.errors import ConfigError

Even = NewType("Even", int)


@dataclass(frozen=True)
class Inner:
    size: Even
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None = None
    list: tuple[Inner, ...] = ()


def even(value: Any) -> Even:
    if value == "twice":
        raise ValidationErrors([(("a",), "first"), (("b",), "second")])
    if not str(value).isdecimal() or int(value) % 2:
        raise ValueError(f"expected an even number, got {describe(value)}")
    return Even(int(value))


def structured(written: str) -> Outer | None:
    document = Document("c.yaml", written.encode())
    found = Schema({Even: even}).structure(document, Outer)
    document.check()
    return found


def problems(written: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        structured(written)
    return [problem.partition(": ")[2] for problem in caught.value.problems]


def test_a_document_becomes_dataclasses_and_lists_become_tuples() -> None:
    assert structured("{name: x, inner: {size: 4}, list: [{size: 2, words: [a, b]}, {size: 6}]}") == Outer(
        "x", Inner(Even(4)), (Inner(Even(2), ("a", "b")), Inner(Even(6)))
    )


def test_a_list_may_be_empty_but_for_its_key() -> None:
    assert structured("{name: x, list: }") == Outer("x")


def test_all_errors_are_reported_with_their_paths() -> None:
    assert problems("{inner: {size: 3}, list: [{size: 2}, {size: twice, words: [a, [b]]}]}") == [
        "name: required, but missing",
        "inner.size: expected an even number, got '3'",
        "list[1].size.a: first",
        "list[1].size.b: second",
        "list[1].words[1]: expected text, got a list",
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{name: x, nmae: y}", "nmae: unknown key; did you mean 'name'?"),
        ("{name: x, zzz: y}", "zzz: unknown key; known: name, inner, list"),
        ("{name: x, inner: text}", "inner: expected a mapping, got text"),
        ("{name: x, inner: [a]}", "inner: expected a mapping, got a list"),
        ("{name: x, list: text}", "list: expected a list, got text"),
        ("{name: x, list: {a: b}}", "list: expected a list, got a mapping"),
        ("{name: }", "name: expected text, got nothing"),
        ('{name: ""}', "name: expected text, got ''"),
        ('{name: "a\\0b"}', r"name: expected text, got 'a\x00b'"),
    ],
)
def test_what_is_wrong_is_told(written: str, expected: str) -> None:
    assert problems(written) == [expected]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 32, repr("x" * 32)),
        ("x" * 33, "a long text"),
        ({}, "a mapping"),
        ([], "a list"),
        (None, "nothing"),
    ],
)
def test_only_short_texts_are_shown(value: object, shown: str) -> None:
    assert describe(value) == shown


def test_a_text_that_is_not_empty_is_one() -> None:
    assert text("XX") == "XX"


def test_several_errors_of_one_value_are_one_message_too() -> None:
    errors = ValidationErrors([(("a",), "first"), (("b",), "second")])
    assert str(errors) == "first; second"


def test_a_part_is_converted_by_the_same_rules() -> None:
    schema = Schema({Even: even})
    assert schema.convert({"size": "8"}, Inner) == Inner(Even(8))
