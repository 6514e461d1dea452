"""How much the ledger's guarantees cost: LedgerStore.insert against bare 100-row transactions of the same entities.

    python -m bench.ledger [--batches 20] [--rows 1000]

Both sides send the same number of requests at once to the same Azurite; the ratio is what counts, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from statistics import median

from bench.common import number, ratio, table, title, verdict
from local.azurite import start_azurite
from shared.ledger.codec import encode
from shared.ledger.row import LedgerRow, Position
from shared.ledger.store import MAX_REQUESTS_IN_FLIGHT, LedgerStore
from shared.ledger.tables import TRANSACTION_ROWS, Tables, open_tables
from shared.settings import Settings

LEAST_OF_BARE = 0.7
START = datetime(2026, 11, 21, 10, tzinfo=UTC)


def make_rows(batch: int, count: int) -> list[LedgerRow]:
    """A batch as ingest makes it: one stream, one hour, calls of several users."""
    return [
        LedgerRow(
            tenant="contoso",
            source="apim/prod-weu",
            id=f"{batch:08x}-0000-4000-8000-{number:012x}",
            kind="usage",
            time_utc=START + timedelta(milliseconds=number),
            scopes={"team": "search", "user": f"user-{number % 50}@contoso.com", "app": "assistant"},
            position=Position("ns/usage/0", 1_763_700_000_000 + number, number),
            content_digest=f"{number:032x}",
            charge_nano_usd=1_125_000 + number,
            cost_nano_usd=1_125_000 + number,
            tokens={"input": 1200, "cached_input": 0, "output": 300},
            lines_nano_usd={"input": 800_000, "output": 325_000 + number},
            price_id="book/azure-openai/gpt-4o-mini/2024-07-18",
            provider="azure-openai",
            operation="chat",
            requested_model="gpt-4o",
            model="gpt-4o-mini",
            deployment="gpt-4o-mini-weu",
            region="westeurope",
            decision="downgrade",
            latency_ms=930,
            booked_period="2026-11",
        )
        for number in range(count)
    ]


async def bare(tables: Tables, rows: list[LedgerRow]) -> float:
    """Seconds to write the rows as plain transactions, as many at once as the ledger sends; encoding not counted."""
    partitions = defaultdict(list)
    for entity in map(encode, rows):
        partitions[entity["PartitionKey"]].append(entity)
    chunks = [
        [("create", entity) for entity in entities[start : start + TRANSACTION_ROWS]]
        for entities in partitions.values()
        for start in range(0, len(entities), TRANSACTION_ROWS)
    ]
    in_flight = asyncio.Semaphore(MAX_REQUESTS_IN_FLIGHT)

    async def submit(chunk: list[tuple[str, dict[str, object]]]) -> None:
        async with in_flight:
            await tables.ledger.submit_transaction(chunk)

    started = time.perf_counter()
    await asyncio.gather(*map(submit, chunks))
    return time.perf_counter() - started


async def timed_insert(ledger: LedgerStore, rows: list[LedgerRow]) -> float:
    """Seconds of one insert()."""
    started = time.perf_counter()
    await ledger.insert(rows)
    return time.perf_counter() - started


async def run(connection_string: str, batches: int, count: int) -> None:
    """Alternate the two sides, so that both meet the same machine, and print medians and their ratio."""
    tables = await open_tables(Settings(storage_connection=connection_string))
    ledger = LedgerStore(tables)
    plain, ours = [], []
    for batch in range(batches):
        plain.append(await bare(tables, make_rows(2 * batch, count)))
        ours.append(await timed_insert(ledger, make_rows(2 * batch + 1, count)))
    again = await timed_insert(ledger, make_rows(1, count))
    started = time.perf_counter()
    encoded = [encode(row) for row in make_rows(0, count)]
    encode_us = (time.perf_counter() - started) / len(encoded) * 1e6
    await ledger.close()
    title("Ledger: insert-if-absent against bare transactions", f"{batches} batches of {count} rows, in turn")
    rows = [
        ["LedgerStore.insert", number(count / median(ours))],
        ["bare 100-row transactions", number(count / median(plain))],
        ["a batch delivered again", number(count / again)],
    ]
    table(["", "rows/s"], rows)
    print(f"making and encoding a row: {encode_us:.1f} us")
    print(f"insert over bare: {verdict(ratio(plain, ours), LEAST_OF_BARE)}")


def main() -> None:
    """Parse the arguments, start Azurite, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    azurite = start_azurite()
    try:
        asyncio.run(run(azurite.connection_string, arguments.batches, arguments.rows))
    finally:
        azurite.stop()


if __name__ == "__main__":
    main()
