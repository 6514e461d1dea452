"""Re-rating on a real Redis and a real Azurite: an unknown model is never free, a corrected price reaches the bill."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from shared.config.model import Config, PriceOverride
from shared.errors import InvalidRequest
from shared.ledger.hours import HourIndex
from shared.ledger.rerate import RerateReport, RerateService
from shared.ledger.rollup_job import RollupJob
from shared.ledger.row import LedgerRow
from shared.ledger.standing_rows import StandingRows
from shared.ledger.summary import Summaries
from shared.months import month_before, month_of
from shared.reports.basis import Basis
from shared.reports.building import StatementBuilder
from shared.reports.statement import Statement
from shared.usage.build import correction_event_bytes, re_rate_event_bytes, true_up_event_bytes
from tests.support.engine import LONG_AGO, MICRO_USD, budget, config, usd
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(1_000))
# Nobody priced `mystery`; budgets count it at the dearest configured model, `big`: 1 and 2 micro-USD a token.
GUARD = 1_000 * 1 + 300 * 2
MYSTERY = PriceOverride("mystery", LONG_AGO, {"input": 3_000_000, "output": 5_000_000})
REAL = 1_000 * 3 + 300 * 5


def priced(*prices: PriceOverride, version: str = "v2") -> Config:
    """The configuration once these prices were appended."""
    known = config(TEAM)
    return replace(known, version=version, prices=(*known.prices, *prices))


class Bench:
    """A stack, the hub's numbering and the services that re-rate."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.sequence = 0
        ledger, rows = stack.ledger, StandingRows(stack.tables.ledger)
        self.service = RerateService(lambda: stack.snapshot, ledger.hours, ledger.reader, rows, stack.publish)
        self.rollups = RollupJob(stack.tables, ledger.hours, ledger.reader)

    async def deliver(self, *events: bytes) -> None:
        """One batch to ingest."""
        batch = [delivery(event, self.sequence + at) for at, event in enumerate(events)]
        self.sequence += len(events)
        await self.stack.ingest.run(batch)

    async def delivered(self) -> int:
        """What was published, to ingest."""
        events, self.stack.published = self.stack.published, []
        await self.deliver(*events)
        return len(events)

    async def run(self) -> RerateReport:
        """The timer, after the rollup's."""
        await self.rollups.run()
        self.stack.ledger.hours._marked.clear()  # as if the marks of before had grown old: this index waits for none
        return await self.service.run()

    async def rows(self) -> list[LedgerRow]:
        end = datetime.now(UTC) + timedelta(hours=2)
        return [row async for row in self.stack.ledger.rows("acme", LONG_AGO, end)]

    async def kinds(self) -> Counter[str]:
        return Counter(row.kind for row in await self.rows())

    async def assert_bill(
        self, micro_usd: int, *, requests: int = 1, unpriced: int = 0, at: datetime | None = None
    ) -> None:
        """Rows, sums and the month's counter say the same; the counter is right after a rebuild too."""
        rows = await self.rows()
        assert sum(row.cost_nano_usd or 0 for row in rows) == micro_usd * MICRO_USD
        end = datetime.now(UTC) + timedelta(hours=2)
        [sums] = await Summaries(self.stack.ledger.reader).summarize("acme", LONG_AGO, end, ["tenant"])
        assert (sums["requests"], sums["unpriced"]) == (requests, unpriced)
        if not unpriced:
            assert round(float(sums["cost"]) * 1e9) == micro_usd * MICRO_USD
            assert sum(row.charge_nano_usd for row in rows) == micro_usd * MICRO_USD
        charged = sum(row.charge_nano_usd for row in rows)
        assert await self.counter(at) == charged
        await self.stack.repair.reconcile("acme")
        assert await self.counter(at) == charged

    async def statement(self, period: str) -> Statement:
        """A month's statement in USD, without pools, markup or tax."""
        builder = StatementBuilder(self.stack.ledger.reader, self.stack.ledger.periods.is_frozen)
        bill = await builder.build(Basis(tenant="acme", period=period), "draft", datetime.now(UTC), with_charges=False)
        bill.close()
        return bill.statement

    async def counter(self, at: datetime | None) -> int:
        instant = at or datetime.now(UTC)
        [cell] = self.stack.snapshot.index.cells_of_call("acme", {"team": "search"}, "mystery", instant.timestamp())
        return (await self.stack.store.figures("acme", cell))[0]


@pytest.fixture
async def bench(redis_server, azurite) -> AsyncIterator[Bench]:
    """Tenant acme with one team budget, ready, on empty stores; hours are rolled up at once."""
    async with open_stack(redis_server.url, azurite.connection_string, config(TEAM)) as stack:
        stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
        stack.wire()
        yield Bench(stack)


async def test_an_unknown_model_is_re_rated_when_its_price_lands(bench):
    """Guard price first, cost unknown; then a price is appended, and rows, sums, counter and rebuild show the real cost
    to the nano-dollar: 1,000 x 3 + 300 x 5 micro-USD. Before the price, and after the re-rate, nothing is asked for."""
    await bench.deliver(usage_bytes("a", 1_000, 300, model="mystery"))
    await bench.assert_bill(0, unpriced=1)
    assert await bench.counter(None) == GUARD * MICRO_USD
    assert (await bench.run()).calls == 0
    bench.stack.configure(priced(MYSTERY))
    report = await bench.run()
    assert (report.newly_priced, report.cost_difference_nano_usd) == (1, REAL * MICRO_USD)
    assert report.charge_difference_nano_usd == (REAL - GUARD) * MICRO_USD
    assert await bench.delivered() == 1
    await bench.assert_bill(REAL)
    rows = {row.kind: row for row in await bench.rows()}
    assert rows["re_rate"].unit_pico == {"input": 3_000_000, "output": 5_000_000}
    assert (rows["re_rate"].who, rows["reversal"].cost_nano_usd) == ("tollkeeper", None)
    statement = await bench.statement(month_of(datetime.now(UTC)))
    assert (statement.total_nano, statement.team_ids) == (REAL * MICRO_USD, ("search",))
    assert (await bench.run()).calls == 0


async def test_the_event_again_changes_nothing(bench):
    """Redelivered, sent twice, asked for by two runs: one reversal and one re-rate."""
    await bench.deliver(usage_bytes("a", 1_000, 300, model="mystery"))
    bench.stack.configure(priced(MYSTERY))
    await bench.run()
    again = list(bench.stack.published)
    await bench.service.run(datetime.now(UTC) + timedelta(hours=1))
    await bench.delivered()
    batch = [delivery(event, at) for at, event in enumerate([usage_bytes("b", 1), *again], start=10)]
    for _ in range(3):
        await bench.stack.ingest.run(batch)
    assert await bench.kinds() == {"usage": 2, "reversal": 1, "re_rate": 1}
    assert await bench.stack.dead_letters.list() == []
    await bench.assert_bill(REAL + 1, requests=2)


async def test_a_closed_month_gets_both_rows_in_the_open_one(bench):
    """The correction is booked into the open month, the counter of the call's own month moves."""
    last_month = month_before(month_of(datetime.now(UTC)))
    at = datetime.fromisoformat(f"{last_month}-28T12:00:00+00:00")
    await bench.deliver(usage_bytes("a", 1_000, 300, model="mystery", time_utc=at))
    await bench.stack.ledger.periods.freeze("acme", last_month)
    bench.stack.configure(priced(MYSTERY))
    await bench.run()
    await bench.delivered()
    booked = {row.kind: row.booked_period for row in await bench.rows()}
    this_month = month_of(datetime.now(UTC))
    assert booked == {"usage": last_month, "reversal": this_month, "re_rate": this_month}
    await bench.assert_bill(REAL, at=at)
    assert ((await bench.statement(last_month)).total_nano, (await bench.statement(this_month)).total_nano) == (
        0,
        REAL * MICRO_USD,
    )
    corrections = [
        (each.correction, each.month, each.owed_nano) for each in (await bench.statement(this_month)).corrections
    ]
    assert corrections == [("negative", last_month, 0), ("new", last_month, REAL * MICRO_USD)]


async def test_a_corrected_price_is_asked_for_by_month_and_model(bench):
    """A dry run says count and difference and publishes nothing; the request itself makes it so, once per key."""
    at = datetime.now(UTC).replace(microsecond=0)
    await bench.deliver(
        *(usage_bytes(f"c{n}", 100, 10, time_utc=at) for n in range(30)), usage_bytes("s", 100, model="small")
    )
    dearer = PriceOverride("big", LONG_AGO, {"input": 4_000_000, "output": 2_000_000})
    known = config(TEAM)
    bench.stack.configure(replace(known, version="v2", prices=(dearer, known.prices[1])))
    span: Any = ("acme", at - timedelta(hours=1), at + timedelta(hours=1), "oid-1", "the list was wrong")
    difference = 30 * 100 * (4 - 1) * MICRO_USD
    for model, changed_calls in (("big", 30), ("small", 0), (None, 30)):
        dry = await bench.service.re_rate(*span, key="k", model=model, dry_run=True)
        assert (dry.changed, dry.cost_difference_nano_usd) == (changed_calls, difference if changed_calls else 0)
    assert bench.stack.published == []
    await bench.service.re_rate(*span, key="k", model="big")
    assert await bench.delivered() == 30
    await bench.service.re_rate(*span, key="k", model="big")
    assert await bench.delivered() == 0
    assert await bench.kinds() == {"usage": 31, "reversal": 30, "re_rate": 30}
    await bench.assert_bill(30 * (100 * 4 + 10 * 2) + 10, requests=31)
    [one] = {(row.who, row.why) for row in await bench.rows() if row.kind == "re_rate"}
    assert one == ("oid-1", "the list was wrong")
    with pytest.raises(InvalidRequest, match="why"):
        await bench.service.re_rate(*span[:4], " ", key="k")


async def test_a_price_that_went_away_takes_no_cost_back(bench):
    """A known cost never becomes an unknown one because somebody removed a line of the configuration."""
    await bench.deliver(usage_bytes("a", 100))
    known = config(TEAM)
    bench.stack.configure(replace(known, version="v2", prices=()))
    at = datetime.now(UTC)
    await bench.service.re_rate("acme", at - timedelta(hours=2), at, "oid-1", "why not", key="k")
    assert bench.stack.published == []


async def test_a_worker_with_an_old_configuration_reads_it_first(bench):
    """The asker knew the price, the worker does not yet: rated by the old one the call would stay unpriced."""
    await bench.deliver(usage_bytes("a", 1_000, 300, model="mystery"))
    bench.stack.configure(priced(MYSTERY))
    await bench.run()
    bench.stack.configure(config(TEAM))

    async def refresh() -> None:
        bench.stack.configure(priced(MYSTERY))

    bench.stack.ingest._adjuster._refresh = refresh
    await bench.delivered()
    await bench.assert_bill(REAL)


async def test_a_re_rate_of_nothing_is_a_dead_letter(bench):
    """It names no call, or a grant: nothing is billed for it."""
    at = datetime.now(UTC)
    event = re_rate_event_bytes("x", "nobody", at, tenant="acme", run="0" * 12, config_version="v1", who="w", why="y")
    await bench.deliver(event)
    assert [letter["code"] for letter in await bench.stack.dead_letters.list()] == ["call_unknown"]


@pytest.mark.parametrize("first", ["re-rate", "true-up"])
async def test_a_stream_without_a_price_is_trued_up_and_re_rated_in_either_order(bench, first):
    """Accrued at its estimate and the guard price; its measurement and its price arrive in either order, or in one
    batch: in the end 812 x 3 + 240 x 5 micro-USD stand, measured."""
    at = datetime.now(UTC).replace(microsecond=0)
    event = changed(usage_bytes("a", 0, model="mystery", time_utc=at), usage=None, streamed=True)
    await bench.deliver(event)
    bench.stack.configure(priced(MYSTERY))
    await bench.run()
    re_rates, bench.stack.published = bench.stack.published, []
    true_up = true_up_event_bytes("apim/test", "a", at, tenant="acme", prompt_tokens=812, completion_tokens=240)
    events = [*re_rates, true_up] if first == "re-rate" else [true_up, *re_rates]
    await bench.deliver(*events)
    await bench.deliver(*reversed(events))
    await bench.assert_bill(812 * 3 + 240 * 5)
    standing = [row async for row in StandingRows(bench.stack.tables.ledger).of_hour(f"{at:%Y%m%d%H}", "acme")]
    assert [(row.kind, row.measured) for row in standing] == [("true_up", True)]
    assert await bench.stack.dead_letters.list() == []


async def test_any_order_of_everything_on_several_workers_ends_exact(bench):
    """Calls, streams, true-ups, re-rates of several runs under changing prices, redelivered and delivered on two
    partitions by two workers at once: each call has one row that bills it, at a price that was in force for it, and
    rows, sums and counters agree to the nano-dollar."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    at = datetime.now(UTC).replace(microsecond=0)
    other = Stack.__new__(Stack)
    other.__dict__.update(bench.stack.__dict__)
    other.wire()
    prices = [
        PriceOverride("mystery", LONG_AGO, {"input": usd_ * 1_000_000, "output": 1_000_000}) for usd_ in (3, 7, 4)
    ]
    calls = [f"call-{number}" for number in range(16)]
    streams = set(calls[::2])
    events: list[list[bytes]] = []
    for id_ in calls:
        event = usage_bytes(id_, 100, 10, model="mystery", time_utc=at)
        await bench.deliver(changed(event, usage=None, streamed=True) if id_ in streams else event)
        mine = [
            re_rate_event_bytes(
                "apim/test", id_, at, tenant="acme", run=f"{n:012x}", config_version="v1", who="w", why="y"
            )
            for n in range(4)
        ]
        if id_ in streams:
            mine.append(true_up_event_bytes("apim/test", id_, at, tenant="acme", prompt_tokens=50, completion_tokens=5))
        events.append([event for event in mine for _ in range(rng.randint(1, 3))])
    steps = [event for mine in events for event in mine]
    rng.shuffle(steps)
    sequences = [1_000, 1_000]
    while steps:
        batches = []
        for partition in (0, 1):
            taken = [steps.pop() for _ in range(min(len(steps), rng.randint(1, 12)))]
            batch = [delivery(e, sequences[partition] + n, partition=partition) for n, e in enumerate(taken)]
            sequences[partition] += len(batch)
            batches.append(batch)
        bench.stack.configure(priced(rng.choice(prices)))
        other.configure(priced(rng.choice(prices)))
        mixed = rng.random() < 0.3  # when a partition changes hands its old owner may still run
        await asyncio.gather(bench.stack.ingest.run(batches[0]), other.ingest.run(batches[0] if mixed else batches[1]))
        if mixed:
            await other.ingest.run(batches[1])
    last = priced(prices[1])
    bench.stack.configure(last)
    other.configure(last)
    await bench.service.re_rate("acme", at - timedelta(hours=2), at + timedelta(hours=1), "w", "y", key="last")
    await bench.delivered()
    await bench.stack.repair.run()
    assert await bench.stack.dead_letters.list() == []
    truth = 8 * (100 * 7 + 10) + 8 * (50 * 7 + 5)
    await bench.assert_bill(truth, requests=16)
    standing = [row async for row in StandingRows(bench.stack.tables.ledger).of_hour(f"{at:%Y%m%d%H}", "acme")]
    assert sorted(row.call_id or row.id for row in standing) == sorted(calls)
    assert {row.call_id for row in standing if row.kind == "accrual"} == set()


async def test_a_correction_is_on_the_bill_and_on_no_budget(bench):
    """An amount that no call explains: cost to the nano-dollar, no request, no charge; its sentence stands in the sums;
    of a closed month it is booked into the open one. Another amount under its id is refused."""
    last_month = month_before(month_of(datetime.now(UTC)))
    day = datetime.fromisoformat(f"{last_month}-20T00:00:00+00:00")
    await bench.stack.ledger.periods.freeze("acme", last_month)
    why = "invoice of October, meter x"
    fields: Any = {"tenant": "acme", "who": "tollkeeper", "why": why, "scopes": {"team": "search"}}

    def correction(nano_usd: int) -> bytes:
        return correction_event_bytes("tollkeeper/reconciliation/acme", "1", day, amount_nano_usd=nano_usd, **fields)

    await bench.deliver(usage_bytes("a", 100), correction(-12_345), correction(-12_345))
    await bench.deliver(correction(-12_346))
    assert [letter["code"] for letter in await bench.stack.dead_letters.list()] == ["id_conflict"]
    assert await bench.counter(None) == await bench.counter(day) + 100 * MICRO_USD == 100 * MICRO_USD
    end = datetime.now(UTC) + timedelta(hours=2)
    cells = [cell async for cell in bench.stack.ledger.reader.cells("acme", LONG_AGO, end)]
    [corrected] = [cell for cell in cells if cell.remark]
    assert (corrected.remark, corrected.correction) == (why, "adjustment")
    assert (corrected.cost_nano_usd, corrected.charge_nano_usd, corrected.requests) == (-12_345, 0, 0)
    statement = await bench.statement(month_of(datetime.now(UTC)))
    assert statement.total_nano == 100 * MICRO_USD - 12_345
