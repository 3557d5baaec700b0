"""Where the panels stand, how they are drawn, and where their links lead."""

from __future__ import annotations

import re

from tests.support import promql
from tests.support.dashboard_rules import DATASOURCE, PARSED
from tests.support.grafana import DASHBOARDS, NAMES, all_panels, query_variables


def test_uids_are_stable_and_the_dashboards_link_to_each_other() -> None:
    assert [DASHBOARDS[name]["uid"] for name in NAMES] == list(NAMES)
    others = {
        "mobizon-tasks": ["mobizon-exporter", "mobizon-phone"],
        "mobizon-phone": ["mobizon-tasks"],
        "mobizon-exporter": ["mobizon-tasks"],
    }
    for name in NAMES:
        links = DASHBOARDS[name]["links"]
        assert [link["url"] for link in links] == [f"/d/{other}" for other in others[name]]
        assert all(link["includeVars"] and link["keepTime"] for link in links)


def test_the_links_of_a_task_keep_what_is_chosen() -> None:
    links = [
        link["url"]
        for name in ("mobizon-tasks", "mobizon-phone")
        for panel in all_panels(DASHBOARDS[name])
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
        for link in prop["value"]
    ]
    assert len(links) == 4
    for link in links:
        assert {"job", "instance", "account", "task", "datasource"} == {
            *re.findall(r"\$\{(\w+):queryparam\}", link),
            *re.findall(r"var-(\w+)=", link),
        }


def test_the_account_is_shown_and_its_absence_matches() -> None:
    for dashboard in DASHBOARDS.values():
        account = next(item for item in query_variables(dashboard) if item["name"] == "account")
        assert (account.get("hide", 0), account["allValue"]) == (0, ".*")


# A screen of 1600 by 900 pixels less Grafana's bars, of which 13 has the higher ones, with a menu docked: a
# unit of the grid is 30 pixels high, and 8 lie between two.
SCREEN_HEIGHT = (900 - 140) // 38
ROW_HEIGHT, TABLE_HEAD, PANEL_HEAD = 36, 36, 40


def test_the_first_screen_answers_what_counts() -> None:
    top = DASHBOARDS["mobizon-tasks"]["panels"]
    assert [panel["title"] for panel in top[:6]] == [
        "Rejected",
        "Stalled",
        "Failing",
        "In progress",
        "Waiting",
        "Finished",
    ]
    assert {panel["gridPos"]["w"] for panel in top[:6]} == {4}
    table = top[6]
    place = table["gridPos"]
    assert (table["title"], place["w"], place["y"]) == ("Tasks", 24, top[0]["gridPos"]["h"])
    assert place["y"] + place["h"] <= SCREEN_HEIGHT
    assert place["h"] * 38 - 8 >= PANEL_HEAD + TABLE_HEAD + 15 * ROW_HEIGHT
    exporter = {panel["title"]: panel["gridPos"] for panel in DASHBOARDS["mobizon-exporter"]["panels"]}
    first = ("Exporter", "Accounts unavailable", "Configuration", "Accounts", "Requests by outcome")
    assert all(exporter[title]["y"] + exporter[title]["h"] <= SCREEN_HEIGHT for title in first)


def test_a_phone_shows_three_numbers_and_then_the_table() -> None:
    # It puts all panels one below the other, in the order of their places.
    panels = DASHBOARDS["mobizon-phone"]["panels"]
    placed = sorted(panels, key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    assert [panel["title"] for panel in placed] == ["Rejected", "Stalled", "Failing", "Tasks"]


def test_the_order_of_the_table_is_that_of_a_column_nobody_sees() -> None:
    for name in ("mobizon-tasks", "mobizon-phone"):
        table = next(panel for panel in all_panels(DASHBOARDS[name]) if panel["title"] == "Tasks")
        merge, sort, organize = table["transformations"]
        assert [merge["id"], sort["id"], organize["id"]] == ["merge", "sortBy", "organize"]
        assert sort["options"]["sort"] == [{"field": "Value #F", "desc": True}]
        assert organize["options"]["excludeByName"]["Value #F"]
        assert not table["options"].get("sortBy")


def test_what_every_task_has_a_line_of_is_drawn_so_that_it_can_be_read() -> None:
    panels = {panel["title"]: panel for panel in all_panels(DASHBOARDS["mobizon-tasks"])}
    timeline = panels["Status over time"]
    assert timeline["fieldConfig"]["defaults"]["color"]["mode"] == "fixed"
    assert (timeline["options"]["perPage"], timeline["options"]["legend"]["showLegend"]) == (12, True)
    stacked = [
        panel["fieldConfig"]["defaults"]["custom"]
        for dashboard in DASHBOARDS.values()
        for panel in all_panels(dashboard)
        if panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
    ]
    assert stacked
    # Without a line a series of zeros does not frame the others, and an idle axis ends somewhere.
    assert all(custom["lineWidth"] == 0 and custom["axisSoftMax"] > 0 for custom in stacked)


def test_annotations_are_off_until_somebody_turns_them_on() -> None:
    found = DASHBOARDS["mobizon-tasks"]["annotations"]["list"]
    assert [(item["name"], item["enable"]) for item in found] == [
        ("Firing alerts", False),
        ("Restarts of the exporter", False),
    ]
    for item in found:
        assert promql.selectors(promql.filled(item["expr"], PARSED))
        assert item["datasource"] == DATASOURCE


def test_panels_do_not_overlap() -> None:
    for dashboard in DASHBOARDS.values():
        for row in (dashboard["panels"], *(panel.get("panels", []) for panel in dashboard["panels"])):
            cells = [
                (x, y)
                for place in (panel["gridPos"] for panel in row)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            ]
            assert len(cells) == len(set(cells))
            assert all(x < 24 for x, _ in cells)
