"""What a configuration means, what is refused, and what errors say: all of it, and never a key."""

from __future__ import annotations

import re
import ssl
import traceback
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import settings as config
from exporter.config.load import load_config, load_tasks
from exporter.config.yaml_document import Document
from exporter.errors import ConfigError
from exporter.model import Account, Api, Config, Secret, TaskSource, TaskSpec
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
BAD = HERE / "bad_configs"
EXAMPLE = HERE.parents[1] / "config.example.yaml"
URL = "https://api.mobizon.kz"
API = f"api:\n  url: {URL}\n  key: abc\n"
MARK = "0a1b2c3d4e5f60718293a4b5c6d7e8f9MarkerKey"  # as long as Mobizon's keys
NOT_A_KEY = "expected a key of printable ASCII characters, without spaces"
NOTHING = f"{NOT_A_KEY}, got nothing"
NOT_A_DURATION = "expected a duration such as 500ms, 5s or 1h30m, got "


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {str(error.strerror).lower()}"]) from None


class Files:
    """Files that are nowhere but here."""

    def __init__(self, **contents: str | bytes) -> None:
        self.contents = {
            name: content.encode() if isinstance(content, str) else content
            for name, content in contents.items()
        }

    def read(self, path: Path) -> bytes:
        try:
            return self.contents[str(path)]
        except KeyError:
            raise ConfigError([f"{path}: no such file or directory"]) from None


def loaded(text: str, environ: Mapping[str, str] | None = None, **files: str | bytes) -> Config:
    return load_config(Path("config.yaml"), environ or {}, Files(**{"config.yaml": text, **files}).read)


def problems(text: str, environ: Mapping[str, str] | None = None, **files: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        loaded(text, environ, **files)
    return raised.value.problems


def account(text: str, environ: Mapping[str, str] | None = None, **files: str | bytes) -> Account:
    (only,) = loaded(text, environ, **files).accounts
    return only


def timeout(written: str) -> float:
    return account(API + f"  timeout: {written}\n").api.timeout


class TestBadConfigurations:
    @pytest.mark.parametrize("name", sorted(path.stem for path in BAD.glob("*.yaml")))
    def test_each_mistake_is_told_by_its_exact_message(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(BAD)
        with pytest.raises(ConfigError) as raised:
            load_config(Path(f"{name}.yaml"), {}, read)
        assert str(raised.value) + "\n" == Path(f"{name}.expected").read_text()
        assert "\n".join(raised.value.problems) == str(raised.value)

    @pytest.mark.parametrize("path", sorted(BAD.glob("*.expected")), ids=lambda path: path.stem)
    def test_messages_name_file_and_line_and_stand_in_the_order_of_lines(self, path: Path) -> None:
        lines = [
            re.match(rf"{path.stem}\.yaml:(\d+): \S", message) for message in path.read_text().splitlines()
        ]
        numbers = [int(line[1]) for line in lines if line]
        assert len(numbers) == len(lines) > 0
        assert numbers == sorted(numbers)
        assert numbers[-1] <= max(1, len(path.with_suffix(".yaml").read_text().splitlines()))

    @pytest.mark.parametrize("path", sorted(BAD.glob("*.expected")), ids=lambda path: path.stem)
    def test_no_message_holds_a_key_or_a_password(self, path: Path) -> None:
        for secret in ("kz0123456789", "0123456789abcdef", "apiKey", "password"):
            assert secret not in path.read_text()

    def test_each_file_has_its_messages(self) -> None:
        assert {path.stem for path in BAD.glob("*.yaml")} == {path.stem for path in BAD.glob("*.expected")}
        assert len(list(BAD.glob("*.yaml"))) >= 49


class TestWhatIsValid:
    def test_only_a_url_and_a_key_are_needed(self) -> None:
        assert loaded(API) == Config((Account(None, Api(URL, Secret("abc"), 1.0, 5.0), (), ()),), 300.0, 0.0)

    def test_everything_can_be_set(self, tmp_path: Path) -> None:
        Authority(tmp_path).cert.rename(tmp_path / "ca.pem")
        path = tmp_path / "config.yaml"
        path.write_text(
            "api:\n"
            "  url: http://localhost:8080/mobizon/\n"
            "  key: a!~9\n"
            "  request_interval: 1s500ms\n"
            "  timeout: 7s\n"
            "  ca_file: ca.pem\n"
            "  proxy_url: http://user:password@proxy:3128\n"
            "tasks:\n"
            "  - 123\n"
            "  - {id: '124', name: spring-sale, labels: {team: crm, ok: yes, n: 007, e: ''}}\n"
            "task_files: ['tasks.d/*.yaml', /elsewhere/x.json]\n"
            "stale_after: 10m\n"
            "drop_finished_after: 1d\n"
        )
        tasks = (
            TaskSpec(123),
            TaskSpec(124, "spring-sale", {"team": "crm", "ok": "yes", "n": "007", "e": ""}),
        )
        api = Api(
            "http://localhost:8080/mobizon",
            Secret("a!~9"),
            1.5,
            7.0,
            str(tmp_path / "ca.pem"),
            Secret("http://user:password@proxy:3128"),
        )
        patterns = (str(tmp_path / "tasks.d/*.yaml"), "/elsewhere/x.json")
        assert load_config(path, {}, read) == Config((Account(None, api, tasks, patterns),), 600.0, 86400.0)

    def test_several_accounts_have_everything_of_their_own(self) -> None:
        found = loaded(
            "accounts:\n"
            "  - name: kz\n"
            f"    api: {{url: '{URL}', key: abc}}\n"
            "    tasks: [1]\n"
            "    task_files: [kz/*.yaml]\n"
            "  - name: br\n"
            "    api: {url: 'https://api.mobizon.com.br', key: abd, timeout: 1s}\n"
            "    tasks: [1, 2]\n"
            "stale_after: 1m\n"
        )
        assert found == Config(
            (
                Account("kz", Api(URL, Secret("abc")), (TaskSpec(1),), ("kz/*.yaml",)),
                Account(
                    "br",
                    Api("https://api.mobizon.com.br", Secret("abd"), timeout=1.0),
                    (TaskSpec(1), TaskSpec(2)),
                ),
            ),
            60.0,
        )

    @pytest.mark.parametrize(
        "rest", ["tasks:\n", "task_files:\n", "tasks: []\ntask_files: []\n", "accounts:\n"]
    )
    def test_an_empty_list_is_as_good_as_none(self, rest: str) -> None:
        assert loaded(API + rest) == loaded(API)

    def test_a_list_may_be_shared_by_an_alias(self) -> None:
        text = "accounts:\n" + "".join(
            f"  - {{name: {name}, api: {{url: '{URL}', key: {name}}}, tasks: {tasks}}}\n"
            for name, tasks in (("a", "&tasks [1, 2]"), ("b", "*tasks"))
        )
        assert [account.tasks for account in loaded(text).accounts] == [(TaskSpec(1), TaskSpec(2))] * 2

    def test_globs_start_at_the_files_folder_whatever_its_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "odd [name]*?"
        folder.mkdir()
        (folder / "config.yaml").write_text(API + "task_files: ['*.yaml']\n")
        (only,) = load_config(folder / "config.yaml", {}, read).accounts
        (pattern,) = only.task_files
        assert pattern.endswith("/odd [[]name][*][?]/*.yaml")

    def test_a_ca_file_of_many_accounts_is_read_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The usual authorities take 20 ms."""
        read_files: list[Path] = []
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _, file: read_files.append(file))
        (tmp_path / "ca.pem").touch()
        api = f"{{name: a%d, api: {{url: '{URL}', key: abc%d, ca_file: ca.pem}}}}"
        listed = ", ".join(api % (at, at) for at in range(3))
        (tmp_path / "config.yaml").write_text(f"accounts: [{listed}]\n")
        assert len(load_config(tmp_path / "config.yaml", {}, read).accounts) == 3
        assert read_files == [tmp_path / "ca.pem"]

    def test_a_ca_file_that_is_a_folder_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(API + "  ca_file: .\n")
        with pytest.raises(ConfigError, match=r"api\.ca_file: no such file"):
            load_config(path, {}, read)


class TestDurations:
    @given(st.lists(st.integers(0, 400), min_size=7, max_size=7), st.sets(st.integers(0, 6), min_size=1))
    def test_what_prometheus_writes_is_understood(self, numbers: list[int], there: set[int]) -> None:
        units = {
            "y": 31_536_000_000,
            "w": 604_800_000,
            "d": 86_400_000,
            "h": 3_600_000,
            "m": 60_000,
            "s": 1000,
            "ms": 1,
        }
        numbers[0] //= 2  # 200 years and a little are less than 292
        parts = [
            (number, unit)
            for at, (number, unit) in enumerate(zip(numbers, units, strict=True))
            if at in there
        ]
        written = "".join(f"{number}{unit}" for number, unit in parts)
        milliseconds = sum(number * units[unit] for number, unit in parts)
        assert config.duration(written) == pytest.approx(milliseconds / 1000, abs=1e-6)

    @given(st.integers(0, 10**12))
    def test_a_duration_is_read_as_it_was_written(self, milliseconds: int) -> None:
        left, written = milliseconds, ""
        for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
            number, left = divmod(left, size)
            written += f"{number}{unit}" if number else ""
        assert round(config.duration(written or "0") * 1000) == milliseconds

    @given(st.text(st.sampled_from("0123456789ywdhms .-+"), max_size=12))
    def test_no_other_text_is_a_duration(self, written: str) -> None:
        valid = written and re.fullmatch(
            r"0|(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?", written, re.ASCII
        )
        try:
            seconds = config.duration(written)
        except ValueError as error:
            assert not valid or str(error) == "expected a duration of at most 292y"  # noqa: PT017 - either is right
        else:
            assert valid
            assert seconds >= 0

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("500ms", 0.5),
            ("1s", 1),
            ("5m", 300),
            ("1h30m", 5400),
            ("1m0s", 60),
            ("2w", 1209600),
            ("1y", 31536000),
        ],
    )
    def test_examples(self, written: str, seconds: float) -> None:
        assert timeout(written) == seconds

    def test_the_longest_is_that_of_prometheus(self) -> None:
        assert timeout("292y") == 292 * 365 * 86400
        with pytest.raises(ConfigError, match="at most 292y"):
            timeout("292y1ms")

    @pytest.mark.parametrize("setting", ["stale_after", "drop_finished_after"])
    @pytest.mark.parametrize("zero", ["0", "0s", "0ms"])
    def test_zero_is_a_duration_where_it_means_something(self, setting: str, zero: str) -> None:
        assert getattr(loaded(API + f"{setting}: {zero}\n"), setting) == 0

    @pytest.mark.parametrize("setting", ["timeout", "request_interval"])
    @pytest.mark.parametrize("zero", ["0", "0s", "0ms"])
    def test_requests_need_more_than_zero(self, setting: str, zero: str) -> None:
        assert problems(API + f"  {setting}: {zero}\n") == (
            f"config.yaml:4: api.{setting}: expected a duration above zero",
        )


class TestIds:
    @given(st.integers(1, 10**19 - 1))
    def test_any_plain_number_is_an_id_in_every_place(self, task_id: int) -> None:
        for written in (f"{task_id}", f"'{task_id}'", f"{{id: {task_id}}}", f'{{"id": "{task_id}"}}'):
            assert account(API + f"tasks: [{written}]\n").tasks == (TaskSpec(task_id),)
            listed = TaskSpec(task_id, source=TaskSource.FILE)
            assert load_tasks("x.json", f"[{written}]".encode()) == (listed,)

    @given(st.text(st.sampled_from("0123456789_:xob+-.e"), min_size=1, max_size=21))
    def test_nothing_else_is_taken_for_a_number(self, written: str) -> None:
        try:
            (task,) = load_tasks("x.yaml", f"- '{written}'\n".encode())
        except ConfigError as error:
            reported = error.problems
        else:
            assert str(task.id) == written
            return
        assert not re.fullmatch("[1-9][0-9]{0,18}", written)
        assert reported == (f"x.yaml:1: [0]: expected a positive integer, got '{written}'",)

    def test_ids_that_differ_in_writing_alone_are_duplicates(self) -> None:
        with pytest.raises(ConfigError) as raised:
            load_tasks("x.yaml", b"- 5\n- '5'\n- {id: 5}\n- 50\n")
        assert raised.value.problems == (
            "x.yaml:2: [1]: duplicate id 5, first listed as [0]",
            "x.yaml:3: [2]: duplicate id 5, first listed as [0]",
        )


class TestTaskFiles:
    @pytest.mark.parametrize("content", [b"", b"# none today\n", b"[]", b"null", b"---\n"])
    def test_a_file_may_list_nothing(self, content: bytes) -> None:
        assert load_tasks("x.yaml", content) == ()

    def test_the_same_list_in_yaml_and_json_is_the_same(self) -> None:
        as_json = (
            b'[123,\n\t{"id": 124, "name": "caf\\u00e9", "labels": {"team": "crm", "n": 1.50, "b": true}}]'
        )
        as_yaml = "- 123\n- id: 124\n  name: café\n  labels: {team: crm, n: 1.50, b: true}\n".encode()
        assert load_tasks("x.json", as_json) == load_tasks("x.yaml", as_yaml)
        assert load_tasks("x.json", as_json)[1].labels == {"team": "crm", "n": "1.50", "b": "true"}

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"tasks: [1]\n", ["x.yaml:1: expected a list, got a mapping"]),
            (b"123\n", ["x.yaml:1: expected a list, got text"]),
            (
                b"- 1\n- 0\n- 1\n- {id: 3, nam: x}\n- {labels: {job: x}}\n",
                [
                    "x.yaml:2: [1]: expected a positive integer, got '0'",
                    "x.yaml:3: [2]: duplicate id 1, first listed as [0]",
                    "x.yaml:4: [3].nam: unknown key; did you mean 'name'?",
                    "x.yaml:5: [4].id: required, but missing",
                    "x.yaml:5: [4].labels.job: this label is reserved",
                ],
            ),
        ],
    )
    def test_all_that_is_wrong_with_one_is_told_with_its_line(self, content: bytes, found: list[str]) -> None:
        with pytest.raises(ConfigError) as raised:
            load_tasks("x.yaml", content)
        assert list(raised.value.problems) == found

    @given(
        st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["x.yaml", "x.json"])
    )
    def test_any_content_gives_tasks_or_says_what_is_wrong(self, content: bytes, name: str) -> None:
        try:
            found = load_tasks(name, content)
        except ConfigError as error:
            reported = error.problems
        else:
            assert all(isinstance(task, TaskSpec) for task in found)
            return
        assert reported
        assert all(problem.startswith(name) for problem in reported)


class TestLabels:
    @given(st.from_regex("[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True), st.text(max_size=40))
    def test_any_other_name_can_be_a_label_with_any_text(self, name: str, value: str) -> None:
        escaped = "".join(f"\\U{ord(character):08x}" for character in value)
        written = f'[{{"id": 1, "labels": {{{name}: "{escaped}"}}}}]'
        if name in config.RESERVED_LABELS or name.startswith("__"):
            with pytest.raises(ConfigError, match="this label is reserved"):
                load_tasks("x.yaml", written.encode())
        else:
            (task,) = load_tasks("x.yaml", written.encode())
            assert task.labels == {name: value}

    def test_every_label_of_the_exporters_own_is_reserved(self) -> None:
        assert {"account", "task_id", "name", "reason", "status", "job", "instance", "le"} <= set(
            config.RESERVED_LABELS
        )


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("kind", "before", "path"),
        [
            (config.ConfigFileSettings, "", ""),
            (config.ApiSettings, "api: {", "api."),
            (config.AccountSettings, "accounts: [{", "accounts[0]."),
            (config.TaskSettings, "tasks: [{", "tasks[0]."),
        ],
    )
    def test_a_slip_of_the_pen_in_any_setting_is_met_with_the_right_one(
        self, kind: Any, before: str, path: str
    ) -> None:
        close = {"": "", "api.": "}", "accounts[0].": "}]", "tasks[0].": "}]"}[path]
        for known in fields(kind):
            slip = known.name + "x"
            message = f"config.yaml:1: {path}{slip}: unknown key; did you mean '{known.name}'?"
            assert message in problems(f"{before}{slip}: x{close}\n")


class TestTheKey:
    def test_it_stands_in_the_file(self) -> None:
        assert account(API).api.key == Secret("abc")

    def test_it_stands_in_a_file_of_its_own(self) -> None:
        text = f"api: {{url: '{URL}', key_file: secrets/key}}\n"
        for content in ("abc", "abc\n", "  abc\r\n\n", "\tabc"):
            assert account(text, None, **{"secrets/key": content}).api.key == Secret("abc")

    def test_its_file_is_looked_for_beside_the_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("abc\n")
        (tmp_path / "config.yaml").write_text(f"api: {{url: '{URL}', key_file: key}}\n")
        (only,) = load_config(tmp_path / "config.yaml", {}, read).accounts
        assert only.api.key == Secret("abc")

    @pytest.mark.parametrize("nothing", ["", ", key: ", ", key: ~", ", key_file: ", ", key: , key_file: "])
    def test_it_stands_in_the_environment_where_neither_is_given(self, nothing: str) -> None:
        text = f"api: {{url: '{URL}'{nothing}}}\n"
        assert account(text, {"MOBIZON_API_KEY": "abc\n"}).api.key == Secret("abc")

    def test_what_the_configuration_gives_goes_before_the_environment(self) -> None:
        environ = {"MOBIZON_API_KEY": "other"}
        assert account(API, environ).api.key == Secret("abc")
        assert account(f"api: {{url: '{URL}', key_file: k}}\n", environ, k="abd").api.key == Secret("abd")

    @pytest.mark.parametrize("environ", [{}, {"MOBIZON_API_KEY": ""}, {"mobizon_api_key": "abc"}])
    def test_without_any_the_three_ways_are_named(self, environ: dict[str, str]) -> None:
        assert problems(f"api: {{url: '{URL}'}}\n", environ) == (
            "config.yaml:1: api: no API key: give `key_file` or `key`, or set MOBIZON_API_KEY",
        )

    def test_two_ways_at_once_are_refused(self) -> None:
        assert problems(API + "  key_file: k\n", k="abc") == (
            "config.yaml:4: api.key_file: give either `key` or `key_file`, not both",
        )

    def test_an_empty_setting_beside_a_file_is_none(self) -> None:
        assert account(f"api: {{url: '{URL}', key: , key_file: k}}\n", k="abc").api.key == Secret("abc")

    @pytest.mark.parametrize("bad", [b"", b" \n", b"a b", b"a\nb", b"\xff\xfe", "ключ".encode(), b"a\0b"])
    def test_what_cannot_be_one_is_refused_from_its_file(self, bad: bytes) -> None:
        assert problems(f"api:\n  url: {URL}\n  key_file: k\n", k=bad) == (
            f"config.yaml:3: api.key_file: in the file: {NOT_A_KEY if bad.strip() else NOTHING}",
        )

    @pytest.mark.parametrize("bad", [" ", "a b", "ключ", "a\nb", "\x7f"])
    def test_what_cannot_be_one_is_refused_from_the_environment(self, bad: str) -> None:
        assert problems(f"api:\n  url: {URL}\n", {"MOBIZON_API_KEY": bad}) == (
            f"config.yaml:1: api: MOBIZON_API_KEY: {NOT_A_KEY if bad.strip() else NOTHING}",
        )

    @pytest.mark.parametrize("bad", ['""', '" "', "a b", '"a\\n"', "ключ", "[a]", "{a: b}", '"a\\0"'])
    def test_what_cannot_be_one_is_refused_and_told_once(self, bad: str) -> None:
        told = NOTHING if bad == '""' else NOT_A_KEY
        assert problems(f"api:\n  url: {URL}\n  key: {bad}\n") == (f"config.yaml:3: api.key: {told}",)

    def test_a_file_that_cannot_be_read_says_why_without_its_name(self, tmp_path: Path) -> None:
        (tmp_path / MARK).mkdir()
        for name, reason in ((MARK, "is a directory"), ("x" + MARK, "no such file or directory")):
            (tmp_path / "config.yaml").write_text(f"api:\n  url: {URL}\n  key_file: {name}\n")
            with pytest.raises(ConfigError) as raised:
                load_config(tmp_path / "config.yaml", {}, read)
            assert raised.value.problems == (
                f"{tmp_path}/config.yaml:3: api.key_file: {reason} (a relative path starts at {tmp_path})",
            )


class TestAccounts:
    def test_two_that_share_a_key_are_refused_wherever_it_comes_from(self) -> None:
        text = "accounts:\n" + "".join(
            f"  - name: {name}\n    api: {{url: '{URL}'{key}}}\n"
            for name, key in (("a", ""), ("b", ", key: abc"), ("c", ", key_file: k"), ("d", ", key: abd"))
        )
        assert problems(text, {"MOBIZON_API_KEY": "abc"}, k="abc\n") == (
            "config.yaml:5: accounts[1].api: has the key, and so the budget, of accounts[0]",
            "config.yaml:7: accounts[2].api: has the key, and so the budget, of accounts[0]",
        )

    def test_one_alone_keeps_its_name(self) -> None:
        text = f"accounts:\n  - name: kz\n    api: {{url: '{URL}', key: abc}}\n"
        assert account(text).name == "kz"

    def test_accounts_without_keys_are_each_told_and_are_no_twins(self) -> None:
        text = "accounts:\n" + "".join(f"  - name: {name}\n    api: {{url: '{URL}'}}\n" for name in "ab")
        assert [problem.split(": ")[1] for problem in problems(text)] == [
            "accounts[0].api",
            "accounts[1].api",
        ]

    @pytest.mark.parametrize(
        ("rest", "line"), [("api:\n", 1), ("tasks: [1]\n", 1), ("task_files: [x]\n", 1), ("tasks:\n", 1)]
    )
    def test_what_belongs_into_each_is_refused_beside_them(self, rest: str, line: int) -> None:
        text = f"{rest}accounts:\n  - name: kz\n    api: {{url: '{URL}', key: abc}}\n"
        name = rest.split(":", maxsplit=1)[0]
        assert problems(text) == (
            f"config.yaml:{line}: {name}: belongs into each of `accounts` when these are listed",
        )

    def test_twins_by_name_and_key_are_told_with_everything_else(self) -> None:
        one = f"  - name: kz\n    api: {{url: '{URL}', key: abc, tmeout: 5s}}\n    tasks: [7, 7]\n"
        assert problems("accounts:\n" + one + one) == (
            "config.yaml:3: accounts[0].api.tmeout: unknown key; did you mean 'timeout'?",
            "config.yaml:4: accounts[0].tasks[1]: duplicate id 7, first listed as [0]",
            "config.yaml:5: accounts[1].name: is also the name of accounts[0]",
            "config.yaml:6: accounts[1].api.tmeout: unknown key; did you mean 'timeout'?",
            "config.yaml:6: accounts[1].api: has the key, and so the budget, of accounts[0]",
            "config.yaml:7: accounts[1].tasks[1]: duplicate id 7, first listed as [0]",
        )


WRONG_PLACES = {
    "alone": "{key}",
    "quoted alone": "'{key}'",
    "as a list": "- {key}",
    "as a setting": "{key}: 1",
    "as api": "api: {key}",
    "in place of a setting of api": "api: {{{key}: }}",
    "without a space": "api: {{url: 'https://h', key:{key}}}",
    "after an equals sign": "api: {{url: 'https://h', key={key}}}",
    "unclosed": "api: {{url: 'https://h', key: '{key}",
    "as an alias": "api: {{url: 'https://h', key: *{key}}}",
    "as a tag": "api: {{url: 'https://h', key: !{key} x}}",
    "as a tag handle": "api: {{url: 'https://h', key: !{key}!x x}}",
    "as an anchor": "api: {{url: 'https://h', key: &{key} }}",
    "as an anchor given twice": "api: {{url: &{key} 'https://h', key: &{key} abc}}",
    "twice": "api: {{url: 'https://h', key: {key}, key: {key}}}",
    "in a list": "api: {{url: 'https://h', key: [{key}]}}",
    "with a space": "api: {{url: 'https://h', key: '{key} {key}'}}",
    "with another alphabet": "api: {{url: 'https://h', key: 'ё{key}'}}",
    "as a url": "api: {{url: '{key}'}}",
    "as a port": "api: {{url: 'https://h:{key}', key: abc}}",
    "in the url's query": "api: {{url: 'https://h/?apiKey={key}'}}",
    "in the url's user": "api: {{url: 'https://{key}@h', key: abc}}",
    "as a key file": "api: {{url: 'https://h', key_file: {key}}}",
    "as a key file's folder": "api: {{url: 'https://h', key_file: {key}/key}}",
    "as a ca file": "api: {{url: 'https://h', key: abc, ca_file: {key}}}",
    "as a proxy": "api: {{url: 'https://h', key: abc, proxy_url: {key}}}",
    "in a proxy": "api: {{url: 'https://h', key: abc, proxy_url: 'http://user:{key}@h:port'}}",
    "as a duration": "api: {{url: 'https://h', key: abc, timeout: {key}}}",
    "as a spacing": "api: {{url: 'https://h', key: abc, request_interval: {key}}}",
    "as stale_after": "stale_after: {key}",
    "as accounts": "accounts: {key}",
    "as an account": "accounts: [{key}]",
    "as names": "accounts: [{{name: {key}}}, {{name: {key}}}]",
    "as tasks": "tasks: {key}",
    "as a task": "tasks: [{key}]",
    "as a key of a task": "tasks: [{{{key}: 1}}]",
    "as an id": "tasks: [{{id: {key}}}]",
    "as labels": "tasks: [{{id: 1, labels: {key}}}]",
    "as a label": "tasks: [{{id: 1, labels: {{{key}-: x}}}}]",
    "as a label's list": "tasks: [{{id: 1, labels: {{a: [{key}]}}}}]",
    "as task files": "task_files: {key}",
    "as a directive": "%{key}\n---\n",
    "as a tag directive": "%TAG {key} x\n---\n",
    "after the end": "api:\n...\n{key}",
    "as a document": "api:\n---\n{key}\n---\n",
    "before a NUL": "api: {key}\0",
    "as a block": "api: |\n  {key}\n x",
    "beside a tab": "api:\n\t{key}",
}


class TestSecrets:
    @pytest.mark.parametrize("place", WRONG_PLACES)
    @pytest.mark.parametrize("length", [40, 70])
    def test_a_key_pasted_into_a_wrong_place_is_in_no_error(self, place: str, length: int) -> None:
        key = (MARK * 2)[:length]
        with pytest.raises(ConfigError) as raised:
            loaded(WRONG_PLACES[place].format(key=key) + "\n")
        reported = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
        assert key not in reported
        assert key[:20] not in reported
        assert key[-20:] not in reported

    def test_a_key_pasted_anywhere_is_in_no_error(self) -> None:
        text = (
            f"api:\n  url: {URL}\n  key: abc\n  timeout: 5s\n  proxy_url: 'http://u:p@h:1'\n"
            "tasks:\n  - 123\n  - {id: 124, name: spring, labels: {team: crm}}\n"
            'task_files: ["tasks.d/*.yaml"]\nstale_after: 5m # soon\n'
        )
        loaded(text)
        refused = 0
        for at in range(len(text)):
            try:
                loaded(text[:at] + MARK + text[at:])
            except ConfigError as error:
                refused += 1
                assert MARK not in repr(error) + "".join(traceback.format_exception(error))  # noqa: PT017 - either is right
        assert refused > len(text) / 2

    @pytest.mark.parametrize(
        ("text", "environ"),
        [
            (f"api: {{url: '{URL}', key: {MARK}}}\n", {}),
            (f"api: {{url: '{URL}', key_file: k}}\n", {}),
            (f"api: {{url: '{URL}'}}\n", {"MOBIZON_API_KEY": MARK}),
            (f"accounts: [{{name: a, api: {{url: '{URL}', key: {MARK}}}}}]\n", {}),
            (f"api: {{url: '{URL}', key: abc, proxy_url: 'http://user:{MARK}@h'}}\n", {}),
        ],
    )
    def test_a_key_in_its_right_place_is_in_no_repr(self, text: str, environ: dict[str, str]) -> None:
        found = loaded(text, environ, k=MARK)
        assert MARK not in f"{found!r}{found}{found.accounts[0].api!r}"
        assert "Secret(***)" in repr(found)

    @pytest.mark.parametrize("content", [f"{MARK} x", f"{MARK}\n{MARK}\n", f"key: {MARK}\n"])
    def test_a_key_in_a_file_of_the_wrong_form_is_in_no_error(self, content: str) -> None:
        text = f"api: {{url: '{URL}'}}\n"
        reported = (
            *problems(text.replace("'}", "', key_file: k}"), k=content),
            *problems(text, {"MOBIZON_API_KEY": content}),
        )
        assert MARK not in "".join(reported)


class TestTheExample:
    def switched_on(self) -> str:
        """Every setting of one account."""
        text = EXAMPLE.read_text()
        single = text[: text.index("\n#accounts:")]
        return re.sub(r"(?m)^( *)#(?=[a-z_]+:)", r"\1", single).replace("  key: put-your-api-key-here\n", "")

    def several(self) -> str:
        """The accounts, and nothing else."""
        text = EXAMPLE.read_text()
        return re.sub("(?m)^#", "", text[text.index("\n#accounts:") :])

    def test_it_is_valid_as_it_is(self) -> None:
        found = load_config(EXAMPLE, {}, read)
        (only,) = found.accounts
        assert only.tasks[0] == TaskSpec(123)
        assert only.tasks[1].name
        assert only.tasks[1].labels
        assert only.task_files

    def test_with_every_setting_switched_on_it_is_valid_and_shows_the_defaults(self, tmp_path: Path) -> None:
        Authority(tmp_path, "corporate-ca").cert.rename(tmp_path / "corporate-ca.pem")
        (tmp_path / "key").write_text("abc")
        path = tmp_path / "config.yaml"
        path.write_text(re.sub("key_file: .*", "key_file: key", self.switched_on()))
        found = load_config(path, {}, read)
        (api,) = [account.api for account in found.accounts]
        assert (found.stale_after, found.drop_finished_after) == (300.0, 0.0)
        assert (api.request_interval, api.timeout) == (1.0, 5.0)
        assert api.ca_file
        assert api.proxy_url

    def test_its_several_accounts_are_valid(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(re.sub(r"key_file: \S*?(\w+)\n", r"key: \1\n", self.several()))
        assert [account.name for account in load_config(path, {}, read).accounts] == ["kazakhstan", "brazil"]

    def test_it_holds_every_setting_there_is(self) -> None:
        single: Any = Document("x.yaml", self.switched_on().encode()).data
        several: Any = Document("x.yaml", self.several().encode()).data
        task = next(task for task in single["tasks"] if isinstance(task, dict))
        shown = {
            config.ConfigFileSettings: {*single, *several},
            config.ApiSettings: {*single["api"], *re.findall(r"(?m)^  (key):", EXAMPLE.read_text())},
            config.TaskSettings: {*task},
            config.AccountSettings: {key for entry in several["accounts"] for key in entry},
        }
        for kind, names in shown.items():
            assert names == {known.name for known in fields(kind)}
