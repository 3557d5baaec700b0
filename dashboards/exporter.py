"""Mobizon / Exporter and API: whether what the other dashboards show can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards import expressions as promql
from dashboards import lib
from dashboards.expressions import ACCOUNT, BUILD, EXPORTERS, TARGET
from dashboards.lib import Grid
from dashboards.panels import Head, Look, Query, graph_panel, stat_panel, thresholds, value_map
from dashboards.tables import ON_COLOR, Column, table_panel, width

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard

# A row for each, and a line for each.
BY: Final = "account, instance"
ACCOUNTS: Final = "{{account}} {{instance}}"
INTERVAL: Final = f"mobizon_api_request_interval_seconds{{{ACCOUNT}}}"
REQUESTS: Final = f"rate(mobizon_api_requests_total{{{ACCOUNT}}}[$__rate_interval])"
FAILURES: Final = f"rate(mobizon_api_request_failures_total{{{ACCOUNT}}}[$__rate_interval])"
DURATION: Final = f"rate(mobizon_api_request_duration_seconds_bucket{{{ACCOUNT}}}[$__rate_interval])"
# Finished tasks are no longer polled, and those not found seldom.
POLLED: Final = f'mobizon_tasks{{{ACCOUNT}, status=~"waiting|in_progress|unknown"}}'
REFRESH: Final = f"sum by ({BY}) (sum without (status) ({POLLED}) * {INTERVAL})"

CONFIGURATION: Final = (
    f"min by (instance) (mobizon_exporter_config_last_reload_successful{{{TARGET}}}"
    f" * (mobizon_exporter_task_file_errors{{{TARGET}}} == bool 0))"
)
RELOADED: Final = f"mobizon_exporter_config_last_reload_success_timestamp_seconds{{{TARGET}}}"
UP: Final = {"0": ("down", "red"), "1": ("up", "green")}
AVAILABLE: Final = {"-1": ("not asked", "gray"), "0": ("unavailable", "red"), "1": ("available", "green")}
# Those for which the API is unavailable, then those of which it is not known.
DOWN_FIRST: Final = (
    f"0 * min by ({BY}) ({promql.UP} == 0) + 2 or 0 * min by ({BY}) ({promql.NOT_AVAILABLE}) + 1"
    f" or 0 * max by ({BY}) ({INTERVAL})"
)
VALID: Final = {"0": ("invalid", "red"), "1": ("valid", "green")}


def board() -> dashboard.Dashboard:
    """The dashboard; its first screen, of 1600 by 900 pixels, ends with the first two graphs."""
    grid = Grid()
    grid.add(6, 3, *_stats())
    grid.add(24, 8, _accounts())
    grid.add(12, 9, *_graphs())
    grid.collapsed("Process", 8, 8, *_process())
    return lib.board(
        lib.EXPORTER,
        Head(
            "Mobizon / Exporter and API",
            "The exporter of Mobizon's background tasks, and the API that it asks.",
        ),
        others=(lib.TASKS,),
        grid=grid,
    )


def _stats() -> list[dashboard.Panel]:
    # Those known to be unavailable, then 0 where all are known not to be, then that nothing is known.
    unavailable = (
        f"count({promql.UP} == 0)"
        f" or (0 * count({promql.UP} == 1) unless count({promql.NOT_AVAILABLE} or {EXPORTERS} == 0))"
        f" or {promql.NONE_KNOWN_VALUE}"
    )
    return [
        stat_panel(
            Head("Exporter", "Whether Prometheus can scrape it: each that it could in the time shown above."),
            Query(f"min by (instance) ({EXPORTERS})", "{{instance}}", instant=True),
            mappings=UP,
            steps=thresholds(),
            on_background=True,
        ),
        stat_panel(
            Head(
                "Accounts unavailable",
                "Accounts for which the API is unavailable; the table names them. None known: no task is "
                "active, no request has been answered yet, or an exporter is down.",
            ),
            Query(unavailable, instant=True),
            mappings={str(promql.NONE_KNOWN): ("none known", "gray")},
            steps=thresholds((0, "green"), (1, "red")),
            on_background=True,
        ),
        stat_panel(
            Head("Configuration", "Whether the last reload succeeded and every task file is good."),
            Query(CONFIGURATION, "{{instance}}", instant=True),
            mappings=VALID,
            steps=thresholds(),
            on_background=True,
        ),
        stat_panel(
            Head("Last reload", "When a configuration was last read with success.", "dateTimeFromNow"),
            Query(f"1000 * max by (instance) ({RELOADED})", "{{instance}}", instant=True),
            steps=thresholds((0, "text")),
        ),
    ]


def _accounts() -> dashboard.Panel:
    used = {
        "mode": "absolute",
        "steps": [{"color": "text", "value": None}, {"color": "orange", "value": 0.95}],
    }
    slow = {
        "mode": "absolute",
        "steps": [{"color": "text", "value": None}, {"color": "orange", "value": 600}],
    }
    return table_panel(
        Head(
            "Accounts",
            "The budget is one request per spacing. Steadily at 100 %: the list does not fit between two "
            "scrapes, and readings are as old as a full refresh takes. "
            "Not asked: no active task, or no answer yet.",
            "none",
        ),
        [
            # Without a value in any row the column would be left out.
            f"min by ({BY}) ({promql.UP}) or 0 * max by ({BY}) ({INTERVAL}) - 1",
            f"max by ({BY}) ({REQUESTS} * {INTERVAL})",
            f"max by ({BY}) ({INTERVAL})",
            REFRESH,
            f"max by ({BY}) (mobizon_tasks_due{{{ACCOUNT}}})",
            DOWN_FIRST,
        ],
        [
            Column("account", "Account"),
            Column("instance", "Instance"),
            Column("Value #A", "API", {"mappings": value_map(AVAILABLE), **ON_COLOR, **width(120)}),
            Column(
                "Value #B",
                "Budget used",
                {
                    "unit": "percentunit",
                    "decimals": 0,
                    "thresholds": used,
                    "custom.displayMode": "color-text",
                },
            ),
            Column("Value #C", "Spacing", {"unit": "s"}),
            Column(
                "Value #D",
                "Full refresh",
                {"unit": "s", "thresholds": slow, "custom.displayMode": "color-text"},
            ),
            Column("Value #E", "Tasks due", {"decimals": 0}),
        ],
        sort_by="Value #F",
        empty="No data: the exporter is not scraped.",
    )


def _graphs() -> list[dashboard.Panel]:
    failed = f"sum by ({BY}) ({FAILURES})"
    return [
        graph_panel(
            Head(
                "Requests by outcome",
                "Requests sent to Mobizon a second. The limit is one a second for each API key.",
                "reqps",
            ),
            Query(f"clamp_min(sum by ({BY}) ({REQUESTS}) - {failed}, 0)", f"answered {ACCOUNTS}"),
            Query(f"{failed} > 0", f"failed {ACCOUNTS}"),
            look=Look(stacked=True, soft_maximum=1),
        ),
        graph_panel(
            Head(
                "Time of a full refresh", "Active tasks times the spacing; readings are up to this old.", "s"
            ),
            Query(REFRESH, ACCOUNTS),
            look=Look(soft_maximum=10),
        ),
        graph_panel(
            Head(
                "Failures by reason",
                "Requests a second that brought no reading. "
                "A few of rate_limited are jitter at the edge of the limit.",
                "reqps",
            ),
            Query(f"sum by (account, reason) ({FAILURES}) > 0", "{{reason}} {{account}}"),
            look=Look(stacked=True, soft_maximum=0.1),
        ),
        graph_panel(
            Head("Request duration", "From the first byte sent to the last byte read.", "s"),
            *(
                Query(
                    f"histogram_quantile({quantile}, sum by (account, le) ({DURATION}))",
                    f"p{quantile * 100:.0f} {{{{account}}}}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ),
            look=Look(soft_maximum=1),
        ),
    ]


def _process() -> list[dashboard.Panel]:
    labels = "instance, version, revision, python_version"
    # Every process has such metrics, and `$job` may stand for every job.
    ours = f"and on (job, instance) {BUILD}"
    return [
        graph_panel(
            Head("Memory", "Resident memory of the process.", "bytes"),
            Query(f"process_resident_memory_bytes{{{TARGET}}} {ours}", "{{instance}}"),
            look=Look(),
        ),
        graph_panel(
            Head("CPU", "Processor time used a second; 100 % is one core.", "percentunit"),
            Query(f"rate(process_cpu_seconds_total{{{TARGET}}}[$__rate_interval]) {ours}", "{{instance}}"),
            look=Look(soft_maximum=0.1),
        ),
        table_panel(
            Head("Build", "What is running, and where.", "none"),
            [f"max by ({labels}) ({BUILD})"],
            [
                Column("instance", "Instance"),
                Column("version", "Version", width(100)),
                Column("revision", "Revision", width(110)),
                Column("python_version", "Python", width(95)),
            ],
            sort_by="instance",
            empty="No data: the exporter is not scraped.",
        ),
    ]
