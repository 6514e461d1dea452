"""The documents of the API and the code say the same."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
import yaml
from door_fakes import Doors
from test_door_auth import OPEN_DOORS, ROLES_OF_DOORS

ROOT = Path(__file__).parents[3]
API_PAGE = (ROOT / "docs/api.md").read_text()
OPENAPI: dict[str, Any] = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
HOST: dict[str, Any] = json.loads((ROOT / "host.json").read_text())


def registered(doors: Doors) -> set[tuple[str, str, str]]:
    """(method, path, function name) of every HTTP function."""
    found = set()
    for name, function in doors.functions.items():
        if function.is_http_function():
            trigger = function.get_trigger()
            path = "/" + trigger.route.replace("{*", "{")
            found |= {(method.value.lower(), path, name) for method in trigger.methods}
    return found


def documented() -> set[tuple[str, str, str]]:
    """(method, path, operationId) of every operation."""
    return {
        (method, path, operation["operationId"])
        for path, operations in OPENAPI["paths"].items()
        for method, operation in operations.items()
    }


def error_codes() -> set[str]:
    """Every stable code in the code: `code="..."` in a call, and the `code` of an error class."""
    return {code for folder in ("shared", "functions", "gateway") for code in _codes_in(ROOT / folder)}


def _codes_in(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                yield from _strings(node.value)
            elif isinstance(node, ast.ClassDef):
                yield from _class_codes(node)


def _class_codes(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if not isinstance(statement, ast.Assign):
            continue
        target = statement.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        for name, value in zip(names, values, strict=False):
            if isinstance(name, ast.Name) and name.id == "code":
                yield from _strings(value)


def _strings(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in the document."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_openapi_and_registered_functions_agree_both_ways(doors: Doors) -> None:
    """No route is undocumented and none is documented that does not exist; names and methods match."""
    assert documented() == registered(doors)


def test_openapi_states_each_doors_roles() -> None:
    """A reader of the document knows which role a call needs, and it is the role that the door asks for."""
    stated = {
        operation["operationId"]: set(operation["x-roles"])
        for operations in OPENAPI["paths"].values()
        for operation in operations.values()
    }
    assert stated == {**ROLES_OF_DOORS, **{name: set() for name in OPEN_DOORS}}


def test_openapi_references_resolve() -> None:
    """Every `$ref` points at something that is there."""
    for reference in references(OPENAPI):
        node: Any = OPENAPI
        for part in reference.removeprefix("#/").split("/"):
            assert part in node, reference
            node = node[part]


def test_only_health_and_the_page_are_anonymous() -> None:
    """Every other operation inherits the document's security requirement."""
    paths = OPENAPI["paths"].items()
    open_doors = [path for path, operations in paths for each in operations.values() if each.get("security") == []]
    assert open_doors == ["/health", "/dashboard"]


def test_every_error_code_is_explained() -> None:
    """A code that a caller can meet is in the table of docs/api.md with what helps."""
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", API_PAGE, flags=re.MULTILINE))
    assert error_codes() - explained == set()


def test_every_route_is_on_the_page(doors: Doors) -> None:
    """The prose names every route with its method."""
    for method, path, _ in registered(doors):
        assert f"`{method.upper()} {path}`" in API_PAGE


def test_no_door_asks_for_a_function_key(doors: Doors) -> None:
    """Shared keys cannot be told apart or attributed; the platform's authentication guards instead."""
    levels = {each.get_trigger().auth_level.value for each in doors.functions.values() if each.is_http_function()}
    assert levels == {"anonymous"}


def test_host_serves_the_contracts_prefix() -> None:
    """Clients rely on /api/v1."""
    assert HOST["extensions"]["http"]["routePrefix"] == "api/v1"
    assert HOST["version"] == "2.0"


def test_host_checkpoints_every_batch_and_starts_at_the_beginning() -> None:
    """A frequency over 1 would redeliver more after a crash; starting at the end would never bill the first events."""
    hubs = HOST["extensions"]["eventHubs"]
    assert hubs["batchCheckpointFrequency"] == 1
    assert hubs["initialOffsetOptions"] == {"type": "fromStart"}
    assert hubs["prefetchCount"] >= hubs["maxEventBatchSize"]


def test_failures_are_never_sampled_away() -> None:
    """Exceptions and alerts are rare and each one matters."""
    sampling = HOST["logging"]["applicationInsights"]["samplingSettings"]
    assert {"Exception", "Event"} <= set(sampling["excludedTypes"].split(";"))


@pytest.mark.parametrize("name", ["ingest", "llm_logs"])
def test_hub_triggers_retry_without_end(doors: Doors, name: str) -> None:
    """With any limit the host would move its checkpoint past a batch that was never billed, or never matched."""
    retry = doors.functions[name].get_settings_dict("retry_policy")
    assert (retry["strategy"], retry["max_retry_count"]) == ("fixed_delay", "-1")


@pytest.mark.parametrize(
    ("name", "connection", "hub"), [("ingest", "EventHubs", "USAGE"), ("llm_logs", "LlmLogs", "LLM_LOGS")]
)
def test_hub_triggers_read_batches_of_raw_bytes_by_setting(doors: Doors, name: str, connection: str, hub: str) -> None:
    """Namespace, hub and consumer group come from settings; bytes are not decoded on the way: their digest matters."""
    trigger = doors.functions[name].get_trigger()
    assert trigger.connection == connection
    assert (trigger.event_hub_name, trigger.consumer_group) == (f"%{hub}_HUB%", f"%{hub}_CONSUMER_GROUP%")
    assert (trigger.cardinality, trigger.data_type) == (func.Cardinality.MANY, func.DataType.BINARY.value)


@pytest.mark.parametrize(
    "setting",
    ["USAGE_HUB", "LLM_LOGS_HUB", "USAGE_CONSUMER_GROUP", "EventHubs", "LlmLogs", "TOLLKEEPER_ENV", "REDIS_URL"],
)
def test_sample_settings_hold_what_the_host_needs(setting: str) -> None:
    """Copying the sample is enough to start."""
    sample = json.loads((ROOT / "local.settings.sample.json").read_text())
    assert sample["Values"][setting]
