"""A Prometheus in which every state of the exporter is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import dashboard_states, recorded
from tests.support.grafana import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import promtools


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[promtools.Prometheus]:
    with recorded.prometheus(tmp_path_factory.mktemp("prometheus"), dashboard_states.samples()) as running:
        yield running


@pytest.fixture
def screen(server: promtools.Prometheus) -> Callable[..., Screen]:
    """The screen of a state, or with other values of the variables."""
    return lambda job=".+", **variables: Screen(server, recorded.END, job=job, **variables)
