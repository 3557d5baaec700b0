"""Random lives of a configuration and its task files, under scrapes: what is shown is the last good list."""

import itertools
import json
import re
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.config.watch import ConfigWatch
from exporter.errors import Reason
from exporter.metrics.task_series import TaskSeries
from exporter.model import Config
from exporter.slices import at_one_go
from tests.support.fakes import World, failure, reading

KEY = "K" * 40
FILES = ("a.yaml", "b.json", "c.yaml")
BROKEN = ("- [", "- abc\n", "tasks: 3\n", "- 1\n- 1\n", "\x00", '[{"id": 5, "nam": 1}]')
IDS = st.lists(st.integers(1, 9), unique=True, max_size=4)


class TaskLists(RuleBasedStateMachine):
    """The files are real; the clock is the test's."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "config.yaml"
        self.inline: list[int] = [1]
        self.files: dict[str, list[int]] = {}  # the last good content of each file there is
        self.broken: set[str] = set()
        self.write_main([1])
        self.world = World()
        self.world.api.answer = lambda _, task_id: (
            failure(Reason.NOT_FOUND) if task_id == 9 else reading(task_id, 1)
        )
        # as if every file had been written long ago, or just now: either way no change may be missed
        self.watch = ConfigWatch(self.path, {}, lambda: self.path.stat().st_mtime + self.world.loop.now)
        self.put_in_force(self.watch.load())
        self.ever_listed: dict[int, float] = {}
        self.checked = 0
        self.series = TaskSeries()

    def put_in_force(self, config: Config | None) -> None:
        if config is not None:
            self.world.refresher.apply(config)

    def put(self, name: str, content: str) -> None:
        temporary = self.path.parent / f".{name}.tmp"
        temporary.write_text(content)
        temporary.replace(self.path.parent / name)

    def write_main(self, tasks: list[int]) -> None:
        self.inline = tasks
        self.put(
            "config.yaml",
            f"api: {{url: 'http://localhost', key: {KEY}}}\ntasks: {tasks}\n"
            "task_files: ['?.yaml', '*.json']\n",
        )

    @rule(tasks=IDS)
    def edit_main(self, tasks: list[int]) -> None:
        self.write_main(tasks)

    @rule(text=st.sampled_from(["api: [", "api: {}\n", "tasks: [1]\n", ""]))
    def break_main(self, text: str) -> None:
        self.put("config.yaml", text)

    @rule(name=st.sampled_from(FILES), tasks=IDS, in_place=st.booleans())
    def drop_or_edit_file(self, name: str, tasks: list[int], in_place: bool) -> None:
        content = json.dumps([{"id": task_id, "name": f"n{task_id}"} for task_id in tasks])
        if in_place:
            (self.path.parent / name).write_text(content)
        else:
            self.put(name, content)
        self.files[name] = tasks
        self.broken.discard(name)
        self.look()

    @rule(name=st.sampled_from(FILES), text=st.sampled_from(BROKEN))
    def break_file(self, name: str, text: str) -> None:
        self.look()
        self.put(name, text)
        self.files.setdefault(name, [])
        self.broken.add(name)

    @rule(name=st.sampled_from(FILES))
    def remove_file(self, name: str) -> None:
        (self.path.parent / name).unlink(missing_ok=True)
        self.files.pop(name, None)
        self.broken.discard(name)
        self.look()

    @rule(timeout=st.sampled_from([0.5, 9.5]))
    def scrape(self, timeout: float) -> None:
        self.look()
        self.world.scrape(timeout)

    @rule(seconds=st.sampled_from([0.1, 0.9, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.loop.advance(seconds)

    def look(self) -> None:
        self.put_in_force(self.watch.check())

    def listed(self) -> list[int]:
        tasks = [
            self.inline,
            *(self.files[name] for name in ("a.yaml", "c.yaml", "b.json") if name in self.files),
        ]
        return list(dict.fromkeys(task_id for some in tasks for task_id in some))

    @invariant()
    def metrics_equal_the_last_good_list(self) -> None:
        # with a broken main file its own last good tasks stay, and the task files go on being read
        self.look()
        shown = [task.spec.id for view in self.world.views() for task in view.tasks]
        assert shown == self.listed()
        text = b"".join(at_one_go(self.series.render(self.world.views())))
        exported = set(map(int, re.findall(rb'task_id="(\d+)"', text)))
        assert exported <= set(shown)
        assert self.watch.status.task_file_errors >= len(self.broken)

    @invariant()
    def no_reading_of_a_removed_task_comes_back(self) -> None:
        now = self.world.loop.wall()
        shown = {task.spec.id: task for view in self.world.views() for task in view.tasks}
        for task_id in list(self.ever_listed):
            if task_id not in shown:
                del self.ever_listed[task_id]
        for task_id, task in shown.items():
            since = self.ever_listed.setdefault(task_id, now)
            assert task.reading is None or task.reading.taken_at >= since - 1e-6

    @invariant()
    def requests_are_spaced(self) -> None:
        sent = self.world.api.sent[self.checked :]
        for before, after in itertools.pairwise(sent):
            assert after.at - before.at >= 1 - 1e-6
        self.checked = max(0, len(self.world.api.sent) - 1)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestTaskLists = TaskLists.TestCase
TestTaskLists.settings = settings(max_examples=300, stateful_step_count=20, deadline=None)
