"""A billed call at a real Arize Phoenix: it reads our tokens and cost, and comes to the same cost by its own prices.

`make phoenix` installs Phoenix into a virtualenv of its own and runs this. That takes minutes and 855 MB the first
time, and Phoenix the better part of a minute to start, so nothing else does.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.process import free_port
from shared.telemetry import Telemetry
from tests.support.engine import config
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

PHOENIX = Path(__file__).parents[2] / os.environ.get("PHOENIX", "nowhere") / "bin/phoenix"
START_SECONDS = 180

pytestmark = pytest.mark.skipif("PHOENIX" not in os.environ, reason="needs arize-phoenix: make phoenix")


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Phoenix with an empty database."""
    port, grpc, folder = free_port(), free_port(), tmp_path_factory.mktemp("phoenix")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PHOENIX, "serve"], env=environment, stdout=log, stderr=log)
        try:
            _until(lambda: httpx.get(f"{address}/healthz", timeout=5).is_success, START_SECONDS)
            yield address
        finally:
            process.terminate()
            process.wait(30)


async def test_phoenix_shows_tokens_and_cost(
    phoenix: str, redis_server, azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpt-4o at 2.50 and 10.00 USD a million: 1,000 x 2.50 + 200 x 10.00 = 4,500 micro-USD. Ours stands in the span,
    Phoenix computes the same from its own list and our model and tokens."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{phoenix}/v1/traces")
    admitted = datetime.now(UTC) - timedelta(minutes=1)
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    model = {"model": "gpt-4o", "requested_model": "gpt-4o", "usage": usage, "latency_ms": 930}
    async with open_stack(redis_server.url, azurite.connection_string, config()) as stack:
        stack.telemetry = Telemetry()
        stack.telemetry.start(None, {"traces"}, with_people=False)
        await _bill(stack, usage_bytes("call-1", 0, time_utc=admitted, **model))
        stack.telemetry.close()
    (span,) = _until(lambda: httpx.get(f"{phoenix}/v1/projects/default/spans", timeout=10).json()["data"], 60)
    said = span["attributes"]
    assert span["name"] == "chat gpt-4o"
    assert span["span_kind"] == "LLM"
    assert (said["llm.token_count.prompt"], said["llm.token_count.completion"]) == (1000, 200)
    assert said["llm.cost.total"] == 0.0045
    assert said["tollkeeper.cost.nano_usd"] == 4_500_000
    query = "{projects {edges {node {name costSummary {total {cost tokens}}}}}}"

    def summary() -> Any:
        edges = httpx.post(f"{phoenix}/graphql", json={"query": query}, timeout=10).json()["data"]["projects"]["edges"]
        totals = {edge["node"]["name"]: edge["node"]["costSummary"]["total"] for edge in edges}
        return totals["default"] if totals["default"]["cost"] else None

    assert _until(summary, 60) == {"cost": pytest.approx(0.0045), "tokens": 1200}


async def _bill(stack: Stack, body: bytes) -> None:
    assert (await stack.ingest.run([delivery(body, 0)])).unpriced == 0


def _until(answer: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := answer():
                return found
        except (httpx.HTTPError, KeyError):
            found = None
        assert time.monotonic() < deadline, "Phoenix did not answer as expected in time"
        time.sleep(0.2)
