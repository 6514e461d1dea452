"""Ingest: events per second from bytes to settled counters, without the ledger's I/O and with a real Azurite.

python -m bench.ingest
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Sequence
from typing import Any

from bench.common import number, resident_mib, table, title, verdict
from bench.ledger import bare
from bench.product import FOUR_SCOPES, MODEL, TENANT, Product, budget, configuration, on_stores, scopes_of_call
from shared.ledger.billed import billed
from shared.ledger.delivery import Delivery
from shared.ledger.ingest import IngestService, Ledger
from shared.ledger.inserted import Inserted
from shared.ledger.row import LedgerRow, Position
from shared.ledger.store import LedgerStore
from shared.ledger.streams_store import StreamCall
from shared.ledger.tables import open_tables
from shared.settings import Settings
from shared.usage.build import usage_event_bytes

BATCH_EVENTS = 1_000
MEMORY_BATCHES, AZURITE_BATCHES = 30, 8
LEAST_EVENTS_PER_SECOND, LEAST_OF_AZURITE = 15_000, 0.7
MOST_FOR_LOG_RECORDS = 0.03


class MemoryLedger:
    """A ledger without I/O that has never seen any row."""

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[Inserted]:
        """All rows are new."""
        return [Inserted(row, "new") for row in rows]

    @property
    def pairs(self) -> Any:
        """Corrections, of which the benchmark makes none."""
        return None


class _NoStores:
    """The other stores of ingest, which a batch of good events asks only for its progress."""

    async def progress(self) -> dict[str, Position]:
        return {}

    async def record_progress(self, positions: Sequence[Position]) -> None:
        """Nothing is kept."""

    async def mark_dirty(self, tenant: str, why: str) -> None:
        raise SystemExit(f"settlement failed: {why}")

    async def accrued(self, calls: Sequence[StreamCall]) -> None:
        raise SystemExit("the benchmark's own event was taken for an accrual")

    async def put(self, code: str, message: str, body: bytes, position: Position | None) -> Any:
        raise SystemExit(f"the benchmark's own event was refused: {code}: {message}")

    async def add_once(self, key: str, kind: str, payload: dict[str, Any]) -> bool:
        raise SystemExit(f"unexpected notification {kind}: {payload}")


def main() -> None:
    """Measure without, then with Azurite."""
    on_stores(_run)


async def _run(redis_url: str, connection_string: str) -> None:
    product = Product(redis_url, configuration([budget(scope) for scope in FOUR_SCOPES]))
    await product.open()
    title(
        "Ingest: decode + price + settle on 4 scopes", f"batches of {BATCH_EVENTS} events of one partition, one process"
    )
    await _without_io(product)
    cpu_us = await _with_azurite(product, connection_string)
    await _log_records(product, cpu_us)
    await product.close()


async def _without_io(product: Product) -> None:
    service = _service(product, MemoryLedger())
    batches = [await _batch(product, batch) for batch in range(MEMORY_BATCHES)]
    taken = []
    cpu_before = time.process_time()
    for batch in batches:
        begun = time.perf_counter()
        report = await service.run(batch)
        taken.append(time.perf_counter() - begun)
        if report.inserted != BATCH_EVENTS:
            raise SystemExit(f"not every event was billed: {report}")
    cpu_us = (time.process_time() - cpu_before) / (MEMORY_BATCHES * BATCH_EVENTS) * 1e6
    per_second = BATCH_EVENTS / statistics.median(taken)
    row = ["without ledger I/O", number(per_second), number(cpu_us), number(1e6 / cpu_us), number(resident_mib())]
    table(["", "events/s", "CPU us/event", "events/CPU s", "MiB"], [row])
    print(f"events/s over {LEAST_EVENTS_PER_SECOND:,}: {verdict(per_second / LEAST_EVENTS_PER_SECOND, 1)}")


async def _with_azurite(product: Product, connection_string: str) -> float:
    """CPU microseconds per event."""
    tables = await open_tables(Settings(storage_connection=connection_string, table_prefix=f"b{uuid.uuid4().hex[:12]}"))
    service = _service(product, LedgerStore(tables))
    rows = _Recorder()
    await _service(product, rows).run(await _batch(product, 10_000))
    ours, plain = [], []
    cpu_seconds = 0.0
    for batch in range(AZURITE_BATCHES):
        deliveries = await _batch(product, 20_000 + batch)
        cpu, begun = time.process_time(), time.perf_counter()
        await service.run(deliveries)
        ours.append(time.perf_counter() - begun)
        cpu_seconds += time.process_time() - cpu
        plain.append(await bare(tables, rows.renamed(batch)))
    await tables.close()
    rate, bare_rate = BATCH_EVENTS / statistics.median(ours), BATCH_EVENTS / statistics.median(plain)
    cpu_us = cpu_seconds / (AZURITE_BATCHES * BATCH_EVENTS) * 1e6
    of_azurite = statistics.median(its / mine for mine, its in zip(ours, plain, strict=True))
    print()
    table(
        ["", "events/s", "CPU us/event", "MiB"],
        [
            ["with Azurite", number(rate), number(cpu_us), number(resident_mib())],
            ["Azurite, bare 100-row transactions", number(bare_rate), "", ""],
        ],
    )
    print(f"events/s over Azurite's own rate: {verdict(of_azurite, LEAST_OF_AZURITE)}")
    return cpu_us


async def _log_records(product: Product, ingest_us: float) -> None:
    """What the records that the workbook reads cost on top: one per team here, ten of a batch."""
    rows = _Recorder()
    await _service(product, rows).run(await _batch(product, 30_000))
    new = [(row, True) for row in rows.rows]
    cpu_before = time.process_time()
    for _ in range(MEMORY_BATCHES):
        billed(new, 1_790_000_000_000)
    cpu_us = (time.process_time() - cpu_before) / (MEMORY_BATCHES * BATCH_EVENTS) * 1e6
    print()
    table(["", "CPU us/event"], [["summing a batch up for its log records", f"{cpu_us:.1f}"]])
    print(f"of ingest with Azurite: {cpu_us / ingest_us:.2%} (at most {MOST_FOR_LOG_RECORDS:.0%})")


class _Recorder(MemoryLedger):
    """Keeps the rows it is given: what the baseline writes is as wide as what we write."""

    def __init__(self) -> None:
        self.rows: list[LedgerRow] = []

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[Inserted]:
        self.rows = list(rows)
        return await super().insert(rows)

    def renamed(self, batch: int) -> list[LedgerRow]:
        """The same rows under identities nobody used."""
        for row in self.rows:
            row.source = f"bare/{batch:08x}"
        return self.rows


def _service(product: Product, ledger: Ledger) -> IngestService:
    none: Any = _NoStores()
    return IngestService(
        lambda: product.snapshot,
        ledger,
        product.settler,
        product.signer,
        none,
        none,
        none,
        none,
        default_output_tokens=500,
    )


async def _batch(product: Product, batch: int) -> list[Delivery]:
    """Events of calls that were checked and hold budget, as the gateway emits them."""
    reservations = await asyncio.gather(*(product.check(scopes_of_call(at)) for at in range(BATCH_EVENTS)))
    deliveries = []
    for at, reservation in enumerate(reservations):
        data = {
            "tenant": TENANT,
            "scopes": scopes_of_call(at),
            "provider": "azure-openai",
            "operation": "chat",
            "requested_model": MODEL,
            "model": MODEL,
            "deployment": "gpt-4o-weu",
            "region": "westeurope",
            "usage": {
                "prompt_tokens": 48,
                "completion_tokens": 150,
                "total_tokens": 198,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            "reservation": reservation,
            "latency_ms": 930,
            "decision": "allow",
        }
        admitted = product.started_utc
        body = usage_event_bytes("apim/prod-weu", f"{batch:08x}-0000-4000-8000-{at:012x}", admitted, data)
        sequence = batch * BATCH_EVENTS + at
        deliveries.append(Delivery(body, Position("ns/usage/0", 1_790_000_000_000 + sequence, sequence)))
    return deliveries


if __name__ == "__main__":
    main()
