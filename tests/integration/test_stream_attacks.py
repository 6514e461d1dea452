"""Streams under hostile or broken input and stores that fail at every step, on a real Redis and a real Azurite."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError

from shared.ledger.hours import HourIndex
from shared.ledger.replay import ReplayService
from shared.ledger.retention import RetentionJob
from shared.ledger.rollup_job import RollupJob
from shared.ledger.streams_store import Match, StreamCall
from shared.ledger.summary import Summaries
from shared.months import month_of
from shared.reports.files_json import document as document_of
from shared.settings import Settings
from shared.usage.llm_log import LogRecord
from tests.integration.test_streams import ESTIMATE, TEAM, Hub, aborted, logged, rows_of, stream, sums_of
from tests.support.engine import MICRO_USD, config
from tests.support.reports import reports_over
from tests.support.stack import Stack, changed, open_stack, usage_bytes

AFTER_THE_WAIT = timedelta(minutes=41)


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme with one team budget, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, config(TEAM)) as stack:
        yield stack


@pytest.fixture
def hub(stack: Stack) -> Hub:
    return Hub(stack)


@pytest.mark.parametrize("first", ["event", "log"])
@pytest.mark.parametrize("streamed", [True, False, None])
async def test_a_call_that_was_measured_is_not_billed_by_its_log_as_well(stack, hub, first, streamed):
    """The log has a record of every call; only accruals are trued up."""
    event, record = usage_bytes("m-1", 10, 20), logged("m-1", 500, 500, IsStreamCompletion=streamed)
    for step in ("event", "log") if first == "event" else ("log", "event"):
        await (hub.usage(event) if step == "event" else hub.log(record))
    await stack.sweep.run(datetime.now(UTC) + AFTER_THE_WAIT)
    assert await hub.true_ups() == 0
    assert await stack.spent_and_held() == (50 * MICRO_USD, 0)


@pytest.mark.parametrize("status", [0, 400, 429, 499, 500])
async def test_a_call_that_failed_is_not_billed_by_its_log(stack, hub, status):
    """The event says that nothing was served; a log record with tokens is shown to the operator, not charged."""
    await hub.usage(stream("f-1", status=status))
    await hub.log(logged("f-1", 500, 500))
    report = await stack.sweep.run(datetime.now(UTC) + AFTER_THE_WAIT)
    assert (await hub.true_ups(), report.unreported) == (0, 1)
    assert await stack.spent_and_held() == (0, 0)


async def test_the_models_of_the_log_do_not_matter(stack, hub):
    """A call is priced by the model of its accrual: a log that names another changes neither price nor row."""
    await hub.usage(stream("a-1", deployment="big-weu"))
    await hub.log(logged("a-1", 812, 240, modelName="other", deploymentName="tiny", requestId="x"))
    await hub.true_ups()
    rows = {row.kind: row for row in await rows_of(stack)}
    assert {(row.model, row.deployment) for row in rows.values()} == {("big", "big-weu")}
    assert await stack.spent_and_held() == ((812 + 480) * MICRO_USD, 0)


@pytest.mark.parametrize(
    "record",
    [
        {"PromptTokens": 5, "CompletionTokens": 5, "TotalTokens": 9},
        {"PromptTokens": -1, "CompletionTokens": 5},
        {"PromptTokens": 1.5, "CompletionTokens": 5},
        {"PromptTokens": 10**9, "CompletionTokens": 5},
        {"PromptTokens": [5], "CompletionTokens": 5},
        {"PromptTokens": "0x10", "CompletionTokens": 5},
        {"PromptTokens": True, "CompletionTokens": 5},
    ],
)
async def test_numbers_that_contradict_themselves_bill_nothing(stack, hub, record):
    """The record becomes a dead letter; the call keeps its estimate and a good record still trues it up."""
    await hub.usage(stream("a-1"))
    await hub.log(logged("a-1", None, None, **record))
    assert await hub.true_ups() == 0
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["usage_unreadable"]
    await hub.log(logged("a-1", 812, 240))
    assert await hub.true_ups() == 1


async def test_an_id_used_again_days_later_does_not_bill_the_first_call_twice(stack, hub):
    """The second call keeps its estimate and is counted; the numbers of its log are kept apart, not charged."""
    now = datetime.now(UTC)
    await hub.usage(stream("a-1", time_utc=now - timedelta(days=3)))
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    await hub.usage(stream("a-1", time_utc=now))
    await hub.log(logged("a-1", 900, 900))
    assert await hub.true_ups() == 0
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["id_conflict"]
    assert (await stack.sweep.run(now + AFTER_THE_WAIT)).unmeasured == Counter(acme=1)
    kinds = Counter(row.kind for row in await rows_of(stack))
    assert kinds == {"accrual": 2, "reversal": 1, "true_up": 1}


async def test_two_sweeps_at_once_agree(stack, hub):
    """Both may look at the same calls; the notice is one, nothing raises, what is due is gone and nothing else is."""
    now = datetime.now(UTC)
    await hub.usage(*(stream(f"s-{n}", time_utc=now) for n in range(40)))
    await hub.log(*(logged(f"p-{n}", 5, 5, IsStreamCompletion=False) for n in range(40)))
    await stack.stream_table.add([], [LogRecord("s-1", 1, 812, 240, True)], now)
    reports = await asyncio.gather(*(stack.sweep.run(now + AFTER_THE_WAIT) for _ in range(3)))
    assert max(report.unmeasured["acme"] for report in reports) == 39
    assert len(set(stack.published)) == 1
    assert [notice.payload["unmeasured"] for notice in await stack.outbox.waiting()] == [39]
    assert (await stack.sweep.run(now + AFTER_THE_WAIT))[:4] == (Counter(), Counter(), 0, 0)
    await asyncio.gather(*(stack.sweep.run(now + timedelta(days=8)) for _ in range(3)))
    assert [entity async for entity in stack.tables.streams.list_entities()] == []


class Failing:
    """A table client that fails once, at its n-th request; the request itself may have arrived."""

    def __init__(self, table: Any, at: int, *, arrives: bool) -> None:
        self._table, self.left, self._arrives = table, at, arrives

    def _is_due(self) -> bool:
        self.left -= 1
        return self.left == 0

    def query_entities(self, *args: Any, **options: Any) -> Any:
        if self._is_due():
            raise ServiceRequestError("the store is away")
        return self._table.query_entities(*args, **options)

    async def submit_transaction(self, operations: Any) -> Any:
        due = self._is_due()
        if due and not self._arrives:
            raise ServiceRequestError("the store is away")
        answer = await self._table.submit_transaction(operations)
        if due:
            raise ServiceRequestError("the reply was lost")
        return answer

    async def delete_entity(self, *args: Any, **options: Any) -> Any:
        return await self._table.delete_entity(*args, **options)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_store_that_fails_at_any_request_loses_nothing(stack, hub, arrives):
    """Every request of accruing, logging and sweeping fails once, before or after it arrived; each step is run again.

    Whatever the place: one true-up for the measured call, one count for the other, an empty table a week later.
    """
    real, now, places = stack.stream_table._table, datetime.now(UTC), 0

    async def survive(step: Any, at: int) -> tuple[Any, bool]:
        """The step's answer, run again after its n-th request failed; and whether it has that many."""
        failing = Failing(real, at, arrives=arrives)
        stack.stream_table._table = stack.stream_table._writer._table = failing
        try:
            return await step(), False
        except ServiceRequestError:
            return await step(), True
        finally:
            stack.stream_table._table = stack.stream_table._writer._table = real

    for at in range(1, 12):
        unmeasured: Counter[str] = Counter()
        events = [stream(f"ok-{at}", time_utc=now), stream(f"lost-{at}", time_utc=now)]
        records = [logged(f"ok-{at}", 10, 20), logged(f"plain-{at}", 1, 1, IsStreamCompletion=False)]

        async def sweep(seen: Counter[str] = unmeasured, later: timedelta = AFTER_THE_WAIT) -> None:
            seen.update((await stack.sweep.run(now + later)).unmeasured)

        hit = [
            (await survive(lambda events=events: hub.usage(*events), at))[1],
            (await survive(lambda records=records: hub.log(*records), at))[1],
            (await survive(sweep, at))[1],
        ]
        places += sum(hit)
        assert unmeasured in (Counter(acme=1), Counter())  # a run that failed behind its count has counted it
        found = {each.correlation_id: each for each in await stack.stream_table.read([f"ok-{at}", f"lost-{at}"])}
        assert (found[f"lost-{at}"].swept, found[f"ok-{at}"].swept) == (True, False)
        await hub.true_ups()
        await survive(lambda: stack.sweep.run(now + timedelta(days=8)), at)
        assert [entity async for entity in real.list_entities()] == []
    assert places > 15
    kinds = Counter(row.kind for row in await rows_of(stack))
    assert kinds == {"accrual": 22, "reversal": 11, "true_up": 11}
    assert await stack.spent_and_held() == (11 * (50 + ESTIMATE) * MICRO_USD, 0)


async def test_price_team_and_deployment_of_the_accrual_stay(stack, hub):
    """Between accrual and true-up the team moves, its deployment serves another model and prices rise for what comes
    after: the call stays where it was and costs what it cost then."""
    at = datetime.now(UTC).replace(microsecond=0)
    await hub.usage(stream("a-1", time_utc=at))
    known = config(TEAM)
    later = [
        type(price)(price.model, at + timedelta(seconds=1), {"input": 9_000_000, "output": 9_000_000})
        for price in known.prices
    ]
    prices = (*known.prices, *later)
    stack.configure(type(known)("v2", known.tenants, {}, known.budgets, {}, prices=prices))
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    rows = {row.kind: row for row in await rows_of(stack)}
    assert rows["true_up"].scopes == rows["accrual"].scopes == {"team": "search"}
    assert await stack.spent_and_held() == ((812 + 480) * MICRO_USD, 0)


async def test_a_true_up_after_the_accruals_retention_bills_nothing(stack, hub):
    """The month is long gone from the ledger: half a correction of it would be a bill out of nothing."""
    stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
    stack.wire()
    at = datetime.now(UTC) - timedelta(days=40)
    await hub.usage(stream("a-1", time_utc=at))
    await RetentionJob(stack.tables, stack.hours, 30).run()
    assert await rows_of(stack) == []
    await hub.log(logged("a-1", 812, 240))
    assert await hub.true_ups() == 1
    assert [letter["code"] for letter in await stack.dead_letters.list()] == ["accrual_unknown"]
    assert await rows_of(stack) == []


async def test_letters_of_both_hubs_go_back_to_their_own_and_do_their_work_once(stack, hub):
    """A true-up refused while its tenant was away and a record refused for its numbers: replayed twice, taken once."""
    await hub.usage(stream("a-1"))
    await hub.log(logged("a-1", 812, 240))
    known = config(TEAM)
    stack.configure(type(known)("gone", {}, {}, (), known.models, prices=known.prices))
    await hub.true_ups()
    stack.configure(known)
    await hub.log(logged("b-1", -1, 5), logged("a-1", 812, 241))
    letters = {letter["code"]: letter["id"] for letter in await stack.dead_letters.list()}
    assert set(letters) == {"tenant_unknown", "usage_unreadable", "id_conflict"}
    logs: list[bytes] = []

    async def publish_logs(messages: Any) -> None:
        logs.extend(body for _, body in messages)

    replay = ReplayService(stack.dead_letters, stack.publish, publish_logs, Settings().is_llm_log_stream)
    for _ in range(2):
        assert (await replay.run(list(letters.values()), "ada")).replayed == 3
    assert (len(stack.published), len(logs)) == (2, 4)
    await hub.true_ups()
    for message in logs:
        await hub.log(*json.loads(message)["records"])
    assert await hub.true_ups() == 0
    assert await stack.spent_and_held() == ((812 + 480) * MICRO_USD, 0)
    kinds = Counter(row.kind for row in await rows_of(stack))
    assert kinds == {"accrual": 1, "reversal": 1, "true_up": 1}


class Books:
    """What every report says of teams search and other at an instant, by team."""

    def __init__(self, stack: Stack) -> None:
        self._reader = stack.ledger.reader
        self._summaries = Summaries(self._reader)

        self._reports = reports_over(lambda: config(TEAM), self._reader)

    async def parts(self, at: datetime, now: datetime) -> dict[str, tuple[str, ...]]:
        """The three costs per team; asserts that summary and statement agree on them, and that shares sum to one."""
        span = at - timedelta(days=1), at + timedelta(days=1)
        summary = {row["team"]: row for row in await self._summaries.summarize("acme", *span, ["team"], None, now)}
        statement = await self._reports.statement("acme", month_of(at), None, now)
        document = document_of(statement)
        lines = {line["team"]: line for line in document["lines"]}
        names = [f"{part}_{of}" for of in ("cost", "share") for part in ("measured", "estimated", "missing")]
        for team, row in summary.items():
            for source in (lines[team], *(t for t in document["team_totals"] if t["team"] == team)):
                assert [source[name] for name in names] == [row[name] for name in names]
            assert sum(Decimal(row[name]) for name in names[3:]) == 1
            assert sum(Decimal(row[name]) for name in names[:3]) == Decimal(row["cost"])
        total = document["totals"]
        assert [Decimal(total[n]) for n in names[:3]] == [
            sum(Decimal(r[n]) for r in summary.values()) for n in names[:3]
        ]
        return {team: tuple(row[name] for name in names[3:]) for team, row in summary.items()}


async def test_shares_are_right_at_every_moment(stack, hub):
    """Before the log, after it, after the wait and after a true-up later still: by team, in every report alike."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    books, soon, late = Books(stack), at + timedelta(minutes=2), at + timedelta(minutes=46)
    other: dict[str, Any] = {"scopes": {"team": "other"}}
    await hub.usage(stream("a-1", time_utc=at), stream("b-1", time_utc=at, **other))
    await hub.usage(usage_bytes("m-1", ESTIMATE, time_utc=at))
    half, none = ("0.5000", "0.5000", "0.0000"), ("0.0000", "1.0000", "0.0000")
    assert await books.parts(at, soon) == {"search": half, "other": none}
    await hub.log(logged("b-1", 300, 0), logged("b-1", 0, 30, sequence=2))
    assert await books.parts(at, soon) == {"search": half, "other": none}  # published, not in the ledger yet
    await hub.true_ups()
    assert await books.parts(at, soon) == {"search": half, "other": ("1.0000", "0.0000", "0.0000")}
    assert (await books.parts(at, late))["search"] == ("0.5000", "0.0000", "0.5000")
    await stack.sweep.run(late)
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    for now in (soon, late):
        assert set((await books.parts(at, now)).values()) == {("1.0000", "0.0000", "0.0000")}
    assert (await sums_of(stack)).requests == 3


async def test_a_true_up_after_the_rollup_reaches_the_reports(stack, hub):
    """The hour was summed up with the estimate in it: its rollup no longer counts the moment the measured rows come,
    and says the same once it is made again."""

    def restart() -> None:
        """A worker that reuses no mark: without the grace a rollup does not wait for marks that still cover inserts."""
        stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
        stack.wire()

    restart()
    at = datetime.now(UTC) - timedelta(hours=3)
    books, now = Books(stack), datetime.now(UTC)
    job = RollupJob(stack.tables, stack.hours, stack.ledger.reader)
    await hub.usage(stream("a-1", time_utc=at))
    await job.run()
    assert not [hour async for hour in stack.hours.scan() if hour.dirty]
    assert await books.parts(at, now) == {"search": ("0.0000", "0.0000", "1.0000")}
    restart()
    await hub.log(logged("a-1", 812, 240))
    await hub.true_ups()
    for _ in range(2):
        assert await books.parts(at, now) == {"search": ("1.0000", "0.0000", "0.0000")}
        assert (await sums_of(stack)).cost_nano_usd == (812 + 480) * MICRO_USD
        await job.run()


async def test_calls_at_the_last_instant_of_an_hour_and_a_month_stay_in_it(stack, hub):
    """Both new rows lie beside the accrual, in its hour and its month, wherever the log comes."""
    last = datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    first = last + timedelta(microseconds=1)
    await hub.usage(stream("a-1", time_utc=last), stream("b-1", time_utc=first))
    await hub.log(logged("a-1", 812, 240), logged("b-1", 1, 1))
    await hub.true_ups()
    places = {row.id.partition("/")[0]: set() for row in await rows_of(stack)}
    for row in await rows_of(stack):
        places[row.id.partition("/")[0]].add((row.time_utc, row.booked_period))
    assert places == {"a-1": {(last, "2026-10")}, "b-1": {(first, "2026-11")}}


async def test_many_sources_under_one_id_cost_only_themselves(stack, hub):
    """Somebody who posts a hundred accruals under one request id has a hundred calls billed by its log, and the call
    whose id it is exactly one."""
    posted = [
        changed(usage_bytes("a-1", 0, source=f"http/oid/{n}"), usage=None, scopes={"team": "other"}) for n in range(100)
    ]
    await hub.usage(*posted)
    await hub.usage(stream("a-1"))
    await hub.log(aborted("a-1"), logged("a-1", 812, 240))
    assert await hub.true_ups() == 101
    assert await stack.spent_and_held() == ((812 + 480) * MICRO_USD, 0)


async def test_marking_what_was_just_deleted_leaves_nothing_unreadable(stack):
    """A sweep forgets a call while a worker publishes its true-up: half a row would fail every later batch that meets
    this id, and its partition would stand still."""
    now = datetime.now(UTC)
    await stack.stream_table.add([StreamCall("a-1", "acme", "apim/test", "a-1", now)], [], now)
    [found] = await stack.stream_table.read(["a-1"])
    match = Match(found.calls[0], 812, 240)
    await stack.stream_table.claim([match], now)
    [found] = await stack.stream_table.read(["a-1"])
    await stack.stream_table.delete(found.keys)
    await stack.stream_table.mark_published([match])
    [found] = await stack.stream_table.read(["a-1"])
    assert found.matches["apim/test"].published


async def test_embeddings_need_no_output_to_be_trued_up(stack, hub):
    """Their log names the prompt only; waiting for the rest would keep them estimates for ever."""
    await hub.usage(stream("e-1", operation="embeddings"))
    await hub.log(logged("e-1", 812, 0))
    assert await hub.true_ups() == 1
    assert await stack.spent_and_held() == (812 * MICRO_USD, 0)


async def test_a_worker_whose_clock_is_behind_loses_no_half(stack, hub):
    """Halves written with a clock an hour off are swept later or earlier, and found all the same."""
    now = datetime.now(UTC)
    for skew in (-60, 60):
        id_ = f"s{skew}"
        call = StreamCall(id_, "acme", "apim/test", id_, now)
        await stack.stream_table.add([call], [], now + timedelta(minutes=skew))
        await hub.usage(stream(id_, time_utc=now))
    await stack.sweep.run(now)
    await hub.log(*(logged(f"s{skew}", 812, 240) for skew in (-60, 60)))
    assert await hub.true_ups() == 2
    await stack.sweep.run(now + timedelta(hours=3))
    await stack.sweep.run(now + timedelta(days=8))
    assert [entity async for entity in stack.tables.streams.list_entities()] == []
