"""`/api/v1/tasks/ID` as programs use it: statuses and headers; what is refused changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import random
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, TCPConnector, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import registry_store
from exporter.config.registry import FinalReadings, Registry
from exporter.config.registry_file import Entry, RegistryFile, parse
from exporter.errors import ApiError, Reason
from exporter.model import Account, Api, Config, Reading, Secret, TaskSource, TaskSpec
from exporter.refresh.refresher import Refresher
from exporter.slices import at_one_go
from exporter.web import task_api
from exporter.web.task_api import TaskApi
from exporter.web.tasks_json import tasks_json

Outcome = Reading | ApiError
JSON = {"Content-Type": "application/json"}
CRM = {"team": "crm"}


class Disk(RegistryFile):
    """A registry's file on a disk that may be full."""

    full = False

    def write(self, entries: Iterable[Entry]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(entries)


class World:
    """The API over a real refresher, whose requests are answered at once as a test says."""

    def __init__(self, folder: Path, *, registry: bool = True, accounts: tuple[Account, ...] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.answers: dict[int, Outcome] = {}
        self.asked: list[int] = []
        self.disk = Disk(folder / "registry.json")
        self.registry: Registry | None = None
        self.checks = 0
        self.arrives: Config | None = None  # with the next look at the files
        if registry:
            self.registry = Registry(self.disk, self.put_in_force, keep_finished=60)
            self.registry.open()
        self.refresher = Refresher(
            self.loop,
            self.send,
            wall=time.time,
            rng=random.Random(1),
            finished=self.registry.finished if self.registry else None,
        )
        self.apply(Config(accounts or (account(None),)))

    def apply(self, config: Config) -> None:
        (self.registry or self.refresher).apply(config)

    def put_in_force(self, config: Config, _: FinalReadings) -> None:
        self.refresher.apply(config)

    def send(self, api: Api, task_id: int, sent: Any, done: Any) -> None:
        self.asked.append(task_id)
        sent(self.loop.time())
        answer = self.answers.get(task_id, Reading(50, 1, 0))
        if isinstance(answer, Reading):
            answer = Reading(answer.progress, answer.status, time.time())
        self.loop.call_soon(done, answer)

    async def check(self) -> None:
        self.checks += 1
        if self.arrives:
            self.apply(self.arrives)

    def on_disk(self) -> dict[int, TaskSpec]:
        if not self.disk.path.exists():
            return {}
        return {entry.spec.id: entry.spec for entry in parse(self.disk.path.read_bytes())}

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        app = web.Application()
        TaskApi(self.refresher, self.registry, self.check).add_to(app)
        # a connection each, for one whose body could not be read is closed
        async with TestClient(TestServer(app), connector=TCPConnector(force_close=True)) as client:
            yield Client(client)
        self.refresher.close()
        if self.registry:
            await self.registry.close()


def account(name: str | None, *tasks: TaskSpec, interval: float = 0.01) -> Account:
    return Account(name, Api("https://api.mobizon.kz", Secret(f"key{name}"), interval), tasks)


class Answer:
    def __init__(self, response: ClientResponse, text: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = text
        assert not [name for name in response.headers if name.lower().startswith("access-control-")]

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["Cache-Control"] == "no-store"
        return json.loads(self.text)

    @property
    def error(self) -> str:
        assert self.json.keys() == {"error"}
        return str(self.json["error"])


class Client:
    def __init__(self, client: TestClient[web.Request, web.Application]) -> None:
        self._client = client

    async def __call__(self, method: str, path: str, **options: Any) -> Answer:
        async with self._client.request(method, f"/api/v1/tasks/{path}", **options) as response:
            return Answer(response, await response.text())

    async def put(self, path: str, **body: Any) -> Answer:
        return await self("PUT", path, **({"json": body} if body else {}))

    async def get(self, path: str) -> Answer:
        return await self("GET", path)

    async def delete(self, path: str) -> Answer:
        return await self("DELETE", path)


class TestRegistering:
    async def test_a_task_is_new_once_and_on_disk_when_it_is_answered(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            answer = await client.put("5", name="spring", labels=CRM)
            assert answer.status == 201
            assert world.on_disk() == {5: TaskSpec(5, "spring", CRM, TaskSource.REGISTRY)}
            task = answer.json
            assert (task["id"], task["name"], task["labels"], task["account"]) == (5, "spring", CRM, None)
            assert (task["source"], task["state"], task["finished"]) == ("registry", "unknown", False)
            again = await client.put("5")
            assert (again.status, again.json["name"]) == (200, "spring")
            changed = await client("PUT", "5", json={"name": None, "labels": {}})
            assert (changed.status, changed.json["name"], changed.json["labels"]) == (200, None, {})
            assert (await client.get("5")).json["source"] == "registry"
            assert world.asked == [], "registering and looking ask nothing"

    async def test_an_empty_body_needs_no_content_type(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            assert (await client("PUT", "5")).status == 201
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            assert (await client("PUT", "6", data=b"", headers=form)).status == 201
            assert (
                await client(
                    "PUT", "7", data=b"{}", headers={"Content-Type": "application/json; charset=utf-8"}
                )
            ).status == 201

    async def test_what_is_listed_elsewhere_is_watched_already(self, tmp_path: Path) -> None:
        file = TaskSpec(6, None, {}, TaskSource.FILE)
        world = World(tmp_path, accounts=(account(None, TaskSpec(5, "x", CRM), file),))
        async with world.client() as client:
            same: list[dict[str, Any]] = [{}, {"name": "x"}, {"labels": CRM}, {"name": "x", "labels": CRM}]
            for body in same:
                answer = await client.put("5", **body)
                assert (answer.status, answer.json["source"]) == (200, "config")
            assert (await client("PUT", "6", json={"name": None, "labels": None})).json["source"] == "file"
            others: list[dict[str, Any]] = [
                {"name": "y"},
                {"name": None},
                {"labels": {}},
                {"labels": {"a": "b"}},
            ]
            for body in others:
                answer = await client("PUT", "5", json=body)
                assert answer.status == 409
                assert answer.error == "task 5 is listed in the configuration with another name or labels"
            assert (await client.put("6", name="x")).error == (
                "task 6 is listed in a task file with another name or labels"
            )
        assert world.on_disk() == {}

    @pytest.mark.parametrize(
        ("path", "options", "status", "error"),
        [
            ("x", {}, 400, "expected a positive integer, got 'x'"),
            ("0", {}, 400, "expected a positive integer, got '0'"),
            ("007", {}, 400, "expected a positive integer, got '007'"),
            ("9" * 20, {}, 400, f"expected a positive integer, got '{'9' * 20}'"),
            ("%00", {}, 400, "expected a positive integer, got '\\x00'"),
            (
                "5",
                {"json": {"nam": 1, "labels": {"job": "x"}}},
                400,
                (
                    "body.json:1: labels.job: this label is reserved; "
                    "body.json:1: nam: unknown key; did you mean 'name'?"
                ),
            ),
            ("5", {"data": b"{", "headers": JSON}, 400, "body.json: not JSON"),
            ("5?account=br", {}, 404, "account: 'br' is not configured"),
            ("5?account=", {}, 404, "account: '' is not configured"),
            ("5", {"json": {"account": "br"}}, 404, "account: 'br' is not configured"),
            ("5?account=a&account=b", {}, 400, "account: two are given"),
            ("5?account=a", {"json": {"account": "b"}}, 400, "account: two are given"),
            ("5", {"data": b"x" * 16385, "headers": JSON}, 413, "expected a body of at most 16 KiB"),
            (
                "5",
                {"data": b"name=x", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
                415,
                "expected JSON, and the header Content-Type: application/json",
            ),
            (
                "5",
                {"data": b"{}", "headers": {"Content-Type": "text/plain"}},
                415,
                "expected JSON, and the header Content-Type: application/json",
            ),
            ("5", {"headers": {"Origin": "null"}}, 403, "web pages cannot register or delete tasks"),
            *(
                ("5", {"headers": {"Sec-Fetch-Site": site}}, 403, "web pages cannot register or delete tasks")
                for site in ("cross-site", "same-site", "same-origin", "")
            ),
        ],
    )
    async def test_what_is_refused_says_why_and_changes_nothing(
        self, path: str, options: dict[str, Any], status: int, error: str, tmp_path: Path
    ) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            answer = await client("PUT", path, **options)
            assert (answer.status, answer.error) == (status, error)
            assert (await client("PUT", "7", headers={"Sec-Fetch-Site": "none"})).status == 201
        assert world.on_disk().keys() == {7}

    async def test_a_body_without_a_length_is_measured_too(self, tmp_path: Path) -> None:
        async def chunks(number: int) -> AsyncIterator[bytes]:
            for _ in range(number):
                yield b" " * 1024

        world = World(tmp_path)
        async with world.client() as client:
            assert (await client("PUT", "5", data=chunks(17), headers=JSON)).status == 413
            answer = await client("PUT", "5", data=chunks(16), headers=JSON)
            assert (answer.status, answer.error) == (400, "body.json: not JSON")

    async def test_a_body_that_does_not_come_is_not_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_api, "BODY_TIMEOUT", 0.05)

        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(60)

        async with World(tmp_path).client() as client:
            answer = await client("PUT", "5", data=never(), headers=JSON)
            assert answer.status == 408

    async def test_a_body_that_has_come_while_the_process_stood_still_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_api, "BODY_TIMEOUT", 0.05)

        async def late(rest: bytes) -> AsyncIterator[bytes]:
            yield b'{"name":'
            for _ in range(10):
                await asyncio.sleep(0)  # so that it is waited for
            time.sleep(0.1)  # noqa: ASYNC251 - the loop sees the rest and the time-out at once
            yield rest

        async with World(tmp_path).client() as client:
            assert (await client("PUT", "5", data=late(b'"x"}'), headers=JSON)).status == 201
            assert (await client("PUT", "6", data=late(b" " * 16_400), headers=JSON)).status == 413

    async def test_without_a_registry_nothing_can_be_registered(self, tmp_path: Path) -> None:
        world = World(tmp_path, registry=False, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            for method in ("PUT", "DELETE"):
                answer = await client(method, "6")
                assert (answer.status, answer.error) == (
                    403,
                    "tasks cannot be registered: start with --registry.file",
                )
            assert (await client.get("5")).status == 200

    async def test_a_full_registry_says_when_to_come_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry_store, "MAX_TASKS", 1)
        async with World(tmp_path).client() as client:
            assert (await client.put("5")).status == 201
            answer = await client.put("6")
            assert (answer.status, answer.error) == (429, "the registry is full: it has 1 tasks")
            assert answer.headers["Retry-After"] == "60"
            assert (await client.get("6")).status == 404

    async def test_a_disk_that_is_full_changes_nothing(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            await client.put("5", name="x")
            world.disk.full = True
            for answer in (await client.put("6"), await client.put("5", name="y"), await client.delete("5")):
                assert answer.status == 507
                assert answer.error == "the registry cannot be written: no space left on device"
            assert (await client.put("5", name="x")).status == 200
            assert (await client.get("6")).status == 404
            assert (await client.get("5")).json["name"] == "x"
            world.disk.full = False
            assert (await client.put("6")).status == 201


class TestSeveralAccounts:
    async def test_the_account_chooses_where_it_matters(self, tmp_path: Path) -> None:
        accounts = account("kz", TaskSpec(1), TaskSpec(2)), account("br", TaskSpec(2))
        world = World(tmp_path, accounts=accounts)
        async with world.client() as client:
            answer = await client.put("5")
            assert (answer.status, answer.error) == (400, "account is required: there are several")
            assert (await client.put("5", account="br")).json["account"] == "br"
            assert (await client("PUT", "6?account=kz", json={"account": "kz"})).json["account"] == "kz"
            assert (await client.put("6?account=br")).status == 201
            assert (await client.get("1")).json["account"] == "kz"
            assert (await client.get("5")).json["account"] == "br"
            for path in ("2", "6", "2/wait?timeout=0s"):
                answer = await client.get(path)
                assert (answer.status, answer.error) == (400, "account is required: there are several")
            assert (await client.get("2?account=br")).json["account"] == "br"
            assert (await client.get("1?account=br")).status == 404
            assert (await client.delete("6")).status == 400
            assert (await client.delete("6?account=kz")).status == 204
            assert (await client.get("6")).json["account"] == "br"
            assert (await client.delete("6")).status == 204
            assert (await client.get("6")).status == 404

    async def test_the_only_one_may_have_a_name(self, tmp_path: Path) -> None:
        async with World(tmp_path, accounts=(account("kz"),)).client() as client:
            assert (await client.put("5")).json["account"] == "kz"
            assert (await client.put("6", account="kz")).status == 201
            assert (await client.get("5")).status == 200


class TestLooking:
    async def test_a_task_is_an_element_of_the_list(self, tmp_path: Path) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5, "x", CRM), TaskSpec(6)),))
        async with world.client() as client:
            for task_id, answer in ((5, Reading(100, 2, 0)), (6, ApiError(Reason.TIMEOUT, "no answer"))):
                world.answers[task_id] = answer
                await client.get(f"{task_id}/wait?timeout=100ms")
            for at in (0, 1):
                task = (await client.get("56"[at])).json
                (account_,) = at_one_go(world.refresher.views())
                wanted = tasks_json((account_,), time.time())["tasks"][at]
                for passing in ("age_seconds",):
                    task.pop(passing), wanted.pop(passing)
                assert task == wanted
            assert (await client("HEAD", "5")).status == 200

    async def test_one_that_is_not_listed_is_looked_for_in_the_files(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            for path in ("5", "5/wait"):
                answer = await client.get(path)
                assert (answer.status, answer.error) == (404, "task 5 is not listed")
            assert world.checks == 2
            world.arrives = Config((account(None, TaskSpec(5, source=TaskSource.FILE)),))
            assert (await client.get("5")).json["source"] == "file"
            assert world.asked == []

    @pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
    async def test_other_methods_are_told_which_there_are(self, method: str, tmp_path: Path) -> None:
        async with World(tmp_path).client() as client:
            answer = await client(method, "5")
            assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, PUT")
            answer = await client(method, "5/wait")
            assert (answer.status, answer.headers["Allow"]) == (405, "GET")
            assert (await client("PUT", "5/wait")).status == 405


class TestDeleting:
    async def test_a_task_leaves_and_asking_again_is_no_error(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            await client.put("5")
            for _ in range(2):
                answer = await client.delete("5")
                assert (answer.status, answer.text) == (204, "")
            assert (await client.get("5")).status == 404
        assert world.on_disk() == {}

    async def test_what_is_listed_elsewhere_stays(self, tmp_path: Path) -> None:
        file = TaskSpec(6, source=TaskSource.FILE)
        async with World(tmp_path, accounts=(account(None, TaskSpec(5), file),)).client() as client:
            for task_id, where in ((5, "the configuration"), (6, "a task file")):
                answer = await client.delete(str(task_id))
                assert answer.status == 409
                assert (
                    answer.error
                    == f"task {task_id} is listed in {where} and leaves when it is taken out there"
                )
                assert (await client.get(str(task_id))).status == 200

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [("x", {}, 400), ("5?account=br", {}, 404), ("5", {"Origin": "https://evil.example"}, 403)],
    )
    async def test_what_is_refused_changes_nothing(
        self, path: str, headers: dict[str, str], status: int, tmp_path: Path
    ) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            await client.put("5")
            answer = await client("DELETE", path, headers=headers)
            assert answer.status == status
            assert answer.error
        assert world.on_disk().keys() == {5}


class TestWaiting:
    async def test_it_ends_as_soon_as_the_task_is_finished(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            for task_id, status, code, state in ((5, 2, 200, "completed"), (6, 3, 409, "rejected")):
                await client.put(str(task_id))
                waiting = asyncio.create_task(client.get(f"{task_id}/wait?timeout=1m"))
                while world.asked.count(task_id) < 3:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                world.answers[task_id] = Reading(100, status, 0)
                answer = await asyncio.wait_for(waiting, 5)
                assert answer.status == code
                assert (answer.json["state"], answer.json["finished"]) == (state, True)
                again = await client.get(f"{task_id}/wait?timeout=1m")
                assert (again.status, again.json["state"]) == (code, state)

    async def test_when_the_time_is_up_it_says_how_things_stand(self, tmp_path: Path) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            began = time.monotonic()
            answer = await client.get("5/wait?timeout=200ms")
            assert 0.2 <= time.monotonic() - began < 2
            assert answer.status == 504
            assert (answer.json["state"], answer.json["error"]) == ("in_progress", None)
            assert (await client.get("5/wait?timeout=0s")).status == 504

    @pytest.mark.parametrize(
        "failure", [ApiError(Reason.UNAUTHORIZED, "code 8"), ApiError(Reason.TIMEOUT, "late")]
    )
    async def test_while_the_account_is_not_served_it_goes_on_and_says_why_at_the_end(
        self, failure: ApiError, tmp_path: Path
    ) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5), TaskSpec(6)),))
        world.answers = {5: failure, 6: failure}
        async with world.client() as client:
            for task_id in (6, 5):
                answer = await client.get(f"{task_id}/wait?timeout=200ms")
                assert answer.status == 504
                assert answer.json["error"]["reason"] == failure.reason
                assert answer.json["error"]["detail"] == failure.detail

    async def test_what_mobizon_does_not_know_ends_it_when_it_has_said_so_twice(self, tmp_path: Path) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        world.answers[5] = ApiError(Reason.NOT_FOUND, "code 2")
        async with world.client() as client:
            first = await client.get("5/wait?timeout=100ms")
            assert (first.status, first.json["state"], world.asked) == (504, "not_found", [5])
            answer = await asyncio.wait_for(client.get("5/wait?timeout=1m"), 30)
            assert (answer.status, answer.json["state"]) == (404, "not_found")
            assert len(world.asked) == 2

    async def test_deletion_ends_it(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        async with world.client() as client:
            await client.put("5")
            waiting = asyncio.create_task(client.get("5/wait?timeout=1m"))
            while not world.asked:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            await client.delete("5")
            answer = await asyncio.wait_for(waiting, 5)
            assert (answer.status, answer.error) == (404, "task 5 is not listed any more")

    async def test_shutdown_ends_it(self, tmp_path: Path) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            waiting = asyncio.create_task(client.get("5/wait?timeout=1m"))
            while not world.asked:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            world.refresher.close()
            answer = await asyncio.wait_for(waiting, 5)
            assert (answer.status, answer.error) == (503, "the exporter is stopping")
            assert answer.headers["Retry-After"] == "5"

    async def test_one_who_hangs_up_is_not_asked_for_any_more(self, tmp_path: Path) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.get("5/wait?timeout=10m"), 0.3)
            await asyncio.sleep(0.2)
            asked = len(world.asked)
            assert asked > 1
            await asyncio.sleep(0.2)
            assert len(world.asked) == asked

    async def test_so_many_may_wait_and_no_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_api, "MAX_WAITERS", 2)
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            waiting = [asyncio.create_task(client.get("5/wait?timeout=500ms")) for _ in range(3)]
            answers = [await one for one in waiting]
            assert sorted(answer.status for answer in answers) == [503, 504, 504]
            (refused,) = [answer for answer in answers if answer.status == 503]
            assert (refused.error, refused.headers["Retry-After"]) == ("too many programs wait", "5")
            assert (await client.get("5/wait?timeout=0s")).status == 504, "those who have left do not count"

    @pytest.mark.parametrize(
        ("written", "error"),
        [
            ("5", "timeout: expected a duration such as 500ms, 5s or 1h30m, got '5'"),
            ("-1s", "timeout: expected a duration such as 500ms, 5s or 1h30m, got '-1s'"),
            ("", "timeout: expected a duration such as 500ms, 5s or 1h30m, got ''"),
            ("601s", "timeout: expected at most 10m"),
            ("292y", "timeout: expected at most 10m"),
        ],
    )
    async def test_for_how_long_is_a_duration_of_ten_minutes_at_most(
        self, written: str, error: str, tmp_path: Path
    ) -> None:
        world = World(tmp_path, accounts=(account(None, TaskSpec(5)),))
        async with world.client() as client:
            answer = await client.get(f"5/wait?timeout={written}")
            assert (answer.status, answer.error) == (400, error)
            world.answers[5] = Reading(100, 2, 0)
            assert (await client.get("5/wait?timeout=10m")).status == 200


TOKENS = st.sampled_from(
    [
        "name",
        "labels",
        "account",
        "x",
        "null",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "\\u0000",
        "1e9",
        "team",
        "\\ud800",
    ]
)
BODIES = (
    st.binary(max_size=60)
    | st.lists(TOKENS, max_size=12).map(lambda tokens: "".join(tokens).encode())
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "labels", "account", "a", "job"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
PATHS = st.text(st.sampled_from("0159 /.%-?&=#;{}\\'\"<>\x00éwaitcoun"), max_size=14)
HEADERS = st.sampled_from([JSON, {}, {"Content-Type": "a/b"}, {**JSON, "Content-Encoding": "gzip"}])


class TestHostileClients:
    @given(
        st.lists(
            st.tuples(st.sampled_from(["PUT", "DELETE", "GET", "POST"]), PATHS, BODIES, HEADERS),
            min_size=50,
            max_size=50,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_odd_bodies_and_paths_are_refused_with_a_sentence(
        self, requests: list[tuple[str, str, bytes, dict[str, str]]]
    ) -> None:
        """Three thousand of them; what succeeds is what a client may ask for."""
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(self.attack(Path(folder), requests))

    async def attack(self, folder: Path, requests: list[tuple[str, str, bytes, dict[str, str]]]) -> None:
        world = World(folder, accounts=(account(None, TaskSpec(9)),))
        known: dict[int, TaskSpec] = {}
        async with world.client() as client:
            for method, path, body, headers in requests:
                sign = "&" if "?" in path else "?"
                try:
                    answer = await client(method, f"{path}{sign}timeout=1ms", data=body, headers=headers)
                except ValueError:  # no client can send it
                    continue
                on_disk = world.on_disk()
                if method == "PUT" and answer.status in {200, 201}:
                    task = answer.json
                    if task["source"] == "registry":
                        spec = TaskSpec(task["id"], task["name"], task["labels"], TaskSource.REGISTRY)
                        known[task["id"]] = spec
                elif method == "DELETE" and answer.status == 204:
                    assert known.keys() - on_disk.keys() <= {int(re.findall(r"\d+", path)[0])}
                    known = {task_id: spec for task_id, spec in known.items() if task_id in on_disk}
                else:
                    assert answer.status in {200, 504} or 400 <= answer.status < 500, (method, path, body)
                    assert answer.text.strip() or method == "HEAD"
                assert on_disk == known, (method, path, body)
