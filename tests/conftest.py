"""What the command sets for a whole process is put back after every test, for those that call it."""

import gc
import logging
from collections.abc import Iterator

import pytest
import structlog


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
