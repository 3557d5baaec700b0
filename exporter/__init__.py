"""Prometheus exporter for the background tasks of Mobizon's SMS platform."""

import os

__version__ = "0.1.0"


def revision() -> str:
    """The revision that this was built from; builds of images set MOBIZON_EXPORTER_REVISION."""
    return os.environ.get("MOBIZON_EXPORTER_REVISION", "unknown")
