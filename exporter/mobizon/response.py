"""What Mobizon answers to taskqueue/getStatus: tolerant of the shapes PHP gives it, strict about meaning.

The envelope is `{"code": int, "data": ..., "message": str}`; numbers also arrive as strings. The codes are
those of Mobizon's API documentation ("API response codes") and of its published clients.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final

from exporter.errors import ApiError, Reason, Scope
from exporter.mobizon.masking import mask
from exporter.model import Reading

_REASONS_BY_CODE: Final = {
    2: Reason.NOT_FOUND,
    8: Reason.UNAUTHORIZED,
    9: Reason.UNAUTHORIZED,
    13: Reason.WRONG_HOST,
    14: Reason.ACCOUNT_BLOCKED,
    30: Reason.RATE_LIMITED,
}
_ABOUT_PARAMETERS: Final = {1, 11, 12}
# Both take time that grows with the text alone, whatever is in it: the answer may be 64 KiB of digits.
_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_HOST: Final = re.compile(r"([a-z0-9-]{1,63}\.){1,7}[a-z][a-z0-9-]{1,62}", re.IGNORECASE)
_MAX_DETAIL: Final = 200
_MAX_SEARCHED: Final = 1000  # characters
_MAX_WHOLE: Final = 2**53  # above, floats skip numbers


def parse(body: bytes, taken_at: float, key: str) -> Reading:
    """The reading in an answer that came with HTTP 200; raises ApiError, free of the key, for all others."""
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):  # the latter from thousands of brackets
        raise ApiError(Reason.INVALID_RESPONSE, "not JSON") from None
    if not isinstance(envelope, dict):
        raise ApiError(Reason.INVALID_RESPONSE, "not a JSON object")
    code = _whole(envelope.get("code"))
    data = envelope.get("data")
    if code is None:
        raise ApiError(Reason.INVALID_RESPONSE, "no code")
    if code != 0:
        raise _error(code, data, envelope.get("message"), key)
    if not isinstance(data, dict):
        raise _invalid("no data")
    progress, status = _number(data.get("progress")), _whole(data.get("status"))
    if progress is None or not 0 <= progress <= 100:  # noqa: PLR2004 - percent
        raise _invalid("progress is no number from 0 to 100")
    if status is None:
        raise _invalid("status is no whole number")
    return Reading(progress, status, taken_at)


def printable(text: object) -> str:
    """A foreign text made fit for a log line or a page: one line, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _MAX_DETAIL else line[:_MAX_DETAIL] + "…"


def _error(code: int, data: Any, message: Any, key: str) -> ApiError:
    reason = _REASONS_BY_CODE.get(code, Reason.API_ERROR)
    detail = f"code {code}"
    if isinstance(message, str) and message.strip():
        # masked before it is cut, for half a key would not be found any more
        detail += f": {printable(mask(message, key))}"
    if reason is Reason.WRONG_HOST:
        with contextlib.suppress(RecursionError):  # writing may be able to nest less deeply than reading
            host = _HOST.search(json.dumps(data)[:_MAX_SEARCHED])
            detail += f"; the account's host is {host.group()}" if host else ""
    return ApiError(reason, detail, scope=Scope.TASK if code in _ABOUT_PARAMETERS else None)


def _invalid(detail: str) -> ApiError:
    return ApiError(Reason.INVALID_RESPONSE, detail, scope=Scope.TASK)


def _whole(value: Any) -> int | None:
    """A whole number, also as `1.0` or in a string; None for anything else, and for absurdly large ones."""
    number = _number(value)
    if number is None or not number.is_integer() or abs(number) >= _MAX_WHOLE:
        return None
    return int(number)


def _number(value: Any) -> float | None:
    """A number, also one in a string; None for anything else."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
