"""The queries of the workbook and the alerts, checked by Microsoft's own Kusto parser against the tables as published
and against the records that the code writes. Nothing here runs a query: that takes Azure."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.npm import find_node, install
from local.process import PartMissingError
from scripts.build_workbook import TABS, TENANTS, WORKBOOK, Tile, text
from tests.support.function_app import registered_functions
from tests.support.records import FIELDS

ROOT = Path(__file__).parents[2]
KUSTO = Path(__file__).parent / "kusto"
ALERTS = yaml.safe_load((ROOT / "infra/alerts/alerts.yaml").read_text())
ALERT_QUERIES = {path.stem: path.read_text() for path in (ROOT / "infra/alerts").glob("*.kql")}
WORKBOOK_QUERIES = {path.stem: path.read_text() for path in (ROOT / "infra/workbooks/queries").glob("*.kql")}
QUERIES = {
    **{f"alerts/{name}": query for name, query in ALERT_QUERIES.items()},
    **{f"workbooks/{name}": query for name, query in WORKBOOK_QUERIES.items()},
    "workbooks/parameter Tenant": TENANTS,
}
WRONG = {
    "table": "AppTrace | take 1",
    "column": "AppTraces | where Mesage == 'x'",
    "function": "AppTraces | summarize summ(ItemCount)",
    "gone": "AppTraces | project Message | where ItemCount > 1",
    "type": "AppTraces | summarize sum(Message)",
}
OF_EVERY_RECORD = {"logger_name"}  # set by the exporter
NUMBERS = {"int", "long", "real"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """What the parser says of every query; asked once, because it takes seconds to load."""
    return parse({**QUERIES, **WRONG})


def parse(queries: dict[str, str]) -> dict[str, Any]:
    """Problems, tables, fields of Properties and result columns of each query, by Microsoft's parser."""
    try:
        node = find_node()
        install(KUSTO, node, "Microsoft's Kusto parser")
    except PartMissingError as missing:
        pytest.skip(str(missing))
    asked = json.dumps({"tables": json.loads((KUSTO / "tables.json").read_text()), "queries": queries})
    command = [str(node.program), str(KUSTO / "check.mjs")]
    answer = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def records_of(query: str) -> set[str]:
    """The records a query asks for by name."""
    lists = re.findall(r"Message in \(([^)]*)\)", query)
    return {*re.findall(r'Message == "(\w+)"', query), *re.findall(r"\w+", " ".join(lists))}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_tables_and_columns_that_exist(described: dict[str, Any], name: str) -> None:
    """No error and no warning, and it reads something."""
    assert described[name]["problems"] == []
    assert described[name]["tables"]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_reads_fields_that_the_code_writes(described: dict[str, Any], name: str) -> None:
    """A field that no record of its name has would be null for ever, and its sum too."""
    records = records_of(QUERIES[name])
    assert records <= set(FIELDS)
    written = {field for record in records for field in FIELDS[record]}
    assert set(described[name]["fields"]) - OF_EVERY_RECORD <= written


@pytest.mark.parametrize("name", WRONG)
def test_a_misspelled_table_column_or_function_is_found(described: dict[str, Any], name: str) -> None:
    """The parser with these tables is worth asking."""
    assert described[name]["problems"]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_this_deployment_only(name: str) -> None:
    """Others may write to the same workspace, and the functions' host writes every log entry a second time."""
    table, first, *_ = [line for line in QUERIES[name].splitlines() if not line.startswith("//")]
    assert first.startswith('| where _ResourceId =~ "{insights}"')
    if table == "AppTraces":
        assert 'Properties.logger_name startswith "tollkeeper."' in first


@pytest.mark.parametrize("name", [name for name in QUERIES if name != "workbooks/parameter Tenant"])
def test_a_query_begins_with_what_people_read(name: str) -> None:
    """The title of its tile, or the sentence of its e-mail."""
    assert re.match(r"// [A-Z0-9][^\n]{3,}\n", QUERIES[name])


def test_a_query_names_functions_that_are_registered() -> None:
    """A tile about a function of another name stays empty."""
    named = {name for query in QUERIES.values() for name in re.findall(r'\bName == "(\w+)"', query)}
    assert named
    assert named <= {function.get_function_name() for function in registered_functions()}


def test_every_alert_has_its_query_and_every_query_its_alert() -> None:
    """A rule without a query cannot be deployed; a query without a rule wakes nobody."""
    assert set(ALERTS["log_alerts"]) == set(ALERT_QUERIES)


@pytest.mark.parametrize("name", ALERT_QUERIES)
def test_an_alert_measures_a_number_by_its_dimensions(described: dict[str, Any], name: str) -> None:
    """Azure takes the measure from a numeric column, and splits by columns of text."""
    alert, columns = ALERTS["log_alerts"][name], described[f"alerts/{name}"]["columns"]
    assert columns[alert["measure"]] in NUMBERS
    assert {columns[dimension] for dimension in alert["dimensions"]} <= {"string"}
    assert "TimeGenerated" not in columns  # Azure would then compare each minute by itself


@pytest.mark.parametrize("name", ALERT_QUERIES)
def test_an_alert_looks_back_no_further_than_azure_does(name: str) -> None:
    """Two days at the most; a rule that runs less often than it looks back leaves no gap."""
    minutes = {"PT5M": 5, "PT15M": 15, "PT30M": 30, "PT1H": 60, "PT6H": 360, "P1D": 1_440, "P2D": 2_880}
    alert = ALERTS["log_alerts"][name]
    assert minutes[alert["every"]] <= minutes[alert["looks_back"]]


def test_every_record_is_on_the_workbook() -> None:
    """What is logged for the workbook and not shown would be paid for by nobody's use."""
    assert set().union(*(records_of(query) for query in WORKBOOK_QUERIES.values())) == set(FIELDS)


def test_every_query_stands_on_one_tab() -> None:
    """None is forgotten in the folder."""
    tiles = [tile.query for tab in TABS.values() for tile in tab]
    assert sorted(tiles) == sorted(WORKBOOK_QUERIES)


@pytest.mark.parametrize("tile", [tile for tab in TABS.values() for tile in tab if tile.drawn != "table"])
def test_a_chart_has_a_time_and_a_number(described: dict[str, Any], tile: Tile) -> None:
    """Else the tile stays empty and says so to nobody here."""
    types = list(described[f"workbooks/{tile.query}"]["columns"].values())
    assert types.count("datetime") == 1
    assert NUMBERS.intersection(types)


def test_the_workbook_is_what_the_script_writes() -> None:
    """Templates deploy the file; an edit of a query that is not in it would never be seen."""
    assert WORKBOOK.read_text() == text(), "run: python -m scripts.build_workbook"


def test_the_documentation_names_every_field() -> None:
    """docs/operations.md is where somebody looks who writes a query of their own."""
    page = (ROOT / "docs/operations.md").read_text()
    section = page[page.index("### Records for the workbook") : page.index("## When something is away")]
    documented = {
        row.split("`")[1]: set(re.findall(r"`(\w+)`", row)) for row in section.splitlines() if row[:3] == "| `"
    }
    assert {"usage_billed", "budget_standing", "call_refused"} <= set(documented) <= set(FIELDS)
    kinds = {field for field in FIELDS["usage_billed"] if field.endswith("_tokens")}  # the page gives one as an example
    assert [(name, missing) for name in documented if (missing := FIELDS[name] - kinds - documented[name])] == []
