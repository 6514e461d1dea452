"""Writes infra/workbooks/tollkeeper.workbook.json from the queries beside it: python -m scripts.build_workbook

The first line of a query, a comment, is its title. Which queries stand on which tab, and how they are drawn, is said
here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

WORKBOOKS = Path(__file__).resolve().parent.parent / "infra" / "workbooks"
WORKBOOK = WORKBOOKS / "tollkeeper.workbook.json"


class Tile(NamedTuple):
    """One query on a tab: its file, how it is drawn, and how much of the tab's width it takes."""

    query: str
    drawn: str
    percent: int = 100


TABS: dict[str, tuple[Tile, ...]] = {
    "Spend": (
        Tile("spend_by_day", "barchart"),
        Tile("spend_by_team", "table", 50),
        Tile("spend_by_model", "table", 50),
        Tile("unpriced", "table"),
    ),
    "Budgets": (Tile("budget_standing", "table"), Tile("threshold_crossings", "table")),
    "Savings": (Tile("savings_by_day", "barchart"), Tile("downgrades", "table"), Tile("refusals", "table")),
    "Quality": (
        Tile("latency", "table", 50),
        Tile("latency_over_time", "linechart", 50),
        Tile("errors", "table", 50),
        Tile("cache", "table", 50),
        Tile("measured", "linechart", 50),
        Tile("checks", "table", 50),
    ),
    "Health": (
        Tile("ingest_lag", "linechart", 50),
        Tile("coverage", "linechart", 50),
        Tile("dead_letters", "table", 50),
        Tile("drift", "table", 50),
        Tile("notices_given_up", "table", 50),
        Tile("events_backlog", "table", 50),
        Tile("problems", "table"),
    ),
}

_RESOURCE_TYPE = "microsoft.operationalinsights/workspaces"
_DAY_MS = 86_400_000
TENANTS = """AppTraces
| where _ResourceId =~ "{insights}" and Properties.logger_name startswith "tollkeeper." and Message == "usage_billed"
| distinct value = tostring(Properties.tenant)
| extend label = value, selected = false
| union (print value = "*", label = "All", selected = true)
| order by value asc
"""


def workbook() -> dict[str, Any]:
    """The workbook as Azure stores it. `{insights}` and `{workspace}` are filled in by the templates."""
    return {
        "version": "Notebook/1.0",
        "items": [_parameters(), _tabs(), *(_group(tab, tiles) for tab, tiles in TABS.items())],
        "fallbackResourceIds": ["{workspace}"],
        "$schema": "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json",
    }


def text() -> str:
    """The content of the file."""
    return json.dumps(workbook(), indent=2) + "\n"


def _parameters() -> dict[str, Any]:
    days = [{"durationMs": days * _DAY_MS} for days in (1, 7, 30, 90)]
    time_range = {
        "name": "TimeRange",
        "label": "Time",
        "type": 4,
        "isRequired": True,
        "value": {"durationMs": 7 * _DAY_MS},
        "typeSettings": {"selectableValues": days, "allowCustom": True},
    }
    tenant = {
        "name": "Tenant",
        "type": 2,
        "isRequired": True,
        "query": TENANTS,
        "queryType": 0,
        "resourceType": _RESOURCE_TYPE,
        "timeContextFromParameter": "TimeRange",
        "typeSettings": {"additionalResourceOptions": [], "showDefault": False},
        "value": "*",
    }
    parameters = {"version": "KqlParameterItem/1.0", "parameters": [time_range, tenant], "style": "pills"}
    return {"type": 9, "content": parameters | {"queryType": 0, "resourceType": _RESOURCE_TYPE}, "name": "parameters"}


def _tabs() -> dict[str, Any]:
    links = [
        {"cellValue": "Tab", "linkTarget": "parameter", "linkLabel": tab, "subTarget": tab, "style": "link"}
        for tab in TABS
    ]
    return {"type": 11, "content": {"version": "LinkItem/1.0", "style": "tabs", "links": links}, "name": "tabs"}


def _group(tab: str, tiles: tuple[Tile, ...]) -> dict[str, Any]:
    return {
        "type": 12,
        "content": {"version": "NotebookGroup/1.0", "groupType": "editable", "items": [_item(tile) for tile in tiles]},
        "conditionalVisibility": {"parameterName": "Tab", "comparison": "isEqualTo", "value": tab},
        "name": tab,
    }


def _item(tile: Tile) -> dict[str, Any]:
    query = (WORKBOOKS / "queries" / f"{tile.query}.kql").read_text()
    content = {
        "version": "KqlItem/1.0",
        "query": query,
        "size": 0,
        "title": query.partition("\n")[0].removeprefix("// "),
        "timeContextFromParameter": "TimeRange",
        "queryType": 0,
        "resourceType": _RESOURCE_TYPE,
        "visualization": tile.drawn,
        "noDataMessage": "Nothing in this time.",
    }
    return {"type": 3, "content": content, "customWidth": str(tile.percent), "name": tile.query}


def main() -> None:
    """Write the file."""
    WORKBOOK.write_text(text())


if __name__ == "__main__":
    main()
