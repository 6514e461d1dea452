"""Redis loses everything, or only its last seconds, while calls are checked and events settled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from shared.budgets.keys import tenant_keys
from shared.config.model import Config, Tenant
from shared.errors import StateUnavailable
from shared.ledger.delivery import Delivery
from shared.ledger.repair import RepairService
from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

TENANTS = ("acme", "open")  # acme fails closed, open fails open
PARTITIONS = 2
EVENT_COST = (10 * 1 + 5 * 2) * MICRO_USD
REBUILT_WITHIN_SECONDS = 10


def two_tenants() -> Config:
    """A tenant of each fail mode, with budgets on team and tenant that nobody reaches."""
    known = config(budget("team:*", usd(1_000)), budget("team:*", usd(1_000), period="day"))
    known = msgspec.structs.replace(known, budgets=(*known.budgets, budget("user:*", usd(1_000), period="total")))
    return msgspec.structs.replace(known, tenants={**known.tenants, "open": Tenant("open", fail_mode="open")})


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Both tenants ready on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, two_tenants(), tenants=TENANTS) as stack:
        yield stack


def batches_of(count: int, size: int, *, start: int = 0) -> list[list[Delivery]]:
    """`count` events, tenants and partitions in turn, in batches of one partition, in hub order."""
    logs: list[list[Delivery]] = [[] for _ in range(PARTITIONS)]
    for number in range(start, start + count):
        tenant, partition = TENANTS[number % 2], number // 2 % PARTITIONS
        body = usage_bytes(f"e{number}", 10, 5, tenant=tenant, scopes={"team": "search", "user": f"u-{number % 7}"})
        logs[partition].append(delivery(body, number, partition=partition))
    return [log[at : at + size] for at in range(0, count, size) for log in logs if log[at : at + size]]


async def spent(stack: Stack, tenant: str) -> dict[str, int]:
    """What the counters of a tenant say, summed over the keys of each family."""
    sums: dict[str, int] = {}
    for cell in await stack.store.cells(tenant, int(time.time() * 1000)):
        figures = await stack.store.figures(tenant, cell)
        family = f"{cell.family.scope_type}, {cell.family.period}"
        sums[family] = sums.get(family, 0) + figures[0]
    return sums


async def assert_exact(stack: Stack, events_per_tenant: int) -> None:
    """Every counter family, and the ledger, hold exactly that many events of each tenant."""
    for tenant in TENANTS:
        truth = events_per_tenant * EVENT_COST
        assert await stack.ledger_total_nano_usd(tenant) == truth
        families = ("team, month", "team, day", "user, total")
        assert await spent(stack, tenant) == dict.fromkeys(families, truth)


async def repair_until_ready(repair: RepairService, stack: Stack) -> float:
    """Run the repair timer until no tenant needs it; returns the seconds that took."""
    started = time.monotonic()
    while True:
        await repair.run()
        states = [await stack.store.state(tenant) for tenant in TENANTS]
        if all(state.ready and not state.dirty for state in states):
            return time.monotonic() - started
        assert time.monotonic() - started < REBUILT_WITHIN_SECONDS


class Checking:
    """Checks both tenants without a pause and keeps what was answered, by tenant."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.answers: list[tuple[str, str]] = []

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            for tenant in TENANTS:
                try:
                    answer = await self._stack.check(tenant=tenant, scopes={"team": "search", "user": "u-1"})
                    self.answers.append((tenant, answer.reason))
                except StateUnavailable:
                    self.answers.append((tenant, "503"))
            await asyncio.sleep(0.005)

    def take(self) -> set[tuple[str, str]]:
        """What was answered since the last take."""
        answers, self.answers = self.answers, []
        return set(answers)

    async def next(self) -> set[tuple[str, str]]:
        """What is answered to three rounds of questions that are asked from now on."""
        for rounds in (1, 3):  # the first may have been asked before
            self.take()
            while len(self.answers) < rounds * len(TENANTS):  # noqa: ASYNC110 - a counter says it
                await asyncio.sleep(0.005)
        return self.take()


async def test_a_flush_under_load_is_answered_as_configured_and_repaired_from_the_ledger(stack):
    """Taking empty counters for zero would hand out every budget again; setting them would lose what settles meanwhile.

    FLUSHALL in the middle of checks and ingest: until the rebuild the closed tenant refuses (503) and the open one
    allows; the counters are right within 10 s of the repair's start; redelivering everything afterwards adds nothing.
    """
    batches = batches_of(2_400, 25)
    delivered = 0

    async def ingest() -> None:
        nonlocal delivered
        for batch in batches:
            await stack.ingest.run(batch)
            delivered += 1

    checking = Checking(stack)
    checks, ingesting = asyncio.create_task(checking.run()), asyncio.create_task(ingest())
    while delivered < len(batches) // 4:  # noqa: ASYNC110 - a counter says it; an event would only say it again
        await asyncio.sleep(0.01)
    assert checking.take() == {("acme", "within_budget"), ("open", "within_budget")}

    await stack.client.flushall()
    await stack.client.script_flush()
    assert await checking.next() == {("acme", "503"), ("open", "state_unavailable_open")}

    seconds = await repair_until_ready(stack.repair, stack)
    assert not ingesting.done(), "the rebuild must run while events keep coming"
    assert await checking.next() == {("acme", "within_budget"), ("open", "within_budget")}
    await ingesting
    checks.cancel()
    print(f"rebuilt in {seconds:.2f} s after {delivered} batches")

    for batch in batches_of(2_400, 400):
        await stack.ingest.run(batch)
    await repair_until_ready(stack.repair, stack)
    await assert_exact(stack, 1_200)


async def test_flush_after_flush_never_counts_twice(stack):
    """A rebuild that is itself flushed away, or two in a row, must not leave half of one generation in the next."""
    batches = batches_of(1_200, 50)

    async def ingest() -> None:
        for batch in batches:
            await stack.ingest.run(batch)

    ingesting = asyncio.create_task(ingest())
    while not ingesting.done():
        await asyncio.sleep(0.05)
        repairing = asyncio.create_task(_repair_quietly(stack.repair))
        await asyncio.sleep(0.03)
        await stack.client.flushall()
        await repairing
    await repair_until_ready(stack.repair, stack)
    await assert_exact(stack, 600)


async def test_reservations_from_before_a_flush_are_not_given_back_after_it(stack):
    """The holds vanished with the flush; giving them back would make room that nobody freed."""
    before = [await stack.check() for _ in range(5)]
    await stack.client.flushall()
    await repair_until_ready(stack.repair, stack)
    await stack.check()
    held = (await stack.spent_and_held())[1]
    assert held > 0
    events = [
        delivery(usage_bytes(f"h{i}", 10, 5, reservation=answer.reservation), i) for i, answer in enumerate(before)
    ]
    await stack.ingest.run(events)
    assert await stack.spent_and_held() == (5 * EVENT_COST, held)


async def test_rows_stored_after_a_rebuild_by_a_worker_that_died_are_counted(stack):
    """A rebuild may set the mark past a batch that is half in the ledger; its other half must not slip under the mark.

    Half of a batch is stored, Redis is flushed and rebuilt, the rest is stored, the worker dies before it settles. For
    the next worker every row is a redelivery at or before the mark, as if all had been settled.
    """
    [batch] = batches_of(100, 100)[:1]
    insert, settle = stack.ledger.insert, stack.store.settle

    async def half(rows: Sequence[Any]) -> Any:
        await insert(rows[len(rows) // 2 :])
        raise ConnectionError("the storage went away half-way")

    stack.ledger.insert = half
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    await stack.client.flushall()
    await repair_until_ready(stack.repair, stack)
    stack.ledger.insert, stack.store.settle = insert, _dies
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.store.settle = settle

    stack.wire()  # a new worker
    await stack.ingest.run(batch)
    await repair_until_ready(stack.repair, stack)
    assert await stack.ledger_total_nano_usd() == len(batch) // 2 * EVENT_COST
    assert set((await spent(stack, "acme")).values()) == {len(batch) // 2 * EVENT_COST}


async def test_a_failover_that_lost_the_last_seconds_is_noticed_and_made_good(stack):
    """A replica without the newest writes looks healthy; its counters stay short for ever unless the marks tell.

    The next batch finds the mark behind the one this worker saw last: checks stop until the ledger was consulted.
    """
    batches = batches_of(1_200, 50)
    third = len(batches) // 3
    for batch in batches[:third]:
        await stack.ingest.run(batch)
    replica = await _dump(stack.client)
    for batch in batches[third : 2 * third]:
        await stack.ingest.run(batch)
    await _restore(stack.client, replica)
    assert (await stack.check()).status == 200

    await stack.ingest.run(batches[2 * third])
    with pytest.raises(StateUnavailable):
        await stack.check()
    await repair_until_ready(stack.repair, stack)
    assert (await stack.check()).status == 200
    for batch in batches[2 * third + 1 :]:
        await stack.ingest.run(batch)
    await repair_until_ready(stack.repair, stack)
    await assert_exact(stack, 600)


async def test_a_failover_is_noticed_even_when_no_event_follows(stack):
    """A tenant that went quiet after the loss would keep its short counters, and its calls a budget that is spent.

    The repair timer remembers the marks it saw; ten seconds later it finds them lower.
    """
    batches = batches_of(800, 50)
    for batch in batches[:8]:
        await stack.ingest.run(batch)
    replica = await _dump(stack.client)
    for batch in batches[8:]:
        await stack.ingest.run(batch)
    assert await stack.repair.run() == []
    await _restore(stack.client, replica)
    assert {report.tenant for report in await stack.repair.run()} == set(TENANTS)
    await assert_exact(stack, 400)
    assert await stack.repair.run() == []


async def test_a_tenant_marked_dirty_during_its_reconciliation_stays_dirty(stack):
    """It may have read its counters already; clearing the newer mark would leave them short for ever."""
    await stack.state.mark_dirty("acme", "first")
    reconcile = stack.repair.reconcile

    async def marked_meanwhile(*args: Any) -> Any:
        report = await reconcile(*args)
        await stack.state.mark_dirty("acme", "second")
        return report

    stack.repair.reconcile = marked_meanwhile
    await stack.repair.run()
    assert set(await stack.state.dirty_tenants()) == {"acme"}
    stack.repair.reconcile = reconcile
    await stack.repair.run()
    assert set(await stack.state.dirty_tenants()) == set()


async def test_reconciliations_at_once_with_each_other_and_with_ingest_change_nothing_twice(stack):
    """Two workers that both add what is missing would double it; one that reads while events settle would undo them."""
    batches = batches_of(1_600, 40)
    half = len(batches) // 2
    for batch in batches[:half]:
        await stack.ingest.run(batch)
    for cell in await stack.store.cells("acme", int(time.time() * 1000)):
        await stack.client.hincrby(tenant_keys("acme").cell(cell.id), "spent", 777)  # drift, from wherever
    first = stack.repair
    stack.wire()

    async def ingest() -> None:
        for batch in batches[half:]:
            await stack.ingest.run(batch)

    ingesting = asyncio.create_task(ingest())
    rounds = 0
    while not ingesting.done():
        await asyncio.gather(*(_reconcile_quietly(repair) for repair in (first, stack.repair, first)))
        rounds += 1
    await ingesting
    print(f"{rounds} rounds of three reconciliations")
    assert rounds >= 2
    await stack.repair.reconcile("acme")
    await assert_exact(stack, 800)
    assert (await stack.repair.reconcile("acme")).drift_nano_usd == 0


async def _dies(*_: Any) -> Any:
    raise ConnectionError("the worker dies here")


async def _repair_quietly(repair: RepairService) -> None:
    """One run of the timer; that a flush kept it from finishing is expected."""
    with contextlib.suppress(RuntimeError):  # "counters kept moving"
        await repair.run()


async def _reconcile_quietly(repair: RepairService) -> None:
    with contextlib.suppress(RuntimeError):  # "counters kept moving"
        await repair.reconcile("acme")


async def _dump(client: Any) -> Sequence[tuple[bytes, int, bytes]]:
    """Every key with its remaining time and content: what a lagging replica holds."""
    return [(key, max(0, await client.pttl(key)), await client.dump(key)) async for key in client.scan_iter()]


async def _restore(client: Any, replica: Sequence[tuple[bytes, int, bytes]]) -> None:
    """Put a replica's state in place of the current one."""
    await client.flushall()
    for key, ttl_ms, value in replica:
        await client.restore(key, ttl_ms, value)
