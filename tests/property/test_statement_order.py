"""A statement's bytes follow from its rows alone: not from their order, nor from how an hour was rolled up."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from shared.config.billing import Pool, PoolTerm, SharedCost, SharedTerm
from shared.ledger.rollup import RollupCell, roll
from shared.ledger.rollup_codec import decode_cell, encode_cell, storable
from shared.ledger.row import LedgerRow
from shared.money import line_nano_usd
from shared.reports.basis import Basis
from shared.reports.bill import make_bill
from shared.reports.publishing import rendered
from shared.reports.spool import Spool
from shared.reports.statement import Rate
from shared.reports.tally import Tally
from tests.ledger_rows import usage
from tests.support.reports import asked_formats

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
BASIS = Basis(
    tenant="contoso",
    period="2026-11",
    currency="EUR",
    rate=Rate(currency="EUR", usd_per_unit_nano=1_170_000_001, effective_from=NOVEMBER, source="test"),
    cost_centres={"search": "CC-1", "idle": "CC-2"},
    pools=(Pool("ptu", "contoso", "PTU", "ptu", frozenset({"ptu-1"}), (PoolTerm(NOVEMBER, 1, 10**9),)),),
    shared=tuple(
        SharedCost(by, "contoso", by, by, (SharedTerm(NOVEMBER, 10**10 + 7),)) for by in ("tokens", "cost", "even")
    ),
)


def some_rows(chance: random.Random) -> list[LedgerRow]:
    """Calls of four quarter hours at many prices, with corrections, refusals and calls without a price."""
    rows = []
    for number in range(120):
        kind = chance.choice(["usage"] * 6 + ["reversal", "refusal", "correction"])
        tokens = {name: chance.randrange(1, 9_999) for name in chance.sample(["input", "output", "cached_input"], 2)}
        prices = {name: 1_000_000 + chance.randrange(7) for name in tokens}
        lines = {name: line_nano_usd(count, prices[name]) for name, count in tokens.items()}
        if kind == "reversal":
            tokens, lines = ({name: -each for name, each in values.items()} for values in (tokens, lines))
        late = chance.random() < 0.2
        values = {
            "kind": kind,
            "time_utc": NOVEMBER
            + timedelta(minutes=15 * chance.randrange(4), days=-3 if late else chance.randrange(2)),
            "scopes": {"team": chance.choice(["search", "shop", "=1+1"]), "app": chance.choice(["a", "b"])},
            "deployment": chance.choice(["ptu-1", "other"]),
            "region": chance.choice(["westeurope", "eastus"]),
            "processing_tier": chance.choice(["", "batch"]),
        }
        if kind in ("refusal", "correction"):
            tokens, lines, prices = {}, {}, {}
            values |= {
                "refused": int(kind == "refusal"),
                "why": chance.choice(["one", "two"]),
                "pricing_status": "none",
            }
        cost: int | None = sum(lines.values()) if kind != "correction" else chance.randrange(-99, 99)
        if kind == "usage" and chance.random() < 0.2:
            values |= {"pricing_status": "unpriced", "price_id": None, "model": "new"}
            cost, lines, prices = None, {}, {}
        values |= {"tokens": tokens, "lines_nano_usd": lines, "unit_pico": prices, "cost_nano_usd": cost}
        rows.append(usage(number, **values))
    return rows


async def digest_of(cells: Iterable[RollupCell]) -> str:
    """The digest of every file of the statement that these cells make."""
    with Spool() as spool:
        tally = Tally(BASIS, DECEMBER, timedelta(minutes=30), spool)
        for cell in cells:
            tally.add(cell)
        tally.finish()
        async with rendered(make_bill(tally, spool, status="final", as_of_utc=DECEMBER), asked_formats()) as (found, _):
            return found.digest


@pytest.mark.parametrize("seed", range(2))
async def test_the_order_of_rows_and_the_way_of_rolling_up_change_no_byte(seed: int) -> None:
    """Rows as a dirty hour gives them, in another order, and as published rollups whose cells were cut into pieces."""
    chance = random.Random(seed)
    rows = some_rows(chance)

    def by_hour(cells: Iterable[RollupCell]) -> list[RollupCell]:
        """Hours come in their order, the cells of an hour in none."""
        return sorted(cells, key=lambda cell: cell.quarter_utc.replace(minute=0))

    expected = await digest_of(by_hour(roll(rows)))
    chance.shuffle(rows)
    stored = [decode_cell(encode_cell(cell, "p", n)) for n, cell in enumerate(storable(roll(rows), 90))]
    chance.shuffle(stored)
    assert await digest_of(by_hour(roll(rows))) == expected
    assert await digest_of(by_hour(stored)) == expected
