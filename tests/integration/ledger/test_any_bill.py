"""Any months at all, by real ingest on real stores: after every step ledger, summary, counters and statements agree.

Calls come early, late, twice and out of order; streams are measured, prices land and change, budgets refuse, invoices
are corrected, months close in any order and two at once, hours are rolled up or not. Nothing may be billed twice or
never, and what was published of a closed month stays.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from shared.config.billing import Billing, Percent, Pool, PoolTerm, SharedCost, SharedTerm
from shared.config.model import Config, Discount, ExchangeRate, Model, PriceOverride, Team, Tenant
from shared.ledger.hours import HourIndex
from shared.ledger.rerate import RerateService
from shared.ledger.rollup import CALLS, RollupCell, correction_of
from shared.ledger.rollup_job import RollupJob
from shared.ledger.row import LedgerRow
from shared.ledger.standing_rows import StandingRows
from shared.ledger.summary import Summaries
from shared.money import PICO_PER_NANO, decimal_from_nano, nano_from_decimal, scale_half_up
from shared.months import month_before, month_of, month_span
from shared.reports.allocation import pool_cost_nano_usd, shared_cost_nano_usd
from shared.reports.bill import Bill
from shared.reports.building import StatementBuilder
from shared.reports.close import CloseService
from shared.reports.publishing import Publisher, rendered
from shared.reports.service import Reports
from shared.reports.statement import UNASSIGNED
from shared.usage.build import correction_event_bytes, refusal_event_bytes, true_up_event_bytes
from tests.support.engine import LONG_AGO, budget, usd
from tests.support.read_files import amounts_due
from tests.support.reports import MemoryFiles, Settled, asked_formats
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
RUNNING = month_of(NOW)
MONTHS = [RUNNING]
for _ in range(3):
    MONTHS.insert(0, month_before(MONTHS[0]))
FIRST = month_span(MONTHS[0])[0]
PPM = 1_000_000
STEPS = 20
TENANTS = ("acme", "beta")
HOSTILE = "=1+1\u202e/../x"
TEAMS = ("search", "shop", HOSTILE, "")
# Prices that no number of tokens makes whole nano-dollars of.
BIG = PriceOverride("big", LONG_AGO, {"input": 1_333_333, "output": 2_777_777, "cached_input": 137_501})
SMALL = PriceOverride("small", LONG_AGO, {"input": 100_001, "output": 200_499, "cached_input": 50_001})
MYSTERY = PriceOverride("mystery", LONG_AGO, {"input": 3_141_593, "output": 5_000_001})
MIDDLE = month_span(MONTHS[1])[0] + timedelta(days=14)  # of the second month
FORMATS = {name: form for name, form in asked_formats().items() if name in ("json", "focus")}


def configuration(tenant: str = "acme") -> Config:
    """Acme pays in euros, has discounts, two pools, three shared costs, markup and tax; beta has none of it."""
    terms = (PoolTerm(FIRST, 2, 1_250_000_001), PoolTerm(MIDDLE, 3, 999_999_999), PoolTerm(NOW, 0))
    shared = [
        SharedCost(by, tenant, by, by, (SharedTerm(FIRST, 77_000_000_007), SharedTerm(MIDDLE, 3_000_000_001)))
        for by in ("tokens", "cost", "even")
    ]
    shared[1] = replace(shared[1], exclude=frozenset({"shop"}))
    pools = (
        Pool("ptu", tenant, "PTU", "ptu", frozenset({"PTU-1"}), terms, {"output": 4_000}, {}, 3, "proportional"),
        Pool(
            id="flat",
            tenant=tenant,
            label="Flat",
            kind="fixed",
            deployments=frozenset({"flat-1"}),
            terms=(PoolTerm(MIDDLE, usd_per_month_nano=100_000_000_001),),
        ),
    )
    return Config(
        "v1",
        {"acme": Tenant("acme", currency="EUR"), "beta": Tenant("beta")},
        {"search": Team("search", "acme", "CC-1"), "idle": Team("idle", "acme", "CC-2")},
        (budget("team:*", usd(10**6), period="total"), budget("team:search", usd(10**6), timezone="Asia/Kolkata")),
        {
            "big": Model("big", deployments=("big-1", "ptu-1"), capabilities=frozenset({"chat"})),
            "small": Model("small", deployments=("small-1", "flat-1"), capabilities=frozenset({"chat"})),
        },
        prices=(BIG, SMALL),
        discounts=(
            Discount(effective_from=MIDDLE, off_ppm=123_457, model="big", tenant="acme"),
            Discount(effective_from=month_span(MONTHS[2])[0], off_ppm=0, model="big", tenant="acme"),
        ),
        rates=(
            ExchangeRate("EUR", FIRST, 1_170_000_001, "test"),
            ExchangeRate("EUR", month_span(MONTHS[2])[0], 1_083_333_333, "test"),
        ),
        billing=Billing(
            markup=(Percent(33_333, FIRST, "Fee", tenant),),
            tax=(Percent(210_001, FIRST, "VAT", tenant),),
            pools=pools,
            shared=tuple(shared),
        ),
    )


class ReadOnce:
    """The ledger's sums; between `hold` and `release` each tenant's are read once, as nothing happens then."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._held: dict[str, list[RollupCell]] | None = None

    async def hold(self, tenants: Sequence[str], *, thorough: bool) -> None:
        reader = self._stack.ledger.reader
        end_utc = NOW + timedelta(hours=2)
        self._held = {t: [cell async for cell in reader.cells(t, FIRST, end_utc)] for t in tenants}
        for tenant in tenants if thorough else ():  # who asks for less must miss nothing that another month carries
            less = [cell async for cell in reader.cells(tenant, FIRST, end_utc, booked_later=True)]
            assert _late(less) == _late(self._held[tenant])

    def release(self) -> None:
        self._held = None

    async def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        if self._held is None:
            async for cell in self._stack.ledger.reader.cells(tenant, start_utc, end_utc, booked_later=booked_later):
                yield cell
        else:
            for cell in self._held[tenant]:
                if start_utc <= cell.quarter_utc < end_utc:
                    yield cell


class World:
    """The services, what happened so far, and what must hold of it."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack, self.random = stack, random.Random(seed)
        self.sequence = self.calls = 0
        self.sent: list[bytes] = []
        self.streams: list[tuple[str, str, datetime]] = []
        self.files = MemoryFiles()
        self.published: dict[str, dict[str, bytes]] = {}  # "tenant/month/" -> blobs, of closed months
        self.wire()

    def wire(self) -> None:
        """The services of a worker that just started."""
        self.stack.wire()
        ledger = self.stack.ledger
        self.read = ReadOnce(self.stack)
        builder = StatementBuilder(self.read, ledger.periods.is_frozen)
        publisher = Publisher(self.files, FORMATS)
        self.reports = Reports(
            lambda: self.stack.snapshot.config, builder, ledger.periods, self.files, publisher, Settled()
        )
        self.closer = CloseService(
            lambda: self.stack.snapshot.config,
            self.reports,
            builder,
            ledger.periods,
            self.files,
            publisher,
            Settled(),
            fence_seconds=0,
        )
        rows = StandingRows(self.stack.tables.ledger)
        self.rerates = RerateService(lambda: self.stack.snapshot, ledger.hours, ledger.reader, rows, self.stack.publish)

    # -- what may happen

    async def step(self) -> str:
        """One thing, at random; returns its name."""
        names = ["call"] * 8 + ["stream", "true_up", "refuse", "correct", "again", "roll_up", "roll_up", "price"]
        names += ["re_rate", "close", "close", "close_two", "publish", "restart", "rebuild", "reconfigure"]
        name = self.random.choice(names)
        await getattr(self, name)()
        return name

    def _when(self) -> datetime:
        """One of few hours, often the first or last instant of a month."""
        start, end = month_span(self.random.choice(MONTHS))
        at = self.random.choice([start, end - timedelta(milliseconds=1), start + timedelta(days=20, minutes=14)])
        return min(at, NOW - timedelta(hours=1))

    async def deliver(self, *events: bytes) -> None:
        batch = [delivery(event, self.sequence + at) for at, event in enumerate(events)]
        self.sequence += len(events)
        await self.stack.ingest.run(batch)

    def _call(self, **data: Any) -> tuple[str, datetime, bytes]:
        self.calls += 1
        tokens, team = self.random.choice([1, 7, 999, 123_457]), self.random.choice(TEAMS)
        model = self.random.choice(["big", "small", "mystery"])
        deployment = {"big": ["big-1", "ptu-1"], "small": ["small-1", "flat-1", "FLAT-1"]}.get(model, [""])
        fields: dict[str, Any] = {
            "tenant": "acme" if self.random.random() < 0.85 else "beta",
            "scopes": {"team": team} if team else {},
            "model": model,
            "requested_model": "big" if self.random.random() < 0.2 else model,
            "decision": self.random.choice(["allow", "downgrade"]),
            "deployment": self.random.choice(deployment),
            "processing_tier": self.random.choice(["", "", "batch"]) or None,
            "status": self.random.choice([200] * 9 + [500]),
        }
        name, when = f"c{self.calls}", self._when()
        body = usage_bytes(name, tokens, self.random.choice([0, 3]), time_utc=when, **fields | data)
        self.sent.append(body)
        return name, when, body

    async def call(self) -> None:
        await self.deliver(*(self._call()[2] for _ in range(self.random.choice([1, 2, 5]))))

    async def stream(self) -> None:
        name, when, body = self._call(status=200, tenant="acme")
        self.sent[-1] = body = changed(body, usage=None, streamed=True)
        self.streams.append((name, "acme", when))
        await self.deliver(body)

    async def true_up(self) -> None:
        if self.streams:
            name, tenant, when = self.random.choice(self.streams)
            body = true_up_event_bytes(
                "apim/test", name, when, tenant=tenant, prompt_tokens=1_001, completion_tokens=len(name)
            )
            await self.deliver(body)

    async def refuse(self) -> None:
        self.calls += 1
        scopes = {"team": self.random.choice(["search", "only refused"])}
        what: dict[str, Any] = {"requested_model": "big", "reason": "budget_exhausted", "status": 402}
        body = refusal_event_bytes(
            "t/refusals", f"r{self.calls}", self._when(), tenant="acme", scopes=scopes, calls=3,
            estimate_nano_usd=1_234_567, **what,
        )  # fmt: skip
        self.sent.append(body)
        await self.deliver(body)

    async def correct(self) -> None:
        self.calls += 1
        amount = self.random.choice([-50_000_000_001, -7, 1, 3_000_000_001])
        scopes = {"team": team} if (team := self.random.choice(TEAMS)) else None
        body = correction_event_bytes(
            "t/invoice", f"i{self.calls}", self._when(), tenant="acme", amount_nano_usd=amount, who="tollkeeper",
            why=self.random.choice(["variance", "rebate"]), scopes=scopes,
            deployment=self.random.choice(["", "ptu-1"]),
        )  # fmt: skip
        self.sent.append(body)
        await self.deliver(body)

    async def again(self) -> None:
        if self.sent:
            await self.deliver(*self.random.choices(self.sent, k=3))

    async def roll_up(self) -> None:
        ledger = self.stack.ledger
        await RollupJob(self.stack.tables, ledger.hours, ledger.reader).run()
        ledger.hours._marked.clear()  # as if the marks of before had grown old: this index waits for none

    async def price(self) -> None:
        """The unknown model's price lands; what had none is rated again."""
        await self.roll_up()
        known = self.stack.snapshot.config
        if MYSTERY not in known.prices:
            self.stack.configure(replace(known, version=f"{known.version}m", prices=(*known.prices, MYSTERY)))
        await self.rerates.run()
        await self._hub()

    async def re_rate(self) -> None:
        """A price was wrong for a month."""
        known = self.stack.snapshot.config
        month = self.random.choice(MONTHS)
        right = {"input": 1_000_000 + self.random.randrange(10**6), "output": 2_000_003, "cached_input": 1}
        other = PriceOverride("big", month_span(month)[0], right)
        rest = tuple(
            each for each in known.prices if (each.model, each.effective_from) != ("big", other.effective_from)
        )
        self.stack.configure(replace(known, version=f"{known.version}r", prices=(*rest, other)))
        await self.rerates.re_rate("acme", FIRST, NOW, "ada", "it was wrong", model="big")
        await self._hub()

    async def _hub(self) -> None:
        events, self.stack.published = self.stack.published, []
        for start in range(0, len(events), 20):
            await self.deliver(*events[start : start + 20])
            if self.random.random() < 0.3:
                await self.deliver(*events[start : start + 20])

    async def _close(self, tenant: str, month: str) -> None:
        await self.closer.close(tenant, month, "ada")
        key = f"{tenant}/{month}/"
        mine = {name: body for name, (body, _) in self.files.files.items() if name.startswith(key)}
        folder = f"{key}{(await self.stack.ledger.periods.closing(tenant, month)).digest}/"
        keep = {name: body for name, body in mine.items() if name.startswith(folder) or name.count("/") == 2}
        assert self.published.setdefault(key, keep) == keep

    async def close(self) -> None:
        await self._close(self.random.choice(TENANTS), self.random.choice(MONTHS[:-1]))

    async def close_two(self) -> None:
        at = self.random.randrange(len(MONTHS) - 2)
        await asyncio.gather(*(self._close("acme", month) for month in MONTHS[at : at + 2]))

    async def publish(self) -> None:
        await self.reports.publish_statements()

    async def restart(self) -> None:
        self.wire()

    async def rebuild(self) -> None:
        """Redis lost everything."""
        await self.stack.client.flushall()
        for tenant in TENANTS:
            await self.stack.repair.reconcile(tenant)
        await self.stack.repair.run()

    async def reconfigure(self) -> None:
        """What a bill is made of changes between drafts and closes."""
        known = self.stack.snapshot.config
        tax = (Percent(self.random.randrange(300_000), FIRST, "VAT", "acme"),)
        currency = self.random.choice(["EUR", "USD"])
        tenants = {**known.tenants, "acme": replace(known.tenants["acme"], currency=currency)}
        billing = replace(known.billing, tax=tax)
        self.stack.configure(replace(known, version=f"{known.version}c", tenants=tenants, billing=billing))

    # -- what must hold

    async def check(self, *, files: bool = False) -> None:
        end = NOW + timedelta(hours=2)
        rows = [row async for row in self.stack.ledger.rows(None, FIRST - timedelta(days=1), end)]
        tenants = TENANTS if files else TENANTS[:1]  # beta's bill is plain
        await self.read.hold(tenants, thorough=files)
        for tenant in tenants:
            mine = [row for row in rows if row.tenant == tenant]
            booked: defaultdict[str, list[LedgerRow]] = defaultdict(list)
            for row in mine:
                booked[row.booked_period].append(row)
            assert set(booked) <= set(MONTHS)
            await self._check_summary(tenant, booked)
            for month in MONTHS:
                await self._check_month(tenant, month, booked[month], files=files)
            await self._check_counters(tenant, mine)
        self.read.release()
        for key, blobs in self.published.items():
            assert {name: self.files.files[name][0] for name in blobs} == blobs, f"{key} changed"

    async def _check_summary(self, tenant: str, booked: dict[str, list[LedgerRow]]) -> None:
        sums = await Summaries(self.read).summarize(tenant, FIRST, NOW + timedelta(hours=2), ["booked_period"])
        for row in sums:
            mine = booked[row["booked_period"]]
            assert nano_from_decimal(row["cost"] or 0) == sum(each.cost_nano_usd or 0 for each in mine)
            assert row["requests"] == sum(CALLS.get(each.kind, 0) for each in mine)
            assert row["refused"] == sum(each.refused for each in mine)
        assert {row["booked_period"] for row in sums} == {month for month, mine in booked.items() if mine}

    async def _check_counters(self, tenant: str, rows: list[LedgerRow]) -> None:
        spent: Counter[str] = Counter()
        for row in rows:
            spent[row.scopes.get("team", "")] += row.charge_nano_usd
        for team in filter(None, spent):
            cells = self.stack.snapshot.index.cells_of_call(tenant, {"team": team}, "big", NOW.timestamp())
            [cell] = [cell for cell in cells if cell.family.period == "total"]
            assert (await self.stack.store.figures(tenant, cell))[0] == spent[team], team

    async def _check_month(self, tenant: str, month: str, rows: list[LedgerRow], *, files: bool) -> None:
        bill = await self.reports.bill(tenant, month, NOW)
        try:
            charges = list(bill.charges())
            statement, bridge = bill.statement, bill.statement.bridge
            ledger = sum(row.cost_nano_usd or 0 for row in rows)
            assert bridge.ledger_nano_usd == ledger == sum(charge.ledger_nano_usd for charge in charges)
            assert statement.totals.requests == sum(CALLS.get(row.kind, 0) for row in rows)
            assert sum(day.ledger_nano_usd for day in statement.days) == sum(
                row.cost_nano_usd or 0 for row in rows if not correction_of(row)
            )
            assert sum(saving.calls for saving in statement.savings if saving.decision == "refuse") == sum(
                row.refused for row in rows
            )
            self._check_corrections(bill, rows)
            self._check_charges(bill)
            await self._check_bridge(bill)
            assert all(missing.calls > 0 for missing in statement.unpriced)
            assert sum(missing.calls for missing in statement.unpriced) >= sum(
                _unpriced(row) for row in rows if not correction_of(row)
            )
            by_team = list(statement.by_team())
            assert sum(part.total_nano for _, part in by_team) == statement.total_nano
            if files:
                due = Decimal(decimal_from_nano(statement.total_nano))
                assert set(amounts_due(statement, charges).values()) == {due}
                for team, part in self.random.choices(by_team, k=min(1, len(by_team))):
                    due = Decimal(decimal_from_nano(part.total_nano))
                    assert set(amounts_due(part, list(bill.charges([team]))).values()) == {due}, team
                manifest = self.files.files.get(f"{tenant}/{month}/manifest.json")
                if statement.status == "final" and manifest is not None:
                    async with rendered(bill, FORMATS) as (again, _):
                        assert again.digest.encode() in manifest[0], f"{tenant} {month} is not what was published"
        finally:
            bill.close()

    def _check_corrections(self, bill: Bill, rows: list[LedgerRow]) -> None:
        wanted: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            if kind := correction_of(row):
                wanted[row.scopes.get("team") or UNASSIGNED, kind, month_of(row.time_utc)] += row.cost_nano_usd or 0
        found: Counter[tuple[str, str, str]] = Counter()
        for line in bill.statement.corrections:
            found[line.team, line.correction, line.month] += line.usage.cost_nano_usd
        assert +found == +wanted
        assert -found == -wanted

    def _check_charges(self, bill: Bill) -> None:
        for team, part in bill.statement.by_team():
            charges = list(bill.charges([team]))
            assert {charge.team for charge in charges} <= {team}
            assert sum(charge.billed_pico for charge in charges) == part.total_nano * PICO_PER_NANO
            assert sum(charge.effective_pico for charge in charges) == part.total_nano * PICO_PER_NANO
            for charge in charges:
                if charge.price_pico is not None:
                    covered = charge.commitment_status == "Used"
                    assert charge.billed_pico == (0 if covered else charge.tokens * charge.price_pico)
            [*_] = (charge for charge in charges if charge.commitment_status == "Used" and not charge.commitment_id)
            assert part.bridge.covered_nano == -sum(line.covered_nano for line in (*part.lines, *part.corrections))

    async def _check_bridge(self, bill: Bill) -> None:
        statement, bridge = bill.statement, bill.statement.bridge
        pinned = await self.reports.pinned_basis(statement.tenant, statement.period)
        basis = await self.reports.basis(statement.tenant, statement.period)
        if statement.status == "final" and pinned is not None:
            basis = pinned.basis
        start, end = month_span(statement.period)
        until = min(end, NOW)

        def converted(nano_usd: int) -> int:
            return scale_half_up(nano_usd, 10**9, basis.usd_per_unit_nano)

        pools = sum(converted(pool_cost_nano_usd(pool, start, until, (start, end))) for pool in basis.pools)
        shared = sum(converted(shared_cost_nano_usd(cost, start, until, (start, end))) for cost in basis.shared)
        assert bridge.pools_nano + bridge.idle_nano == pools
        assert bridge.shared_nano == shared
        owed = bridge.usage_nano + bridge.corrections_nano + bridge.covered_nano
        covered = sum(charge.ledger_nano_usd for charge in bill.charges() if charge.commitment_status == "Used")
        assert owed == converted(bridge.ledger_nano_usd - covered)
        owed += pools + shared
        markup = 0 if basis.markup is None else scale_half_up(owed, basis.markup.ppm, PPM)
        assert bridge.markup_nano == markup
        owed += markup
        assert bridge.tax_nano == (0 if basis.tax is None else scale_half_up(owed, basis.tax.ppm, PPM))
        assert bridge.total_nano == statement.total_nano == owed + bridge.tax_nano


def _late(cells: Sequence[RollupCell]) -> int:
    return sum(cell.cost_nano_usd for cell in cells if cell.booked_period != month_of(cell.quarter_utc))


def _unpriced(row: LedgerRow) -> int:
    return 0 if row.cost_nano_usd is not None else -1 if row.kind == "reversal" else 1


@asynccontextmanager
async def world(redis_url: str, storage: str, seed: int) -> AsyncIterator[World]:
    """A world in which nothing has happened."""
    async with open_stack(redis_url, storage, configuration(), tenants=TENANTS) as stack:
        stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
        yield World(stack, seed)


@pytest.mark.parametrize("seed", [0, 2])
async def test_whatever_happens_the_books_agree(redis_server: Any, azurite: Any, seed: int) -> None:
    """Random steps, checked after each; at the end the files of every month, and of a team, too."""
    async with world(redis_server.url, azurite.connection_string, seed) as each:
        happened: list[str] = []
        for _ in range(STEPS):
            happened.append(await each.step())
            try:
                await each.check()
            except AssertionError as error:
                error.add_note(f"seed {seed}: {' '.join(happened)}")
                raise
        await each.check(files=True)
