"""Log records on a real Redis and a real Azurite: what happened is logged once, however often it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.events import EventQueue
from shared.budgets.spend import SpendService
from shared.budgets.standing import StandingLog
from shared.config.model import AlertRoute
from shared.notify.channels import Channels
from shared.notify.delivery import Delivery
from shared.notify.notice import GIVE_UP_AFTER
from shared.settings import Settings
from shared.usage.build import true_up_event_bytes
from shared.usage.hub import PartitionState
from shared.usage.llm_log import LogRecord
from tests.support.engine import MICRO_USD, budget, config
from tests.support.records import FIELDS, fields_of
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

LIMIT = 1_000 * MICRO_USD
Logged = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme: a thousandth of a dollar for each team and each user."""
    budgets = config(budget("team:*", LIMIT), budget("user:*", LIMIT))
    async with open_stack(redis_server.url, azurite.connection_string, budgets) as stack:
        yield stack


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    """The fields of the records of a name, so far."""
    caplog.set_level(logging.INFO, "tollkeeper")
    return lambda message: fields_of(caplog.records, message)


async def test_what_is_billed_is_logged_once(stack: Stack, logged: Logged) -> None:
    """Not again for the same event from another place on the hub, nor for its redelivery beside a new one."""
    first = delivery(usage_bytes("a", 100), 0)
    await stack.ingest.run([first])
    await stack.ingest.run([first, delivery(usage_bytes("a", 100), 1), delivery(usage_bytes("b", 10), 2)])
    assert [(record["calls"], record["cost_usd"]) for record in logged("usage_billed")] == [
        (1, "0.0001"),
        (1, "0.00001"),
    ]


async def test_a_batch_that_could_not_be_settled_is_logged_all_the_same(stack: Stack, logged: Logged) -> None:
    """Its rows are in the ledger; the retry finds them there and has nothing new to tell."""
    batch = [delivery(usage_bytes("a", 100), 0)]
    settle, stack.settler.settle = stack.settler.settle, _away
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.settler.settle = settle  # type: ignore[method-assign]
    await stack.ingest.run(batch)
    assert [record["calls"] for record in logged("usage_billed")] == [1]


async def test_a_checked_call_counts_as_held(stack: Stack, logged: Logged) -> None:
    """One that carries its reservation; the other was let through without asking."""
    answer = await stack.check()
    events = [usage_bytes("a", 10, reservation=answer.reservation), usage_bytes("b", 10)]
    await stack.ingest.run([delivery(event, number) for number, event in enumerate(events)])
    assert [(record["calls"], record["held_calls"]) for record in logged("usage_billed")] == [(2, 1)]


async def test_a_true_up_makes_the_sums_those_of_the_measured_call(stack: Stack, logged: Logged) -> None:
    """Accrued in one batch, measured in the next: one call, nothing estimated, at what it cost."""
    at = datetime.now(UTC).replace(microsecond=0)
    accrual = changed(usage_bytes("a", 0, time_utc=at), usage=None, streamed=True)
    true_up = true_up_event_bytes("apim/test", "a", at, tenant="acme", prompt_tokens=30, completion_tokens=5)
    await stack.ingest.run([delivery(accrual, 0)])
    await stack.ingest.run([delivery(true_up, 1)])
    records = logged("usage_billed")
    assert [record["calls"] for record in records] == [1, 0]
    assert [record["estimated_calls"] for record in records] == [1, -1]
    assert sum(record["input_tokens"] for record in records) == 30
    assert round(sum(float(record["cost_usd"]) for record in records), 9) == 0.00004


async def test_a_crossed_threshold_is_logged_once_and_never_of_a_person(stack: Stack, logged: Logged) -> None:
    """The notices go to the outbox for both; a user's budget stays out of the log."""
    scopes = {"team": "search", "user": "alice"}
    batch = [delivery(usage_bytes("a", 850, scopes=scopes), 0)]
    for _ in range(2):
        await stack.ingest.run(batch)
    assert len([notice for notice in await stack.outbox.waiting() if notice.kind == "threshold"]) == 2
    (record,) = logged("threshold_crossed")
    assert record["scope"] == "team:search"
    assert {name: record[name] for name in ("tenant", "threshold", "spent", "limit")} == {
        "tenant": "acme",
        "threshold": "warn",
        "spent": "0.00085",
        "limit": "0.001",
    }


async def test_a_refused_check_says_what_the_call_would_have_cost(stack: Stack, logged: Logged) -> None:
    """100 tokens in and 100 out on `big`; whose budget was in the way stays out when it is a person's."""
    await stack.ingest.run([delivery(usage_bytes("a", 400, 300, scopes={"team": "search", "user": "alice"}), 0)])
    await stack.check(scopes={"team": "search"})
    await stack.check(scopes={"team": "support", "user": "alice"})
    assert logged("call_refused") == [
        {
            "tenant": "acme",
            "team": team,
            "model": "big",
            "reason": "budget_exhausted",
            "scope": scope,
            "estimate_usd": "0.0003",
        }
        for team, scope in (("search", "team:search"), ("support", "user"))
    ]


async def test_observing_refuses_nothing_and_logs_no_refusal(stack: Stack, logged: Logged) -> None:
    """Nothing was saved by a call that was made."""
    stack.configure(config(budget("team:*", LIMIT), version="v2", enforcement="observe"))
    await stack.ingest.run([delivery(usage_bytes("a", 1_000), 0)])
    assert (await stack.check()).observed is not None
    assert logged("call_refused") == []


async def test_budgets_are_logged_as_they_stand(stack: Stack, logged: Logged) -> None:
    """Every budget of no person with its state; other tenants' while one is being rebuilt."""
    await stack.ingest.run([delivery(usage_bytes("a", 850, scopes={"team": "search", "user": "alice"}), 0)])
    standing = StandingLog(lambda: stack.snapshot, SpendService(lambda: stack.snapshot, stack.store))
    assert await standing.run() == 1
    (record,) = logged("budget_standing")
    assert {name: record[name] for name in ("tenant", "scope", "state", "spent", "reserved", "remaining", "limit")} == {
        "tenant": "acme",
        "scope": "team:search",
        "state": "warned",
        "spent": "0.00085",
        "reserved": "0.00",
        "remaining": "0.00015",
        "limit": "0.001",
    }
    await stack.client.flushdb()
    assert await standing.run() == 0


async def test_the_lag_of_ingest_is_logged_by_the_minute(stack: Stack, logged: Logged) -> None:
    """Also while ingest is dead: by how far the hub's end is ahead of what was processed."""
    now_ms = await stack.store.now_ms()
    await stack.ingest.run([delivery(usage_bytes("old", 1), 0, enqueued_ms=now_ms - 90_000)])
    stack.hub_ends = (PartitionState("0", 1, now_ms, False),)  # one more event waits
    for _ in range(2):
        await stack.repair.run()
    (record,) = logged("ingest_lag")
    assert 90 <= record["lag_seconds"] < 120


async def _away(*_: Any) -> Any:
    raise ConnectionError("Redis is away")


class _NoHub:
    """A hub that is away."""

    async def publish(self, _: Sequence[tuple[str, bytes]]) -> None:
        raise ConnectionError("the hub is away")


async def test_records_have_the_fields_that_queries_read(stack: Stack, logged: Logged) -> None:
    """All of them, spelled as in the list that the queries are held against."""
    now_ms = await stack.store.now_ms()
    every_kind = {
        "prompt_tokens": 600,
        "completion_tokens": 300,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 50},
    }
    billed = changed(usage_bytes("a", 0), usage=every_kind)
    accrual = changed(usage_bytes("b", 0), usage=None, streamed=True)
    await stack.ingest.run(
        [delivery(body, number, enqueued_ms=now_ms) for number, body in enumerate([billed, accrual, b"no event"])]
    )
    await stack.check()
    await StandingLog(lambda: stack.snapshot, SpendService(lambda: stack.snapshot, stack.store)).run()
    await stack.repair.run()
    (cell,) = [key async for key in stack.client.scan_iter("tk:{acme}:c:team:search*")]
    await stack.client.hincrby(cell, "spent", 1)
    await stack.repair.reconcile_all()
    await stack.streams.logged([LogRecord("nobody-reported-it", 1, 10, 5, True)])
    await stack.sweep.run(datetime.now(UTC) + timedelta(hours=2))
    routes = [AlertRoute(("*",), "webhook", "ALERT_NOWHERE", None)]  # whose address nobody has set
    channels = Channels(Settings(environment="development"), None)
    for now in (datetime.now(UTC), datetime.now(UTC) + GIVE_UP_AFTER):
        await Delivery(stack.outbox, lambda: routes, channels, lambda now=now: now).run()  # type: ignore[misc]
    queue = EventQueue(_NoHub())
    await queue.start()
    queue.reserve()
    queue.put(usage_bytes("c", 0))
    async with asyncio.timeout(10):
        while not logged("events_backlog"):  # noqa: ASYNC110 - a log record sets no event
            await asyncio.sleep(0.05)
    await queue.close(flush_seconds=0)
    assert {name: set().union(*logged(name)) for name in FIELDS} == FIELDS
