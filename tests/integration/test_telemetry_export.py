"""The real Azure Monitor exporter before a TLS server in place of Application Insights: what arrives, and as whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.entra_redis import Authority
from tests.support.http_server import Reply, Request, serving
from tests.support.otlp import collecting

KEY = "00000000-0000-4000-8000-000000000001"
FIELDS = {"tenant": "acme", "calls": 2, "cost_usd": "0.000002003", "lag_seconds": 0.5, "latencies": '{"1024":2}'}
WORKER = f"""
import logging, sys
from shared.telemetry import export_to_azure_monitor

assert export_to_azure_monitor(sys.argv[1])
logging.getLogger("tollkeeper.ingest").info("usage_billed", extra={FIELDS!r})
logging.getLogger("tollkeeper.repair").error("counters_drifted", extra={{"tenant": "acme", "drift": "0.01"}})
logging.getLogger("somebody.else").error("not ours")
from opentelemetry._logs import get_logger_provider

get_logger_provider().force_flush()
"""


class Azure:
    """A managed identity's endpoint, which gives one token, and Application Insights, which takes nothing else."""

    def __init__(self) -> None:
        self.identities: list[tuple[str, str]] = []  # client id and resource of each token
        self.refused: list[str | None] = []
        self.items: list[dict[str, Any]] = []
        self.environment: dict[str, str] = {}  # what the platform sets for a managed identity
        self.connection_string = ""

    def token(self, request: Request) -> Reply:
        self.identities.append((request.query["client_id"], request.query["resource"]))
        return Reply({"access_token": "of-the-identity", "expires_on": "4102444800", "token_type": "Bearer"})

    def track(self, request: Request) -> Reply:
        who = request.headers.get("authorization")
        if who != "Bearer of-the-identity":
            self.refused.append(who)
            return Reply({"message": "local authentication is off"}, 401)
        items = request.json()
        self.items += items
        return Reply({"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []})


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[tuple[Azure, Authority]]:
    """Both servers, and who vouches for the second."""
    authority, azure = Authority(tmp_path), Azure()
    with serving(azure.token) as identity, serving(azure.track, authority.server_context("localhost")) as ingestion:
        azure.environment = {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{identity}/token", "IDENTITY_HEADER": "secret"}
        azure.connection_string = f"InstrumentationKey={KEY};IngestionEndpoint=https://localhost:{ingestion}/"
        yield azure, authority


def export(azure: tuple[Azure, Authority], tmp_path: Path, worker: str = WORKER, **environment: str) -> None:
    """Log entries in a process of their own, which exports them."""
    servers, authority = azure
    own = {
        "REQUESTS_CA_BUNDLE": str(authority.path),
        "TMPDIR": str(tmp_path),  # where the exporter keeps what could not be sent
        "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",  # Microsoft's own figures, which it sends elsewhere
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    }
    command = [sys.executable, "-c", worker, servers.connection_string]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, **own, **environment}, capture_output=True)


def traces(azure: tuple[Azure, Authority]) -> dict[str, dict[str, Any]]:
    """The entries that arrived as rows of AppTraces, by their message."""
    data = [item["data"] for item in azure[0].items if item["data"]["baseType"] == "MessageData"]
    return {each["baseData"]["message"]: each["baseData"] for each in data}


def test_records_arrive_with_their_fields_as_the_managed_identity(
    azure: tuple[Azure, Authority], tmp_path: Path
) -> None:
    """Every field is text there, which queries turn into numbers; the logger's name tells our rows from the host's."""
    as_identity = {"APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "Authorization=AAD;ClientId=the-functions"}
    export(azure, tmp_path, **azure[0].environment, **as_identity)
    assert set(azure[0].identities) == {("the-functions", "https://monitor.azure.com/")}
    assert azure[0].refused == []
    arrived = traces(azure)
    assert set(arrived) == {"usage_billed", "counters_drifted"}
    billed = {name: str(value) for name, value in FIELDS.items()}
    assert arrived["usage_billed"]["properties"] == {**billed, "logger_name": "tollkeeper.ingest"}
    assert [arrived[name]["severityLevel"] for name in ("usage_billed", "counters_drifted")] == [1, 3]


def test_without_an_identity_nothing_arrives(azure: tuple[Azure, Authority], tmp_path: Path) -> None:
    """A connection string alone opens nothing where local authentication is off; the process goes on."""
    export(azure, tmp_path)
    assert azure[0].items == []
    assert azure[0].refused


def test_otlp_works_beside_it(azure: tuple[Azure, Authority], tmp_path: Path) -> None:
    """Both get the records of our loggers once, each by its own way; calls go to Azure because that was asked for."""
    both = """
import logging, sys
from shared.telemetry import Telemetry
from tests.ledger_rows import usage

telemetry = Telemetry()
telemetry.start(sys.argv[1], {"logs"}, with_people=False, calls_to_azure=True)
telemetry.billed([usage(1)])
logging.getLogger("tollkeeper.ingest").info("usage_billed", extra={"calls": 2})
from opentelemetry._logs import get_logger_provider

from opentelemetry.trace import get_tracer_provider

telemetry.close()
get_logger_provider().force_flush()
get_tracer_provider().force_flush()
"""
    as_identity = {"APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "Authorization=AAD;ClientId=the-functions"}
    with collecting() as collector:
        endpoint = {
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.address}/v1/logs",
            "OTEL_TRACES_SAMPLER": "always_on",  # the exporter's own leaves out some calls, by chance
        }
        export(azure, tmp_path, both, **azure[0].environment, **as_identity, **endpoint)
        assert [record["body"] for record in collector.logs] == ["usage_billed"]
    assert set(traces(azure)) == {"usage_billed"}
    sent = [item["data"]["baseData"] for item in azure[0].items if item["data"]["baseType"] == "RemoteDependencyData"]
    assert not [each["name"] for each in sent if "/v1/logs" in str(each)], "telemetry must not tell of itself"
    (call,) = [each for each in sent if each["name"] == "chat gpt-4o"]
    assert call["duration"] == "0.00:00:00.930"
    assert call["properties"]["tollkeeper.cost.nano_usd"] == "1001"
