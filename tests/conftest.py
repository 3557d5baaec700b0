"""What the command sets for a whole process is put back after every test, for those that call it."""

import gc
import logging
import os
import sys
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import settings

os.environ.setdefault("GOGC", "400")  # promtool and Prometheus take less CPU, and memory is not scarce

settings.register_profile("unhurried", settings(), deadline=None)  # the machine may be busy
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Else a test's lines would depend on which tests happened to run before it."""
    threshold, root = gc.get_threshold(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    gc.set_threshold(*threshold)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Runs what is marked as untraced without coverage: pytest-cov's `no_cover` has no effect under xdist."""
    tracer = sys.gettrace()
    if item.get_closest_marker("untraced"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
