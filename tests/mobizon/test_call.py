"""What a request tells of itself, under a clock that the test moves."""

from __future__ import annotations

import pytest

from exporter.errors import ApiError, Reason
from exporter.mobizon.call import Call


def test_sending_is_told_with_the_time() -> None:
    told: list[float] = []
    call = Call(5.0, told.append, lambda: 100.0)
    assert told == []
    call.sent()
    assert told == [100.0]


@pytest.mark.parametrize(
    ("sent", "detail"), [(False, "no connection within 2.5 s"), (True, "no complete answer within 2.5 s")]
)
def test_a_time_out_says_what_was_missing(*, sent: bool, detail: str) -> None:
    call = Call(2.5, lambda _: None, lambda: 100.0)
    if sent:
        call.sent()
    error = call.timed_out()
    assert isinstance(error, ApiError)
    assert (error.reason, error.detail) == (Reason.TIMEOUT, detail)
