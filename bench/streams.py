"""Streams: calls per second from accrual and log record to true-up, with a real Azurite, beside plain measured calls.

python -m bench.streams
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence

from bench.common import number, resident_mib, table, title
from bench.product import FOUR_SCOPES, MODEL, TENANT, Product, budget, configuration, on_stores, scopes_of_call
from shared.ledger.deadletters import DeadLetters
from shared.ledger.delivery import Delivery
from shared.ledger.ingest import IngestService
from shared.ledger.llm_logs import LlmLogs
from shared.ledger.row import Position
from shared.ledger.state import ProcessingState
from shared.ledger.store import LedgerStore
from shared.ledger.streams import Streams
from shared.ledger.streams_store import StreamTable
from shared.ledger.tables import open_tables
from shared.notify.outbox import Outbox
from shared.settings import Settings
from shared.usage.build import usage_event_bytes

CALLS, BATCHES = 500, 4
PLAIN = "plain call"  # the baseline: measured when it comes, so one row and nothing that waits
USAGE = {"prompt_tokens": 48, "completion_tokens": 150, "total_tokens": 198}


def main() -> None:
    """Measure the three steps of a stream, batch by batch."""
    on_stores(_run)


async def _run(redis_url: str, connection_string: str) -> None:
    product = Product(redis_url, configuration([budget(scope) for scope in FOUR_SCOPES]))
    await product.open()
    tables = await open_tables(Settings(storage_connection=connection_string, table_prefix=f"b{uuid.uuid4().hex[:12]}"))
    published: list[bytes] = []

    async def publish(events: Sequence[tuple[str, bytes]]) -> None:
        published.extend(body for _, body in events)

    streams = Streams(StreamTable(tables.streams), publish)
    letters, outbox = DeadLetters(tables.deadletters, tables.bodies), Outbox(tables.outbox)
    logs = LlmLogs(streams, letters, outbox)
    ingest = IngestService(
        lambda: product.snapshot,
        LedgerStore(tables),
        product.settler,
        product.signer,
        letters,
        outbox,
        ProcessingState(tables.state),
        streams,
        default_output_tokens=500,
    )
    seconds = {PLAIN: 0.0, "accrual": 0.0, "log record": 0.0, "true-up": 0.0}
    for batch in range(BATCHES):
        plain = [_event(product, "gateway/prod", batch, at, USAGE) for at in range(CALLS)]
        streamed = [_event(product, "apim/prod-weu", batch, at, None) for at in range(CALLS)]
        steps: dict[str, tuple[IngestService | LlmLogs, list[Delivery]]] = {
            PLAIN: (ingest, _deliveries("usage/2", batch, plain)),
            "accrual": (ingest, _deliveries("usage/0", batch, streamed)),
            "log record": (logs, _deliveries("llm-logs/0", batch, [_record(batch, at) for at in range(CALLS)])),
        }
        for name, (service, deliveries) in steps.items():
            begun = time.perf_counter()
            await service.run(deliveries)
            seconds[name] += time.perf_counter() - begun
        if len(published) != CALLS:
            raise SystemExit(f"{len(published)} true-ups of {CALLS} calls were published")
        begun = time.perf_counter()
        report = await ingest.run(_deliveries("usage/1", batch, published))
        seconds["true-up"] += time.perf_counter() - begun
        if report.inserted != 2 * CALLS:
            raise SystemExit(f"not every true-up was billed: {report}")
        published.clear()
    await tables.close()
    await product.close()
    title("Streams: accrued, logged, trued up, with Azurite", f"batches of {CALLS} calls, one process")
    calls = CALLS * BATCHES
    baseline = seconds[PLAIN]
    steps_of_streams = sum(seconds.values()) - baseline
    table(
        ["step", "calls/s", "us/call", "of a plain call"],
        [
            [name, number(calls / taken), number(taken / calls * 1e6), f"{taken / baseline:.2f}"]
            for name, taken in [*seconds.items(), ("a whole stream", steps_of_streams)]
        ],
    )
    print(f"{number(resident_mib())} MiB")


def _id(batch: int, at: int) -> str:
    return f"{batch:08x}-0000-4000-8000-{at:012x}"


def _event(product: Product, source: str, batch: int, at: int, usage: dict[str, int] | None) -> bytes:
    data = {
        "tenant": TENANT,
        "scopes": scopes_of_call(at),
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": MODEL,
        "model": MODEL,
        "streamed": usage is None,
        "usage": usage,
    }
    return usage_event_bytes(source, _id(batch, at), product.started_utc, data)


def _record(batch: int, at: int) -> bytes:
    tokens = {"promptTokens": 48, "completionTokens": 150, "isStreamCompletion": True, "sequenceNumber": 1}
    record = {"category": "GatewayLlmLogs", "correlationId": _id(batch, at), "properties": tokens}
    return json.dumps({"records": [record]}).encode()


def _deliveries(hub: str, batch: int, bodies: Sequence[bytes]) -> list[Delivery]:
    first = batch * CALLS
    return [
        Delivery(body, Position(f"ns/{hub}", 1_790_000_000_000 + first + at, first + at))
        for at, body in enumerate(bodies)
    ]


if __name__ == "__main__":
    main()
