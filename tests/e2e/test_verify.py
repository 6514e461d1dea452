"""`make verify` against a running copy: what is as assumed, and what differs when one thing behaves otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.data.tables import TableClient

from local.apim.settings import LlmLog
from scripts.azure.verify import __main__ as command
from scripts.azure.verify.ledger import TABLE
from scripts.azure.verify.probe import Result
from scripts.azure.verify.report import exit_code
from tests.support.azure_stub import Tokens
from tests.support.laptop import Laptop, start_laptop
from tests.support.laptop_config import configuration, team_file
from tests.support.live import (
    APP,
    GATEWAY_ID,
    PATIENCE,
    TEAM,
    WORD,
    Alter,
    Resources,
    edited_policies,
    live_system,
    measured,
    resources_of,
    serve_arm,
    start_gateway,
)

FILES = configuration(**{TEAM: team_file(TEAM, "1000.00", identities=f", apps: [{APP}]")})
DISTURBED = {"10", "11", "13", "20", "22"}
KEYLESS = "e"


@pytest.fixture(scope="module")
def laptop(mono: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy."""
    with start_laptop(tmp_path_factory.mktemp("verify"), FILES, APIM_LLM_LOG_DELAY_SECONDS="0.3") as running:
        yield running


def words(results: Mapping[str, Result]) -> dict[str, str]:
    """The verdicts by point."""
    return {point: result.verdict.word for point, result in results.items()}


def test_a_sound_system_is_as_assumed(laptop: Laptop) -> None:
    """Every point that needs no change is measured, nothing is changed, and no line holds a word of a prompt."""
    with serve_arm(resources_of(laptop)) as arm:
        results = measured(live_system(laptop, laptop.url, arm))
    assert words(results) == {
        point: "not measured" if point in DISTURBED | {KEYLESS} else "as assumed"
        for point in (*map(str, range(1, 24)), *"abcdefg")
    }
    assert exit_code(list(results.values())) == 0
    assert results["g"].verdict.seen == "6 calls billed once each"
    assert not [result for result in results.values() if WORD in result.verdict.seen]


def test_changes_show_the_rest_and_are_taken_back(laptop: Laptop) -> None:
    """Limits, a dead issuer, a dead backend, an unchecked call and a save: as assumed, and all as before at the end."""
    with start_gateway(laptop, tk_rate_seconds="2") as gateway:
        resources = resources_of(laptop, gateway)
        before, backends = dict(resources.named_values), dict(gateway.backends)
        with serve_arm(resources) as arm:
            results = measured(live_system(laptop, gateway.url, arm), ",".join(DISTURBED), disturb=True)
        assert words(results) == dict.fromkeys(DISTURBED, "as assumed")
        assert results["13"].verdict.seen == "1 event, attempt 3 of 3"
        assert resources.saves == 1
        assert len(resources.changes) == 14
        assert (resources.named_values, gateway.backends) == (before, backends)


@pytest.mark.parametrize("needs_keys", [True, False], ids=["that needs keys", "that needs none"])
def test_a_log_without_keys_is_tried_and_taken_back(laptop: Laptop, *, needs_keys: bool) -> None:
    """Whether Azure Monitor writes to a namespace that takes no keys: records of a call made meanwhile tell."""
    held: list[Resources] = []

    def alter(record: dict[str, Any]) -> dict[str, Any] | None:
        return None if needs_keys and held[0].local_auth_disabled else record

    with start_gateway(laptop, alter=alter) as gateway:
        resources = resources_of(laptop, gateway)
        held.append(resources)
        with serve_arm(resources) as arm:
            system = live_system(laptop, gateway.url, arm, x_sim_chunk_ms="0")
            system.patience = replace(PATIENCE, log=5)
            results = measured(system, KEYLESS, disturb=True)
    assert results[KEYLESS].verdict.word == ("as assumed" if needs_keys else "differs"), results[KEYLESS].verdict.seen
    assert resources.changes == [("disableLocalAuth", "True"), ("disableLocalAuth", "False")]


def test_policies_that_behave_otherwise_differ(laptop: Laptop, tmp_path: Path) -> None:
    """A held back stream, a mangled date and header, an answer without its length: each is told, the rest holds."""
    edits = {
        "backend-policy.xml": ('buffer-response="false"', 'buffer-response="true"'),
        "fragments/tk-apply-decision.xml": ('"\\"" + marker)', '"\\"")'),
        "fragments/tk-identify.xml": ('"\\ue000" + key', 'Regex.Replace(key, "[^ -~]", "?")'),
    }
    policies = edited_policies(tmp_path, edits)
    with start_gateway(laptop, policies=policies) as gateway, serve_arm(resources_of(laptop)) as arm:
        results = measured(live_system(laptop, gateway.url, arm, x_sim_chunked="1"), "8,9,12,14,15,16,17,21")
    assert words(results) == {
        point: "differs" if point in ("12", "14", "16", "17") else "as assumed"
        for point in ("8", "9", "12", "14", "15", "16", "17", "21")
    }
    assert "none smaller than a buffer" in results["12"].verdict.seen
    assert "no usage" in results["14"].verdict.seen
    assert "'caf?'" in results["16"].verdict.seen
    assert "was sent 2026-11-21T" in results["17"].verdict.seen
    assert exit_code(list(results.values())) == 1


def renamed(record: dict[str, Any]) -> dict[str, Any]:
    """Another id."""
    return {**record, "correlationId": f"x-{record['correlationId']}"}


def capitals(record: dict[str, Any]) -> dict[str, Any]:
    """Property names as in the table of Log Analytics."""
    properties = {name[:1].upper() + name[1:]: value for name, value in record["properties"].items()}
    return {**record, "properties": properties}


LOGS: dict[str, tuple[LlmLog, Alter, set[str]]] = {
    "other correlation ids": (LlmLog(delay_seconds=0.2), renamed, {"a", "18", "d"}),
    "capitals and texts": (LlmLog(delay_seconds=0.2, messages=True), capitals, {"b", "f"}),
}


@pytest.mark.parametrize("log", LOGS)
def test_an_llm_log_that_is_otherwise_differs(laptop: Laptop, log: str) -> None:
    """Other ids, other names, prompts: just that is told."""
    options, alter, different = LOGS[log]
    with start_gateway(laptop, options, alter=alter) as gateway, serve_arm(resources_of(laptop)) as arm:
        system = live_system(laptop, gateway.url, arm, x_sim_chunk_ms="0")
        system.patience = replace(PATIENCE, log=5)
        results = measured(system, "18,a,b,d,f")
    assert {point for point, result in results.items() if result.verdict.word == "differs"} == different


def test_the_command_measures_from_outputs_and_configuration(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds addresses, key, model and price by itself, says what it will cost, and reports in JSON."""
    named = {
        "AZURE_SUBSCRIPTION_ID": "0",
        "AZURE_RESOURCE_GROUP": "rg",
        "GATEWAY_URL": f"{laptop.url}/",
        "GATEWAY_ID": GATEWAY_ID,
        "USAGE_NAMESPACE": "usage.servicebus.windows.net",
        "USAGE_HUB": "usage",
        "LLM_LOGS_NAMESPACE": "logs.servicebus.windows.net",
        "LLM_LOGS_HUB": "llm-logs",
        "LEDGER_ACCOUNT": "ledger",
        "SUBSCRIPTIONS": {TEAM: [f"{TEAM}-prod"]},
        "MODEL_DEPLOYMENTS": ["gpt-4o-weu", "gpt-4o-mini-weu"],
    }
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps({name: {"value": value} for name, value in named.items()}))
    table = TableClient.from_connection_string(laptop.storage_connection, TABLE)
    with serve_arm(resources_of(laptop)) as arm:
        hubs = live_system(laptop, laptop.url, arm).hubs
        monkeypatch.setattr(command.signal, "signal", lambda *_: None)
        monkeypatch.setattr(command, "open_credential", Tokens)
        monkeypatch.setattr(command, "Arm", lambda credential: arm)
        monkeypatch.setattr(command, "_hubs", lambda target, credential: hubs)
        monkeypatch.setattr(command, "_ledger", lambda target, credential: table)
        asked = ["dev", "--outputs", str(outputs), "--config", str(laptop.stack.options.config_directory)]
        code = command.main([*asked, "--points", "8,14,16,23", "--json"])
    told = capsys.readouterr()
    assert code == 0, told
    assert {each["point"]: each["verdict"] for each in json.loads(told.out)["points"]} == dict.fromkeys(
        ("8", "14", "16", "23"), "as assumed"
    )
    assert f"calls to gpt-4o-mini-weu as {TEAM}-prod for at most 0.0" in told.err
