"""A burst on a small budget: no call too many, and no budget wasted, however wrong the first estimate is.

200 callers at once on one budget that fits 44 calls of 0.001125 USD. Peers measured with the same burst let through up
to 450 % of the budget, or refuse all but 2 % of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from shared.ledger.delivery import Delivery
from tests.support.engine import MICRO_USD, budget, config, flushed, usd
from tests.support.stack import Stack, delivery, open_stack, usage_bytes

CALLERS = 200
CALL_SECONDS = 0.2
INGEST_LAG_SECONDS = 0.1
MOST_TRIES = 12
PARTITIONS = 4

INPUT_TOKENS, OUTPUT_TOKENS = 125, 500
TRUE_COST = (INPUT_TOKENS * 1 + OUTPUT_TOKENS * 2) * MICRO_USD  # 0.001125 USD
FITS_44 = 44 * TRUE_COST  # 0.0495 USD
FIVE_CENTS = usd(0.05)  # 44 calls and a rest that no call fits into
ALL_SCOPES = {"team": "search", "user": "u-1", "app": "chat"}  # and the tenant, which every call carries


class Outcome(NamedTuple):
    """What became of the burst."""

    admitted: int
    statuses: list[int]  # the last answer of every caller
    held_at_first_settlement_nano_usd: int
    seconds: float


class Burst:
    """200 callers, the calls they make, and the hub and ingest behind them."""

    def __init__(
        self, stack: Stack, scopes: dict[str, str], max_output_tokens: int | None, service_tier: str = ""
    ) -> None:
        self.stack = stack
        self.scopes = scopes
        self.max_output_tokens = max_output_tokens
        self.service_tier = service_tier
        self.admitted = 0
        self.held_at_first_settlement: int | None = None
        self._waiting: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self._sequences = [0] * PARTITIONS

    async def run(self, callers: int = CALLERS) -> Outcome:
        """Send everybody at once; return when all of them gave up or were served, and all events are settled."""
        started = time.monotonic()
        done = asyncio.Event()
        ingest = asyncio.create_task(self._ingest(done))
        statuses = await asyncio.gather(*(self._caller(number) for number in range(callers)))
        done.set()
        await ingest
        return Outcome(self.admitted, statuses, self.held_at_first_settlement or 0, time.monotonic() - started)

    async def _caller(self, number: int) -> int:
        """Ask, wait as told, ask again; returns the last status."""
        answer = await self.ask()
        for _ in range(MOST_TRIES):
            if answer.status != 429:
                break
            await asyncio.sleep(float(answer.headers["Retry-After"]))
            answer = await self.ask()
        if answer.status == 200:
            self.admitted += 1
            await asyncio.sleep(CALL_SECONDS)
            self._waiting[number % PARTITIONS].append(self.event(f"call-{number}", answer))
        return int(answer.status)

    def event(self, name: str, answer: Any) -> bytes:
        """What a call that was admitted so reports in the end."""
        return usage_bytes(
            name,
            INPUT_TOKENS,
            OUTPUT_TOKENS,
            time_utc=answer.admitted_at_utc,
            scopes=self.scopes,
            reservation=answer.reservation,
            processing_tier=self.service_tier,
        )

    async def ask(self) -> Any:
        """One budget check."""
        return await self.stack.check(
            scopes=self.scopes,
            input_tokens=INPUT_TOKENS,
            max_output_tokens=self.max_output_tokens,
            service_tier=self.service_tier,
        )

    async def _ingest(self, done: asyncio.Event) -> None:
        """Settle what came, batch by batch, as the hub's consumers do."""
        last = False
        while not last:
            last = done.is_set()
            batches = [self._take(partition) for partition in range(PARTITIONS)]
            if any(batches) and self.held_at_first_settlement is None:
                self.held_at_first_settlement = (await self.stack.spent_and_held())[1]
            await asyncio.gather(*(self.stack.ingest.run(batch) for batch in batches if batch))
            await asyncio.sleep(INGEST_LAG_SECONDS)

    def _take(self, partition: int) -> list[Delivery]:
        events, self._waiting[partition] = self._waiting[partition], []
        first = self._sequences[partition]
        self._sequences[partition] += len(events)
        return [delivery(body, first + i, partition=partition) for i, body in enumerate(events)]


@pytest.fixture(params=["server", "cluster"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """An emptied single server, and an emptied cluster of three real nodes."""
    if request.param == "server":
        client = await flushed(request.getfixturevalue("redis_server").url)
    else:
        client = await flushed(request.getfixturevalue("redis_cluster").url, cluster=True)
    yield client
    await client.aclose()


@pytest.fixture(params=[1, 4], ids=["1-scope", "4-scopes"])
def scopes(request: pytest.FixtureRequest) -> dict[str, str]:
    """One scope per call, or four, each with a budget of its own."""
    return {"team": "search"} if request.param == 1 else ALL_SCOPES


async def burst_stack(client: Any, storage: str, scopes: dict[str, str], limit_nano: int, default: int) -> Stack:
    """The engine with one tight budget, and looser ones on the other scopes a call carries."""
    budgets = [budget("team:search", limit_nano)]
    if len(scopes) > 1:
        budgets += [budget("user:*", 2 * limit_nano), budget("app:chat", 3 * limit_nano, period="day")]
        budgets += [budget("tenant:acme", 4 * limit_nano)]
    stack = await Stack.start(client, storage, config(*budgets), default_output_tokens=default)
    await stack.open()
    return stack


async def settled_to_the_last(stack: Stack, scopes: dict[str, str], admitted: int) -> int:
    """What the budget shows as spent, after checking that ledger, every counter and the holds agree."""
    spent = admitted * TRUE_COST
    assert await stack.ledger_total_nano_usd() == spent
    wanted = {f"{kind}:{key}" for kind, key in scopes.items()} | ({"tenant:acme"} if len(scopes) > 1 else set())
    for scope in wanted:
        assert await stack.spent_and_held(scope) == (spent, 0)
    return spent


def report(outcome: Outcome, spent: int, limit: int) -> None:
    """The figures a reader of the log wants."""
    used, over = spent / limit, max(0, spent - limit) / limit
    print(f"admitted {outcome.admitted}, used {used:.1%}, overspend {over:.1%}, {outcome.seconds:.1f} s")


@pytest.mark.parametrize("limit", [FITS_44, FIVE_CENTS], ids=["0.0495", "0.05"])
@pytest.mark.parametrize("max_output_tokens", [900, None], ids=["max-tokens", "no-max-tokens"])
async def test_a_burst_spends_the_budget_and_not_a_nano_more(client, azurite, scopes, max_output_tokens, limit):
    """Checking without holding lets all 200 in (450 %); holding the maximum refuses 19 calls that fit, or 43.

    The first estimate is 1.7 times the truth; with and without max_output_tokens exactly 44 calls are served.
    """
    stack = await burst_stack(client, azurite.connection_string, scopes, limit, default=900)
    outcome = await Burst(stack, scopes, max_output_tokens).run()
    spent = await settled_to_the_last(stack, scopes, outcome.admitted)
    report(outcome, spent, limit)
    assert spent <= limit
    assert spent >= limit * 95 // 100
    assert set(outcome.statuses) == {200, 402}
    await stack.close()


async def test_estimates_three_times_too_low_overspend_no_more_than_what_was_held(client, azurite, scopes):
    """Nobody can know the first calls' cost; but once one true cost arrived, no further call may ride on the error.

    Holding the first estimate without a limit on unlearned calls overspends this budget by 200 %.
    """
    stack = await burst_stack(client, azurite.connection_string, scopes, FITS_44, default=OUTPUT_TOKENS // 4)
    outcome = await Burst(stack, scopes, None).run()
    spent = await settled_to_the_last(stack, scopes, outcome.admitted)
    report(outcome, spent, FITS_44)
    assert spent - FITS_44 <= outcome.held_at_first_settlement_nano_usd
    assert spent >= FITS_44 * 95 // 100
    assert set(outcome.statuses) == {200, 402}
    await stack.close()


async def test_a_first_true_cost_that_arrives_alone_stops_the_next_calls_at_once(client, azurite, scopes):
    """The worst order: one of the calls in flight is settled long before the others, and 200 callers come right then.

    The others hold a third of what they cost. Until 32 samples prove an estimate, calls together hold a quarter of what
    is left at most, so nothing is let in beside them that would not fit; trusting the first sample overspent by 48 %.
    """
    stack = await burst_stack(client, azurite.connection_string, scopes, FITS_44, default=OUTPUT_TOKENS // 4)
    burst = Burst(stack, scopes, None)
    early = [answer for answer in [await burst.ask() for _ in range(CALLERS)] if answer.status == 200]
    held = (await stack.spent_and_held())[1]
    events = [burst.event(f"early-{i}", answer) for i, answer in enumerate(early)]
    await stack.ingest.run([delivery(events[0], 0, partition=PARTITIONS)])
    late = asyncio.create_task(burst.run())
    await asyncio.sleep(CALL_SECONDS * 2)
    await stack.ingest.run([delivery(body, 1 + i, partition=PARTITIONS) for i, body in enumerate(events[1:])])
    outcome = await late
    spent = await settled_to_the_last(stack, scopes, outcome.admitted + len(early))
    report(outcome, spent, FITS_44)
    print(f"{len(early)} calls were in flight and held {held / FITS_44:.1%}")
    assert spent <= FITS_44
    assert spent >= FITS_44 * 95 // 100
    assert set(outcome.statuses) <= {200, 402}
    await stack.close()


async def test_a_burst_of_priority_calls_spends_no_more_than_the_budget(redis_server, azurite):
    """`big` lists no priority price, so such a call is billed at the tenant's guard, here twice its standard price.

    Held at the standard price, 44 calls fit into the budget of 44 standard ones and spend it twice over; 22 are right.
    """
    guard = {"input": 2 * 1_000_000, "output": 2 * 2_000_000}  # pico-USD per token
    limited = config(budget("team:search", FITS_44), guard_usd_per_million=guard)
    url, storage = redis_server.url, azurite.connection_string
    async with open_stack(url, storage, limited, default_output_tokens=OUTPUT_TOKENS) as stack:
        outcome = await Burst(stack, {"team": "search"}, OUTPUT_TOKENS, "priority").run(callers=60)
        assert outcome.admitted == 22
        assert await stack.ledger_total_nano_usd() == 22 * 2 * TRUE_COST == FITS_44
        assert await stack.spent_and_held() == (FITS_44, 0)
