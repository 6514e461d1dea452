"""Counters from the ledger alone: an empty Redis, a budget that came later, a carry, a balance brought along."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from shared.budgets.periods import period_at, previous_period
from shared.budgets.reset import ResetService
from shared.budgets.spend import SpendService
from shared.config.model import Budget
from shared.ledger.hours import HourIndex
from shared.ledger.rollup_job import RollupJob
from shared.usage.first_heard import FirstHeard
from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

BUDGETS = (
    budget("team:*", usd(1_000)),
    budget("team:*", usd(1_000), period="day", timezone="Asia/Kolkata"),
    budget("user:*", usd(1_000), period="total"),
    budget("tenant:acme", usd(1_000), period="day"),
    budget("model:*", usd(1_000), period="hour"),
)


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme on empty stores; hours may be rolled up at once."""
    async with open_stack(redis_server.url, azurite.connection_string, config(*BUDGETS)) as stack:
        stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
        stack.wire()
        yield stack


class Spending:
    """Calls over the last 30 hours, and what arithmetic says each scope spent since an instant."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.calls: list[tuple[float, dict[str, str], int]] = []  # when, scopes, nano-USD

    def events(self, count: int) -> list[bytes]:
        """That many new calls."""
        now_s, bodies = time.time(), []
        for _ in range(count):
            # A quarter of them right now, so that the running hour has some; whole milliseconds survive JSON.
            age_s = self._rng.choice([0, *[self._rng.randrange(30 * 3600) for _ in range(3)]])
            at_s = int(now_s) - age_s
            scopes = {"team": self._rng.choice(["search", "ads"]), "user": f"u-{self._rng.randrange(4)}"}
            model, micro = self._rng.choice([("big", 10), ("small", 1)])
            prompt = self._rng.randint(1, 900)
            body = usage_bytes(
                f"s{len(self.calls)}",
                prompt * 10,
                time_utc=datetime.fromtimestamp(at_s, UTC),
                scopes=scopes,
                model=model,
            )
            bodies.append(body)
            self.calls.append((at_s, {**scopes, "model": model, "tenant": "acme"}, prompt * micro * MICRO_USD))
        return bodies

    def spent(self, rule: Budget, key: str) -> int:
        """What the open period of this budget has seen of the scope."""
        start_s = period_at(rule.period, rule.timezone, time.time()).start_s
        return sum(cost for at_s, scopes, cost in self.calls if scopes.get(rule.scope_type) == key and at_s >= start_s)


async def assert_counters(stack: Stack, spending: Spending, budgets: tuple[Budget, ...]) -> None:
    """Every open counter of every budget says what arithmetic says, and none is missing."""
    now_s = time.time()
    cells = {}
    for cell in await stack.store.cells("acme", int(now_s * 1000)):
        if cell.period.start_s <= now_s < cell.period.end_s:
            family = (cell.family.scope_type, cell.family.period, cell.family.zone)
            cells[family, cell.scope_key] = (await stack.store.figures("acme", cell))[0]
    wanted = {}
    for rule in budgets:
        for key in {scopes[rule.scope_type] for _, scopes, _ in spending.calls}:
            if spent := spending.spent(rule, key):
                wanted[(rule.scope_type, rule.period, rule.timezone), key] = spent
    assert {name: spent for name, spent in cells.items() if spent} == wanted


async def ingest(stack: Stack, bodies: list[bytes], *, start: int = 0) -> None:
    """Deliver events on one partition."""
    for at in range(0, len(bodies), 200):
        await stack.ingest.run([delivery(body, start + at + i) for i, body in enumerate(bodies[at : at + 200])])


async def test_an_empty_redis_is_rebuilt_exactly_from_rows_and_rollups(stack):
    """Hours that were rolled up, hours that were not, and a rolled-up hour with a late row all count once.

    Reading a rollup beside its rows counts them twice; reading it instead of late rows forgets those.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    spending = Spending(random.Random(seed))
    await ingest(stack, spending.events(600))
    rolled = await RollupJob(stack.tables, stack.hours, stack.ledger.reader).run()
    assert rolled.published > 10
    stack.hours._marked.clear()  # a worker's memory of its marks has long run out before a rollup may run
    await ingest(stack, spending.events(60), start=600)
    await assert_counters(stack, spending, BUDGETS)
    await stack.client.flushall()
    started = time.monotonic()
    [report] = await stack.repair.run()
    print(f"{report.cells} counters rebuilt in {time.monotonic() - started:.2f} s")
    await assert_counters(stack, spending, BUDGETS)


async def test_a_budget_added_later_starts_with_what_was_spent_before_it(stack):
    """A new budget that starts at zero would let its scope spend the period's money a second time."""
    spending = Spending(random.Random(7))
    await ingest(stack, spending.events(200))
    later = (*BUDGETS, budget("team:*", usd(1_000), period="week"), budget("user:u-1", usd(1_000), period="quarter"))
    stack.configure(config(*later, version="v2"))
    await ingest(stack, spending.events(20), start=200)  # charged to the new counters before they were seeded
    assert [report.reason for report in await stack.repair.run()] == ["new budgets are to be seeded"]
    await ingest(stack, spending.events(20), start=220)
    cells = {
        (cell.family.scope_type, cell.family.period, cell.scope_key): (await stack.store.figures("acme", cell))[0]
        for cell in await stack.store.cells("acme", int(time.time() * 1000))
    }
    for key in ("search", "ads"):
        assert cells["team", "week", key] == spending.spent(later[-2], key)
    assert cells["user", "quarter", "u-1"] == spending.spent(later[-1], "u-1")
    assert await stack.repair.run() == []


async def test_a_budget_seeded_before_every_worker_knew_it_is_seeded_again(stack):
    """A worker on the old configuration does not charge the new counter; a rebuild in that minute must not be the last.

    The new budget is 30 s old when the counters are rebuilt for another reason; then the old worker settles more.
    """
    spending = Spending(random.Random(11))
    await ingest(stack, spending.events(100))
    weekly = budget("team:*", usd(1_000), period="week")
    now = datetime.now(UTC)

    def configure(*budgets: Budget, age_seconds: int) -> None:
        known = config(*budgets, version=str(len(budgets)))
        loaded_at = now - timedelta(seconds=age_seconds)
        stack.configure(msgspec.structs.replace(known, loaded_at_utc=loaded_at))

    configure(*BUDGETS, weekly, age_seconds=30)
    await stack.store.mark_dirty("acme")
    await stack.repair.run()
    await stack.repair.run()
    configure(*BUDGETS, age_seconds=3600)  # the worker that has not heard yet
    await ingest(stack, spending.events(100), start=100)
    configure(*BUDGETS, weekly, age_seconds=61)
    await stack.repair.run()
    await assert_counters(stack, spending, (*BUDGETS, weekly))
    assert await stack.repair.run() == []


async def test_a_rollover_carry_is_exact_before_and_after_a_flush(stack):
    """carry = limit - what the period before spent, from the ledger when the counters are gone."""
    limit = 10_000 * MICRO_USD
    rule = budget("team:search", limit, period="day", rollover=True, rollover_cap_nano=8_000 * MICRO_USD)
    stack.configure(config(rule, version="v2"))
    today = period_at("day", "UTC", time.time())
    yesterday = previous_period(today)
    assert yesterday is not None
    at = datetime.fromtimestamp(yesterday.start_s, UTC) + timedelta(hours=5)
    await ingest(stack, [usage_bytes("y1", 3_000, time_utc=at)])
    await stack.check()  # the first call of the day creates its counter
    await stack.repair.run()
    assert await carry(stack) == (10_000 - 3_000) * MICRO_USD
    await ingest(stack, [usage_bytes("y2", 500, time_utc=at)], start=1)  # late: yesterday is not final yet
    await stack.repair.run()
    assert await carry(stack) == (10_000 - 3_500) * MICRO_USD
    await stack.client.flushall()
    await stack.repair.run()
    await stack.check()
    await stack.repair.run()
    assert await carry(stack) == (10_000 - 3_500) * MICRO_USD


async def carry(stack: Stack) -> int:
    """What team search's budget of the day carried into today."""
    now_s = time.time()
    [today] = [
        cell
        for cell in await stack.store.cells("acme", int(now_s * 1000))
        if cell.scope == "team:search" and cell.period.start_s <= now_s < cell.period.end_s
    ]
    _, _, carries = await stack.store.figures("acme", today)
    return sum(carries.values())


async def test_an_opening_balance_moves_one_counter_survives_a_flush_and_never_the_bill(stack):
    """A reset written into Redis alone comes undone at the next rebuild; one written as cost changes the bill."""
    await ingest(stack, [usage_bytes("a", 100)])
    published: list[bytes] = []

    async def publish(bodies: Any) -> None:
        published.extend(body for _, body in bodies)

    resets = ResetService(
        SpendService(lambda: stack.snapshot, stack.store), publish, FirstHeard(stack.tables.state).time
    )
    who = {"who": "finance@contoso", "key": "k1"}
    await resets.reset("acme", "team:search", why="opening balance", spent="0.5", period="month", **who)
    for _ in range(2):  # the hub may deliver it again
        await ingest(stack, published, start=1)
    for _ in range(2):
        spent = {
            (cell.scope, cell.period.kind): (await stack.store.figures("acme", cell))[0]
            for cell in await stack.store.cells("acme", int(time.time() * 1000))
        }
        assert spent["team:search", "month"] == usd(0.5)
        assert spent["team:search", "day"] == spent["tenant:acme", "day"] == 100 * MICRO_USD
        await stack.client.flushall()
        await stack.repair.run()
    start, end = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) + timedelta(hours=1)
    rows = [row async for row in stack.ledger.rows("acme", start, end)]
    assert sum(row.cost_nano_usd or 0 for row in rows) == 100 * MICRO_USD
    assert [(row.who, row.why) for row in rows if row.kind == "grant"] == [("finance@contoso", "opening balance")]
