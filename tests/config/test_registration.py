"""Bodies of registrations: what they mean, and what is refused, in the words of the task files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.load import load_tasks
from exporter.config.registration import (
    MAX_CHARACTERS,
    MAX_LABELS,
    Registration,
    parse_registration,
    parse_task_id,
)
from exporter.errors import ConfigError
from exporter.model import TaskSource, TaskSpec

LISTED = TaskSpec(5, "x", {"team": "crm"}, TaskSource.REGISTRY)


def errors(body: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse_registration(body.encode() if isinstance(body, str) else body)
    return list(raised.value.problems)


class TestWhatItMeans:
    @pytest.mark.parametrize("body", [b"", b"{}", b" {\n}\n", b'{"account": null}'])
    def test_a_body_may_say_nothing(self, body: bytes) -> None:
        assert parse_registration(body) == Registration(None, {})
        assert parse_registration(body).applied_to(LISTED) == LISTED

    @pytest.mark.parametrize(
        ("body", "name", "labels"),
        [
            ({"name": "y"}, "y", {"team": "crm"}),
            ({"name": None}, None, {"team": "crm"}),
            ({"labels": {"a": "b"}}, "x", {"a": "b"}),
            ({"labels": {}}, "x", {}),
            ({"labels": None}, "x", {}),
            ({"name": "y", "labels": None}, "y", {}),
        ],
    )
    def test_what_is_left_out_stays_and_null_clears(
        self, body: dict[str, Any], name: str | None, labels: dict[str, str]
    ) -> None:
        found = parse_registration(json.dumps(body).encode())
        assert found.applied_to(LISTED) == TaskSpec(5, name, labels, TaskSource.REGISTRY)

    def test_values_are_texts_as_in_a_task_file(self) -> None:
        labels = '{"n": 1.50, "b": true, "t": "caf\\u00e9 \\ud83d\\ude00", "e": ""}'
        (task,) = load_tasks("x.json", f'[{{"id": 5, "name": 7, "labels": {labels}}}]'.encode())
        found = parse_registration(f'{{"name": 7, "labels": {labels}, "account": "kz"}}'.encode())
        assert found.change == {"name": task.name, "labels": task.labels}
        assert task.labels == {"n": "1.50", "b": "true", "t": "café 😀", "e": ""}
        assert found.account == "kz"


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "body",
        ["{", "name: x", "- 1", "{name: x}", "{'name': 'x'}", '{"name": NaN}', "[" * 9000, "\xff", "{}{}"],
    )
    def test_anything_but_json(self, body: str) -> None:
        assert errors(body.encode("latin-1")) == ["body.json: not JSON"]

    @pytest.mark.parametrize("body", ["5", '"x"', "[]", "null"])
    def test_anything_but_a_mapping(self, body: str) -> None:
        (error,) = errors(body)
        assert error.startswith("body.json:1: expected a mapping, got ")

    def test_all_that_is_wrong_in_the_words_of_a_task_file(self) -> None:
        body = (
            '{"nam": "x", "name": "", "account": [],\n'
            '"labels": {"1": "x", "job": "x", "a": null, "__b": "x"},\n'
            '"name": "y"}'
        )
        assert sorted(errors(body)) == [
            "body.json:1: account: expected text, got a list",
            "body.json:1: nam: unknown key; did you mean 'name'?",
            "body.json:1: name: expected text, got ''",
            "body.json:2: labels.1: not a label name: letters, digits and _, no digit first",
            "body.json:2: labels.__b: this label is reserved",
            "body.json:2: labels.a: expected text, got nothing",
            "body.json:2: labels.job: this label is reserved",
            "body.json:3: name: duplicate key",
        ]

    def test_more_labels_than_ten(self) -> None:
        labels = {f"l{number}": "x" for number in range(MAX_LABELS)}
        parse_registration(json.dumps({"labels": labels}).encode())
        assert errors(json.dumps({"labels": labels | {"one_more": "x"}})) == [
            "body.json:1: labels: expected at most 10 labels"
        ]

    def test_longer_texts_than_two_hundred_characters(self) -> None:
        name, longer = "ё" * MAX_CHARACTERS, "ё" * (MAX_CHARACTERS + 1)
        label = "a" * MAX_CHARACTERS
        parse_registration(json.dumps({"name": name, "labels": {label: name}}).encode())
        message = "expected at most 200 characters"
        assert errors(json.dumps({"name": longer})) == [f"body.json:1: name: {message}"]
        assert errors(json.dumps({"labels": {"a": longer}})) == [f"body.json:1: labels.a: {message}"]
        assert errors(json.dumps({"labels": {label + "a": ""}})) == [f"body.json:1: labels....: {message}"]

    @pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\x85", "\x9f"])
    def test_control_characters(self, character: str) -> None:
        for body in ({"name": f"a{character}"}, {"labels": {"a": character}}, {"account": f"a{character}"}):
            (error,) = errors(json.dumps(body))
            assert "control characters" in error or "expected text" in error

    def test_half_a_character(self) -> None:
        for body in ('{"name": "\\ud800"}', '{"labels": {"a": "\\udfff"}}'):
            (error,) = errors(body)
            assert error.startswith("body.json:1: ")

    @given(
        st.binary(max_size=40)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["name", "labels", "account"]) | st.text(max_size=4), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_any_body_is_a_registration_or_says_what_is_wrong(self, body: bytes) -> None:
        try:
            found = parse_registration(body)
        except ConfigError as error:
            problems = error.problems
        else:
            assert set(found.change) <= {"name", "labels"}
            return
        assert problems
        assert all(problem.startswith("body.json") for problem in problems)


class TestIds:
    @given(st.integers(1, 10**19 - 1))
    def test_any_positive_integer_of_nineteen_digits(self, task_id: int) -> None:
        assert parse_task_id(str(task_id)) == task_id

    @pytest.mark.parametrize(
        "written", ["0", "-1", "+1", "01", "1.0", "1e3", "x", "", " 1", "1" * 20, "\u0661"]
    )
    def test_nothing_else(self, written: str) -> None:
        with pytest.raises(ConfigError, match=r"^expected a positive integer, got '"):
            parse_task_id(written)
