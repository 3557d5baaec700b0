"""The state file: what it brings back, and what becomes of one that is no use."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.errors import StateError
from exporter.files import remove_leftovers, replace_file
from exporter.metrics.task_series import TaskSeries
from exporter.model import Account, Api, Reading, Remembered, Secret, TaskSpec
from exporter.refresh import statefile as state
from exporter.refresh.statefile import (
    VERSION,
    Memory,
    StateFile,
    dump,
    fingerprint,
)
from exporter.slices import at_one_go
from exporter.web import page
from exporter.web.tasks_json import tasks_json
from exporter.web.translations import LANGUAGES
from tests.support.fakes import World

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0
KEY = "0a1b2c3d4e5f60718293a4b5c6d7e8f9MarkerKey"
MEMORY: Memory = {
    fingerprint(Secret(KEY)): {
        123: Remembered(Reading(62.5, 1, 1_700_000_000.25), 1_699_999_000.5, None),
        124: Remembered(Reading(100, 2, 1_700_000_001.0), 1_700_000_001.0, 1_700_000_001.0),
    },
    fingerprint(Secret("other")): {123: Remembered(Reading(0, 7, 1.7e9), 1.7e9, None)},
}
OTHER: Memory = {fingerprint(Secret(KEY)): {5: Remembered(Reading(1, 1, 2.0), 3.0, None)}}

NOW = 1_800_000_000.0
TIMES = st.floats(0, NOW + 86400)
STATUSES = st.integers(-(2**53) + 1, 2**53 - 1)
LIVE = st.builds(
    Remembered,
    st.builds(Reading, st.floats(0, 100), STATUSES.filter(lambda status: status not in {2, 3}), TIMES),
    TIMES,
    st.none(),
    st.none() | TIMES,
)
FINISHED = st.builds(
    Remembered,
    st.builds(Reading, st.floats(0, 100), st.sampled_from([2, 3]), TIMES),
    TIMES,
    TIMES,
    st.none() | TIMES,
)
MEMORIES = st.dictionaries(
    st.text(max_size=50).map(lambda key: fingerprint(Secret(key))),
    st.dictionaries(st.integers(1, 10**19 - 1), LIVE | FINISHED, max_size=4),
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def parse(content: bytes) -> Memory:
    """The memory in a file that is as it should be."""
    memory, unusable = state.parse(content, NOW)
    assert not unusable
    return memory


def mutated(data: Any, draw: st.DrawFn) -> Any:
    """A JSON document with one of its values, at any depth, in another's place."""
    if not isinstance(data, dict) or not data or draw(st.integers(0, 3)) == 0:
        return draw(JSON | ODD_NUMBERS)
    changed = dict(data)
    key = draw(st.sampled_from(sorted(changed)))
    match draw(st.sampled_from(["below"] * 4 + ["removed", "renamed"])):
        case "below":
            changed[key] = mutated(changed[key], draw)
        case "removed":
            del changed[key]
        case _:
            changed[draw(st.text(max_size=5) | st.just("\ud800"))] = changed.pop(key)
    return changed


TIME_FIELDS = ("taken_at", "changed_at", "finished_at", "first_read_at")
ODD_NUMBERS = st.sampled_from([10**400, -(10**400), 1.7e308, -1.7e308, 2**53, 32503680000, -1, 1e-320])


@st.composite
def odd_files(draw: st.DrawFn) -> bytes:
    """Any JSON, any bytes, or a good file with up to three mutations."""
    data: Any = json.loads(dump(MEMORY))
    for _ in range(draw(st.integers(0, 3))):
        data = mutated(data, draw)
    content = json.dumps(draw(st.just(data) | JSON)).encode()
    return draw(st.just(content) | st.binary(max_size=100))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


@pytest.fixture
def file(path: Path) -> Iterator[StateFile]:
    file = StateFile(path)
    yield file
    file.close()


def read(path: Path) -> tuple[Memory, list[str]]:
    """What a new process makes of the file, and the lines it logs."""
    file = StateFile(path)
    with capture_logs() as logs:
        found = file.read()
    file.close()
    assert all(log["log_level"] == "warning" for log in logs)
    return found, [
        " ".join([log["event"], *(f"{name}={log[name]}" for name in ("error", "kept_as") if name in log)])
        for log in logs
    ]


class Writes:
    """Every replacement of the file: what was written, in which thread; and an event at each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: list[Memory] = []
        self.threads: list[threading.Thread] = []
        self.refuse: OSError | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        replace = replace_file

        def replace_and_tell(path: Path, content: bytes) -> None:
            self.threads.append(threading.current_thread())
            try:
                if self.refuse:
                    raise self.refuse
                replace(path, content)
                self.contents.append(parse(content))
            finally:
                self._loop.call_soon_threadsafe(self._news.set)

        monkeypatch.setattr("exporter.refresh.statefile.replace_file", replace_and_tell)

    async def until(self, number: int) -> None:
        """Wait for that many attempts."""
        async with asyncio.timeout(SOON):
            while len(self.threads) < number:
                self._news.clear()
                await self._news.wait()


class TestContent:
    @given(MEMORIES)
    def test_what_is_dumped_is_parsed_as_it_was(self, memory: Memory) -> None:
        assert parse(dump(memory)) == memory

    def test_it_is_json_of_a_version_with_a_task_a_line(self) -> None:
        data = json.loads(dump(MEMORY))
        assert data["version"] == VERSION == 2
        assert data["accounts"][fingerprint(Secret(KEY))]["123"] == {
            "progress": 62.5,
            "status": 1,
            "taken_at": 1_700_000_000.25,
            "changed_at": 1_699_999_000.5,
            "finished_at": None,
            "first_read_at": None,
        }
        lines = dump(MEMORY).decode().splitlines()
        assert sum(line.startswith(('"123": {', '"124": {')) for line in lines) == 3

    def test_no_key_is_in_it_nor_a_part_of_one(self) -> None:
        content = dump(MEMORY).decode()
        assert all(KEY[at : at + 6] not in content for at in range(len(KEY) - 5))
        assert KEY[:6] not in fingerprint(Secret(KEY))

    def test_a_fingerprint_tells_keys_apart_and_stays_the_same(self) -> None:
        prints = [fingerprint(Secret(key)) for key in ("a", "b", KEY, KEY.lower())]
        assert len(set(prints)) == 4
        assert fingerprint(Secret(KEY)) == prints[2]
        assert all(len(found) == 16 for found in prints)

    def test_a_file_torn_anywhere_is_refused(self) -> None:
        content = dump(MEMORY).rstrip()
        for end in range(len(content)):
            with pytest.raises(StateError, match="it is torn, or not JSON"):
                parse(content[:end])

    def test_a_file_torn_by_a_power_failure_is_refused(self) -> None:
        content = dump(MEMORY).rstrip()
        for end in range(len(content) - 1):
            with pytest.raises(StateError):
                parse(content[:end].ljust(len(content), b"\0"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "it is torn, or not JSON"),
            (b"\xff\xfe", "it is torn, or not JSON"),
            (b"[" * 100_000, "it is torn, or not JSON"),
            (b"1" * 5000, "it is torn, or not JSON"),
            (b"[]", "it is not a state file"),
            (b"null", "it is not a state file"),
            (b'"version"', "it is not a state file"),
            (b'{"accounts": {}}', "it is not a state file"),
            (b'{"version": 3, "accounts": {}}', "its version is 3, and only 2 is understood"),
            (b'{"version": 0, "accounts": {}}', "its version is 0, and only 2 is understood"),
            (b'{"version": "1"}', "its version is '1', and only 2 is understood"),
            (b'{"version": null}', "its version is None, and only 2 is understood"),
            (b'{"version": 3}', "its version is 3, and only 2 is understood"),
        ],
    )
    def test_anything_else_is_refused_with_the_reason(self, content: bytes, message: str) -> None:
        with pytest.raises(StateError, match=f"^{message}$"):
            parse(content)

    @pytest.mark.parametrize("accounts", ["[]", "null", "1", '"a"', "true"])
    def test_accounts_of_another_form_are_refused(self, accounts: str) -> None:
        with pytest.raises(StateError, match="its content is not that of a state file"):
            parse(f'{{"version": 1, "accounts": {accounts}}}'.encode())

    @pytest.mark.parametrize("name", ["", "a", "0" * 15, "0" * 17, "\ud800", 'x"', f"{'0' * 16}-{'0' * 15}"])
    def test_an_account_that_is_none_is_left_out(self, name: str) -> None:
        data = json.loads(dump(OTHER))
        data["accounts"][name] = {}
        assert state.parse(json.dumps(data).encode(), NOW) == (OTHER, 1)

    @pytest.mark.parametrize("task_id", ["", "0", "01", "-1", "1.0", "x", "1_0", " 1", "\u0661", "9" * 5000])
    def test_an_id_that_is_none_is_left_out(self, task_id: str) -> None:
        data = json.loads(dump(OTHER))
        tasks = data["accounts"][fingerprint(Secret(KEY))]
        tasks[task_id] = tasks["5"]
        assert state.parse(json.dumps(data).encode(), NOW) == (OTHER, 1)

    @pytest.mark.parametrize(
        ("field", "odd"),
        [
            *(("progress", odd) for odd in ("NaN", "-0.1", "100.1", "1e400", '"5"', "null", "true", "[]")),
            *(("progress", odd) for odd in (f"1{'0' * 400}",)),
            *(("status", odd) for odd in ("1.5", "1e999", "true", "null", '"1"', "[]", str(2**53))),
            *(("status", odd) for odd in (f"1{'0' * 400}", f"-1{'0' * 400}")),
            *((time, odd) for time in TIME_FIELDS for odd in ("NaN", "-Infinity", "1.7e308", "-1.7e308")),
            *((time, odd) for time in TIME_FIELDS for odd in ("-1", "32503680000", '"1"', "true", "{}")),
            *((time, "null") for time in ("taken_at", "changed_at")),
            ("finished_at", "null"),  # of a finished task, which would then be kept for ever
        ],
    )
    def test_an_entry_with_an_odd_value_is_left_out_and_the_others_kept(self, field: str, odd: str) -> None:
        finished = Remembered(Reading(100, 2, 5.0), 5.0, 5.0, 4.0)
        account = fingerprint(Secret(KEY))
        content = dump({account: {1: finished, 2: finished}})
        entry = json.dumps(json.loads(content)["accounts"][account]["1"])
        spoilt = re.sub(rf'"{field}": [^,}}]+', f'"{field}": {odd}', entry)
        assert spoilt != entry
        content = content.replace(entry.encode(), spoilt.encode(), 1)
        assert state.parse(content, NOW) == ({account: {2: finished}}, 1)

    @pytest.mark.parametrize("missing", ["progress", "status", "taken_at", "changed_at", "finished_at"])
    def test_an_entry_without_a_part_is_left_out(self, missing: str) -> None:
        data = json.loads(dump(OTHER))
        del data["accounts"][fingerprint(Secret(KEY))]["5"][missing]
        assert state.parse(json.dumps(data).encode(), NOW) == ({fingerprint(Secret(KEY)): {}}, 1)

    @pytest.mark.parametrize("entry", [[], None, {}, 1, "x"])
    def test_what_is_no_entry_is_left_out(self, entry: Any) -> None:
        data = json.loads(dump(OTHER))
        data["accounts"][fingerprint(Secret(KEY))]["6"] = entry
        assert state.parse(json.dumps(data).encode(), NOW) == (OTHER, 1)

    def test_a_task_that_is_not_finished_cannot_have_been_since_some_time(self) -> None:
        data = json.loads(dump(OTHER))
        data["accounts"][fingerprint(Secret(KEY))]["5"]["finished_at"] = 5.0
        assert state.parse(json.dumps(data).encode(), NOW) == ({fingerprint(Secret(KEY)): {}}, 1)

    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(content=odd_files())
    def test_whatever_is_in_the_file_everything_can_be_shown_and_saved(
        self, content: bytes, path: Path
    ) -> None:
        path.write_bytes(content)
        memory, _ = read(path)
        tasks = tuple(map(TaskSpec, (5, 123, 124)))
        world = World(*(Account(key, Api("https://x", Secret(key)), tasks) for key in (KEY, "other")))
        world.refresher.restore(memory)
        views = world.views()
        assert json.dumps(tasks_json(views, world.loop.wall()), allow_nan=False)
        for language in LANGUAGES:
            assert page.render(
                views, now=world.loop.wall(), language=language, version="1", telemetry_path="/metrics"
            )
        assert at_one_go(TaskSeries().render(views))
        assert world.refresher.memory() == state.parse(dump(world.refresher.memory()), NOW)[0]

    @given(st.binary(max_size=100))
    def test_any_content_is_a_memory_or_an_error_of_ours(self, content: bytes) -> None:
        with pytest.raises(StateError):
            parse(content)


class TestReading:
    def test_what_was_saved_is_read(self, path: Path) -> None:
        path.write_bytes(dump(MEMORY))
        assert read(path) == (MEMORY, [])
        assert path.exists()

    def test_no_file_is_an_empty_memory_and_no_trouble(self, path: Path) -> None:
        assert read(path) == ({}, [])
        assert read(path.parent / "missing" / "state.json") == ({}, [])

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (dump(MEMORY)[:-10], "it is torn, or not JSON"),
            (b"key: value\n", "it is torn, or not JSON"),
            (b'{"other": "program"}', "it is not a state file"),
            (b'{"version": 3}', "its version is 3, and only 2 is understood"),
        ],
    )
    def test_one_that_cannot_be_used_is_put_aside_and_named(
        self, content: bytes, reason: str, path: Path
    ) -> None:
        path.write_bytes(content)
        found, (line,) = read(path)
        assert found == {}
        (aside,) = path.parent.iterdir()
        assert aside.name.startswith("state.json.unusable-")
        assert aside.read_bytes() == content
        assert line == f"Invalid state file, starting without it error={reason} kept_as={aside}"
        assert read(path) == ({}, []), "it is told once"

    def test_one_that_cannot_be_put_aside_is_not_said_to_be(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_bytes(b"torn")

        def refuse(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "rename", refuse)
        assert read(path) == (
            {},
            ["Invalid state file, starting without it error=it is torn, or not JSON"],
        )
        assert path.read_bytes() == b"torn"

    def test_one_that_cannot_be_read_is_told_and_left(self, path: Path) -> None:
        path.mkdir()
        assert read(path) == ({}, ["Failed to read state file, starting without it error=Is a directory"])
        assert path.is_dir()


class TestReplacing:
    def test_it_puts_the_content_in_place_and_leaves_nothing_beside(self, path: Path) -> None:
        for content in (b"first", b"second"):
            replace_file(path, content)
            assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [
                ("state.json", content)
            ]

    def test_the_content_reaches_the_disk_before_the_name_does_and_the_name_after(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else after a power failure there may be an empty file, or the old one."""
        done: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def fsync_and_note(descriptor: int) -> None:
            target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a descriptor's
            kind = "folder" if target == str(path.parent) else Path(target).read_text()
            done.append(f"fsync {kind}")
            fsync(descriptor)

        def replace_and_note(source: Path, target: Path) -> Path:
            assert source.parent == target.parent, "on the same file system"
            done.append(f"rename to {target.name}")
            return replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync_and_note)
        monkeypatch.setattr(Path, "replace", replace_and_note)
        replace_file(path, b"content")
        assert done == ["fsync content", "rename to state.json", "fsync folder"]

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_a_failure_leaves_the_old_one_whole_and_no_litter(
        self, step: str, error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_bytes(b"old")

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
        with pytest.raises(type(error)):
            replace_file(path, b"new")
        assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [
            ("state.json", b"old")
        ]

    def test_a_folder_that_cannot_be_synchronised_is_no_failure(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def refuse_folders(descriptor: int) -> None:
            if Path(f"/proc/self/fd/{descriptor}").is_dir():
                raise OSError(22, "Invalid argument")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", refuse_folders)
        replace_file(path, b"content")
        assert path.read_bytes() == b"content"

    def test_nobody_else_may_read_it(self, path: Path) -> None:
        replace_file(path, b"content")
        assert path.stat().st_mode & 0o077 == 0


class TestLeftovers:
    def test_those_of_writes_that_were_cut_short_are_removed_and_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = [
            ".state.json.new",
            ".state.json.backup12",
            "other.json",
            ".other.json.new-abcdefgh",
            "state.json",
        ]
        for name in others:
            path.with_name(name).touch()
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if it had been killed
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                replace_file(path, b"content")
        monkeypatch.undo()
        assert len(list(path.parent.iterdir())) == len(others) + 3
        remove_leftovers(path)
        assert sorted(file.name for file in path.parent.iterdir()) == sorted(others)

    def test_a_folder_that_is_missing_is_no_trouble(self, path: Path) -> None:
        remove_leftovers(path / "missing" / "state.json")

    async def test_they_are_removed_before_saving_begins(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leftover = path.with_name(".state.json.new-abcd1234")
        leftover.touch()
        monkeypatch.setattr(state, "SAVE_INTERVAL", 0.001)
        writes = Writes(monkeypatch)
        keeping = asyncio.create_task(file.keep(lambda: 1, lambda: MEMORY))
        await writes.until(1)
        assert not leftover.exists()
        keeping.cancel()


class TestSaving:
    async def test_the_first_save_writes_whatever_its_mark(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await file.save(None, lambda: MEMORY)
        assert parse(path.read_bytes()) == MEMORY

    async def test_it_is_written_only_when_something_is_new(
        self, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes = Writes(monkeypatch)
        asked = 0

        def memory() -> Memory:
            nonlocal asked
            asked += 1
            return MEMORY if asked == 1 else OTHER

        for mark in (1, 1, 2, 2, 2):
            await file.save(mark, memory)
        assert writes.contents == [MEMORY, OTHER]
        assert asked == 2, "what is not saved is not gathered either"

    async def test_the_writing_is_done_in_a_thread_of_its_own(
        self, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes = Writes(monkeypatch)
        for mark in range(3):
            await file.save(mark, lambda: MEMORY)
        assert len({thread.ident for thread in writes.threads}) == 1
        assert threading.current_thread() not in writes.threads

    async def test_a_disk_that_hangs_holds_up_nothing(
        self, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(_path: Path, _content: bytes) -> None:
            loop.call_soon_threadsafe(began.set)
            go_on.wait(SOON)

        monkeypatch.setattr("exporter.refresh.statefile.replace_file", hang)
        saving = asyncio.create_task(file.save(1, lambda: MEMORY))
        async with asyncio.timeout(SOON):
            await began.wait()  # the loop goes on
            assert not saving.done()
            go_on.set()
            await saving

    async def test_trouble_is_told_once_until_it_is_over_and_nothing_is_lost(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes = Writes(monkeypatch)
        with capture_logs() as logs:
            writes.refuse = OSError(28, "No space left on device")
            for _ in range(3):
                await file.save(1, lambda: MEMORY)
            assert len(writes.threads) == 3, "it is tried again though nothing is new"
            assert [(log["event"], log["error"]) for log in logs] == [
                ("Failed to write state file", "No space left on device")
            ]
            assert logs[0]["path"] == str(path)
            writes.refuse = None
            await file.save(1, lambda: MEMORY)
            assert parse(path.read_bytes()) == MEMORY
            await file.save(1, lambda: MEMORY)
            assert len(writes.threads) == 4
            assert len(logs) == 1
            writes.refuse = OSError(28, "No space left on device")
            for mark in (2, 3):
                await file.save(mark, lambda: OTHER)
            assert len(logs) == 2, "new trouble is told anew"
        assert parse(path.read_bytes()) == MEMORY

    async def test_a_folder_that_is_missing_is_told_and_no_error(self, tmp_path: Path) -> None:
        file = StateFile(tmp_path / "missing" / "state.json")
        with capture_logs() as logs:
            await file.save(1, lambda: MEMORY)
            await file.save(2, lambda: MEMORY)
        file.close()
        assert [log["error"] for log in logs] == ["No such file or directory"]

    async def test_a_disk_that_hangs_holds_up_no_end(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()
        monkeypatch.setattr(state, "MAX_LAST_SAVE", 0.01)
        monkeypatch.setattr("exporter.refresh.statefile.replace_file", lambda *_: go_on.wait(SOON))
        with capture_logs() as logs:
            async with asyncio.timeout(SOON):
                await file.save_finally(lambda: MEMORY)
            file.close()
        go_on.set()
        assert [log["event"] for log in logs] == ["Timed out writing state file"]

    async def test_the_last_save_writes_whatever_was_saved_before(self, path: Path, file: StateFile) -> None:
        await file.save(1, lambda: MEMORY)
        await file.save_finally(lambda: OTHER)
        assert parse(path.read_bytes()) == OTHER


class TestKeeping:
    def test_what_is_kept_is_never_more_than_a_few_seconds_behind(self) -> None:
        assert 0 < state.SAVE_INTERVAL <= 3

    async def test_news_are_saved_soon_and_silence_is_not(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(state, "SAVE_INTERVAL", 0.001)
        writes = Writes(monkeypatch)
        mark, memory = 0, MEMORY
        looks = 0
        enough = asyncio.Event()

        def current() -> int:
            nonlocal looks
            looks += 1
            if looks >= 20:
                enough.set()
            return mark

        keeping = asyncio.create_task(file.keep(current, lambda: memory))
        await writes.until(1)
        assert parse(path.read_bytes()) == MEMORY
        async with asyncio.timeout(SOON):
            await enough.wait()
        assert len(writes.contents) == 1
        mark, memory = 1, OTHER
        await writes.until(2)
        assert writes.contents == [MEMORY, OTHER]
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    async def test_trouble_does_not_end_it(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(state, "SAVE_INTERVAL", 0.001)
        writes = Writes(monkeypatch)
        writes.refuse = OSError(28, "No space left on device")
        with capture_logs() as logs:
            keeping = asyncio.create_task(file.keep(lambda: 1, lambda: MEMORY))
            await writes.until(3)
            writes.refuse = None
            await writes.until(len(writes.threads) + 1)
        assert parse(path.read_bytes()) == MEMORY
        assert len(logs) == 1
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    async def test_a_memory_that_cannot_be_told_is_logged_and_does_not_end_it(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(state, "SAVE_INTERVAL", 0.001)
        writes = Writes(monkeypatch)
        troubles = [RuntimeError("changed while it was gathered")]

        def memory() -> Memory:
            if troubles:
                raise troubles.pop()
            return MEMORY

        with capture_logs() as logs:
            keeping = asyncio.create_task(file.keep(lambda: 1, memory))
            await writes.until(1)
        assert parse(path.read_bytes()) == MEMORY
        assert [(log["event"], log["log_level"]) for log in logs] == [("Failed to save state", "error")]
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    async def test_saving_that_takes_long_takes_a_twentieth_of_the_time_at_most(
        self, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, waits = [0.0], []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 4:
                raise asyncio.CancelledError

        def memory() -> Memory:
            now[0] += [0.05, 1.0, 100.0][len(waits) - 1]
            return MEMORY

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with pytest.raises(asyncio.CancelledError):
            await file.keep(lambda: len(waits), memory)
        assert waits == [
            state.SAVE_INTERVAL,
            state.SAVE_INTERVAL,
            pytest.approx(20.0),
            state.MAX_SAVE_INTERVAL,
        ]

    async def test_what_came_after_it_ended_is_saved_by_the_last_save(
        self, path: Path, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the end of the process has it."""
        monkeypatch.setattr(state, "SAVE_INTERVAL", 0.001)
        writes = Writes(monkeypatch)
        keeping = asyncio.create_task(file.keep(lambda: 1, lambda: MEMORY))
        await writes.until(1)
        keeping.cancel()
        await file.save(None, lambda: OTHER)
        assert parse(path.read_bytes()) == OTHER
