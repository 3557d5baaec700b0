"""The Grafana dashboards as code; `python -m dashboards` writes the JSON that is committed beside it."""

import warnings
from importlib import import_module

with warnings.catch_warnings():
    # Classes warn when they are defined; what they prefer is a schema that Grafana 9 to 11 cannot load.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    import_module("grafana_foundation_sdk.builders.dashboard")
    import_module("grafana_foundation_sdk.models.dashboardv2beta1")
