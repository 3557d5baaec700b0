"""The registered tasks: durable before the answer, merged after all others, gone when they are over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from exporter.config import registry_store
from exporter.config.registration import Registration
from exporter.config.registry import FinalReadings, Registry
from exporter.config.registry_file import Entry, RegistryFile, parse
from exporter.config.registry_store import Draft, RegistryFullError, RegistryWriteError
from exporter.errors import ConfigError, Reason
from exporter.model import (
    Account,
    Api,
    Config,
    Failure,
    Reading,
    Remembered,
    Secret,
    TaskSource,
    TaskSpec,
    TaskView,
)

NOW = 1_767_225_600.0
DAY = 86_400.0
EMPTY = Registration(None, {})
FINAL = Remembered(Reading(100, 2, NOW - 5), NOW - 5, NOW - 4)


def registration(**change: Any) -> Registration:
    return Registration(None, change)


def config(*tasks: int, name: str | None = None, others: Iterable[Account] = ()) -> Config:
    api = Api("https://api.mobizon.kz", Secret(f"key{name}"))
    return Config((Account(name, api, tuple(map(TaskSpec, tasks))), *others))


class Disk(RegistryFile):
    """A registry's file on a disk that fails on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes = 0
        self.write_error: Exception | None = None
        self.written_in: set[str] = set()  # threads
        self.open_error: OSError | None = None
        self.hangs: threading.Event | None = None

    def open(self) -> list[Entry]:
        if self.open_error:
            raise self.open_error
        return super().open()

    def write(self, entries: Iterable[Entry]) -> None:
        self.writes += 1
        self.written_in.add(threading.current_thread().name)
        if self.hangs:
            self.hangs.wait(30)
        if self.write_error:
            raise self.write_error
        super().write(entries)


class World:
    """A registry over a file, and the configuration in force."""

    def __init__(self, path: Path, *tasks: int, in_memory: bool = False) -> None:
        self.path = path
        self.disk = Disk(path)
        self.now = NOW
        self.applied: list[Config] = []
        self.restored: dict[str | None, dict[int, Remembered]] = {}
        self.views: dict[tuple[str | None, int], TaskView] = {}
        self.registry = Registry(
            None if in_memory else self.disk,
            self.put_in_force,
            keep_finished=7 * DAY,
            wall=lambda: self.now,
        )
        self.registry.open()
        self.registry.apply(config(*tasks))

    def put_in_force(self, config: Config, final: FinalReadings) -> None:
        self.applied.append(config)
        self.restored = {name: dict(known) for name, known in final.items()}

    def listed(self, at: int = 0) -> list[int]:
        return [task.id for task in self.applied[-1].accounts[at].tasks]

    def spec(self, task_id: int) -> TaskSpec:
        return next(task for task in self.applied[-1].accounts[0].tasks if task.id == task_id)

    def on_disk(self) -> dict[int, Entry]:
        return {entry.spec.id: entry for entry in parse(self.path.read_bytes())}

    async def sweep(self) -> None:
        await self.registry.sweep(lambda account, task_id: self.views.get((account, task_id)))

    async def restarted(self, *tasks: int) -> World:
        await self.registry.close()
        return World(self.path, *tasks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.json"


class TestPut:
    async def test_a_task_is_listed_and_on_disk_when_it_is_answered(self, path: Path) -> None:
        world = World(path, 1)
        assert await world.registry.put(None, 5, registration(name="x", labels={"team": "crm"}))
        spec = TaskSpec(5, "x", {"team": "crm"}, TaskSource.REGISTRY)
        assert (world.listed(), world.spec(5)) == ([1, 5], spec)
        assert world.on_disk() == {5: Entry(None, spec)}

    async def test_it_is_there_after_a_restart(self, path: Path) -> None:
        await World(path).registry.put("kz", 5, registration(name="ё\u2028x", labels={"a": '"'}))
        (entry,) = parse(path.read_bytes())
        assert entry == Entry("kz", TaskSpec(5, "ё\u2028x", {"a": '"'}, TaskSource.REGISTRY))

    async def test_what_is_left_out_stays_and_none_clears(self, path: Path) -> None:
        world = World(path)
        assert await world.registry.put(None, 5, registration(name="x", labels={"team": "crm"}))
        changes: list[tuple[dict[str, Any], str | None, dict[str, str]]] = [
            ({}, "x", {"team": "crm"}),
            ({"name": "y"}, "y", {"team": "crm"}),
            ({"labels": {"a": "b"}}, "y", {"a": "b"}),
            ({"name": None}, None, {"a": "b"}),
            ({"labels": None}, None, {}),
        ]
        for change, name, labels in changes:
            assert not await world.registry.put(None, 5, registration(**change))
            assert (world.spec(5).name, world.spec(5).labels) == (name, labels)

    async def test_what_changes_nothing_writes_nothing_and_applies_nothing(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, registration(name="x"))
        spec, applied = world.spec(5), len(world.applied)
        await world.registry.put(None, 5, registration(name="x"))
        await world.registry.delete(None, 6)
        assert (world.disk.writes, len(world.applied)) == (1, applied)
        assert world.spec(5) is spec

    async def test_two_hundred_at_once_cost_at_most_five_syncs(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world, syncs, fsync = World(path), 0, os.fsync

        def count(descriptor: int) -> None:
            nonlocal syncs
            syncs += 1
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", count)
        await asyncio.gather(*(world.registry.put(None, task_id, EMPTY) for task_id in range(1, 201)))
        assert world.on_disk().keys() == set(range(1, 201))
        assert 0 < syncs <= 5

    async def test_those_that_come_shortly_after_one_another_share_a_write(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry_store, "QUIET", 0.05)
        monkeypatch.setattr(registry_store, "MAX_GATHERING", 60.0)
        world = World(path)
        first = asyncio.create_task(world.registry.put(None, 5, EMPTY))
        await asyncio.sleep(0.001)
        assert world.disk.writes == 0
        assert await world.registry.put(None, 6, EMPTY)
        assert await first
        assert world.disk.writes == 1

    async def test_in_memory_it_is_listed_and_nothing_is_written(self, path: Path) -> None:
        world = World(path, in_memory=True)
        assert await world.registry.put(None, 5, EMPTY)
        assert world.listed() == [5]
        await world.registry.delete(None, 5)
        assert world.listed() == []
        await world.registry.close()
        assert not list(path.parent.iterdir())

    async def test_the_file_is_readable_with_a_task_a_line(self, path: Path) -> None:
        world = World(path)
        for task_id in (5, 6):
            await world.registry.put(None, task_id, EMPTY)
        lines = path.read_text().splitlines()
        assert [line.startswith('{"id": ') for line in lines] == [False, True, True, False]
        assert json.loads(path.read_text())["version"] == 1

    async def test_one_who_hangs_up_leaves_the_others_alone(self, path: Path) -> None:
        world = World(path)
        gone = asyncio.create_task(world.registry.put(None, 5, EMPTY))
        stays = asyncio.create_task(world.registry.put(None, 6, EMPTY))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays
        assert world.listed() == [5, 6], "it was asked for, and is done"


class TestDelete:
    async def test_a_deleted_task_is_neither_listed_nor_on_disk(self, path: Path) -> None:
        world = World(path)
        await asyncio.gather(*(world.registry.put(None, task_id, EMPTY) for task_id in (5, 6)))
        await world.registry.delete(None, 5)
        assert world.listed() == [6]
        assert world.on_disk().keys() == {6}
        world = await world.restarted()
        assert world.listed() == [6]

    async def test_one_that_is_being_registered_is_deleted_after_it(self, path: Path) -> None:
        world = World(path)
        created, _ = await asyncio.gather(world.registry.put(None, 5, EMPTY), world.registry.delete(None, 5))
        assert created
        assert (world.listed(), path.exists() and world.on_disk()) == ([], {})


class TestFailures:
    async def test_a_write_that_fails_changes_nothing(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, registration(name="x"))
        before, applied = path.read_bytes(), len(world.applied)
        world.disk.write_error = OSError(errno.ENOSPC, "No space left on device")
        with capture_logs() as logs:
            for attempt in (
                world.registry.put(None, 6, EMPTY),
                world.registry.put(None, 5, registration(name="y")),
                world.registry.delete(None, 5),
            ):
                with pytest.raises(RegistryWriteError, match="cannot be written: no space left on device"):
                    await attempt
            assert not await world.registry.put(None, 5, registration(name="x")), "which needs no write"
        assert (path.read_bytes(), len(world.applied)) == (before, applied)
        assert [(log["log_level"], log["event"]) for log in logs] == [("error", "Failed to write registry")]
        assert logs[0]["path"] == str(path)
        world.disk.write_error = None
        with capture_logs() as logs:
            assert await world.registry.put(None, 6, EMPTY)
        assert [(log["event"], log["path"]) for log in logs] == [("Registry writable again", str(path))]
        assert world.listed() == [5, 6]
        assert all(name.startswith("registry") for name in world.disk.written_in), "a thread of its own"

    async def test_one_that_changes_nothing_does_not_fail_with_those_that_share_its_write(
        self, path: Path
    ) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.disk.write_error = OSError(errno.ENOSPC, "No space left on device")
        same, gone, new = await asyncio.gather(
            world.registry.put(None, 5, EMPTY),
            world.registry.delete(None, 9),
            world.registry.put(None, 6, EMPTY),
            return_exceptions=True,
        )
        assert (same, gone) == (False, None)
        assert isinstance(new, RegistryWriteError)

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(OSError("odd"), RegistryWriteError), (ValueError("odd"), ValueError)],
    )
    async def test_an_odd_failure_is_told_to_all_and_the_next_edit_works(
        self, path: Path, error: Exception, expected: type[Exception]
    ) -> None:
        world = World(path)
        world.disk.write_error = error
        with capture_logs() as logs:
            found = await asyncio.gather(
                *(world.registry.put(None, task_id, EMPTY) for task_id in (5, 6)), return_exceptions=True
            )
        assert [type(one) for one in found] == [expected] * 2
        assert [log["event"] for log in logs] == ["Failed to write registry"]
        if expected is RegistryWriteError:
            assert str(found[0]) == "the registry cannot be written: unknown error"
        world.disk.write_error = None
        assert await world.registry.put(None, 5, EMPTY)

    async def test_one_that_another_process_uses_by_then_is_told(self, tmp_path: Path) -> None:
        world = World(tmp_path / "later" / "registry.json")
        world.path.parent.mkdir()
        other = World(world.path)
        with pytest.raises(RegistryWriteError, match="another process uses this registry"):
            await world.registry.put(None, 5, EMPTY)
        await other.registry.close()

    async def test_a_folder_that_is_not_there_is_an_error_until_it_is(self, tmp_path: Path) -> None:
        with capture_logs() as logs:
            world = World(tmp_path / "later" / "registry.json")
        assert [log["log_level"] for log in logs] == ["error"]
        with pytest.raises(RegistryWriteError, match="its folder does not exist"):
            await world.registry.put(None, 5, EMPTY)
        world.path.parent.mkdir()
        assert await world.registry.put(None, 5, EMPTY)
        assert world.on_disk().keys() == {5}

    async def test_what_is_on_a_read_only_disk_is_listed_and_cannot_be_changed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        await world.registry.close()
        content = path.read_bytes()
        regular = os.open

        def read_only(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise OSError(errno.EROFS, "Read-only file system", name)
            return regular(name, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", read_only)
        with capture_logs() as logs:
            world = World(path)
        assert [log["log_level"] for log in logs] == ["info"]
        assert world.listed() == [5]
        for attempt in (world.registry.put(None, 6, EMPTY), world.registry.delete(None, 5)):
            with pytest.raises(RegistryWriteError, match="read-only file system"):
                await attempt
        assert (world.listed(), path.read_bytes()) == ([5], content)
        with pytest.raises(ConfigError, match="another process uses this registry"):
            World(path)
        monkeypatch.undo()
        assert await world.registry.put(None, 6, EMPTY)
        assert world.on_disk().keys() == {5, 6}

    async def test_a_read_only_disk_without_a_lock_is_told(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(name: str, flags: int, *_: object) -> int:
            raise OSError(errno.EROFS if flags & os.O_CREAT else errno.ENOENT, os.strerror(errno.EROFS), name)

        monkeypatch.setattr(os, "open", refuse)
        with capture_logs() as logs:
            World(path)
        assert [(log["log_level"], log["error"]) for log in logs] == [("error", "Read-only file system")]

    async def test_a_file_that_cannot_be_read_is_never_replaced_by_an_empty_one(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        await world.registry.close()
        content = path.read_bytes()
        path.rename(path.with_name("kept"))
        path.mkdir()  # which cannot be read as a file, by root neither
        with capture_logs() as logs:
            world = World(path)
        assert [(log["log_level"], log["error"]) for log in logs] == [("error", "Is a directory")]
        for attempt in (world.registry.put(None, 6, EMPTY), world.registry.delete(None, 5), world.sweep()):
            with pytest.raises(RegistryWriteError, match="is a directory"), capture_logs() as logs:
                await attempt
            assert logs == [], "it has been told"
        assert path.is_dir()
        path.rmdir()
        path.with_name("kept").rename(path)
        assert path.read_bytes() == content
        await world.sweep()
        assert world.listed() == [5], "a sweep tries again"
        assert await world.registry.put(None, 6, EMPTY)
        assert world.on_disk().keys() == {5, 6}

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "it is torn, or not JSON"),
            ('{"version": 1, "tasks": [\n{"id": 5, "acc', "it is torn, or not JSON"),
            ("[]", "it is not a registry"),
            ("{}", "it is not a registry"),
            ('["version"]', "it is not a registry"),
            ('{"version": 2, "tasks": []}', "its version is 2, and only 1 is understood"),
            ('{"version": 1}', "its content is not that of a registry"),
            ('{"version": 1, "tasks": {"5": {}}}', "its content is not that of a registry"),
            ('{"version": 1, "tasks": [5]}', "its content is not that of a registry"),
            ("[" * 100_000, "it is torn, or not JSON"),
        ],
    )
    async def test_one_that_cannot_be_used_is_put_aside_and_never_overwritten(
        self, content: str, reason: str, path: Path
    ) -> None:
        for number in range(1, 4):  # within one second, too
            path.write_text(content)
            with capture_logs() as logs:
                world = World(path)
            log = logs[0]
            assert (log["log_level"], log["error"]) == ("warning", reason)
            assert Path(str(log["kept_as"])).read_text() == content
            assert number > 1 or str(log["kept_as"]).rpartition(".unusable-")[2].isdecimal()
            assert len(list(path.parent.glob("registry.json.unusable-*"))) == number
            await world.registry.put(None, 5, EMPTY)
            world = await world.restarted()
            assert world.listed() == [5]
            await world.registry.close()

    GOOD = Entry(None, TaskSpec(5, "x", {"a": "b"}, TaskSource.REGISTRY), FINAL, NOW)

    @pytest.mark.parametrize(
        "change",
        [
            {"id": 0},
            {"id": "x"},
            {"id": True},
            {"id": 1.5},
            {"id": None},
            {"account": ""},
            {"account": 5},
            {"name": ""},
            {"name": ["x"]},
            {"name": "\ud800"},
            {"labels": None},
            {"labels": {"job": "x"}},
            {"labels": {"a": 1}},
            {"not_found_since": "soon"},
            {"not_found_since": float("inf")},
            {"final": {}},
            {"final": {"progress": 50, "status": 1, "taken_at": 1, "changed_at": 1, "finished_at": 1}},
            {"final": {"progress": 100.5, "status": 2, "taken_at": 1, "changed_at": 1, "finished_at": 1}},
            {"final": {"progress": -0.5, "status": 2, "taken_at": 1, "changed_at": 1, "finished_at": 1}},
            {"final": {"progress": 50, "status": 2, "taken_at": 1, "changed_at": 1, "finished_at": None}},
        ],
    )
    def test_an_entry_that_cannot_be_is_not_read(self, change: dict[str, Any]) -> None:
        whole = b'{"version": 1, "tasks": [\n' + self.GOOD.line + b"\n]}\n"
        assert parse(whole) == [self.GOOD]
        data = json.loads(whole)
        data["tasks"][0].update(change)
        with pytest.raises(ValueError, match="its content is not that of a registry"):
            parse(json.dumps(data).encode())

    @pytest.mark.parametrize("progress", [0.0, 100.0])
    def test_one_may_have_been_rejected_before_it_began(self, progress: float) -> None:
        rejected = Entry(None, TaskSpec(5), Remembered(Reading(progress, 3, NOW), NOW, NOW))
        [entry] = parse(b'{"version": 1, "tasks": [' + rejected.line + b"]}")
        assert entry.final == rejected.final

    def test_what_could_not_be_read_is_not_written(self) -> None:
        entry = Entry(None, TaskSpec(5), not_found_since=float("nan"))
        with pytest.raises(ValueError, match="not JSON compliant"):
            assert entry.line

    def test_a_task_twice_is_not_read(self) -> None:
        line = self.GOOD.line
        with pytest.raises(ValueError, match="it holds a task twice"):
            parse(b'{"version": 1, "tasks": [' + line + b"," + line + b"]}")

    async def test_another_process_is_shut_out_until_the_first_has_ended(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        with pytest.raises(ConfigError, match=r"registry\.json: another process uses this registry"):
            World(path)
        assert (await world.restarted()).listed() == [5]

    def test_whoever_opens_it_again_locks_it_again(self, path: Path) -> None:
        file = RegistryFile(path)
        for _ in range(2):
            assert file.open() == file.open() == []
            with pytest.raises(ConfigError):
                RegistryFile(path).open()
            file.close()
            file.close()
        assert path.with_name("registry.json.lock").stat().st_mode & 0o777 == 0o600


class TestFull:
    async def test_no_more_than_so_many_tasks(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry_store, "MAX_TASKS", 3)
        world = World(path)
        found = await asyncio.gather(
            *(world.registry.put(None, task_id, EMPTY) for task_id in range(1, 6)), return_exceptions=True
        )
        assert [isinstance(one, RegistryFullError) for one in found] == [False] * 3 + [True] * 2
        assert world.on_disk().keys() == {1, 2, 3}
        assert not await world.registry.put(None, 3, registration(name="x")), "what is there may change"
        await world.registry.delete(None, 1)
        assert await world.registry.put(None, 4, EMPTY)

    async def test_no_more_than_so_many_bytes(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry_store, "MAX_BYTES", 1000)
        world = World(path)
        for task_id in range(1, 20):
            with contextlib.suppress(RegistryFullError):
                await world.registry.put(None, task_id, registration(name="x" * 50))
        with pytest.raises(RegistryFullError):
            await world.registry.put(None, 1, registration(name="x" * 200))
        assert path.stat().st_size < 1100
        assert world.spec(1).name == "x" * 50
        await world.registry.delete(None, 1)
        assert await world.registry.put(None, 30, registration(name="x" * 40))
        world.registry.finished(None, 2, FINAL)
        await world.sweep()
        assert world.on_disk()[2].final == FINAL, "how it ended is kept all the same"

    def test_what_is_deleted_or_shortened_makes_as_much_room_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = [Entry(None, TaskSpec(task_id)) for task_id in range(1, 6)]
        size = len(entries[0].line)
        monkeypatch.setattr(registry_store, "MAX_BYTES", 3 * size)
        draft = Draft({entry.key: entry for entry in entries[:2]})
        assert not draft.changed
        draft.discard((None, 9))
        assert not draft.changed
        draft.put(entries[2])
        for gone, new in ((0, 3), (1, 4)):
            with pytest.raises(RegistryFullError):
                draft.put(entries[new])
            draft.discard(entries[gone].key)
            draft.put(entries[new])
        assert [key[1] for key in draft.entries] == [3, 4, 5]
        longer = Entry(None, TaskSpec(5, "longer"))
        with pytest.raises(RegistryFullError):
            draft.put(longer)
        draft.put(longer, limited=False)
        draft.put(entries[4])
        assert draft.changed


class TestOtherSources:
    async def test_what_is_listed_elsewhere_goes_first_and_is_told_once(self, path: Path) -> None:
        world = World(path, 1)
        await world.registry.put(None, 5, registration(name="x"))
        with capture_logs() as logs:
            world.registry.apply(config(5, 1))
            world.registry.apply(config(5))
        assert world.applied[-1].accounts[0].tasks == (TaskSpec(5),)
        assert [(log["log_level"], log["task_ids"]) for log in logs] == [("warning", "5")]
        world.registry.apply(config(1))
        assert world.listed() == [1, 5], "it is still registered"

    async def test_an_account_that_is_not_configured_keeps_its_tasks_unwatched_and_is_told_once(
        self, path: Path
    ) -> None:
        world = World(path)
        await world.registry.put("br", 5, EMPTY)
        await world.registry.put(None, 6, EMPTY)
        with capture_logs() as logs:
            world.registry.apply(config())
            await world.registry.put(None, 7, EMPTY)
        assert world.listed() == [6, 7]
        assert logs == [], "it was logged when it was registered"
        with capture_logs() as logs:
            world = await world.restarted()
            world.registry.apply(config())
        warnings = [(log["account"], log["tasks"]) for log in logs if log["log_level"] == "warning"]
        assert warnings == [("br", 1)]
        world.registry.apply(config(others=config(1, name="br").accounts))
        assert (world.listed(0), world.listed(1)) == ([6, 7], [1, 5])

    async def test_nothing_else_of_a_configuration_changes(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        applied = config(1)
        world.registry.apply(applied)
        (account,) = world.applied[-1].accounts
        assert account.api == applied.accounts[0].api
        assert (account.name, account.task_files) == (None, ())


class TestTheEndOfATask:
    def failed(self, reason: Reason, since: float, reading: Reading | None = None) -> TaskView:
        return TaskView(TaskSpec(5), reading=reading, failure=Failure(reason, "", since))

    async def test_its_final_reading_is_kept_and_known_after_a_restart(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.registry.finished(None, 5, FINAL)
        world.registry.finished(None, 6, FINAL)
        await world.sweep()
        assert world.on_disk()[5].final == FINAL
        writes = world.disk.writes
        await world.sweep()
        assert world.disk.writes == writes
        world = await world.restarted()
        assert world.restored == {None: {5: FINAL}}
        await world.registry.put(None, 6, EMPTY)
        assert world.restored == {}, "the others are known already"
        world.registry.apply(config())
        assert world.restored == {None: {5: FINAL}}

    async def test_it_is_written_soon_and_at_the_latest_at_the_end(self, path: Path) -> None:
        world = World(path)
        await asyncio.gather(*(world.registry.put(None, task_id, EMPTY) for task_id in (5, 6)))
        writes = world.disk.writes
        for task_id in (5, 6):
            world.registry.finished(None, task_id, FINAL)
        assert world.on_disk()[5].final is None
        await world.registry.close()
        assert [entry.final for entry in world.on_disk().values()] == [FINAL, FINAL]
        assert world.disk.writes == writes + 1

    async def test_a_disk_that_hangs_does_not_hold_up_the_end(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.disk.hangs = threading.Event()
        world.registry.finished(None, 5, FINAL)
        began = time.monotonic()
        await world.registry.close()
        assert time.monotonic() - began < 2
        with pytest.raises(ConfigError):
            World(path)  # while it may still write
        world.disk.hangs.set()

    async def test_a_write_under_way_is_let_end(self, path: Path) -> None:
        world = World(path)
        world.disk.hangs = threading.Event()
        put = asyncio.create_task(world.registry.put(None, 5, EMPTY))
        while not world.disk.writes:  # noqa: ASYNC110 - the thread that writes sets no event of this loop
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.02, world.disk.hangs.set)
        await world.registry.close()
        assert await put
        assert World(path).listed() == [5]

    async def test_what_a_killed_process_has_left_is_removed(self, path: Path) -> None:
        for name in (".registry.json.new-abcdefgh", ".registry.json.mine"):
            path.with_name(name).touch()
        await World(path).registry.put(None, 5, EMPTY)
        assert {found.name for found in path.parent.iterdir()} == {
            "registry.json",
            "registry.json.lock",
            ".registry.json.mine",
        }

    async def test_one_that_was_finished_when_it_was_registered_is_seen_to_be(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        reading = Reading(40, 3, NOW - 50)
        world.views[None, 5] = TaskView(TaskSpec(5), reading, changed_at=NOW - 60)
        await world.sweep()
        assert world.on_disk()[5].final == Remembered(reading, NOW - 60, NOW)

    @pytest.mark.parametrize("status", [2, 3])
    async def test_a_finished_one_leaves_when_it_has_been_finished_for_long(
        self, status: int, path: Path
    ) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.registry.finished(None, 5, Remembered(Reading(100, status, NOW), NOW, NOW))
        await world.sweep()
        world = await world.restarted()
        world.now = NOW + 7 * DAY - 1
        await world.sweep()
        assert world.listed() == [5]
        world.now += 1
        with capture_logs() as logs:
            await world.sweep()
        assert (world.listed(), world.on_disk()) == ([], {})
        assert [(log["log_level"], log["task_ids"]) for log in logs] == [("info", "5")]

    async def test_those_that_leave_are_told_by_account_and_id_but_no_more_than_ten(self, path: Path) -> None:
        world = World(path)
        for account, ids in (("B", [3]), (None, [*range(21, 9, -1), 5]), ("A", [4])):
            for task_id in ids:
                await world.registry.put(account, task_id, EMPTY)
                world.registry.finished(account, task_id, FINAL)
        world.now += 8 * DAY
        with capture_logs() as logs:
            await world.sweep()
        assert [(log["tasks"], log["task_ids"]) for log in logs] == [(15, "5,10,11,12,13,14,15,16,17,18")]
        for account, task_id in (("B", 3), (None, 5), ("A", 4)):
            await world.registry.put(account, task_id, EMPTY)
            world.registry.finished(account, task_id, FINAL)
        with capture_logs() as logs:
            await world.sweep()
        assert [(log["tasks"], log["task_ids"]) for log in logs] == [(3, "5,4,3")]

    async def test_one_that_mobizon_has_not_known_for_as_long_leaves_too(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.views[None, 5] = self.failed(Reason.NOT_FOUND, NOW)
        await world.sweep()
        world = await world.restarted()
        world.now = NOW + 3 * DAY
        world.views[None, 5] = self.failed(Reason.NOT_FOUND, NOW + 3 * DAY)
        await world.sweep()
        world.views[None, 5] = self.failed(Reason.TIMEOUT, NOW + 4 * DAY)
        world.now = NOW + 7 * DAY - 1
        await world.sweep()
        assert world.listed() == [5]
        world.now += 1
        await world.sweep()
        assert world.listed() == []

    async def test_one_that_mobizon_knows_again_stays(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        before = Reading(40, 1, NOW - 10)
        world.views[None, 5] = self.failed(Reason.NOT_FOUND, NOW, before)
        await world.sweep()
        world.views[None, 5] = TaskView(TaskSpec(5), before)
        await world.sweep()
        assert world.on_disk()[5].not_found_since == NOW, "the reading is from before it was not found"
        world.views[None, 5] = TaskView(TaskSpec(5), Reading(40, 1, NOW + 60))
        await world.sweep()
        assert world.on_disk()[5].not_found_since is None
        world.now = NOW + 100 * DAY
        await world.sweep()
        assert world.listed() == [5]

    async def test_a_registration_does_not_make_it_begin_anew(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.registry.finished(None, 5, FINAL)
        await world.sweep()
        assert not await world.registry.put(None, 5, registration(name="x"))
        assert world.on_disk()[5].final == FINAL

    async def test_one_deleted_and_registered_again_begins_anew(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.registry.finished(None, 5, FINAL)
        await world.registry.delete(None, 5)
        await world.registry.put(None, 5, EMPTY)
        await world.sweep()
        assert world.on_disk()[5].final is None

    async def test_what_could_not_be_written_is_written_by_a_later_sweep(self, path: Path) -> None:
        world = World(path)
        await world.registry.put(None, 5, EMPTY)
        world.registry.finished(None, 5, FINAL)
        world.disk.write_error = OSError(errno.EIO, "Input/output error")
        with pytest.raises(RegistryWriteError):
            await world.sweep()
        assert world.on_disk()[5].final is None
        world.disk.write_error = None
        await world.sweep()
        assert world.on_disk()[5].final == FINAL

    async def test_it_is_swept_again_and_again(self, path: Path) -> None:
        left = asyncio.Event()

        def put_in_force(config: Config, _: FinalReadings) -> None:
            if not config.accounts[0].tasks:
                left.set()

        registry = Registry(None, put_in_force, keep_finished=0.02, wall=lambda: NOW)
        registry.apply(config())
        await registry.put(None, 5, EMPTY)
        registry.finished(None, 5, FINAL)
        left.clear()
        keeping = asyncio.create_task(registry.keep(lambda *_: None))
        async with asyncio.timeout(10):
            await left.wait()
        keeping.cancel()


class Durability(RuleBasedStateMachine):
    """Whatever happens, what was answered is in force and survives; what was refused has left no trace."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.known: dict[int, str | None] = {}
        self.world = self.loop.run(self.opened())

    async def opened(self) -> World:
        return World(Path(self.folder.name) / "registry.json")

    @rule(
        edits=st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["a", "b", None, "delete"])), max_size=6)
    )
    def edit_at_once(self, edits: list[tuple[int, str | None]]) -> None:
        async def edit() -> list[Any]:
            return await asyncio.gather(
                *(
                    self.world.registry.delete(None, task_id)
                    if name == "delete"
                    else self.world.registry.put(None, task_id, registration(name=name))
                    for task_id, name in edits
                ),
                return_exceptions=True,
            )

        answers = self.loop.run(edit())
        wanted = dict(self.known)
        for (task_id, name), answer in zip(edits, answers, strict=True):
            if not isinstance(answer, RegistryWriteError):
                assert answer is (None if name == "delete" else task_id not in wanted)
            if name == "delete":
                wanted.pop(task_id, None)
            else:
                wanted[task_id] = name
        if self.world.disk.write_error is None:
            assert not any(isinstance(answer, Exception) for answer in answers)
            self.known = wanted
        else:
            for (task_id, _), answer in zip(edits, answers, strict=True):
                same = (task_id in wanted, wanted.get(task_id)) == (
                    task_id in self.known,
                    self.known.get(task_id),
                )
                assert same or isinstance(answer, RegistryWriteError)

    @rule()
    def break_or_mend_the_disk(self) -> None:
        disk = self.world.disk
        disk.write_error = None if disk.write_error else OSError(errno.ENOSPC, "No space left on device")

    @rule()
    def restart(self) -> None:
        self.world = self.loop.run(self.world.restarted())

    @invariant()
    @precondition(lambda self: hasattr(self, "world"))
    def what_was_answered_is_in_force_and_on_disk(self) -> None:
        tasks = self.world.applied[-1].accounts[0].tasks
        assert {task.id: task.name for task in tasks} == self.known
        on_disk = self.world.on_disk() if self.world.path.exists() else {}
        assert {task_id: entry.spec.name for task_id, entry in on_disk.items()} == self.known

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run(self.world.registry.close())
            self.loop.close()
            self.folder.cleanup()


TestDurability = Durability.TestCase
TestDurability.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
