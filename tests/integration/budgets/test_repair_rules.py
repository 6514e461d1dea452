"""What settlement and repair promise when something dies in between, on a real Redis and a real Azurite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import ResponseError

from shared.ledger.row import Position
from shared.ledger.settlement import Entry
from tests.support.engine import MICRO_USD, budget, config, row, usd
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(100))


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme with one team budget, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, config(TEAM)) as stack:
        yield stack
        await stack.client.config_set("maxmemory", "0")
        await stack.client.config_set("maxmemory-policy", "noeviction")


async def test_a_full_redis_is_waited_for(stack):
    """A server that refuses writes for lack of memory gets its batch again; dropping it would leave holds to expire."""
    batch = [delivery(usage_bytes("a", 100), 0)]
    await stack.client.config_set("maxmemory", "1")
    with pytest.raises(ResponseError):
        await stack.ingest.run(batch)
    assert set(await stack.state.dirty_tenants()) == set()
    await stack.client.config_set("maxmemory", "0")
    await stack.ingest.run(batch)
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)


async def test_data_that_a_script_refuses_does_not_stop_the_partition(stack):
    """A counter of the wrong type fails for ever: the tenant is durably marked and others go on."""
    [cell] = [f"tk:{{acme}}:c:{cell_id}" for cell_id in await _cells_of_search(stack)]
    await stack.client.delete(cell)
    await stack.client.set(cell, "not a hash")
    await stack.ingest.run([delivery(usage_bytes("a", 100), 0)])
    assert set(await stack.state.dirty_tenants()) == {"acme"}
    await stack.client.delete(cell)
    await stack.repair.run()
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)
    assert set(await stack.state.dirty_tenants()) == set()


async def test_a_notice_lost_between_counter_and_outbox_is_added_on_redelivery(stack):
    """A worker that dies after settling, before notifying, must not swallow the warning."""
    stack.configure(config(budget("team:*", 1_000 * MICRO_USD), version="v2"))
    batch = [delivery(usage_bytes("a", 1_000), 0)]
    add_once, stack.outbox.add_once = stack.outbox.add_once, _storage_is_away
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.outbox.add_once = add_once
    await stack.ingest.run(batch)
    await stack.ingest.run(batch)
    notices = [item.payload["threshold"] for item in await stack.outbox.waiting() if item.kind == "threshold"]
    assert sorted(notices) == ["degrade", "stop", "warn"]
    assert await stack.spent_and_held() == (1_000 * MICRO_USD, 0)


async def test_a_budget_that_comes_back_knows_what_was_spent_without_it(stack):
    """While a budget is away nothing is charged for it; coming back it waits for the ledger's sum."""
    await stack.ingest.run([delivery(usage_bytes("a", 100), 0)])
    stack.configure(config(budget("team:other", usd(1)), version="v2"))
    await stack.repair.run()
    await stack.ingest.run([delivery(usage_bytes("b", 200), 1)])
    stack.configure(config(TEAM, version="v3"))
    await stack.repair.run()
    assert await stack.spent_and_held() == (300 * MICRO_USD, 0)


async def test_a_hub_that_does_not_answer_keeps_no_tenant_from_being_rebuilt(stack):
    """Counters come from the ledger; only the watermark needs the hub."""
    await stack.ingest.run([delivery(usage_bytes("a", 100), 0)])
    await stack.client.flushdb()
    stack._ends = _hub_is_away
    stack.wire()
    with pytest.raises(ConnectionError, match="hub"):
        await stack.repair.run()
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)


async def test_a_redis_that_may_evict_is_reported_once(stack):
    """A forgotten counter would look like a budget nobody has used."""
    await stack.client.config_set("maxmemory-policy", "allkeys-lru")
    for _ in range(2):
        await stack.repair.run()
    assert [item.payload for item in await stack.outbox.waiting()] == [{"policy": "allkeys-lru"}]


async def test_sessions_forgotten_for_their_silence_stay_forgotten(stack):
    """Else each reconciliation would bring back every key ever invented in the period, and report a drift."""
    stack.configure(config(budget("session:*", usd(1), period="total"), version="v2"))
    await stack.open()
    now = datetime.now(UTC)
    old, fresh = now - timedelta(hours=30), now - timedelta(hours=2)
    batch = [
        delivery(usage_bytes("a", 100, time_utc=old, scopes={"session": "quiet"}), 0),
        delivery(usage_bytes("b", 100, time_utc=old, scopes={"session": "busy"}), 1),
        delivery(usage_bytes("c", 100, time_utc=fresh, scopes={"session": "busy"}), 2),
    ]
    await stack.ingest.run(batch)
    for name in [name async for name in stack.client.scan_iter("tk:{acme}:c:session:*")]:
        await stack.client.delete(name)
    await stack.client.delete("tk:{acme}:asserted")
    await stack.repair.reconcile("acme")
    assert await stack.spent_and_held("session:quiet") == (0, 0)
    assert await stack.spent_and_held("session:busy") == (200 * MICRO_USD, 0)


async def test_a_counter_without_a_budget_is_no_drift(stack):
    """After a budget went its counter stands still while the ledger moves on; an alert would cry wolf."""
    await stack.ingest.run([delivery(usage_bytes("a", 100), 0)])
    stack.configure(config(budget("team:other", usd(1)), version="v2"))
    await stack.ingest.run([delivery(usage_bytes("b", 200), 1)])
    report = await stack.repair.reconcile("acme")
    assert (report.off, report.drift_nano_usd) == (0, 0)
    assert await stack.outbox.waiting() == []


async def test_a_country_that_changes_its_clocks_blocks_nobody(stack):
    """A counter whose period no longer starts where it did, in the index and in a grant, is skipped and logged."""
    gone = "team:search|hour|UTC|1"
    await stack.client.zadd("tk:{acme}:index", {f"tk:{{acme}}:c:{gone}": "+inf"})
    grant = row(5, Position("ns/usage/0", 1_790_000_000_000, 0), id="g", kind="grant", cell=gone, cost_nano_usd=0)
    await stack.ledger.insert([grant])
    await stack.ingest.run([delivery(usage_bytes("a", 100), 1)])
    await stack.repair.reconcile("acme")
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)
    await stack.settler.settle(stack.snapshot.index, "acme", [Entry(grant.position, grant, True, True, None)])


async def _cells_of_search(stack: Stack) -> list[str]:
    await stack.check()
    return [cell.id for cell in await stack.store.cells("acme", await stack.store.now_ms())]


async def _storage_is_away(*_):
    raise ConnectionError("storage is away")


async def _hub_is_away():
    raise ConnectionError("the hub is away")
