"""Takes the pictures in the README.

    python docs/screenshot.py [directory]
    python docs/screenshot.py --grafana http://localhost:3000 [directory]

The first runs the demo, waits until its tasks are in every state, and writes `status-page.png` and
`status-page-dark.png`. The second writes pictures of the dashboards, as a Grafana shows them that has had the
demo's data for 20 minutes; that of deploy/compose.yaml will do. Both need Playwright, which is among the
development requirements, and Chromium.
"""

# ruff: noqa: INP001 - a script, no package
from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

PATIENCE = 120_000  # milliseconds; the demo needs about one minute
WANTED = (".rejected", ".not_found", ".in_progress", ".waiting", ".completed")
PICTURES = {"light": "status-page.png", "dark": "status-page-dark.png"}
# The dashboards' pictures: uid, width and height.
DASHBOARDS = {
    "dashboard-tasks.png": ("mobizon-tasks", 1180, 1150),
    "dashboard-phone.png": ("mobizon-phone", 390, 860),
}


def main() -> int:
    """Write the pictures; 0, or 1 where Chromium is missing."""
    parser = argparse.ArgumentParser(description="Takes the pictures in the README.")
    parser.add_argument("--grafana", metavar="URL", help="a Grafana with the dashboards and the demo's data")
    parser.add_argument("directory", type=Path, nargs="?", default=Path(__file__).parent)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("Chromium is missing: apt-get install chromium\n")
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        if arguments.grafana:
            dashboards(browser, arguments.grafana.rstrip("/"), arguments.directory)
        else:
            status_page(browser, arguments.directory)
        browser.close()
    return 0


def status_page(browser: Browser, directory: Path) -> None:
    """The status page of a demo that runs meanwhile."""
    with demo() as url:
        pages = {name: opened(browser, url, scheme) for scheme, name in PICTURES.items()}
        for name, page in pages.items():
            for state in WANTED:
                expect(page.locator(f".task{state}").first).to_be_visible(timeout=PATIENCE)
            # By then those in progress have moved often enough for estimates.
            expect(page.locator(".task.completed")).to_have_count(2, timeout=PATIENCE)
            expect(page.locator(".task.in_progress .times", has_text="left")).to_have_count(
                3, timeout=PATIENCE
            )
            page.screenshot(path=directory / name, full_page=True)
            sys.stdout.write(f"{directory / name}\n")


def dashboards(browser: Browser, grafana: str, directory: Path) -> None:
    """The dashboards, without Grafana's menus."""
    for name, (uid, width, height) in DASHBOARDS.items():
        page = browser.new_page(viewport={"width": width, "height": height}, locale="en-US")
        page.goto(f"{grafana}/d/{uid}?kiosk&theme=light&from=now-20m&to=now&refresh=", timeout=PATIENCE)
        expect(page.get_by_text("loyalty-recipients").first).to_be_visible(timeout=PATIENCE)
        page.wait_for_load_state("networkidle", timeout=PATIENCE)
        page.screenshot(path=directory / name)
        sys.stdout.write(f"{directory / name}\n")


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """Runs the demo; the address of its page."""
    command = [sys.executable, "-m", "exporter", "--demo", "--web.listen-address", "127.0.0.1:0"]
    with subprocess.Popen(  # noqa: S603 - a fixed command
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield f"http://{_address(process)}/"
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    for line in process.stderr or ():
        if found := re.search(r"address=(\S+:\d+)", line):
            if process.stderr:
                # Read on, or the demo would stand still when the pipe is full.
                threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[1]
        sys.stderr.write(line)
    raise RuntimeError("the demo has not begun")


def opened(browser: Browser, url: str, scheme: str) -> Page:
    """The page in a browser that prefers light or dark."""
    context = browser.new_context(
        viewport={"width": 1040, "height": 800},
        device_scale_factor=1.5,
        color_scheme="dark" if scheme == "dark" else "light",
        locale="en-US",
    )
    page = context.new_page()
    page.goto(url)
    return page


if __name__ == "__main__":
    sys.exit(main())
