"""Pages of other origins, in a real browser: whatever they try, they neither register nor delete a task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from playwright.sync_api import Page, sync_playwright

from tests.support.processes import ExporterProcess, write_config
from tests.support.tools import need
from tests.web.test_browser import CHROMIUM_ARGUMENTS

pytestmark = pytest.mark.browser

TRIES = {
    "fetch as JSON": """() => fetch(URL, {method: METHOD, headers: {'Content-Type': 'application/json'},
        body: METHOD === 'PUT' ? '{}' : undefined})""",
    "fetch with nothing": "() => fetch(URL, {method: METHOD})",
    "fetch without CORS": "() => fetch(URL, {method: METHOD, mode: 'no-cors'})",
    "fetch with credentials": "() => fetch(URL, {method: METHOD, credentials: 'include'})",
    "an old request": """() => new Promise((resolve, reject) => {
        const request = new XMLHttpRequest(); request.open(METHOD, URL);
        request.onload = resolve; request.onerror = () => reject(new Error('blocked')); request.send(); })""",
    "a beacon": "() => navigator.sendBeacon(URL, '{}')",
    "a form": """() => { const form = document.body.appendChild(document.createElement('form'));
        form.action = URL + '?_method=' + METHOD; form.method = 'post'; form.target = 'frame';
        form.submit(); return new Promise(resolve => setTimeout(resolve, 300)); }""",
}


class Evil(BaseHTTPRequestHandler):
    """The page of another origin; its frame is for forms."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><iframe name=frame></iframe>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def evil() -> Iterator[Page]:
    server = HTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        yield page
        browser.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    folder = tmp_path_factory.mktemp("exporter")
    config, registry = write_config(folder, "http://127.0.0.1:9", []), folder / "registry.json"
    with ExporterProcess(f"--config.file={config}", f"--registry.file={registry}") as process:
        assert requests.put(f"{process.url}/api/v1/tasks/5", timeout=10).status_code == 201
        yield process


@pytest.mark.parametrize("how", TRIES)
@pytest.mark.parametrize(("method", "task_id"), [("PUT", 6), ("DELETE", 5)])
def test_a_page_of_another_origin_changes_nothing(
    how: str, method: str, task_id: int, evil: Page, exporter: ExporterProcess
) -> None:
    url = f"'{exporter.url}/api/v1/tasks/{task_id}'"
    script = TRIES[how].replace("URL", url).replace("METHOD", f"'{method}'")
    evil.evaluate(f"() => Promise.resolve().then({script}).catch(() => null)")
    listed = requests.get(f"{exporter.url}/api/v1/tasks", timeout=10).json()["tasks"]
    assert [task["id"] for task in listed] == [5]


def test_the_page_could_reach_the_exporter(evil: Page, exporter: ExporterProcess) -> None:
    """Else the tries would show nothing."""
    script = f"() => fetch('{exporter.url}/-/healthy', {{mode: 'no-cors'}}).then(answer => answer.type)"
    assert evil.evaluate(script) == "opaque"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_even_its_own_page_cannot(method: str, evil: Page, exporter: ExporterProcess) -> None:
    browser = evil.context.browser
    assert browser
    page = browser.new_page()
    page.goto(exporter.url)
    script = f"() => fetch('/api/v1/tasks/5', {{method: '{method}'}}).then(answer => answer.status)"
    assert page.evaluate(script) == 403
    page.close()
    assert requests.get(f"{exporter.url}/api/v1/tasks/5", timeout=10).status_code == 200
