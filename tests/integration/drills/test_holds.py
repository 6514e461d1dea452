"""Holds while ingest stalls, and holds that nothing ever settles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shared.budgets.request import CheckRequest
from shared.budgets.service import BudgetService
from shared.errors import StateUnavailable
from shared.usage.hub import PartitionState
from tests.support.engine import MICRO_USD, budget, config
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

CALL = (100 * 1 + 100 * 2) * MICRO_USD
TTL_SECONDS = 0.4


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Holds live 0.4 s; the budget fits four calls. Estimates are known: the cap is below what a call would write."""
    four_calls = config(budget("team:*", 4 * CALL))
    storage = azurite.connection_string
    async with open_stack(redis_server.url, storage, four_calls, hold_ttl_ms=400, bucket_ms=50) as stack:
        yield stack


def hub_end(sequence: int, enqueued_ms: int) -> tuple[PartitionState, ...]:
    """What the hub says of its only partition."""
    return (PartitionState("0", sequence, enqueued_ms, False),)


async def held_calls(stack: Stack, count: int) -> list[str]:
    """Reservations of calls that were admitted."""
    answers = [await stack.check() for _ in range(count)]
    assert {answer.status for answer in answers} == {200}
    return [answer.reservation for answer in answers]


async def test_holds_outlive_their_time_while_ingest_stalls(stack):
    """By the clock alone the budget was spent 1.3 times: the calls were made, only their events still wait on the hub.

    The hold goes when its event is settled; the holds of calls that left no event go once ingest has caught up.
    """
    now_ms = await stack.store.now_ms()
    reservations = await held_calls(stack, 4)
    await stack.ingest.run([delivery(usage_bytes("old", 1, time_utc=None), 0, enqueued_ms=now_ms - 60_000)])
    stack.hub_ends = hub_end(1, await stack.store.now_ms())  # one more event waits
    for _ in range(3):
        await asyncio.sleep(TTL_SECONDS)
        await stack.repair.run()
        assert (await stack.check()).status == 429

    event = usage_bytes("waiting", 100, 100, reservation=reservations[0])
    await stack.ingest.run([delivery(event, 1, enqueued_ms=stack.hub_ends[0].last_enqueued_ms)])
    assert (await stack.spent_and_held())[1] == 3 * CALL
    await stack.repair.run()  # caught up: the watermark is now
    assert (await stack.check()).status == 200
    spent, held = await stack.spent_and_held()
    assert (spent, held) == (CALL + 1 * MICRO_USD, CALL)


async def test_a_hub_that_does_not_answer_keeps_holds_too(stack):
    """A partition nobody has read yet may hold events of every call: the watermark must not move."""
    await held_calls(stack, 4)
    stack.hub_ends = hub_end(0, await stack.store.now_ms())
    await asyncio.sleep(2 * TTL_SECONDS)
    await stack.repair.run()
    assert (await stack.check()).status == 429


async def test_expired_holds_are_counted_once_and_alerted(stack):
    """Calls that crash, or events that get lost, must show; a settled or released hold is neither."""
    reservations = await held_calls(stack, 4)
    await stack.service.release(reservations[0])
    now_ms = await stack.store.now_ms()
    await stack.ingest.run([delivery(usage_bytes("a", 1, reservation=reservations[1]), 0, enqueued_ms=now_ms)])
    stack.hub_ends = hub_end(0, now_ms)
    await asyncio.sleep(2 * TTL_SECONDS)
    await stack.repair.run()
    await stack.check()  # expiry is lazy: the next look finds them
    for _ in range(2):
        await stack.repair.run()
    expired = [notice.payload for notice in await stack.outbox.waiting() if notice.kind == "holds_expired"]
    assert expired == [{"tenant": "acme", "holds": 2}]
    # Their events were only late: giving back what expired must not make room twice.
    late = [delivery(usage_bytes(f"late{i}", 1, reservation=reservations[2 + i]), 1 + i) for i in range(2)]
    before = (await stack.spent_and_held())[1]
    await stack.ingest.run(late)
    assert (await stack.spent_and_held())[1] == before > 0


async def test_ingest_that_stalls_for_too_long_ends_in_the_fail_mode(stack):
    """Asking callers to retry shortly for hours would be a lie: after a while the tenant's fail mode answers."""
    service = BudgetService(
        lambda: stack.snapshot, stack.store, stack.signer,
        default_output_tokens=100, timeout_seconds=5, stalled_ingest_ms=300,
    )  # fmt: skip
    await held_calls(stack, 4)
    stack.hub_ends = hub_end(0, await stack.store.now_ms())
    request = CheckRequest(
        model="big", tenant="acme", scopes={"team": "search"}, input_tokens=100, max_output_tokens=100
    )
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        await stack.repair.run()
        try:
            assert (await service.check(request)).status == 429
        except StateUnavailable:
            break
        await asyncio.sleep(0.05)
    with pytest.raises(StateUnavailable):
        await service.check(request)
    assert (await stack.spent_and_held())[1] == 4 * CALL
