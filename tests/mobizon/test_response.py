"""What is made of the bytes that Mobizon answers with."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.errors import ApiError, Reason, Scope
from exporter.mobizon.response import parse, printable
from exporter.model import Reading

NOW = 1767225600.0
KEY = "k" * 40
LARGEST = 64 * 1024  # of an answer that is parsed at all


def said(code: object = 0, data: object = None, message: object = "") -> bytes:
    return json.dumps({"code": code, "data": data, "message": message}).encode()


def task(progress: object, status: object) -> bytes:
    return said(data={"progress": progress, "status": status})


def refused(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(body, NOW, KEY)
    return caught.value


# Readings


@pytest.mark.parametrize(
    ("progress", "status", "expected"),
    [
        (0, 0, (0, 0)),
        (40, 1, (40, 1)),
        (100, 2, (100, 2)),
        (99.5, 3, (99.5, 3)),
        ("100", "2", (100, 2)),
        ("33.3", "1", (33.3, 1)),
        (" 7 ", "1.0", (7, 1)),
        ("1e1", 1.0, (10, 1)),
        ("+5", "0", (5, 0)),
        (50, 7, (50, 7)),
        (50, -1, (50, -1)),
        (50, 2**53 - 1, (50, 2**53 - 1)),
    ],
)
def test_a_reading_has_progress_and_status_as_they_came(
    progress: object, status: object, expected: tuple[float, int]
) -> None:
    reading = parse(task(progress, status), NOW, KEY)
    assert reading == Reading(*expected, NOW)
    assert type(reading.status) is int


@pytest.mark.parametrize("code", [0, "0", 0.0, "0.0", -0.0])
def test_a_code_of_nought_is_success_however_it_is_written(code: object) -> None:
    assert parse(said(code, {"progress": 1, "status": 1}), NOW, KEY).progress == 1


def test_fields_that_are_not_known_do_no_harm() -> None:
    body = json.dumps({"code": 0, "data": {"progress": 1, "status": 1, "x": [{}]}, "y": None}).encode()
    assert parse(body, NOW, KEY) == Reading(1, 1, NOW)


def test_a_byte_order_mark_does_no_harm() -> None:
    assert parse(b"\xef\xbb\xbf" + task(1, 1), NOW, KEY) == Reading(1, 1, NOW)


# Codes


@pytest.mark.parametrize(
    ("code", "reason", "scope"),
    [
        (1, Reason.API_ERROR, Scope.TASK),
        (2, Reason.NOT_FOUND, Scope.TASK),
        (3, Reason.API_ERROR, Scope.UNKNOWN),
        (4, Reason.API_ERROR, Scope.UNKNOWN),
        (5, Reason.API_ERROR, Scope.UNKNOWN),
        (6, Reason.API_ERROR, Scope.UNKNOWN),
        (8, Reason.UNAUTHORIZED, Scope.ACCOUNT),
        (9, Reason.UNAUTHORIZED, Scope.ACCOUNT),
        (11, Reason.API_ERROR, Scope.TASK),
        (12, Reason.API_ERROR, Scope.TASK),
        (13, Reason.WRONG_HOST, Scope.ACCOUNT),
        (14, Reason.ACCOUNT_BLOCKED, Scope.ACCOUNT),
        (15, Reason.API_ERROR, Scope.UNKNOWN),
        (30, Reason.RATE_LIMITED, Scope.UNKNOWN),
        (100, Reason.API_ERROR, Scope.UNKNOWN),
        (999, Reason.API_ERROR, Scope.UNKNOWN),
        (-1, Reason.API_ERROR, Scope.UNKNOWN),
    ],
)
@pytest.mark.parametrize("data", [None, [], "", False, {"id": "wrong"}, {"progress": 50, "status": 1}, 7])
def test_a_code_tells_the_reason_and_whom_it_concerns_whatever_the_data(
    code: int, reason: Reason, scope: Scope, data: object
) -> None:
    for written in (code, str(code), float(code)):
        error = refused(said(written, data))
        assert (error.reason, error.scope) == (reason, scope)
        assert error.detail.startswith(f"code {code}")


def test_the_message_is_told_with_the_code() -> None:
    assert refused(said(15, None, "Try again later")).detail == "code 15: Try again later"


@pytest.mark.parametrize("message", [None, "", "  \n ", 5, ["x"], {"x": "y"}, True])
def test_a_message_that_is_none_is_left_out(message: object) -> None:
    assert refused(said(3, None, message)).detail == "code 3"


@pytest.mark.parametrize("key", ["code", "data", "message"])
def test_every_field_of_an_error_may_be_missing(key: str) -> None:
    envelope = {"code": 3, "data": None, "message": "x"}
    del envelope[key]
    expected = Reason.INVALID_RESPONSE if key == "code" else Reason.API_ERROR
    assert refused(json.dumps(envelope).encode()).reason is expected


@pytest.mark.parametrize(
    "data",
    [
        "api.mobizon.com.br",
        "https://api.mobizon.com.br/",
        {"host": "api.mobizon.com.br"},
        {"version": "1.0", "url": "https://api.mobizon.com.br/service?x=1"},
        ["API host: api.mobizon.com.br."],
    ],
)
def test_a_wrong_host_names_the_right_one(data: object) -> None:
    detail = refused(said(13, data, "Wrong host")).detail
    assert detail == "code 13: Wrong host; the account's host is api.mobizon.com.br"


@pytest.mark.parametrize("data", [None, [], "", False, {}, "nowhere", 1.5, {"version": "1.0"}])
def test_a_wrong_host_without_a_better_one_is_told_as_such(data: object) -> None:
    assert refused(said(13, data)).detail == "code 13"


# Messages fit for a log line


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x00\x07", "[31mred"),
        ("right\u202eto left\u2028line\x85end", "right to left line end"),
        ("half \ud800 a character", "half a character"),
        ("кириллица é 中", "кириллица é 中"),
    ],
)
def test_a_message_becomes_one_line_that_can_be_shown(message: str, shown: str) -> None:
    assert refused(said(3, None, message)).detail == f"code 3: {shown}"


def test_the_key_is_not_told_with_the_message() -> None:
    message = f"No such key: {KEY}." + " word" * 100
    assert refused(said(8, None, message)).detail.startswith("code 8: No such key: ***. word")


@pytest.mark.parametrize(("length", "shown"), [(200, "x" * 200), (201, "x" * 200 + "…")])
def test_a_text_has_two_hundred_characters_at_most(length: int, shown: str) -> None:
    assert printable("x" * length) == shown


def test_a_long_message_is_cut() -> None:
    detail = refused(said(3, None, "word " * 2000)).detail
    assert detail.startswith("code 3: word word")
    assert detail.endswith("…")
    assert len(detail) <= 220


def test_a_long_host_is_cut_too() -> None:
    assert len(refused(said(13, "a" * 60 + ".b" * 30_000)).detail) <= 500


@given(st.text())
def test_whatever_is_printed_is_one_short_printable_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line) <= 201
    assert line == line.strip()


# Nonsense


@pytest.mark.parametrize(
    "progress",
    # 10**400 is more than a float can be
    [
        *(
            math.nan,
            math.inf,
            -math.inf,
            10**400,
            True,
            False,
            None,
            -1,
            -0.0001,
            100.0001,
            101,
            [],
            {},
            [50],
        ),
        *(
            "",
            " ",
            "abc",
            "50%",
            "nan",
            "Infinity",
            "1e400",
            "0x10",
            "1_0",
            "٣",
            "5 0",
            "-1",
            "--1",
            ".",
            "1e",
        ),
    ],
)
def test_progress_that_is_no_percentage_is_refused_as_the_tasks_own_fault(progress: object) -> None:
    error = refused(task(progress, 1))
    assert (error.reason, error.scope) == (Reason.INVALID_RESPONSE, Scope.TASK)
    assert "progress" in error.detail


@pytest.mark.parametrize(
    "status",
    [1.5, "1.5", "abc", "", None, True, False, [], {}, math.nan, math.inf, 10**400, 1e300, 2**53, "1e22"],
)
def test_a_status_that_is_no_whole_number_is_refused_as_the_tasks_own_fault(status: object) -> None:
    error = refused(task(50, status))
    assert (error.reason, error.scope) == (Reason.INVALID_RESPONSE, Scope.TASK)
    assert "status" in error.detail


@pytest.mark.parametrize("data", [None, [], "", False, True, 0, "x", [50, 1], {}])
def test_success_without_a_reading_is_refused_as_the_tasks_own_fault(data: object) -> None:
    error = refused(said(0, data))
    assert (error.reason, error.scope) == (Reason.INVALID_RESPONSE, Scope.TASK)


@pytest.mark.parametrize("field", ["progress", "status"])
def test_a_missing_field_is_refused(field: str) -> None:
    data = {"progress": 50, "status": 1}
    del data[field]
    assert field in refused(said(0, data)).detail


@pytest.mark.parametrize("code", [None, True, False, "", "abc", 1.5, [], {}, math.nan, math.inf, 1e300])
def test_a_code_that_is_no_whole_number_is_refused(code: object) -> None:
    error = refused(said(code, {"progress": 50, "status": 1}))
    assert (error.reason, error.detail) == (Reason.INVALID_RESPONSE, "no code")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"  \n", id="blank"),
        pytest.param(b"\xef\xbb\xbf", id="only a byte order mark"),
        pytest.param(b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", id="HTML"),
        pytest.param(b'{"code":0,"data":{"progress":5', id="cut short"),
        pytest.param(b'{"code":0}{"code":0}', id="two documents"),
        pytest.param(b"\xff\xfe\x00\xd8", id="no encoding"),
        pytest.param(b"\x80{}", id="not UTF-8"),
        pytest.param(b"[" * 60_000, id="60,000 brackets"),
        pytest.param(b'{"code":0,"data":' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="nested, but closed"),
        pytest.param(b'{"a":' * 12_000, id="nested objects"),
        pytest.param(b'{"code":' + b"9" * 5000 + b"}", id="a code of 5,000 digits"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'[{"code":0}]', id="list of envelopes"),
        pytest.param(b"null", id="null"),
        pytest.param(b"0", id="number"),
        pytest.param(b'"code"', id="string"),
        pytest.param(b"NaN", id="no number"),
    ],
)
def test_what_is_no_envelope_is_refused_and_says_nothing_of_the_task(body: bytes) -> None:
    error = refused(body)
    assert (error.reason, error.scope) == (Reason.INVALID_RESPONSE, Scope.UNKNOWN)


def test_data_nested_as_deep_as_json_can_be_read_is_refused_like_any_other() -> None:
    for depth in range(500, 1100):
        body = b'{"code":13,"data":' + b"[" * depth + b"]" * depth + b"}"
        assert refused(body).reason in {Reason.WRONG_HOST, Reason.INVALID_RESPONSE}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(said("1" * (LARGEST - 100) + "x"), id="digits, but no number"),
        pytest.param(task(" " * (LARGEST - 100), 1), id="spaces"),
        pytest.param(task("1." + "0" * (LARGEST - 100) + "e", 1), id="decimals, but no number"),
        pytest.param(said(13, "a" * (LARGEST - 100)), id="letters, but no host"),
        pytest.param(said(13, "a." * (LARGEST // 2 - 100) + "_"), id="labels"),
        pytest.param(said(13, "1." * (LARGEST // 2 - 100) + "_"), id="numbers with dots"),
        pytest.param(said(3, None, "\x00" * (LARGEST // 6 - 100)), id="control characters"),
    ],
)
def test_no_answer_takes_long_to_understand(body: bytes) -> None:
    assert len(body) <= LARGEST
    began = time.thread_time()
    refused(body)
    # linear, these take milliseconds; quadratic, they took more than a minute
    assert time.thread_time() - began < 1.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
numberish = (
    json_values
    | st.integers(-5, 1000)
    | st.floats(-10, 110)
    | st.from_regex(r"\s?[+-]?\d{1,400}(\.\d*)?(e[+-]?\d{1,4})?", fullmatch=True)
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from([0, "0", 13, 2, 30]) | numberish,
        "data": json_values | st.fixed_dictionaries({"progress": numberish, "status": numberish}),
        "message": json_values,
    },
)


def check(body: bytes) -> None:
    try:
        reading = parse(body, NOW, KEY)
    except ApiError as error:
        assert error.detail.isprintable()  # noqa: PT017 - either outcome is right, and each has its own
        assert 0 < len(error.detail) <= 700  # noqa: PT017 - same
    else:
        assert 0 <= reading.progress <= 100
        assert type(reading.status) is int
        assert reading.taken_at == NOW


@given(st.binary(max_size=300))
@example(b"\x00" * 4)
@example(b"\xff\xfe\x00\x00")
def test_any_bytes_are_a_reading_or_an_error_of_ours(body: bytes) -> None:
    check(body)


@given(json_values)
def test_any_json_is_a_reading_or_an_error_of_ours(value: Any) -> None:
    check(json.dumps(value).encode())


@given(envelopes)
def test_anything_like_an_envelope_is_a_reading_or_an_error_of_ours(value: Any) -> None:
    check(json.dumps(value).encode())
