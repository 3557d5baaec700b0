"""The simulator over TLS, which is how Mobizon is reached."""

from __future__ import annotations

from pathlib import Path

from exporter import simulator
from exporter.model import Reading
from exporter.simulator import Simulator, SimulatorThread
from tests.support.asking import NOW, ask, making
from tests.support.certificates import Authority
from tests.support.peers import tls_context


def test_the_simulator_serves_https_with_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = Simulator({7: simulator.stalled(50)}, tls=tls_context(authority))
    with SimulatorThread(served) as sim, making(str(authority.cert)) as client:
        assert sim.url.startswith("https://127.0.0.1:")
        assert ask(client, sim.url) == Reading(50, 1, NOW)
