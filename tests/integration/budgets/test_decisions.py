"""What checks decide, on a real Redis and a real Azurite: the live list, and refusals on their way to the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.budgets.connect import open_redis
from shared.budgets.decision import Decision
from shared.budgets.decisions import DecisionLog
from shared.budgets.decisions_store import DecisionStore
from shared.budgets.recent import RecentDecisions
from shared.config.model import DowngradeRule
from shared.errors import Forbidden, StateUnavailable
from shared.ledger.reading import HourReader
from shared.ledger.summary import Summaries
from shared.settings import Settings
from shared.usage.hub import HubUnavailable
from tests.support.engine import MICRO_USD, Engine, budget, config, flushed
from tests.support.stack import delivery, open_stack

CALL = (100 * 1 + 100 * 2) * MICRO_USD  # 100 tokens in at 1 micro-USD, 100 out at 2
NARROW = budget("team:search", CALL)  # room for one call


class Hub:
    """Takes events, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.tries: list[list[bytes]] = []
        self.taken: list[bytes] = []

    async def publish(self, events: Sequence[tuple[str, bytes]]) -> None:
        self.tries.append([body for _, body in events])
        if self.away:
            raise HubUnavailable("the hub 'usage' did not answer")
        self.taken += self.tries[-1]


async def nothing() -> None:
    pass


@asynccontextmanager
async def noting(
    redis_url: str, configuration: Any, hub: Hub, *, list_at: str | None = None
) -> AsyncIterator[tuple[Engine, DecisionLog, RecentDecisions]]:
    """An engine that notes its decisions; `list_at` is where the live list lies if not beside the counters."""
    client = await flushed(redis_url)
    store = DecisionStore(open_redis(Settings(redis_url=list_at or redis_url, redis_timeout_seconds=1)))
    log = DecisionLog(store, hub.publish, nothing, live_seconds=0.01, refusals_seconds=0.05)
    engine = Engine(client, configuration, decisions=log)
    await engine.open()
    yield engine, log, RecentDecisions(store)
    await log.close()
    await store.close()
    await client.aclose()


async def listed(recent: RecentDecisions, count: int) -> list[dict[str, Any]]:
    """The list as the tenant's finance sees it, once it has so many entries."""
    for _ in range(300):
        found = await recent.newest("acme", 100, None, lambda kind, key: True)
        if len(found) >= count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(found)} decisions on the list, expected {count}")


async def test_what_budgets_decide_stands_on_the_live_list(redis_server):
    """One call passes, one is served by the smaller model, one is refused: newest first, with what each was held at."""
    rule = DowngradeRule(("big",), "small")
    narrow = budget("team:search", 11 * CALL // 10, downgrade=(rule,))
    async with noting(redis_server.url, config(narrow), Hub()) as (engine, _, recent):
        for _ in range(3):
            await engine.check()
        newest, middle, oldest = await listed(recent, 3)
    assert (oldest["decision"], oldest["sampled"], oldest["model"]) == ("allow", True, "big")
    assert (middle["decision"], middle["requested_model"], middle["model"]) == ("downgrade", "big", "small")
    assert middle["estimate"] == "0.00003"  # a tenth of 300 micro-USD
    assert (newest["decision"], newest["reason"], newest["state"]) == ("refuse", "budget_reserved", "stopped")
    assert (newest["estimate"], newest["budget"], newest["sampled"]) == ("0.0003", "team:search", False)
    assert newest["at"] >= middle["at"] >= oldest["at"]


async def test_of_calls_that_just_pass_the_list_shows_a_sample(redis_server):
    """Thousands of allowed calls would push the refusals off the list: five of a tenant are shown at a time."""
    async with noting(redis_server.url, config(budget("team:search", 1_000 * CALL)), Hub()) as (engine, log, recent):
        log._live_seconds = 60
        await asyncio.gather(*(engine.check() for _ in range(40)))
        await log.close()
        assert len(await listed(recent, 5)) == 5


async def test_refusals_are_summed_and_keep_their_bytes_until_the_hub_takes_them(redis_server):
    """Three refusals of one kind are one event. While the hub is away the same bytes are offered again and again."""
    hub = Hub()
    hub.away = True
    spent = budget("team:search", CALL // 2)
    async with noting(redis_server.url, config(spent), hub) as (engine, log, _):
        log._pause_seconds = 0.0
        answers = [await engine.check(scopes={"team": "search", "session": f"s-{i}"}) for i in range(3)]
        assert {answer.reason for answer in answers} == {"budget_exhausted"}
        for _ in range(300):
            if len(hub.tries) >= 2:
                break
            await asyncio.sleep(0.01)
        hub.away = False
    assert len(hub.tries) >= 2
    assert all(tried == hub.tries[0] for tried in hub.tries), "the ledger would count other bytes again"
    assert hub.taken == hub.tries[0]
    assert len(hub.taken) == 1
    assert b'"calls":3' in hub.taken[0]
    assert b"s-0" not in hub.taken[0], "a session is what the client says it is"


async def test_neither_a_dead_redis_nor_a_dead_hub_disturbs_a_check(redis_server):
    """The list lies on a port where nobody listens and the hub is away: checks answer, and quickly."""
    hub = Hub()
    hub.away = True
    async with noting(redis_server.url, config(NARROW), hub, list_at="redis://127.0.0.1:9") as (engine, _, _recent):
        before = asyncio.get_running_loop().time()
        answers = []
        for _ in range(50):
            answers.append((await engine.check()).decision)
            await asyncio.sleep(0.002)
        assert answers == ["allow", *["refuse"] * 49]
        assert asyncio.get_running_loop().time() - before < 5
    assert hub.tries


async def test_observed_refusals_are_decisions_but_save_nothing(redis_server):
    """In observe mode the call runs and is paid for: the list says what would have happened, the ledger nothing."""
    hub = Hub()
    configuration = config(budget("team:search", CALL // 2), enforcement="observe")
    async with noting(redis_server.url, configuration, hub) as (engine, _, recent):
        await engine.check()
        (seen,) = await listed(recent, 1)
    assert (seen["decision"], seen["observed"]) == ("allow", {"decision": "refuse", "reason": "budget_exhausted"})
    assert hub.tries == []


async def test_the_list_is_capped_and_goes_when_nobody_calls(redis_server):
    """Whatever comes, a tenant's list holds about a thousand entries and has an end of life."""
    client = await flushed(redis_server.url)
    store = DecisionStore(client)
    entry = {"reason": "budget_exhausted", "requested_model": "big", "model": "big", "scopes": {"team": "search"}}
    for start in range(0, 5_000, 200):
        at = [datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=start + i) for i in range(200)]
        await store.add("acme", [Decision(at_utc=each, decision="refuse", **entry) for each in at])
    newest = await store.newest("acme", 5_000)
    assert 1_000 <= len(newest) <= 1_200
    assert newest[0].at_utc - newest[-1].at_utc == timedelta(seconds=len(newest) - 1)
    assert 0 < await client.pttl("tk:{acme}:decisions") <= 24 * 3_600_000
    await store.close()


async def test_refusals_are_rows_without_cost_that_say_what_was_spared(redis_server, azurite):
    """Flushed twice and redelivered they are one row: 3 calls, 3 estimates saved, nothing spent, nothing billed."""
    hub = Hub()
    configuration = config(budget("team:search", CALL // 2))
    async with noting(redis_server.url, configuration, hub) as (engine, log, _):
        for _ in range(3):
            assert (await engine.check()).reason == "budget_exhausted"
        await log.close()
    (event,) = hub.taken
    async with open_stack(redis_server.url, azurite.connection_string, configuration) as stack:
        for deliveries in (
            [delivery(event, 0), delivery(event, 1)],
            [delivery(event, 0)],
            [delivery(event, 2, partition=1)],
        ):
            await stack.ingest.run(deliveries)
        assert await stack.spent_and_held() == (0, 0)
        reader: HourReader = stack.ledger.reader
        now = datetime.now(UTC)
        rows = [row async for row in stack.ledger.rows("acme", now - timedelta(hours=1), now + timedelta(hours=1))]
        (summed,) = await Summaries(reader).summarize(
            "acme", now - timedelta(days=1), now + timedelta(days=1), ["team", "requested_model"]
        )
        letters = await stack.dead_letters.list()
    (row,) = rows
    assert (row.kind, row.refused, row.saved_nano_usd, row.cost_nano_usd) == ("refusal", 3, 3 * CALL, 0)
    assert (row.decision, row.why, row.status) == ("refuse", "budget_exhausted", 402)
    assert (summed["requests"], summed["refused"], summed["saved"], summed["cost"]) == (0, 3, "0.0009", "0.00")
    assert letters == []


async def test_calls_told_to_try_again_shortly_save_nothing(redis_server, azurite):
    """The budget is only held: the call is made a moment later, and each of its tries would count as saved."""
    hub = Hub()
    async with noting(redis_server.url, config(NARROW), hub) as (engine, log, _):
        answers = [await engine.check() for _ in range(3)]
        await log.close()
    assert [answer.reason for answer in answers] == ["within_budget", "budget_reserved", "budget_reserved"]
    async with open_stack(redis_server.url, azurite.connection_string, config(NARROW)) as stack:
        await stack.ingest.run([delivery(hub.taken[0], 0)])
        now = datetime.now(UTC)
        (row,) = [row async for row in stack.ledger.rows("acme", now - timedelta(hours=1), now + timedelta(hours=1))]
    assert (row.refused, row.saved_nano_usd) == (2, None)


@pytest.mark.parametrize("code", ["model_not_allowed", "state_unavailable"])
async def test_calls_turned_away_before_any_budget_are_listed_too(redis_server, code):
    """Whoever asks why calls fail finds those as well; what they would have cost nobody knows."""
    configuration = config(NARROW, **({"allowed_models": ("small",)} if code == "model_not_allowed" else {}))
    async with noting(redis_server.url, configuration, Hub()) as (engine, _, recent):
        if code == "state_unavailable":
            await engine.client.execute_command("HDEL", "tk:{acme}:meta", "ready")
        with pytest.raises((Forbidden, StateUnavailable)):
            await engine.check()
        (seen,) = await listed(recent, 1)
    assert (seen["decision"], seen["reason"], seen["estimate"], seen["state"]) == ("refuse", code, None, None)


async def test_a_refused_fallback_is_no_refused_call(redis_server):
    """The books count what refused calls would have cost; a fallback of the same call would claim a saving again."""
    hub = Hub()
    too_narrow = budget("team:search", CALL - 1)
    async with noting(redis_server.url, config(too_narrow), hub) as (engine, log, recent):
        assert (await engine.check(attempt=2)).decision == "refuse"
        assert len(await listed(recent, 1)) == 1
        await log.close()
        assert hub.taken == []
        assert (await engine.check(attempt=1)).decision == "refuse"
        await log.close()
        assert len(hub.taken) == 1
