"""Telemetry of the real ingest path at a real OTLP/HTTP receiver, and ingest while that receiver fails."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.settings import Settings
from shared.telemetry import Telemetry
from tests.support.engine import MICRO_USD, budget, config
from tests.support.otlp import Collector, collecting
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 400}}
TEXTS = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "input.value", "output.value"}
ADMITTED = datetime.now(UTC).replace(microsecond=250_000) - timedelta(minutes=5)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An OTLP receiver."""
    with collecting() as collector:
        yield collector


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme with a budget that everything fits."""
    async with open_stack(
        redis_server.url, azurite.connection_string, config(budget("team:*", 10**6 * MICRO_USD))
    ) as stack:
        yield stack


def started(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Telemetry:
    """Telemetry as a process with these variables starts it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_env({"TOLLKEEPER_ENV": "development", **environment})
    telemetry = Telemetry()
    telemetry.start(settings.telemetry_connection, settings.otlp_signals, with_people=settings.telemetry_people)
    return telemetry


async def bill(stack: Stack, telemetry: Telemetry, *bodies: bytes) -> Any:
    """Run a batch through ingest, and flush what it told."""
    stack.telemetry = telemetry
    report = await stack.ingest.run([delivery(body, number) for number, body in enumerate(bodies)])
    telemetry.close()
    return report


def call(id: str = "call-1", **changes: Any) -> bytes:  # noqa: A002
    data = {"usage": USAGE, "scopes": {"team": "search", "user": "ada", "session": "s-1"}, "latency_ms": 930}
    return usage_bytes(id, 0, time_utc=ADMITTED, **(data | changes))


async def test_billed_call_is_a_span_with_usage_and_cost(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies where the call lay in time, and costs what the ledger says."""
    telemetry = started(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_SERVICE_NAME="tolls-weu")
    await bill(stack, telemetry, call())
    (row,) = [row async for row in stack.ledger.rows("acme", ADMITTED - timedelta(hours=1), datetime.now(UTC))]
    (span,) = collector.spans
    said = span["attributes"]
    assert span["name"] == "chat big"
    assert (span["start_ns"], span["end_ns"]) == (ns := int(ADMITTED.timestamp() * 1000) * 10**6, ns + 930 * 10**6)
    assert said["gen_ai.usage.input_tokens"] == said["llm.token_count.prompt"] == 1000
    assert said["gen_ai.usage.cache_read.input_tokens"] == 400
    assert said["gen_ai.usage.output_tokens"] == said["llm.token_count.completion"] == 200
    assert said["tollkeeper.cost.nano_usd"] == row.cost_nano_usd
    assert said["llm.cost.total"] == row.cost_nano_usd / 10**9
    assert said["langfuse.trace.tags"] == ["tenant:acme", "team:search"]
    assert collector.resources[0]["service.name"] == "tolls-weu"


async def test_no_person_and_no_text_is_told_unless_people_are_wanted(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and session stay out by default; with TELEMETRY_PEOPLE they are what Langfuse groups by."""
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.address}/v1/traces"}
    await bill(stack, started(monkeypatch, **endpoint), call("a"))
    await bill(stack, started(monkeypatch, **endpoint, TELEMETRY_PEOPLE="true"), call("b"))
    without, with_people = (span["attributes"] for span in collector.spans)
    assert not {"ada", "s-1"} & {str(value) for value in without.values()}
    assert (with_people["user.id"], with_people["session.id"]) == ("ada", "s-1")
    assert not TEXTS & set(with_people)


async def test_redelivered_call_is_told_once(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not new to the ledger is not new to anybody; two attempts of one call are two spans."""
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.address}/v1/traces"}
    bodies = call("a"), call("a"), call("b", attempt=2)
    await bill(stack, started(monkeypatch, **endpoint), *bodies)
    await bill(stack, started(monkeypatch, **endpoint), *bodies)
    assert len({span["trace_id"] for span in collector.spans}) == len(collector.spans) == 2


async def test_streamed_call_is_told_when_its_tokens_are_known_or_will_never_be(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while it may still be measured; after the wait once, at its estimate, and saying so."""
    telemetry = started(monkeypatch, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.address}/v1/traces")
    stack.telemetry = telemetry
    stack.wire()
    body = call(usage=None, streamed=True, input_tokens_estimate=1000, max_output_tokens=100)
    await stack.ingest.run([delivery(body, 0)])
    await stack.sweep.run()
    assert not telemetry_of(telemetry)
    for minutes in (41, 46):
        await stack.sweep.run(datetime.now(UTC) + timedelta(minutes=minutes))
    telemetry.close()
    (span,) = collector.spans
    assert span["attributes"]["tollkeeper.measured"] is False
    assert span["attributes"]["gen_ai.usage.input_tokens"] == 1000


def telemetry_of(telemetry: Telemetry) -> int:
    """How many calls wait to be told."""
    return sum(len(calls._waiting) for calls in telemetry._calls)


async def test_figures_and_records_arrive(stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are sums of what the log records say; log records keep their fields, as Loki and CloudWatch want them."""
    telemetry = started(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    await bill(stack, telemetry, call("a"), call("b"), b"not an event")
    (labels, calls) = collector.metrics["tollkeeper.calls"][0]
    assert calls == 2
    assert labels["tollkeeper.team"] == "search"
    kinds = {labels["tollkeeper.token.kind"]: count for labels, count in collector.metrics["tollkeeper.tokens"]}
    assert kinds == {"input": 2 * 600, "cached_input": 2 * 400, "output": 2 * 200}
    assert collector.metrics["tollkeeper.dead_letters"] == [({"tollkeeper.code": "invalid_json"}, 1)]
    records = {record["body"]: record for record in collector.logs}
    assert records["usage_billed"]["attributes"]["calls"] == 2
    assert records["dead_letter"]["severity"] == "WARNING"
    assert records["dead_letter"]["logger"] == "tollkeeper.ingest"
    cost = float(records["usage_billed"]["attributes"]["cost_usd"])
    assert [value for _, value in collector.metrics["tollkeeper.cost"]] == [pytest.approx(cost)]


async def test_each_signal_goes_where_its_variables_say(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces to one tool with its key, logs to another, metrics nowhere: by the standard variables alone."""
    with collecting() as loki:
        telemetry = started(
            monkeypatch,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.address}/api/public/otel/v1/traces",
            OTEL_EXPORTER_OTLP_TRACES_HEADERS="authorization=Basic%20cGs6c2s=,x-langfuse-ingestion-version=4",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{loki.address}/otlp/v1/logs",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        )
        await bill(stack, telemetry, call())
        assert {request.path for request in collector.requests} == {"/api/public/otel/v1/traces"}
        assert collector.requests[0].headers["authorization"] == "Basic cGs6c2s="
        assert collector.requests[0].headers["x-langfuse-ingestion-version"] == "4"
        assert collector.requests[0].headers["content-encoding"] == "gzip"
        assert {request.path for request in loki.requests} == {"/otlp/v1/logs"}
        assert "authorization" not in loki.requests[0].headers


@pytest.mark.parametrize("failure", ["refuses", "errors", "hangs", "mistyped"])
async def test_failing_receiver_changes_nothing(
    stack: Stack, collector: Collector, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """The same bill and the same counters as without telemetry, at once; and the process ends when it is told to."""
    collector.status = 503 if failure == "errors" else 200
    collector.wait_seconds = 60.0 if failure == "hangs" else 0.0
    address = {"refuses": "http://127.0.0.1:9", "mistyped": "nowhere"}.get(failure, collector.address)
    telemetry = started(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="50")
    bodies = [call(f"c{number}") for number in range(200)]
    stack.telemetry = telemetry
    begun = time.monotonic()
    report = await stack.ingest.run([delivery(body, number) for number, body in enumerate(bodies)])
    ingested = time.monotonic() - begun
    telemetry.close(1.0)
    closed = time.monotonic() - begun - ingested
    collector.released.set()
    assert (report.inserted, report.dead_letters) == (200, 0)
    rows = [row async for row in stack.ledger.rows("acme", ADMITTED - timedelta(hours=1), datetime.now(UTC))]
    assert len(rows) == 200
    assert max(ingested, closed) < 30  # nothing waited for the receiver


def test_what_has_no_room_is_dropped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that is slower than traffic costs neither memory nor time: 20,000 wait, the others are counted."""
    from threading import Event

    from shared.telemetry.spans import CALLS_WAITING, CallSpans
    from tests.ledger_rows import usage

    class Stuck:
        gate = Event()

        def start_span(self, *_: Any, **__: Any) -> Any:
            self.gate.wait()
            raise RuntimeError("let go")

    stuck: Any = Stuck()
    spans = CallSpans(stuck, stuck, with_people=False)
    caplog.set_level(logging.CRITICAL, "tollkeeper.telemetry")
    for _ in range(3):
        spans.add([usage(number) for number in range(CALLS_WAITING)])
    assert CALLS_WAITING * 2 - 50 <= spans.dropped <= CALLS_WAITING * 2
    spans._waiting.clear()
    Stuck.gate.set()
    spans.close(1.0)
