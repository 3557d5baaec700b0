"""Takes the pictures of the status page for the README: `python docs/screenshot.py [directory]`.

It runs the demo, waits until its tasks are in every state, and writes `status-page.png` and
`status-page-dark.png`. It needs Playwright, which is among the development requirements, and Chromium.
"""

# ruff: noqa: INP001 - a script, no package
from __future__ import annotations

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


def main() -> int:
    """Write the pictures; 0, or 1 where Chromium is missing."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("Chromium is missing: apt-get install chromium\n")
        return 1
    with demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
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
        browser.close()
    return 0


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
