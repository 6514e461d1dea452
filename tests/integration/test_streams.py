"""Streams on a real Redis and a real Azurite: accrued at once, trued up from the LLM log, whatever happens between."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from shared.config.model import Team
from shared.ledger.delivery import Delivery
from shared.ledger.hours import HourIndex
from shared.ledger.rollup_job import RollupJob
from shared.ledger.row import LedgerRow, Position
from shared.ledger.store import RowRef
from shared.months import month_before, month_of
from shared.usage.build import true_up_event_bytes
from shared.usage.hub import HubUnavailable
from shared.usage.llm_log import LogRecord
from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(1_000))
ESTIMATE = 1_000 * 1 + 100 * 2  # micro-USD of a call that says nothing: default input, and the stack's default output
CANARY = "canary-77c2"


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme with one team budget, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, config(TEAM)) as stack:
        yield stack


def stream(id: str, **data: Any) -> bytes:  # noqa: A002
    """The event of a streamed call, without its tokens; the same bytes whenever it is asked for."""
    time_utc = data.pop("time_utc", datetime.now(UTC).replace(microsecond=0))
    return changed(usage_bytes(id, 0, time_utc=time_utc), usage=None, streamed=True, **data)


def logged(id: str, prompt: int | None, completion: int | None, *, sequence: int = 1, **extra: Any) -> dict[str, Any]:  # noqa: A002
    """A record of the LLM log, spelled and filled as the gateway does, texts included."""
    properties = {
        "IsStreamCompletion": True,
        "PromptTokens": prompt,
        "CompletionTokens": completion,
        "SequenceNumber": sequence,
        "requestMessages": CANARY,
        **extra,
    }
    return {"category": "gatewayLLMLogs", "correlationId": id.upper(), "properties": properties}


def aborted(id: str) -> dict[str, Any]:  # noqa: A002
    """The gateway's log of a client that went away."""
    error = {"lastError": {"reason": "ClientConnectionFailure"}}
    return {"Category": "GatewayLogs", "correlationId": id, "properties": error}


def log_delivery(sequence: int, *records: Any) -> Delivery:
    """A message of the LLM log hub."""
    return Delivery(json.dumps({"Records": records}).encode(), Position("ns/llm-logs/0", 1_790_000_000_000, sequence))


class Hub:
    """The usage hub's numbering, and what the product itself published brought back to it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.sequence = 0
        self.logs = 0

    async def usage(self, *events: bytes) -> None:
        """Deliver events to ingest as one batch."""
        batch = [delivery(event, self.sequence + at) for at, event in enumerate(events)]
        self.sequence += len(events)
        if batch:
            await self.stack.ingest.run(batch)

    async def log(self, *records: Any) -> None:
        """Deliver records to the other trigger as one message."""
        self.logs += 1
        await self.stack.llm_logs.run([log_delivery(self.logs, *records)])

    async def true_ups(self) -> int:
        """Deliver what was published; returns how many events that were."""
        events, self.stack.published = self.stack.published, []
        await self.usage(*events)
        return len(events)


@pytest.fixture
def hub(stack: Stack) -> Hub:
    return Hub(stack)


async def rows_of(stack: Stack, tenant: str = "acme") -> list[LedgerRow]:
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=2)
    return [row async for row in stack.ledger.rows(tenant, start, end)]


class Tally(msgspec.Struct):
    """What all of a tenant's cells add up to, whatever they are grouped by."""

    requests: int = 0
    cost_nano_usd: int = 0
    charge_nano_usd: int = 0
    estimated_cost_nano_usd: int = 0
    unpriced: int = 0
    tokens: Counter[str] = msgspec.field(default_factory=Counter)


async def sums_of(stack: Stack) -> Tally:
    """All of acme's usage, as every report adds it up."""
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=2)
    sums = Tally()
    async for cell in stack.ledger.reader.cells("acme", start, end):
        sums.requests += cell.requests
        sums.cost_nano_usd += cell.cost_nano_usd
        sums.charge_nano_usd += cell.charge_nano_usd
        sums.estimated_cost_nano_usd += 0 if cell.measured else cell.cost_nano_usd
        sums.unpriced += cell.unpriced
        sums.tokens.update(cell.tokens)
    return sums


async def assert_trued_up(stack: Stack, prompt: int, completion: int) -> None:
    """One accrual, one reversal, one true-up; counter, ledger and sums show what was measured and nothing else."""
    cost = (prompt + completion * 2) * MICRO_USD
    rows = await rows_of(stack)
    assert Counter(row.kind for row in rows) == {"accrual": 1, "reversal": 1, "true_up": 1}
    assert await stack.spent_and_held() == (cost, 0)
    assert sum(row.charge_nano_usd for row in rows) == cost
    sums = await sums_of(stack)
    assert (sums.requests, sums.cost_nano_usd, sums.unpriced) == (1, cost, 0)
    assert {kind: count for kind, count in sums.tokens.items() if count} == {"input": prompt, "output": completion}


async def test_a_stream_is_accrued_at_once_and_trued_up_from_its_log(stack, hub):
    """The estimate counts immediately; the log's numbers replace it, in counters, ledger and sums."""
    answer = await stack.check(max_output_tokens=50)
    await hub.usage(stream("a-1", reservation=answer.reservation))
    assert (await stack.spent_and_held())[0] == (100 + 50 * 2) * MICRO_USD
    await hub.log(logged("A-1", 812, 240))
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_the_log_may_come_first(stack, hub):
    """A half that finds nobody waits; the other one finds it, whichever letter case each spells the id in."""
    await hub.log(logged("a-1Bc", 812, 240))
    await hub.usage(stream("a-1Bc"))
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_tokens_may_be_spread_over_rows(stack, hub):
    """Several rows per call, tokens on some, in any order: the largest of each field counts, once both are known."""
    event = stream("a-1")
    await hub.usage(event)
    await hub.log(logged("a-1", 0, 0, sequence=3), logged("a-1", 812, None, sequence=1))
    assert await hub.true_ups() == 0
    await hub.log(logged("a-1", 5, 240, sequence=2), logged("b-2", 5, 5))
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_a_true_up_teaches_what_the_stream_really_wrote(stack, hub):
    """Streams would else teach nothing, and their holds stay at the default for ever."""
    for number in range(10):
        await hub.usage(stream(f"s-{number}"))
        await hub.log(logged(f"s-{number}", 10, 20))
    await hub.true_ups()
    await stack.check(max_output_tokens=1_000)
    assert (await stack.spent_and_held())[1] == (100 * 1 + 20 * 2) * MICRO_USD


async def test_a_stream_that_its_own_cap_cut_short_teaches_nothing(stack, hub):
    """One-token answers would teach that the next essay costs next to nothing."""
    for number in range(10):
        await hub.usage(stream(f"s-{number}", max_output_tokens=2))
        await hub.log(logged(f"s-{number}", 10, 2))
    await hub.true_ups()
    await stack.check(max_output_tokens=1_000)
    assert (await stack.spent_and_held())[1] == (100 * 1 + 100 * 2) * MICRO_USD  # as unlearned


async def test_redelivery_of_everything_changes_nothing(stack, hub):
    """Both triggers run again from any point; the true-up is published once and taken once."""
    event, record = stream("a-1"), logged("a-1", 812, 240)
    await hub.usage(event)
    await hub.log(record)
    [true_up] = stack.published
    await hub.true_ups()
    for _ in range(3):
        await hub.usage(event, true_up)
        await hub.log(record, record)
        await hub.usage(true_up, event)
    assert stack.published == []
    assert await stack.dead_letters.list() == []
    await assert_trued_up(stack, 812, 240)


async def test_both_halves_at_once_in_two_workers_meet(stack, hub):
    """Each writes first and then looks: at least one finds the other, and what both publish is the same bytes."""
    for number in range(25):
        other = Stack.__new__(Stack)
        other.__dict__.update(stack.__dict__)
        other.wire()
        event = stream(f"x-{number}")
        batch = [delivery(event, number * 10)]
        await asyncio.gather(
            stack.ingest.run(batch),
            other.llm_logs.run([log_delivery(number, logged(f"x-{number}", 10, number + 1))]),
        )
        published = stack.published + (other.published if other.published is not stack.published else [])
        assert len(published) in (1, 2)
        assert len(set(published)) == 1
        stack.published, other.published = [], []
        await stack.ingest.run([delivery(each, number * 10 + 1 + at) for at, each in enumerate(published)])
    cost = sum(10 + (number + 1) * 2 for number in range(25)) * MICRO_USD
    assert await stack.spent_and_held() == (cost, 0)


@pytest.mark.parametrize("first", ["call", "log"])
async def test_a_hub_that_is_away_keeps_the_batch(stack, hub, first):
    """A true-up that could not be published is not forgotten: the batch raises, comes again, and publishes it."""

    async def away(events: Any) -> None:
        raise HubUnavailable("away")

    event, record = stream("a-1"), logged("a-1", 812, 240)
    if first == "call":
        await hub.usage(event)
    else:
        await hub.log(record)
    stack.streams._publish = away
    for _ in range(2):
        with pytest.raises(HubUnavailable):
            await (hub.log(record) if first == "call" else hub.usage(event))
    stack.streams._publish = stack.publish
    await (hub.log(record) if first == "call" else hub.usage(event))
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_larger_numbers_after_the_true_up_are_never_billed(stack, hub):
    """A contradiction is kept, named and noticed; the bill stays. The letter holds numbers, no text."""
    await hub.usage(stream("a-1"))
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    await hub.log(logged("a-1", 812, 900))
    assert await hub.true_ups() == 0
    await assert_trued_up(stack, 812, 240)
    [letter] = await stack.dead_letters.list()
    assert letter["code"] == "id_conflict"
    [kept] = await stack.dead_letters.take([letter["id"]])
    assert b"900" in kept.body
    assert CANARY.encode() not in kept.body
    assert [each.kind for each in await stack.outbox.waiting()] == ["stream_conflict"]
    await hub.log(logged("a-1", 812, 240))  # what was billed comes again: nothing new
    assert len(await stack.dead_letters.list()) == 1


async def test_another_true_up_of_the_same_accrual_is_a_conflict(stack, hub):
    """Whoever sends one with other numbers meets the ledger: both rows stay as they are, one dead letter names it."""
    event = stream("a-1")
    await hub.usage(event)
    await hub.log(logged("a-1", 812, 240))
    [true_up] = stack.published
    await hub.true_ups()
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    await hub.usage(changed(true_up, usage=usage))
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["id_conflict"]
    await assert_trued_up(stack, 812, 240)


async def test_a_true_up_without_its_accrual_is_a_dead_letter(stack, hub):
    """Nothing is billed for a call the ledger does not know as an accrual."""
    now = datetime.now(UTC)
    await hub.usage(usage_bytes("measured", 10, time_utc=now))
    for id_ in ("nobody", "measured"):
        numbers = {"prompt_tokens": 5, "completion_tokens": 5}
        await hub.usage(true_up_event_bytes("apim/test", id_, now, tenant="acme", **numbers))
    assert {letter["code"] for letter in await stack.dead_letters.list()} == {"accrual_unknown"}
    assert await stack.spent_and_held() == (10 * MICRO_USD, 0)


async def test_nobody_can_keep_a_true_up_out_by_taking_its_id(stack, hub):
    """An event under the id of a call's reversal or true-up is a call of its own."""
    await hub.usage(stream("a-1"))
    await hub.usage(usage_bytes("a-1/true-up", 1), usage_bytes("a-1/reversal", 1))
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    assert await stack.spent_and_held() == ((812 + 240 * 2 + 2) * MICRO_USD, 0)
    assert await stack.dead_letters.list() == []


async def test_of_two_attempts_only_the_last_is_trued_up(stack, hub):
    """The log tells of the answer that was sent; billing both attempts by it would bill it twice."""
    await hub.usage(stream("a-1"), stream("a-1", attempt=2))
    await hub.log(logged("a-1", 10, 20))
    assert await hub.true_ups() == 1
    rows = {row.kind: row.id for row in await rows_of(stack) if row.kind != "accrual"}
    assert rows == {"reversal": "a-1/2/reversal", "true_up": "a-1/2/true-up"}
    assert await stack.spent_and_held() == ((ESTIMATE + 10 + 40) * MICRO_USD, 0)


async def test_no_other_source_takes_a_calls_measurement_away(stack, hub):
    """Whoever may post usage may post an accrual under a request id that is not theirs, with a higher attempt or an
    earlier arrival; the call itself is measured all the same, and the stranger's accrual costs only what it claims."""
    stranger = changed(usage_bytes("a-1", 0, source="http/oid/x"), usage=None, scopes={"team": "other"}, attempt=9)
    await hub.usage(stranger)
    await hub.log(logged("a-1", 812, 240))
    await hub.usage(stream("a-1"))
    await hub.true_ups()
    rows = {(row.source, row.kind): row for row in await rows_of(stack)}
    assert rows["apim/test", "true_up"].tokens == {"input": 812, "output": 240}
    assert rows["http/oid/x", "true_up"].scopes == {"team": "other"}
    assert await stack.spent_and_held() == ((812 + 480) * MICRO_USD, 0)
    assert (await stack.sweep.run(datetime.now(UTC) + timedelta(minutes=41))).unmeasured == Counter()


async def test_both_sources_are_trued_up_when_the_log_comes_last(stack, hub):
    """One record completes the accruals of two sources at once: each gets a true-up of its own, exactly once."""
    mine, posted = stream("a-1"), changed(usage_bytes("a-1", 0, source="http/oid/apim/test"), usage=None)
    await hub.usage(mine, posted, changed(posted, attempt=2))
    for _ in range(2):
        await hub.log(logged("a-1", 10, 20))
    assert await hub.true_ups() == 2
    true_ups = {(row.source, row.id) for row in await rows_of(stack) if row.kind == "true_up"}
    assert true_ups == {("apim/test", "a-1/true-up"), ("http/oid/apim/test", "a-1/2/true-up")}
    report = await stack.sweep.run(datetime.now(UTC) + timedelta(minutes=41))
    assert report[:4] == (Counter(acme=1), Counter(), 0, 0)  # the poster's first attempt


async def test_stored_rows_win_over_prices_and_tenants_of_a_redelivery(stack, hub):
    """A crash, then dearer prices: counters computed afresh would differ from the ledger for ever."""
    await hub.usage(stream("a-1"))
    await hub.log(logged("a-1", 812, 240))
    [true_up] = stack.published
    batch = [delivery(true_up, 1)]
    settle, stack.store.settle = stack.store.settle, _raise
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.store.settle = settle
    known = config()
    dearer = [
        type(price)(price.model, price.effective_from, {"input": 9_000_000, "output": 1}) for price in known.prices
    ]
    stack.configure(type(known)("v2", known.tenants, {}, (TEAM,), known.models, prices=tuple(dearer)))
    await stack.ingest.run(batch)
    await assert_trued_up(stack, 812, 240)


async def test_rows_of_a_tenant_that_left_do_not_stop_the_partition(stack, hub):
    """An identity that was acme's is another tenant's now: the stored row's tenant is billed, durably marked for repair
    as it is not configured any more, and the others of the batch go on."""

    def owned_by(tenant: str) -> Any:
        known = config(TEAM)
        team = Team(id="search", tenant=tenant, subscriptions=frozenset({"s"}))
        tenants = {tenant: type(known.tenants["acme"])(tenant)}
        return type(known)(tenant, tenants, {"search": team}, known.budgets, known.models, prices=known.prices)

    stack.configure(owned_by("acme"))
    event = msgspec.json.decode(stream("a-1"))
    del event["data"]["tenant"], event["data"]["scopes"]
    event["data"]["identity"] = {"subscription": "s"}
    body = msgspec.json.encode(event)
    await hub.usage(body)
    stack.configure(owned_by("other"))
    await stack.open("other")
    await hub.usage(body, usage_bytes("b", 5, tenant="other"))
    assert await stack.dead_letters.list() == []
    assert await stack.ledger_total_nano_usd("other") == 5 * MICRO_USD
    assert await stack.ledger_total_nano_usd("acme") == ESTIMATE * MICRO_USD
    assert list(await stack.state.dirty_tenants()) == ["acme"]
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()  # cannot be priced for a tenant that is gone; it waits for a replay
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["tenant_unknown"]


@pytest.mark.parametrize("before", ["priced", "unpriced"])
@pytest.mark.parametrize("after", ["priced", "unpriced"])
async def test_unpriced_on_either_side_adds_up(stack, hub, before, after):
    """Whatever was charged for the accrual is taken back, and `unpriced` counts the one call there is or none."""
    known = config(TEAM)

    def priced(state: str) -> Any:
        prices = known.prices if state == "priced" else ()
        return type(known)(f"v-{state}", known.tenants, {}, known.budgets, known.models, prices=prices)

    stack.configure(priced(before))
    await hub.usage(stream("a-1"))
    stack.configure(priced(after))
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    rows = {row.kind: row for row in await rows_of(stack)}
    assert rows["accrual"].charge_nano_usd == -rows["reversal"].charge_nano_usd > 0
    truth = rows["true_up"].charge_nano_usd
    assert truth == (812 + 480) * MICRO_USD if after == "priced" else truth > 0
    assert await stack.spent_and_held() == (truth, 0)
    sums = await sums_of(stack)
    known_cost = truth if after == "priced" else 0
    assert (sums.requests, sums.cost_nano_usd, sums.unpriced) == (1, known_cost, int(after == "unpriced"))
    assert (sums.estimated_cost_nano_usd, sums.charge_nano_usd) == (0, truth)


async def test_a_true_up_of_a_closed_month_is_booked_into_the_open_one(stack, hub):
    """The statement that went out stays; the event's time stays too, so the open month's counter does not move."""
    this_month = month_of(datetime.now(UTC))
    last_month = month_before(this_month)
    at = datetime.fromisoformat(f"{last_month}-15T12:00:00+00:00")
    await hub.usage(stream("a-1", time_utc=at))
    await stack.ledger.periods.freeze("acme", last_month)
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    booked = {row.kind: row.booked_period for row in await rows_of(stack)}
    assert booked == {"accrual": last_month, "reversal": this_month, "true_up": this_month}
    assert {row.time_utc for row in await rows_of(stack)} == {at}
    cells = await stack.store.cells("acme", int(datetime.now(UTC).timestamp() * 1000))
    spent = {cell.period.start_s: (await stack.store.figures("acme", cell))[0] for cell in cells}
    assert spent == {datetime.fromisoformat(f"{last_month}-01T00:00:00+00:00").timestamp(): (812 + 480) * MICRO_USD}


async def test_rollups_and_reconciliation_are_exact_with_true_ups(stack, hub):
    """Sums read from rollups and from rows agree, and a rebuild from the ledger finds the very counters."""
    stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)  # rolled up without waiting
    stack.wire()
    for number in range(20):
        await hub.usage(stream(f"s-{number}"), usage_bytes(f"u-{number}", 7))
        if number % 2:
            await hub.log(logged(f"s-{number}", 100 + number, 10))
    await hub.true_ups()
    truth = sum(100 + n + 20 for n in range(1, 20, 2)) + 10 * ESTIMATE + 20 * 7
    assert await stack.spent_and_held() == (truth * MICRO_USD, 0)
    before = await sums_of(stack)
    await RollupJob(stack.tables, stack.ledger.hours, stack.ledger.reader).run()
    assert not [hour async for hour in stack.ledger.hours.scan() if hour.dirty]
    assert await sums_of(stack) == before
    assert (before.requests, before.cost_nano_usd) == (40, truth * MICRO_USD)
    assert before.estimated_cost_nano_usd == 10 * ESTIMATE * MICRO_USD
    assert (await stack.repair.reconcile("acme")).drift_nano_usd == 0
    await stack.client.flushall()
    await stack.repair.run()
    assert await stack.spent_and_held() == (truth * MICRO_USD, 0)


async def test_the_sweep_counts_what_never_came(stack, hub):
    """Unmeasured, aborted and unreported are told apart, noticed once per tenant and day, and counted once."""
    at = datetime.now(UTC)
    await hub.usage(*(stream(f"lost-{n}", time_utc=at) for n in range(3)), stream("gone-1"), stream("fine-1"))
    await hub.log(aborted("GONE-1"), logged("fine-1", 1, 2), logged("nobody-1", 5, 5), aborted("other-api"))
    await hub.log(logged("plain-1", 5, 5, IsStreamCompletion=False))
    await hub.true_ups()
    assert await stack.sweep.run() == (Counter(), Counter(), 0, 0, 0)
    later = datetime.now(UTC) + timedelta(minutes=41)
    report = await stack.sweep.run(later)
    assert report[:4] == (Counter(acme=3), Counter(acme=1), 1, 0)
    await hub.usage(stream("lost-1", time_utc=at))  # delivered again, and so looked at again
    assert (await stack.sweep.run(later + timedelta(minutes=5)))[:4] == (Counter(), Counter(), 0, 0)
    notices = {each.kind: each.payload for each in await stack.outbox.waiting()}
    assert (notices["streams_unmeasured"]["unmeasured"], notices["streams_unmeasured"]["aborted"]) == (3, 1)
    assert notices["streams_unmeasured"]["tenant"] == "acme"
    assert notices["streams_unreported"]["unreported"] == 1


async def test_a_stream_that_its_own_gateway_saw_cut_counts_as_aborted(stack, hub):
    """The built-in gateway has no LLM log: an operator who reads `unmeasured` would look for a log that cannot be."""
    await hub.usage(stream("cut-1", aborted=True), stream("lost-1"))
    report = await stack.sweep.run(datetime.now(UTC) + timedelta(minutes=41))
    assert report[:2] == (Counter(acme=1), Counter(acme=1))
    await hub.log(logged("cut-1", 812, 240))  # a gateway that has a log all the same is believed
    assert await hub.true_ups() == 1


async def test_a_broken_stream_is_billed_at_once_by_what_went_by(stack, hub):
    """Nobody will ever measure it: one row, estimated for good, that no log is waited for; a second delivery and a log
    record of the same id change nothing.
    """
    cut = stream("cut-1", aborted=True, input_tokens_estimate=30, output_tokens_estimate=7, max_output_tokens=100)
    capped = stream("cut-2", aborted=True, input_tokens_estimate=30, output_tokens_estimate=700, max_output_tokens=100)
    at_start = {"input_tokens": 40, "cache_read_input_tokens": 0, "output_tokens": 1}
    counted = changed(stream("cut-3", input_tokens_estimate=30, output_tokens_estimate=7), usage=at_start)
    failed = stream("cut-4", status=502, input_tokens_estimate=30, output_tokens_estimate=7)
    await hub.usage(cut, capped, counted, failed)
    await hub.usage(cut)
    await hub.log(logged("cut-1", 812, 240))
    assert await hub.true_ups() == 0
    rows = {row.id: row for row in await rows_of(stack)}
    assert {id_: row.tokens for id_, row in rows.items()} == {
        "cut-1": {"input": 30, "output": 7},
        "cut-2": {"input": 30, "output": 100},  # no model writes more than it was allowed
        "cut-3": {"input": 40, "output": 7},  # the provider's own count of the prompt
        "cut-4": {},
    }
    assert {row.kind for row in rows.values()} == {"usage"}
    assert [row.measured for row in rows.values()].count(False) == 3
    cost = ((30 + 7 * 2) + (30 + 100 * 2) + (40 + 7 * 2)) * MICRO_USD
    assert await stack.spent_and_held() == (cost, 0)
    assert (await sums_of(stack)).estimated_cost_nano_usd == cost
    report = await stack.sweep.run(datetime.now(UTC) + timedelta(minutes=41))
    assert report[:2] == (Counter(), Counter())


async def test_a_log_that_comes_days_later_is_still_billed(stack, hub):
    """Counted as unmeasured is not given up: the halves lie there for a week."""
    await hub.usage(stream("a-1"))
    await stack.sweep.run(datetime.now(UTC) + timedelta(days=1))
    await hub.log(logged("a-1", 812, 240))
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_the_sweep_publishes_what_a_dead_worker_did_not(stack, hub):
    """Both halves are there and their worker never came back: the sweep closes the gap."""
    now = datetime.now(UTC)
    await hub.usage(stream("a-1"))
    await stack.stream_table.add([], [LogRecord("a-1", 1, 812, 240, True)], now)
    report = await stack.sweep.run(now + timedelta(minutes=41))
    assert (report.published, report.unmeasured) == (1, Counter())
    assert await hub.true_ups() == 1
    await assert_trued_up(stack, 812, 240)


async def test_halves_are_gone_after_a_week(stack, hub):
    """The table holds what waits, not history; and what is delivered again then is known to the ledger."""
    event, record = stream("a-1"), logged("a-1", 812, 240)
    await hub.usage(event, stream("b-1"))
    await hub.log(record, logged("nobody", 1, 1))
    [true_up] = stack.published
    await hub.true_ups()
    now = datetime.now(UTC)
    await stack.sweep.run(now + timedelta(hours=1))
    await stack.sweep.run(now + timedelta(days=7, hours=2))
    assert [entity async for entity in stack.tables.streams.list_entities()] == []
    await hub.usage(event)  # a trigger that starts from the hub's beginning
    assert (await stack.sweep.run(now + timedelta(hours=1))).unmeasured == Counter()
    await hub.log(record)
    assert stack.published == [true_up]
    await hub.true_ups()
    rows = await rows_of(stack)
    assert Counter(row.kind for row in rows) == {"accrual": 2, "reversal": 1, "true_up": 1}
    assert await stack.spent_and_held() == ((812 + 480 + ESTIMATE) * MICRO_USD, 0)
    assert await stack.ledger.is_trued_up(RowRef("apim/test", "a-1", rows[0].time_utc))


async def test_no_text_of_a_prompt_is_kept_anywhere(stack, hub):
    """Not in a table, a blob, an event or a log line, whether the record is good, bad or not JSON at all."""
    await hub.usage(stream("a-1"))
    bad = logged("b-1", -5, 5, responseMessages=[{"content": CANARY}])
    await hub.log(logged("a-1", 812, 240), bad, CANARY, {**logged("c-1", 1, 1), "correlationId": f"{CANARY} x"})
    await stack.llm_logs.run([Delivery(f'{{"records": [{{"x": "{CANARY}'.encode(), Position("ns/llm-logs/1", 1, 1))])
    assert len(await stack.dead_letters.list()) == 4
    kept = list(stack.published)
    for name in ("ledger", "hours", "rollups", "deadletters", "outbox", "periods", "state", "streams"):
        kept += [str(dict(each)).encode() async for each in getattr(stack.tables, name).list_entities()]
    async for blob in stack.tables.bodies.list_blobs():
        kept.append(await (await stack.tables.bodies.download_blob(blob.name)).readall())
    assert len(kept) > 8
    assert not [each for each in kept if CANARY.encode() in each]


async def test_ids_that_are_no_guids_meet_too(stack, hub):
    """A source may number its calls as it likes: slashes, quotes and letters a key cannot hold."""
    odd = "Req/7'#?%Ünï"
    await hub.usage(stream("req/7'#?%", time_utc=datetime.now(UTC)), stream(odd))
    await hub.log(logged("REQ/7'#?%", 1, 1))
    assert await hub.true_ups() == 1


async def test_many_that_wait_are_all_found(stack, hub, monkeypatch):
    """Reading a batch's calls in one page of their range must not miss what stands behind the page, between others, or
    under an id that starts like another."""
    monkeypatch.setattr("shared.ledger.streams_store._PAGE", 7)
    ids = [f"{n % 3}{'-1' * (n % 4)}{'x' * (n // 12)}" for n in range(96)]
    assert len(set(ids)) == 96
    now = datetime.now(UTC)
    records = [LogRecord(id_, at, 1, 2, True) for id_ in ids for at in range(1, 4)]
    await stack.stream_table.add([], records, now)
    for wanted in (ids, ids[::2], ids[:40], ids[3:4], ["nobody", *ids[5:70]]):
        found = {halves.correlation_id: halves for halves in await stack.stream_table.read(wanted)}
        assert set(found) == set(wanted)
        assert {id_: len(halves.keys) for id_, halves in found.items() if id_ != "nobody"} == {
            id_: 3 for id_ in wanted if id_ != "nobody"
        }
        assert "nobody" not in found or found["nobody"].keys == []


async def test_any_order_ends_the_same(stack, hub):
    """Random interleavings of calls, rows, duplicates, redeliveries, failures of the hub and sweeps: one accrual, one
    reversal, one true-up each; counters, ledger and arithmetic agree to the nano-dollar."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    truth, ids = 0, [f"call-{number}" for number in range(40)]
    steps: list[tuple[str, Any]] = []
    for number, id_ in enumerate(ids):
        event = stream(id_, time_utc=datetime.now(UTC) - timedelta(minutes=rng.randrange(90)))
        steps += [("usage", event)] * rng.randint(1, 3)
        if number % 8 == 0:
            truth += ESTIMATE
            steps.append(("log", aborted(id_)))
            continue
        prompt, completion = rng.randint(1, 3_000), rng.randint(1, 3_000)
        truth += prompt + completion * 2
        whole = [logged(id_, prompt, completion, sequence=2)]
        parts = [logged(id_, prompt, None), logged(id_, None, completion, sequence=2), logged(id_, 0, 0, sequence=3)]
        steps += [("log", record) for record in rng.choice([whole, parts]) for _ in range(rng.randint(1, 2))]
    rng.shuffle(steps)
    everything: list[bytes] = []

    async def flaky(events: Any) -> None:
        if rng.random() < 0.2:
            raise HubUnavailable("away")
        await stack.publish(events)
        if rng.random() < 0.1:
            raise HubUnavailable("the reply was lost")

    stack.streams._publish = flaky
    while steps:
        taken = [steps.pop() for _ in range(min(len(steps), rng.randint(1, 6)))]
        events = [body for kind, body in taken if kind == "usage"]
        records = [record for kind, record in taken if kind == "log"]
        batch = [delivery(event, hub.sequence + at) for at, event in enumerate(events)]
        hub.sequence += len(batch)
        hub.logs += 1
        message = [log_delivery(hub.logs, *records)]
        done = [False, False]
        while not all(done):
            jobs = [stack.ingest.run(batch), stack.llm_logs.run(message)]
            results = await asyncio.gather(*jobs, return_exceptions=True)
            done = [not isinstance(result, HubUnavailable) for result in results]
            assert not [r for r in results if isinstance(r, Exception) and not isinstance(r, HubUnavailable)], results
        if rng.random() < 0.3:
            everything += stack.published
            again = rng.sample(everything, min(3, len(everything)))
            stack.published = stack.published + again
            await hub.true_ups()
    everything += stack.published
    await hub.true_ups()
    assert await stack.dead_letters.list() == []
    kinds = Counter(row.kind for row in await rows_of(stack))
    assert kinds == {"accrual": 40, "reversal": 35, "true_up": 35}
    assert await stack.spent_and_held() == (truth * MICRO_USD, 0)
    assert await stack.ledger_total_nano_usd() == truth * MICRO_USD
    sums = await sums_of(stack)
    assert (sums.requests, sums.cost_nano_usd) == (40, truth * MICRO_USD)
    assert len({msgspec.json.decode(body)["id"] for body in everything}) == len(set(everything)) == 35


async def _raise(*_: Any) -> None:
    raise ConnectionError("redis is away")
