"""Rollups keep every price and every correction apart, in entities that Table Storage takes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from shared.ledger.hours import HourIndex
from shared.ledger.rollup_codec import MAX_LINES_CHARS
from shared.ledger.rollup_job import RollupJob
from shared.ledger.row import LedgerRow
from shared.ledger.store import LedgerStore
from shared.ledger.tables import Tables
from tests.ledger_rows import TEN, usage


def priced(number: int) -> LedgerRow:
    """A call at a price of its own: 10 in at `number` + 1 nano-USD per token, 5 out at twice that."""
    unit = (number + 1) * 1_000
    lines = {"input": 10 * (number + 1), "output": 5 * 2 * (number + 1)}
    return usage(
        number,
        cost_nano_usd=sum(lines.values()),
        lines_nano_usd=lines,
        unit_pico={"input": unit, "output": 2 * unit},
        list_pico={"input": unit + 1},
        price_id=f"azure-openai/gpt-4o-mini/global/standard@2026-01-01 less {number}%",
        saved_nano_usd=number,
        booked_period="2026-12" if number % 2 else "2026-11",
    )


async def summed(ledger: LedgerStore) -> Counter[Any]:
    """What the cells say, however many hold it."""
    found: Counter[Any] = Counter()
    async for cell in ledger.reader.cells("contoso", TEN - timedelta(hours=1), TEN + timedelta(hours=1)):
        assert sum(line.cost_nano_usd for line in cell.lines) == cell.cost_nano_usd
        of = (cell.region, cell.correction)
        found[of, "requests"] += cell.requests
        found[of, "cost"] += cell.cost_nano_usd
        found[of, "saved"] += cell.saved_nano_usd
        found[of, "input"] += cell.tokens.get("input", 0)
        for line in cell.lines:
            price = (line.kind, line.price_id, line.unit_pico, line.list_pico, line.tier)
            found[of, price] += line.tokens
    return found


async def test_a_cell_of_hundreds_of_prices_is_stored_and_read_like_its_rows(
    tables: Tables, hours: HourIndex, ledger: LedgerStore
) -> None:
    """600 calls of one quarter hour at 600 prices, half of them booked late: rows and rollup say the same."""
    await ledger.insert([priced(number) for number in range(600)])
    by_rows = await summed(ledger)
    assert (await RollupJob(tables, hours, ledger.reader).run()).published == 1
    stored = [entity async for entity in tables.rollups.query_entities("PartitionKey ge ''")]
    assert len(stored) > 2, "two cells, each in several entities"
    assert all(len(entity["lines"]) <= MAX_LINES_CHARS for entity in stored)
    assert await summed(ledger) == by_rows
    assert by_rows[("westeurope", "new"), "requests"] == 300
    assert by_rows[("westeurope", ""), "cost"] == sum(20 * (number + 1) for number in range(0, 600, 2))
    price_id = "azure-openai/gpt-4o-mini/global/standard@2026-01-01 less 0%"
    assert by_rows[("westeurope", ""), ("input", price_id, 1_000, 1_001, "")] == 10
