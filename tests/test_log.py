"""Log lines, as Prometheus's components write them."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import output
from exporter.log import FORMATS, LEVELS, configure
from tests.support.asking import KEY, ask, making
from tests.support.peers import Peer, head_of, sending

if TYPE_CHECKING:
    from collections.abc import Callable


def stderr_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What has been written to stderr since it was last asked for; nothing of it to stdout."""
    assert output.flush(10)
    out, err = capsys.readouterr()
    assert out == ""
    return err


PAIR = re.compile(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|[^\s"=\\]*)(?: |$)')


@pytest.fixture(autouse=True)
def no_handlers_of_others() -> None:
    logging.getLogger().handlers = []


def parsed(line: str, form: str) -> dict[str, Any]:
    """A line's fields; fails on what is not of this format."""
    if form == "json":
        fields = json.loads(line, parse_constant=pytest.fail)
        assert isinstance(fields, dict)
        return fields
    found, at = {}, 0
    while at < len(line):
        pair = PAIR.match(line, at)
        assert pair, f"no logfmt at {at}: {line!r}"
        assert pair[1] not in found, line
        found[pair[1]] = json.loads(pair[2]) if pair[2].startswith('"') else pair[2]
        at = pair.end()
    return found


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[dict[str, Any]]]:
    """What has been written since it was last asked for, line by line."""

    def lines(form: str) -> list[dict[str, Any]]:
        err = stderr_of(capsys)
        assert err == "" or err.endswith("\n")
        return [parsed(line, form) for line in err.split("\n")[:-1]]

    return lines


def test_a_line_in_logfmt_begins_with_time_level_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "logfmt")
    structlog.get_logger().info("Task changed state", task_id=7, state="in_progress", name="spring sale")
    line = stderr_of(capsys)
    assert re.fullmatch(
        r'ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z level=info msg="Task changed state" '
        r'task_id=7 state=in_progress name="spring sale"\n',
        line,
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_line_tells_time_level_message_and_fields(form: str, logged: Any) -> None:
    configure("info", form)
    structlog.get_logger().info("Two words", number=7, part=0.5, yes=True, text="one", nothing=None)
    (line,) = logged(form)
    moment = datetime.fromisoformat(line.pop("ts"))
    assert moment.utcoffset() is not None
    assert abs((datetime.now(moment.tzinfo) - moment).total_seconds()) < 60
    expected: dict[str, Any] = {"number": 7, "part": 0.5, "yes": True}
    if form == "logfmt":
        expected = {"number": "7", "part": "0.5", "yes": "true"}
    texts = {"level": "info", "msg": "Two words", "text": "one", "nothing": "None"}
    assert line == {**expected, **texts}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_lets_through_what_is_as_grave_or_graver(
    form: str, level: str, seen: list[str], logged: Any
) -> None:
    configure(level, form)
    log = structlog.get_logger()
    for method in (log.debug, log.info, log.warning, log.error):
        method("x")
    assert [line["level"] for line in logged(form)] == seen


def test_the_levels_are_spelled_as_the_flag_has_them() -> None:
    assert list(LEVELS) == ["debug", "info", "warn", "error"]


VALUES = [
    "",
    "two words",
    "two\nlines",
    "two\r\nlines",
    "line\u2028separator\x85and\x0bmore",
    "\x1b[31mred\x1b[0m\x00",
    'a "quoted" word',
    "a=b",
    "back\\slash \\n",
    "back\\slash\n",
    '"',
    "кириллица",
    "no\u00a0break",
    "\u202ereversed",
    "{}",
    "%s %d",
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_was_from_a_single_line(form: str, value: str, logged: Any) -> None:
    configure("info", form)
    structlog.get_logger().info(value or "x", before=1, value=value, after=2)
    (line,) = logged(form)
    assert line["value"] == value
    assert line["msg"] == (value or "x")
    assert (str(line["before"]), str(line["after"])) == ("1", "2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_comes_back_from_logfmt(capsys: pytest.CaptureFixture[str], value: str) -> None:
    configure("info", "logfmt")
    structlog.get_logger().info("x", value=value, after=2)
    text = stderr_of(capsys)
    assert text.rstrip("\n").isprintable()
    assert parsed(text.rstrip("\n"), "logfmt")["value"] == value


@pytest.mark.parametrize("form", FORMATS)
def test_values_of_other_kinds_are_written_as_text(form: str, logged: Any) -> None:
    configure("info", form)
    structlog.get_logger().info("x", list=[1, "two"], error=ValueError("a\nb"))
    (line,) = logged(form)
    assert (line["list"], line["error"]) == ("[1, 'two']", "a\nb")


@pytest.mark.parametrize("form", FORMATS)
def test_a_traceback_is_one_field_of_one_line(form: str, logged: Any) -> None:
    configure("info", form)
    try:
        raise KeyError("missing\nkey")
    except KeyError:
        structlog.get_logger().exception("Failed")
    (line,) = logged(form)
    assert (line["level"], line["msg"]) == ("error", "Failed")
    assert "Traceback" in line["exception"]
    assert "KeyError" in line["exception"]


# Libraries


@pytest.mark.parametrize("form", FORMATS)
def test_warnings_of_libraries_look_like_our_own(form: str, logged: Any) -> None:
    configure("info", form)
    logging.getLogger("aiohttp.server").warning("trouble with\n%s", "two lines")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("asyncio").exception("it failed")
    structlog.get_logger().warning("own")
    first, second, own = logged(form)
    assert (first["level"], first["msg"]) == ("warn", "trouble with\ntwo lines")
    assert (second["level"], second["msg"]) == ("error", "it failed")
    assert "ValueError: why" in second["exception"]
    assert set(first) == set(own) == {"ts", "level", "msg"}


@pytest.mark.parametrize("level", LEVELS)
def test_libraries_are_heard_from_warnings_on_at_most(level: str, logged: Any) -> None:
    configure(level, "json")
    library = logging.getLogger("some.library")
    for method in (library.debug, library.info, library.warning, library.error):
        method("x")
    assert [line["level"] for line in logged("json")] == (
        ["error"] if level == "error" else ["warn", "error"]
    )


@pytest.mark.parametrize(
    "name", ["urllib3", "urllib3.connectionpool", "urllib3.connection", "urllib3.x", "requests"]
)
def test_nothing_that_the_http_libraries_log_is_ever_seen(name: str, logged: Any) -> None:
    configure("debug", "json")
    library = logging.getLogger(name)
    for method in (library.debug, library.info, library.warning, library.error, library.critical):
        method("https://api.mobizon.example/?apiKey=%s", KEY)
    assert logged("json") == []


def test_an_answer_that_urllib3_warns_about_puts_no_url_into_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("debug", "logfmt")
    body = b'{"code":0,"data":{"progress":1,"status":1}}'
    odd = head_of("X-Odd: 1", "no colon here", f"Content-Length: {len(body)}") + body
    with Peer(sending(odd)) as peer, making() as client:
        ask(client, peer.url)
    assert stderr_of(capsys) == ""


def test_configuring_again_takes_the_place_of_what_was(logged: Any) -> None:
    configure("debug", "logfmt")
    configure("error", "json")
    structlog.get_logger().info("no")
    structlog.get_logger().error("yes")
    logging.getLogger("library").error("yes")
    assert [line["msg"] for line in logged("json")] == ["yes", "yes"]
