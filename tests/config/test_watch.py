"""The files as they change under the exporter's eyes."""

from __future__ import annotations

import builtins
import gc
import glob
import os
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from exporter import files
from exporter.config import watch as watch_module
from exporter.config import watched_files
from exporter.config.watch import ConfigWatch
from exporter.config.watched_files import SETTLES_AFTER
from exporter.errors import ConfigError
from exporter.model import Secret
from tests.support.costs import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from exporter.model import Config

SOON = 10.0
PATIENCE = 3.0  # with a call that ought to return at once
LONG_AGO = 3600.0
URL = "https://api.mobizon.kz"
MAIN = f"api: {{url: '{URL}', key: abc}}\n"
GLOBS = 'task_files: ["*.json", "tasks.d/*.yaml"]\n'


class Disk:
    """A configuration on disk, watched; by default as if every file had been written long ago."""

    def __init__(self, folder: Path, main: str = MAIN + GLOBS) -> None:
        self.folder = folder
        self.path = folder / "config.yaml"
        self.tasks = folder / "tasks.d"
        self.tasks.mkdir(parents=True)
        self.path.write_text(main)
        self.now = time.time() + LONG_AGO
        self.watch = ConfigWatch(self.path, {}, lambda: self.now)
        self.logs: list[MutableMapping[str, Any]] = []

    def put(self, name: str, content: str | bytes) -> Path:
        """As the documentation asks scripts to: written under another name and renamed into place."""
        temporary = self.tasks / f".{name}.new"
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        return temporary.rename(self.tasks / name)

    def load(self) -> list[int]:
        return ids(self.watch.load())

    def look(self, *, force: bool = False) -> list[int] | None:
        """What is new, if anything is."""
        with capture_logs() as logs:
            found = self.watch.check(force=force)
        self.logs += logs
        return None if found is None else ids(found)

    def logged(self) -> list[str]:
        """What was logged since this was asked last."""
        logged = [
            str(log["problem"]).removeprefix(f"{self.folder}/") for log in self.logs if "problem" in log
        ]
        assert all(log["log_level"] == "error" for log in self.logs if "problem" in log)
        self.logs.clear()
        return logged

    @property
    def errors(self) -> int:
        return self.watch.status.task_file_errors

    @property
    def good(self) -> bool:
        return self.watch.status.reload_successful


def ids(config: Config) -> list[int]:
    return [task.id for account in config.accounts for task in account.tasks]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "etc")


def in_time(call: Callable[[], Any], pipe: Path) -> list[Any]:
    """What a call returned, in a list that is empty where it waited for a writer of the pipe."""
    found: list[Any] = []
    calling = threading.Thread(target=lambda: found.append(call()), daemon=True)
    calling.start()
    calling.join(PATIENCE)
    returned = found[:]
    if calling.is_alive():
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # lets go of it
        calling.join(SOON)
    return returned


class Ticks:
    """A file system whose clock stands still until a test moves it on."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def stat(self, path: str) -> SimpleNamespace:
        found = os.stat(path)  # noqa: PTH116 - stands in for it
        ns = int(self.at * 1e9)
        return SimpleNamespace(
            st_mtime_ns=ns,
            st_ctime_ns=ns,
            **{name: getattr(found, f"st_{name[3:]}") for name in ("st_ino", "st_dev", "st_size", "st_mode")},
        )


class System:
    """`os`, but for what a test puts in the place of some of it."""

    def __init__(self, **instead: Callable[[str], Any]) -> None:
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    ticks = Ticks()
    monkeypatch.setattr(files, "os", System(stat=ticks.stat))
    return ticks


class Opened:
    """Counts the files that are read, and refuses those a test names."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.refused: set[str] = set()

    def __call__(self, path: str, mode: str) -> Any:
        self.paths.append(path)
        if path in self.refused:
            raise PermissionError(13, "Permission denied")
        return builtins.open(path, mode)  # noqa: PTH123 - stands in for it

    def take(self) -> list[str]:
        paths = [os.path.basename(path) for path in self.paths]  # noqa: PTH119 - nothing but a name
        self.paths.clear()
        return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    monkeypatch.setattr(watched_files, "open", opened, raising=False)
    return opened


class TestTaskFiles:
    def test_a_file_is_taken_when_it_is_dropped_and_gone_when_it_is_deleted(self, disk: Disk) -> None:
        disk.path.write_text(MAIN + "tasks: [1]\n" + GLOBS)
        assert disk.load() == [1]
        dropped = disk.put("a.yaml", "- 5\n- 6\n")
        assert disk.look() == [1, 5, 6]
        (disk.folder / "b.json").write_text('[{"id": 7, "name": "x"}]')
        assert disk.look() == [1, 7, 5, 6]
        dropped.unlink()
        assert disk.look() == [1, 7]
        assert (disk.logged(), disk.errors) == ([], 0)

    def test_nothing_is_new_where_nothing_has_changed(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.put("b.yaml", "- x\n")
        disk.load()
        assert [disk.look() for _ in range(5)] == [None] * 5

    def test_a_file_that_has_rested_is_not_read_again(self, disk: Disk, opened: Opened) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        assert opened.take() == ["config.yaml", "a.yaml"]
        for _ in range(3):
            disk.look()
        assert opened.take() == []

    def test_a_renamed_file_keeps_its_tasks_listed(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        (disk.tasks / "a.yaml").rename(disk.tasks / "b.yaml")
        assert disk.look() == [5]
        (disk.tasks / "b.yaml").rename(disk.tasks / "b.yaml.off")
        assert disk.look() == []
        assert disk.logged() == []

    def test_a_file_still_being_written_beside_is_not_seen(self, disk: Disk) -> None:
        disk.load()
        (disk.tasks / ".a.yaml.new").write_text("- 5")
        (disk.tasks / ".b.yaml").write_text("- 6")
        assert disk.look() is None

    def test_a_file_replaced_by_rename_is_read_again(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        disk.put("a.yaml", "- 6\n")
        assert disk.look() == [6]
        assert disk.look() is None

    def test_files_are_taken_in_the_order_of_globs_and_names(self, disk: Disk) -> None:
        for number, name in enumerate(["c.yaml", "a.yaml", "d.yaml", "b.yaml"], 1):
            disk.put(name, f"- {number}\n")
        (disk.folder / "z.json").write_text("[9]")
        assert disk.load() == [9, 2, 4, 1, 3]

    def test_a_file_found_by_two_globs_is_one_file(self, disk: Disk, opened: Opened) -> None:
        disk.path.write_text(MAIN + 'task_files: ["tasks.d/a*", "tasks.d/*.yaml", "tasks.d/a.yaml"]\n')
        disk.put("a.yaml", "- 5\n")
        disk.put("b.yaml", "- 6\n")
        assert disk.load() == [5, 6]
        assert opened.take() == ["config.yaml", "a.yaml", "b.yaml"]
        assert (disk.watch.problems(), disk.errors) == ([], 0)

    @pytest.mark.parametrize("name", ["[a]", "a*", "?", "{a,b}", "a b", "ё"])
    def test_a_folders_name_is_no_glob(self, name: str, tmp_path: Path) -> None:
        disk = Disk(tmp_path / name)
        disk.put("a.yaml", "- 5\n")
        assert disk.load() == [5]
        disk.put("b.yaml", "- 6\n")
        assert disk.look() == [5, 6]

    def test_a_glob_may_be_absolute(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "a.yaml").write_text("- 5\n")
        disk = Disk(tmp_path / "etc", MAIN + f'task_files: ["{tmp_path}/elsewhere/*.yaml"]\n')
        assert disk.load() == [5]

    def test_a_folder_may_come_later(self, disk: Disk) -> None:
        disk.path.write_text(MAIN + 'task_files: ["later/*.yaml"]\n')
        assert disk.load() == []
        (disk.folder / "later").mkdir()
        (disk.folder / "later" / "a.yaml").write_text("- 5\n")
        assert disk.look() == [5]

    def test_names_and_labels_that_change_are_news(self, disk: Disk) -> None:
        disk.put("a.yaml", "- {id: 5, name: x}\n")
        disk.load()
        disk.put("a.yaml", "- {id: 5, name: y, labels: {team: crm}}\n")
        with capture_logs():
            found = disk.watch.check()
        assert found
        (task,) = found.accounts[0].tasks
        assert (task.name, task.labels) == ("y", {"team": "crm"})


class TestBrokenTaskFiles:
    def test_the_end_of_the_last_problem_is_told(self, disk: Disk) -> None:
        disk.put("a.yaml", "- x\n")
        disk.put("b.yaml", "- y\n")
        disk.load()
        disk.put("a.yaml", "- 1\n")
        disk.look()
        events = [log["event"] for log in disk.logs]
        assert "Task files fully loaded again" not in events
        disk.put("b.yaml", "- 2\n")
        disk.look()
        disk.look()
        events = [log["event"] for log in disk.logs]
        assert events.count("Task files fully loaded again") == 1

    def test_one_keeps_its_last_good_tasks_and_holds_up_no_other(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.put("b.yaml", "- 6\n")
        disk.load()
        disk.put("a.yaml", "- 5\n- x\n")
        disk.put("b.yaml", "- 6\n- 7\n")
        disk.put("c.yaml", "- 8\n")
        assert disk.look() == [5, 6, 7, 8]
        assert disk.logged() == ["tasks.d/a.yaml:2: [1]: expected a positive integer, got 'x'"]
        assert disk.errors == 1

    def test_one_that_was_never_good_has_no_tasks(self, disk: Disk) -> None:
        disk.put("a.yaml", "- [\n")
        disk.put("b.yaml", "- 6\n")
        assert disk.load() == [6]
        assert disk.errors == 1

    def test_all_that_is_wrong_is_told_once_whatever_happens_elsewhere(self, disk: Disk) -> None:
        disk.load()
        disk.put("a.yaml", "- x\n- 0\n")
        disk.look()
        assert disk.logged() == [
            "tasks.d/a.yaml:1: [0]: expected a positive integer, got 'x'",
            "tasks.d/a.yaml:2: [1]: expected a positive integer, got '0'",
        ]
        for number in range(3):
            disk.put("b.yaml", f"- {number + 1}\n")
            assert disk.look() == [number + 1]
        disk.look(force=True)
        assert (disk.logged(), disk.errors) == ([], 1)

    def test_a_file_broken_again_after_it_was_mended_is_told_again(self, disk: Disk) -> None:
        disk.load()
        for _ in range(2):
            disk.put("a.yaml", "- x\n")
            assert disk.look() == []
            assert disk.logged() == ["tasks.d/a.yaml:1: [0]: expected a positive integer, got 'x'"]
            assert disk.errors == 1
            disk.put("a.yaml", "- 5\n")
            assert disk.look() == [5]
            assert (disk.logged(), disk.errors) == ([], 0)
            disk.put("a.yaml", "[]")
            assert disk.look() == []

    def test_a_file_deleted_while_broken_leaves_with_its_tasks(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        broken = disk.put("a.yaml", "- [\n")
        assert disk.look() == [5]
        broken.unlink()
        assert disk.look() == []
        assert disk.errors == 0
        disk.put("a.yaml", "- [\n")
        assert disk.look() == [], "what it held in its former life does not come back"

    def test_what_is_told_at_the_start_is_not_told_again(self, disk: Disk) -> None:
        disk.put("a.yaml", "- x\n")
        disk.load()
        with capture_logs() as logs:
            disk.watch.log_problems()
            disk.watch.log_problems()
        assert [log["event"] for log in logs] == ["Task file not fully loaded"]
        disk.put("b.yaml", "- 6\n")
        disk.look()
        assert disk.logged() == []

    def test_a_half_written_file_keeps_the_tasks_of_the_whole_one(self, disk: Disk) -> None:
        whole = '[{"id": 5, "name": "x"}, {"id": 6}]'
        disk.put("a.yaml", whole)
        disk.load()
        for end in range(1, len(whole)):
            disk.put("a.yaml", whole[:end])
            assert disk.look() == [5, 6], whole[:end]
            assert disk.errors == 1
        disk.put("a.yaml", whole)
        assert disk.look() == [5, 6]
        assert disk.errors == 0

    def test_a_folder_with_the_name_of_a_file_is_told_and_counted(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        (disk.tasks / "b.yaml").mkdir()
        assert disk.load() == [5]
        assert disk.errors == 1
        assert disk.look() is None
        (disk.tasks / "b.yaml").rmdir()
        disk.put("b.yaml", "- 6\n")
        assert disk.look() == [5, 6]
        assert disk.errors == 0

    def test_a_file_that_becomes_a_folder_keeps_its_tasks(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n").with_name("a.yaml")
        disk.load()
        (disk.tasks / "a.yaml").unlink()
        (disk.tasks / "a.yaml").mkdir()
        assert disk.look() == [5]
        assert disk.logged() == ["tasks.d/a.yaml: is a directory"]

    def test_a_pipe_with_the_name_of_a_file_is_told_and_holds_up_nothing(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        pipe = disk.tasks / "b.yaml"
        os.mkfifo(pipe)
        assert in_time(disk.load, pipe) == [[5]]
        assert disk.watch.problems() == [f"{pipe}: is a pipe"]
        assert disk.errors == 1
        assert disk.look() is None

    def test_a_link_to_nothing_is_told_and_keeps_what_it_led_to(self, disk: Disk) -> None:
        target = disk.folder / "list"
        target.write_text("- 5\n")
        (disk.tasks / "a.yaml").symlink_to(target)
        assert disk.load() == [5]
        target.unlink()
        assert disk.look() == [5]
        assert disk.logged() == ["tasks.d/a.yaml: no such file or directory"]
        assert disk.look() is None
        target.write_text("- 6\n")
        assert disk.look() == [6]
        assert disk.errors == 0

    def test_a_file_that_may_not_be_read_is_told_once_and_taken_when_it_may(
        self, disk: Disk, ticks: Ticks, opened: Opened
    ) -> None:
        ticks.at = disk.now
        path = disk.put("a.yaml", "- 5\n")
        disk.load()
        opened.refused.add(str(path))
        disk.put("a.yaml", "- 55\n")
        assert disk.look() == [5]
        assert disk.logged() == ["tasks.d/a.yaml: permission denied"]
        assert [disk.look() for _ in range(3)] == [None] * 3, "which is no news"
        assert disk.errors == 1
        opened.refused.clear()
        assert disk.look() == [55]
        assert (disk.logged(), disk.errors) == ([], 0)

    def test_a_folder_that_may_not_be_listed_keeps_its_tasks_and_is_told_once(
        self, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk.put("a.yaml", "- 5\n")
        (disk.folder / "b.json").write_text("[6]")
        disk.load()

        def refuse(folder: str) -> Any:
            if folder == str(disk.tasks):
                raise PermissionError(13, "Permission denied")
            return os.scandir(folder)

        with monkeypatch.context() as patch:
            patch.setattr(watch_module, "os", System(scandir=refuse))
            (disk.folder / "b.json").write_text("[6, 7]")
            assert disk.look() == [6, 7, 5]
            assert disk.logged() == ["tasks.d: permission denied"]
            assert disk.errors == 1
            assert [disk.look() for _ in range(3)] == [None] * 3
        disk.put("a.yaml", "- 55\n")
        assert disk.look() == [6, 7, 55]
        assert (disk.logged(), disk.errors) == ([], 0)

    def test_one_that_vanishes_between_listing_and_reading_is_none(
        self, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.put("b.yaml", "- 6\n")
        disk.load()
        disk.put("b.yaml", "- 66\n")
        disk.put("c.yaml", "- 7\n")
        listing = glob.glob

        def list_and_delete(pattern: str) -> list[str]:
            found = listing(pattern)
            for path in found:
                if not path.endswith("a.yaml"):
                    Path(path).unlink()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(glob, "glob", list_and_delete)
            assert disk.look() == [5]
        assert disk.look() is None
        assert (disk.logged(), disk.errors) == ([], 0)


class TestFilesThatLookTheSame:
    def test_an_edit_of_the_same_length_in_the_same_tick_is_seen(self, disk: Disk, ticks: Ticks) -> None:
        path = disk.put("a.yaml", "- 5\n")
        disk.now = ticks.at
        assert disk.load() == [5]
        inode = path.stat().st_ino
        for task_id in (6, 7, 8):
            path.write_text(f"- {task_id}\n")
            assert path.stat().st_ino == inode
            assert disk.look() == [task_id]
            assert disk.look() is None

    def test_the_main_file_is_no_exception(self, disk: Disk, ticks: Ticks) -> None:
        disk.path.write_text(MAIN + "tasks: [1]\n")
        disk.now = ticks.at
        assert disk.load() == [1]
        disk.path.write_text(MAIN + "tasks: [2]\n")
        assert disk.look() == [2]

    def test_an_edit_is_seen_until_a_later_one_would_show(
        self, disk: Disk, ticks: Ticks, opened: Opened
    ) -> None:
        path = disk.put("a.yaml", "- 5\n")
        disk.now = ticks.at
        disk.load()
        disk.now += SETTLES_AFTER
        path.write_text("- 6\n")
        assert disk.look() == [6], "it had not rested when it was read"
        opened.take()
        disk.now += 0.1
        assert disk.look() is None
        assert opened.take() == ["config.yaml", "a.yaml"], "it is read once more when it has"
        assert disk.look() is None
        assert opened.take() == []

    def test_a_clock_that_lags_behind_misses_nothing(self, disk: Disk, ticks: Ticks) -> None:
        path = disk.put("a.yaml", "- 5\n")
        disk.now = ticks.at - LONG_AGO
        disk.load()
        path.write_text("- 6\n")
        assert disk.look() == [6]

    def test_a_replacement_of_the_same_length_and_time_is_seen_by_its_inode(
        self, disk: Disk, ticks: Ticks
    ) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        disk.put("a.yaml", "- 6\n")
        assert disk.look() == [6]

    def test_a_config_map_swaps_all_files_at_once(self, disk: Disk, ticks: Ticks) -> None:
        """As Kubernetes does: `a.yaml` leads to `..data/a.yaml`, and `..data` to a folder of one version."""
        for version in (1, 2, 3):
            folder = disk.folder / f"..2026_{version}"
            folder.mkdir()
            (folder / "config.yaml").write_text(MAIN + f"tasks: [{version}]\n" + GLOBS)
            (folder / "a.yaml").write_text(f"- {version}0\n")

        def swap(version: int) -> None:
            link = disk.folder / "..data_tmp"
            link.symlink_to(f"..2026_{version}")
            link.replace(disk.folder / "..data")

        swap(1)
        disk.path.unlink()
        disk.path.symlink_to("..data/config.yaml")
        (disk.tasks / "a.yaml").symlink_to("../..data/a.yaml")
        assert disk.load() == [1, 10]
        assert disk.look() is None
        for version in (2, 3, 1):
            swap(version)
            assert disk.look() == [version, version * 10]
            assert disk.look() is None


class TestDuplicates:
    def test_the_first_of_several_wins_and_the_others_are_told_once_and_counted(self, disk: Disk) -> None:
        disk.path.write_text(MAIN + "tasks: [{id: 1, name: main}]\n" + GLOBS)
        disk.put("a.yaml", "- {id: 1, name: a}\n- {id: 2, name: a}\n")
        disk.put("b.yaml", "- {id: 2, name: b}\n- 3\n")
        with capture_logs() as logs:
            found = disk.watch.check(force=True)
        assert found
        assert [(task.id, task.name) for task in found.accounts[0].tasks] == [
            (1, "main"),
            (2, "a"),
            (3, None),
        ]
        disk.logs += logs
        assert disk.logged() == [
            "tasks.d/a.yaml: id 1 is listed elsewhere, too",
            "tasks.d/b.yaml: id 2 is listed elsewhere, too",
        ]
        assert disk.errors == 2
        disk.put("c.yaml", "- 4\n")
        assert disk.look() == [1, 2, 3, 4]
        assert disk.logged() == []

    def test_an_id_stays_when_one_of_its_lists_goes(self, disk: Disk) -> None:
        first = disk.put("a.yaml", "- 5\n")
        disk.put("b.yaml", "- 5\n- 6\n")
        assert disk.load() == [5, 6]
        first.unlink()
        assert disk.look() == [5, 6]
        assert disk.errors == 0

    def test_two_accounts_may_have_the_same_ids(self, disk: Disk) -> None:
        disk.path.write_text(
            "accounts:\n"
            f"  - {{name: a, api: {{url: '{URL}', key: a}}, tasks: [5], task_files: ['tasks.d/*.yaml']}}\n"
            f"  - {{name: b, api: {{url: '{URL}', key: b}}, task_files: ['tasks.d/*.yaml']}}\n"
        )
        disk.put("a.yaml", "- 6\n")
        assert disk.load() == [5, 6, 6]
        assert disk.errors == 0
        disk.put("a.yaml", "- 5\n- x\n")
        assert disk.look() == [5, 6, 6]
        assert disk.logged() == ["tasks.d/a.yaml:2: [1]: expected a positive integer, got 'x'"]
        assert disk.errors == 1, "one file, though two accounts have it"
        disk.put("a.yaml", "- 5\n")
        assert disk.look() == [5, 5]
        assert disk.logged() == ["tasks.d/a.yaml: id 5 is listed elsewhere, too"]

    def test_what_two_accounts_make_of_one_file_is_told_once(self, disk: Disk) -> None:
        disk.path.write_text(
            "accounts:\n"
            + "".join(
                f"  - {{name: {name}, api: {{url: '{URL}', key: {name}}}, tasks: [5], "
                "task_files: ['tasks.d/*.yaml']}\n"
                for name in "ab"
            )
        )
        disk.load()
        disk.put("a.yaml", "- 5\n- 6\n")
        assert disk.look() == [5, 6, 5, 6]
        assert disk.logged() == ["tasks.d/a.yaml: id 5 is listed elsewhere, too"]
        assert disk.errors == 1


class TestTheMainFile:
    def test_a_change_is_taken(self, disk: Disk) -> None:
        disk.load()
        loaded_at = disk.now
        assert disk.watch.status.reloaded_at == loaded_at
        disk.now += 5
        disk.path.write_text(MAIN + "tasks: [1, 2]\n")
        assert disk.look() == [1, 2]
        assert disk.watch.status.reloaded_at == loaded_at + 5
        disk.now += 5
        assert disk.look() is None
        assert disk.watch.status.reloaded_at == loaded_at + 5

    @pytest.mark.parametrize("broken", ["", "api: [", "tasks: [1]\n", "\0", MAIN + "tasks: [0]\n"])
    def test_a_broken_one_changes_nothing_and_is_told_once(self, broken: str, disk: Disk) -> None:
        disk.path.write_text(MAIN + "tasks: [1, 2]\n")
        disk.load()
        loaded_at = disk.now
        disk.now += 5
        disk.path.write_text(broken)
        assert disk.look() is None
        assert len(disk.logged()) == 1
        assert (disk.good, disk.watch.status.reloaded_at) == (False, loaded_at)
        assert [disk.look() for _ in range(3)] == [None] * 3
        assert disk.logged() == []
        assert not disk.good
        disk.path.write_text(MAIN + "tasks: [3]\n")
        assert disk.look() == [3]
        assert (disk.good, disk.watch.status.reloaded_at) == (True, disk.now)

    def test_one_that_was_just_broken_is_told_once_too(self, disk: Disk, ticks: Ticks) -> None:
        disk.now = ticks.at
        disk.load()
        disk.path.write_text("api: [\n")
        assert [disk.look() for _ in range(3)] == [None] * 3
        assert disk.logged() == ["config.yaml:1: did not find expected node content"]
        disk.now += LONG_AGO
        assert [disk.look() for _ in range(3)] == [None] * 3
        assert disk.logged() == []

    def test_all_that_is_wrong_with_it_is_told(self, disk: Disk) -> None:
        disk.load()
        disk.path.write_text(MAIN + "tasks: [0, x]\n")
        disk.look()
        assert disk.logged() == [
            "config.yaml:2: tasks[0]: expected a positive integer, got '0'",
            "config.yaml:2: tasks[1]: expected a positive integer, got 'x'",
        ]

    def test_while_it_is_broken_task_files_go_on_being_read(self, disk: Disk) -> None:
        disk.path.write_text(MAIN + "tasks: [1]\n" + GLOBS)
        disk.put("a.yaml", "- 5\n")
        disk.load()
        disk.path.write_text("api: [\n")
        assert disk.look() is None
        disk.put("a.yaml", "- 6\n")
        disk.put("b.yaml", "- x\n")
        assert disk.look() == [1, 6]
        assert not disk.good
        assert disk.errors == 1

    def test_one_that_vanishes_is_told_and_taken_when_it_is_back(self, disk: Disk) -> None:
        disk.load()
        disk.path.unlink()
        assert [disk.look() for _ in range(3)] == [None] * 3
        assert disk.logged() == ["config.yaml: no such file or directory"]
        assert not disk.good
        disk.path.write_text(MAIN + "tasks: [4]\n")
        assert disk.look() == [4]
        assert disk.good

    @pytest.mark.parametrize(
        "odd", [f"api: {{url: '{URL}', key_file: \"a\\0b\"}}\n", MAIN + 'task_files: ["a\\0/*.yaml"]\n']
    )
    def test_a_path_that_cannot_be_one_is_told_and_changes_nothing(self, odd: str, disk: Disk) -> None:
        disk.path.write_text(MAIN + "tasks: [1]\n")
        disk.load()
        disk.path.write_text(odd)
        assert [disk.look() for _ in range(3)] == [None] * 3
        assert len(disk.logged()) == 1
        assert not disk.good
        disk.path.write_text(MAIN + "tasks: [2]\n")
        assert disk.look() == [2]

    def test_other_globs_bring_other_files(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.put("b.yml", "- 6\n")
        assert disk.load() == [5]
        disk.path.write_text(MAIN + 'task_files: ["tasks.d/*.yml"]\n')
        assert disk.look() == [6]
        disk.path.write_text(MAIN)
        assert disk.look() == []

    def test_one_that_cannot_be_used_at_the_start_is_raised(self, disk: Disk) -> None:
        disk.path.unlink()
        with pytest.raises(ConfigError, match=r"config\.yaml: no such file or directory"):
            disk.watch.load()

    def test_it_may_come_from_a_pipe(self, disk: Disk) -> None:
        disk.path.unlink()
        os.mkfifo(disk.path)
        writing = threading.Thread(target=lambda: disk.path.write_text(MAIN + "tasks: [1]\n"), daemon=True)
        writing.start()
        assert disk.load() == [1]
        writing.join(SOON)

    def test_a_pipe_is_not_waited_for_again(self, disk: Disk) -> None:
        disk.path.unlink()
        os.mkfifo(disk.path)
        os.utime(disk.path, (0, 0))  # whatever is written to it will show
        writing = threading.Thread(target=lambda: disk.path.write_text(MAIN + "tasks: [1]\n"), daemon=True)
        writing.start()
        disk.load()
        writing.join(SOON)
        assert in_time(disk.look, disk.path) == [None]


class TestForce:
    def test_everything_is_read_again_whether_it_looks_changed_or_not(
        self, disk: Disk, opened: Opened
    ) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        opened.take()
        assert disk.look(force=True) == [5]
        assert opened.take() == ["config.yaml", "a.yaml"]

    def test_what_is_wrong_is_raised_and_not_logged_and_all_stays(self, disk: Disk) -> None:
        disk.put("a.yaml", "- 5\n")
        disk.load()
        disk.path.write_text("api: [\n")
        with capture_logs() as logs, pytest.raises(ConfigError):
            disk.watch.check(force=True)
        assert logs == []
        assert not disk.good
        assert disk.look() is None
        assert disk.logged() == [], "the caller has got the errors"
        disk.put("a.yaml", "- 6\n")
        assert disk.look() == [6]

    def test_it_takes_a_task_file_that_was_edited_unseen(self, disk: Disk, ticks: Ticks) -> None:
        path = disk.put("a.yaml", "- 5\n")
        disk.load()
        path.write_text("- 6\n")
        assert disk.look() is None, "as if its clock had been set back"
        assert disk.look(force=True) == [6]


class TestTheKeysFile:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Disk:
        disk = Disk(tmp_path / "etc", f"api: {{url: '{URL}', key_file: key}}\n" + GLOBS)
        (disk.folder / "key").write_text("first\n")
        return disk

    def key(self, disk: Disk) -> Secret | None:
        with capture_logs() as logs:
            found = disk.watch.check()
        disk.logs += logs
        return found.accounts[0].api.key if found else None

    def test_a_new_key_is_taken_while_nothing_else_changes(self, disk: Disk) -> None:
        assert disk.watch.load().accounts[0].api.key == Secret("first")
        assert self.key(disk) is None
        for key in ("other", "third"):
            (disk.folder / "key").write_text(f"{key}\n")
            assert self.key(disk) == Secret(key)
            assert self.key(disk) is None

    def test_a_file_that_is_gone_or_broken_leaves_the_old_key_in_force(self, disk: Disk) -> None:
        disk.watch.load()
        (disk.folder / "key").unlink()
        assert [self.key(disk) for _ in range(3)] == [None] * 3
        reason = f"no such file or directory (a relative path starts at {disk.folder})"
        assert disk.logged() == [f"config.yaml:1: api.key_file: {reason}"]
        (disk.folder / "key").write_text("half of MarkerKey")
        assert self.key(disk) is None
        (logged,) = disk.logged()
        assert "MarkerKey" not in logged
        (disk.folder / "key").write_text("second")
        assert self.key(disk) == Secret("second")

    def test_one_that_comes_after_the_configuration_that_names_it_is_taken(self, disk: Disk) -> None:
        disk.watch.load()
        disk.path.write_text(disk.path.read_text().replace("key_file: key", "key_file: new"))
        assert self.key(disk) is None
        assert not disk.good
        (disk.folder / "new").write_text("second")
        assert self.key(disk) == Secret("second")
        assert disk.good

    def test_no_key_is_in_any_line_of_the_log(self, disk: Disk) -> None:
        disk.watch.load()
        marker = "MarkerKey" * 5
        for content in (marker + " " + marker, "", marker):
            (disk.folder / "key").write_text(content)
            self.key(disk)
        for text in ("api: [" + marker, f"api: {{url: '{URL}', key_file: {marker}}}\n", marker):
            disk.path.write_text(text)
            self.key(disk)
        disk.put("a.yaml", f"- {marker}\n- {{id: 5, {marker}: {marker}}}\n")
        self.key(disk)
        assert len(disk.logs) >= 5
        assert "MarkerKey" not in repr(disk.logs)


def test_ten_thousand_files_are_looked_at_quickly_and_forgotten_when_they_go(
    disk: Disk, opened: Opened
) -> None:
    few = Disk(disk.folder / "few")
    for count, some in ((1000, few), (10_000, disk)):
        for number in range(1, count + 1):
            (some.tasks / f"{number:05}.yaml").write_text(f"- {number}\n")
    loading = cpu_seconds(few.load, disk.load, times=2)
    opened.take()
    looks = cpu_seconds(few.look, disk.look)
    assert opened.take() == []
    print(f"loading ten thousand files takes {loading[1]:.2f} s, a look {looks[1] * 1000:.0f} ms")
    assert loading[1] < 20 * loading[0]
    assert looks[1] < 20 * looks[0]
    assert disk.look() is None
    disk.put("05000.yaml", "- 20000\n")
    assert disk.look() == [*range(1, 5000), 20_000, *range(5001, 10_001)]
    assert opened.take() == ["05000.yaml"]
    for path in disk.tasks.iterdir():
        path.unlink()
    assert disk.look() == []
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(300):
            path = disk.put(f"new{number}.yaml", "- 1\n")
            assert disk.look() == [1]
            path.unlink()
            assert disk.look() == []
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100_000, "less than a few hundred bytes each"
    finally:
        tracemalloc.stop()
