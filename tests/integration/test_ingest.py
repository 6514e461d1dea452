"""Ingest on a real Redis and a real Azurite: what one batch does, whatever is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(100))


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme with one team budget, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, config(TEAM)) as stack:
        yield stack


async def test_one_event_is_billed_once_however_often_it_comes(stack):
    """The same batch three times leaves one row and one charge: 1,200 x 1 + 300 x 2 micro-USD."""
    batch = [delivery(usage_bytes("a", 1_200, 300), 0)]
    for _ in range(3):
        await stack.ingest.run(batch)
    cost = (1_200 * 1 + 300 * 2) * MICRO_USD
    assert await stack.ledger_total_nano_usd() == cost
    assert await stack.spent_and_held() == (cost, 0)


async def test_a_producer_duplicate_is_caught_by_the_ledger(stack):
    """The same event twice on the hub, at two positions and even on two partitions, is billed once."""
    event = usage_bytes("a", 100)
    await stack.ingest.run([delivery(event, 0), delivery(event, 1)])
    await stack.ingest.run([delivery(event, 0, partition=1)])
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)


async def test_one_bad_event_never_costs_its_batch(stack):
    """Of 100 events one is broken: 99 are billed, one is a dead letter that names the reason."""
    batch = [delivery(usage_bytes(f"e{i}", 10), i) for i in range(100)]
    batch[50] = delivery(b'{"specversion": "1.0", "type": "tollkeeper.usage.v1"', 50)
    report = await stack.ingest.run(batch)
    assert (report.inserted, report.dead_letters) == (99, 1)
    assert await stack.spent_and_held() == (99 * 10 * MICRO_USD, 0)
    letters = await stack.dead_letters.list()
    assert [letter["code"] for letter in letters] == ["invalid_json"]
    await stack.ingest.run(batch)
    assert len(await stack.dead_letters.list()) == 1


async def test_the_same_id_with_other_content_is_a_conflict(stack):
    """A stranger cannot claim an id at zero cost: what came first is billed, the other is a dead letter."""
    event = usage_bytes("a", 100)
    await stack.ingest.run([delivery(event, 0)])
    await stack.ingest.run([delivery(changed(event, usage={"prompt_tokens": 0, "completion_tokens": 0}), 1)])
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["id_conflict"]


async def test_a_second_attempt_under_the_same_request_id_is_billed_too(stack):
    """A retry inside the gateway shares the request id; without the attempt in the identity it would be free."""
    await stack.ingest.run([delivery(usage_bytes("a", 100), 0), delivery(usage_bytes("a", 50, attempt=2), 1)])
    assert await stack.spent_and_held() == (150 * MICRO_USD, 0)


async def test_settling_gives_the_reservation_back_and_charges_the_truth(stack):
    """After the event the hold is gone and the real cost stands, however the estimate was."""
    answer = await stack.check()
    await stack.ingest.run([delivery(usage_bytes("a", 10, 5, reservation=answer.reservation), 0)])
    assert await stack.spent_and_held() == ((10 + 5 * 2) * MICRO_USD, 0)


@pytest.mark.parametrize("status", [0, 307, 404, 500])
async def test_a_failed_call_costs_nothing_and_gives_its_reservation_back(stack, status):
    """Never reached, redirected, refused or failed without usage: cost 0, hold gone."""
    answer = await stack.check()
    event = changed(usage_bytes("a", 0, reservation=answer.reservation), usage=None, status=status)
    await stack.ingest.run([delivery(event, 0)])
    assert await stack.spent_and_held() == (0, 0)


async def test_another_tenants_reservation_is_not_given_back(stack):
    """A token of one tenant in another tenant's event changes nothing: forging gains nothing."""
    answer = await stack.check()
    held = (await stack.spent_and_held())[1]
    other = config(TEAM)
    tenants = {**other.tenants, "evil": other.tenants["acme"]}
    stack.configure(type(other)("v2", tenants, {}, other.budgets, other.models, prices=other.prices))
    await stack.ingest.run([delivery(usage_bytes("a", 1, tenant="evil", reservation=answer.reservation), 0)])
    assert (await stack.spent_and_held())[1] == held


async def test_a_stream_without_tokens_is_accrued_at_its_mean_and_flagged(stack):
    """usage null on a streamed call: the estimate is billed, and the row says that it is not measured."""
    answer = await stack.check()
    event = changed(usage_bytes("a", 0, reservation=answer.reservation), usage=None, streamed=True)
    await stack.ingest.run([delivery(event, 0)])
    assert await stack.spent_and_held() == ((100 * 1 + 100 * 2) * MICRO_USD, 0)
    start = datetime.now(UTC) - timedelta(hours=1)
    rows = [row async for row in stack.ledger.rows("acme", start, datetime.now(UTC) + timedelta(hours=1))]
    assert [(row.kind, row.measured) for row in rows] == [("accrual", False)]


async def test_an_unknown_model_is_never_free(stack):
    """No price: the cost is unknown (null), the budget is charged the guard price, and an alert waits in the outbox."""
    await stack.ingest.run([delivery(usage_bytes("a", 1_000, model="mystery"), 0)])
    spent, _ = await stack.spent_and_held()
    assert spent > 0
    start = datetime.now(UTC) - timedelta(hours=1)
    [row] = [row async for row in stack.ledger.rows("acme", start, datetime.now(UTC) + timedelta(hours=1))]
    assert row.cost_nano_usd is None
    assert row.charge_nano_usd == spent


async def test_an_unknown_tenant_is_a_dead_letter_that_can_be_replayed_after_the_fix(stack):
    """Nothing is lost: once the tenant is configured the same bytes are billed."""
    event = usage_bytes("a", 70, tenant="late")
    await stack.ingest.run([delivery(event, 0)])
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["tenant_unknown"]
    known = config(TEAM)
    tenants = {**known.tenants, "late": type(known.tenants["acme"])("late")}
    stack.configure(type(known)("v2", tenants, {}, known.budgets, known.models, prices=known.prices))
    await stack.ingest.run([delivery(event, 1)])
    assert await stack.ledger_total_nano_usd("late") == 70 * MICRO_USD


async def test_prices_that_moved_between_deliveries_do_not_move_the_counters(stack):
    """A redelivery settles the stored amount: computed afresh it would differ from the ledger forever."""
    batch = [delivery(usage_bytes("a", 100), 0)]
    await stack.ledger.insert([])  # opens the connection; the crash below stands between ledger and counters
    settle, stack.store.settle = stack.store.settle, _raise
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.store.settle = settle
    dearer = [
        type(price)(price.model, price.effective_from, {"input": 9_000_000, "output": 1}) for price in config().prices
    ]
    known = config(TEAM)
    stack.configure(type(known)("v2", known.tenants, {}, known.budgets, known.models, prices=tuple(dearer)))
    await stack.ingest.run(batch)
    assert await stack.spent_and_held() == (100 * MICRO_USD, 0)


async def test_a_hub_created_again_loses_nothing_and_alerts(stack):
    """Sequence numbers restart at 0; by sequence alone the new events would look applied and go uncounted."""
    await stack.ingest.run([delivery(usage_bytes(f"old{i}", 10), i) for i in range(50)])
    later = 1_790_000_000_000 + 3_600_000
    await stack.ingest.run([delivery(usage_bytes(f"new{i}", 10), i, enqueued_ms=later + i) for i in range(20)])
    assert await stack.spent_and_held() == (70 * 10 * MICRO_USD, 0)
    assert "hub_recreated" in [item.kind for item in await stack.outbox.waiting()]


async def test_two_workers_on_one_partition_count_everything_once(stack, redis_server):
    """When a partition changes hands the old owner may still run: overlapping batches are trimmed, not added twice."""
    events = [delivery(usage_bytes(f"e{i}", 10), i) for i in range(200)]
    old = stack.ingest
    stack.wire()
    batches = [events[i : i + 20] for i in range(0, 200, 20)]

    async def work(service, offset):
        for batch in batches[offset:]:
            await service.run(batch)

    await asyncio.gather(work(old, 0), work(stack.ingest, 0), work(stack.ingest, 3))
    await stack.repair.run()
    assert await stack.spent_and_held() == (200 * 10 * MICRO_USD, 0)
    assert await stack.ledger_total_nano_usd() == 200 * 10 * MICRO_USD


async def test_crossing_a_threshold_notifies_once(stack):
    """warn, degrade and stop each wait in the outbox once, whatever is redelivered."""
    stack.configure(config(budget("team:*", 1_000 * MICRO_USD), version="v2"))
    batch = [delivery(usage_bytes("a", 950), 0)]
    await stack.ingest.run(batch)
    await stack.ingest.run(batch)
    await stack.repair.reconcile("acme")
    await stack.ingest.run([delivery(usage_bytes("b", 100), 1)])
    notices = [item.payload["threshold"] for item in await stack.outbox.waiting() if item.kind == "threshold"]
    assert sorted(notices) == ["degrade", "stop", "warn"]


async def test_learned_estimates_replace_max_tokens(stack):
    """After calls that wrote 10 tokens a call that may write 1,000 holds little more than 10, not 1,000."""
    await stack.ingest.run([delivery(usage_bytes(f"e{i}", 10, 20), i) for i in range(10)])
    await stack.check(max_output_tokens=1_000)
    _, held = await stack.spent_and_held()
    assert held == (100 * 1 + 20 * 2) * MICRO_USD


async def test_what_other_teams_taught_is_only_a_hint(stack):
    """A team that never called holds at least the default estimate, in small number, whatever others learned: their
    short answers let 44 calls of 15 times the length through at once."""
    await stack.ingest.run([delivery(usage_bytes(f"e{i}", 10, 20), i) for i in range(10)])
    stack.configure(config(budget("team:*", 4 * (100 + 100 * 2) * MICRO_USD), version="v2"))
    answers = [await stack.check(scopes={"team": "new"}, max_output_tokens=None) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 429, 429]
    assert await stack.spent_and_held("team:new") == (0, (100 + 100 * 2) * MICRO_USD)


async def test_an_event_of_two_months_ago_keeps_its_month_and_its_price(stack):
    """A late event is billed in its own period; the open month's counter does not move."""
    await stack.ingest.run([delivery(usage_bytes("a", 100, time_utc=datetime.now(UTC) - timedelta(days=62)), 0)])
    assert await stack.spent_and_held() == (0, 0)
    assert await stack.ledger_total_nano_usd() == 100 * MICRO_USD


async def _raise(*_):
    raise ConnectionError("redis is away")
