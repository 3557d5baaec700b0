"""The script that takes the README's pictures, against what stands in for a Grafana."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.tools import need

pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshot.py"


def test_dashboards_of_a_grafana_are_pictured(tmp_path: Path) -> None:
    need("chromium")
    asked: list[str] = []

    class Grafana(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><p>loyalty-recipients")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            sys.executable,
            str(SCRIPT),
            "--grafana",
            f"http://127.0.0.1:{server.server_port}/",
            str(tmp_path),
        ]
        subprocess.run(command, check=True, timeout=120)
        server.shutdown()

    pages = {urlsplit(path).path: parse_qs(urlsplit(path).query, keep_blank_values=True) for path in asked}
    assert {"/d/mobizon-tasks", "/d/mobizon-phone"} <= pages.keys()
    assert "kiosk" in pages["/d/mobizon-tasks"]
    widths = {file.name: struct.unpack(">I", file.read_bytes()[16:20])[0] for file in tmp_path.iterdir()}
    assert widths == {"dashboard-tasks.png": 1180, "dashboard-phone.png": 390}
