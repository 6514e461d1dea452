"""Exactly-once insertion against a real table service."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError

from shared.ledger.codec import MAX_ROW_TEXT, RowTooLarge
from shared.ledger.hours import HourIndex
from shared.ledger.keys import row_key
from shared.ledger.row import LedgerRow
from shared.ledger.store import Inserted, LedgerStore
from shared.ledger.tables import Tables
from tests.ledger_rows import TEN, position, usage


def outcomes(answers: Sequence[Inserted]) -> dict[str, int]:
    return dict(Counter(answer.outcome for answer in answers))


async def stored(ledger: LedgerStore) -> list[LedgerRow]:
    start, end = TEN - timedelta(days=60), TEN + timedelta(days=60)
    return sorted([row async for row in ledger.rows("contoso", start, end)], key=lambda row: row.position.sequence)


async def test_rows_come_back_as_they_went_in(ledger: LedgerStore) -> None:
    """Every field of a row survives the table, so a redelivery can settle the stored row instead of a fresh one."""
    rows = [
        usage(1),
        usage(2, cost_nano_usd=None, pricing_status="unpriced", lines_nano_usd={}, price_id=None, measured=False),
        usage(3, kind="grant", charge_nano_usd=-(2**40), cell="team:search|month|UTC|1", who="oid-1", why="müll"),
        usage(4, status=500, attempt=3, latency_ms=2**40, streamed=True, scopes={"team": "a|b/c\\d#e?f'g\u00e9"}),
    ]
    answers = await ledger.insert(rows)
    assert outcomes(answers) == {"new": 4}
    assert [answer.row for answer in answers] == rows
    assert await stored(ledger) == rows


async def test_redelivered_batch_returns_the_stored_amounts(ledger: LedgerStore) -> None:
    """A price that changed between two deliveries does not matter: the amounts stored first are returned."""
    first = [usage(n) for n in range(250)]
    await ledger.insert(first)
    again = await ledger.insert([usage(n, charge_nano_usd=9, cost_nano_usd=9) for n in range(250)])
    assert outcomes(again) == {"redelivered": 250}
    assert [answer.row for answer in again] == first


async def test_partly_stored_batch_inserts_only_the_rest(ledger: LedgerStore) -> None:
    """One existing row fails its whole transaction; the other rows of that transaction must still be stored, once."""
    await ledger.insert([usage(n) for n in range(0, 1000, 7)])
    answers = await ledger.insert([usage(n) for n in range(1000)])
    seen = {n: answer.outcome for n, answer in enumerate(answers)}
    assert seen == {n: "new" if n % 7 else "redelivered" for n in range(1000)}
    assert [row.position.sequence for row in await stored(ledger)] == list(range(1000))


async def test_duplicate_and_conflict_leave_the_stored_row(ledger: LedgerStore) -> None:
    """The same bytes from another position are a duplicate; other bytes under the same identity a conflict."""
    await ledger.insert([usage(1), usage(2)])
    duplicate = usage(1, position=position(501))
    conflict = usage(2, position=position(502), content_digest="other", charge_nano_usd=1, cost_nano_usd=1)
    answers = await ledger.insert([duplicate, conflict, usage(3)])
    assert [answer.outcome for answer in answers] == ["duplicate", "conflict", "new"]
    assert await stored(ledger) == [usage(1), usage(2), usage(3)]


async def test_twins_inside_one_batch_count_once(ledger: LedgerStore) -> None:
    """Of equal identities in one batch the lowest position is stored; its twins never look like a countable row."""
    late, early = usage(1, position=position(8)), usage(1, position=position(5))
    stranger = usage(1, position=position(9), content_digest="other")
    answers = await ledger.insert([late, early, early, stranger])
    assert [answer.outcome for answer in answers] == ["duplicate", "new", "duplicate", "conflict"]
    assert {answer.row.position for answer in answers} == {position(5)}
    again = await ledger.insert([late, early, early, stranger])
    assert [answer.outcome for answer in again] == ["duplicate", "redelivered", "duplicate", "conflict"]


async def test_lost_replies_come_out_as_redelivered(
    ledger: LedgerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that was committed although its reply was lost is neither lost nor taken for a conflict."""
    submit = tables.ledger.submit_transaction
    lost = 0

    async def lossy(*args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        answer = await submit(*args, **kwargs)
        if lost < 2:
            lost += 1
            raise ServiceResponseError("connection reset after the commit")
        return answer

    rows = [usage(n) for n in range(300)]
    monkeypatch.setattr(tables.ledger, "submit_transaction", lossy)
    with pytest.raises(ServiceResponseError):
        await ledger.insert(rows)
    answers = await ledger.insert(rows)
    assert outcomes(answers) == {"redelivered": 300}
    assert await stored(ledger) == rows


async def test_concurrent_inserts_of_overlapping_batches_store_each_row_once(ledger: LedgerStore) -> None:
    """Two workers on the same events (a partition that changed hands) agree: each row is `new` for exactly one."""
    batches = [[usage(n) for n in range(start, start + 400)] for start in (0, 100, 200, 300)]
    answers = await asyncio.gather(*(ledger.insert(batch) for batch in batches))
    fresh = Counter(a.row.id for batch in answers for a in batch if a.outcome == "new")
    assert fresh == Counter(f"call-{n}" for n in range(700))
    assert [row.position.sequence for row in await stored(ledger)] == list(range(700))


async def test_existing_rows_are_found_by_one_range_read(
    ledger: LedgerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction with rows already there costs three requests (fail, read, resubmit), not one per row."""
    rows = [row for row in (usage(n) for n in range(300)) if row_key(row.source, row.id)[0] in "048c"]  # one partition
    await ledger.insert(rows[:50:2])
    requests: list[str] = []
    for name in ("submit_transaction", "query_entities", "get_entity"):
        monkeypatch.setattr(tables.ledger, name, counted(getattr(tables.ledger, name), name, requests))
    await ledger.insert(rows[:50])
    assert requests == ["submit_transaction", "query_entities", "submit_transaction"]


def counted(call: Callable[..., Any], name: str, log: list[str]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        log.append(name)
        return call(*args, **kwargs)

    return wrapped


async def test_crowded_hours_are_searched_by_key(ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the range read does not fit into one page, the rest of the batch is found by key, with the same answer."""
    monkeypatch.setattr("shared.ledger.insert.RANGE_ROWS", 20)
    await ledger.insert([usage(n) for n in range(300)])
    answers = await ledger.insert([usage(n) for n in range(330)])
    assert outcomes(answers) == {"redelivered": 300, "new": 30}


async def test_batch_over_many_hours_and_tenants(ledger: LedgerStore) -> None:
    """Rows land in the hour of their own time, whatever their tenant, and each tenant sees only its own."""
    rows = [
        usage(n, time_utc=TEN - timedelta(hours=n % 5), tenant="contoso" if n % 2 else "fabrikam") for n in range(500)
    ]
    assert outcomes(await ledger.insert(rows)) == {"new": 500}
    assert await stored(ledger) == rows[1::2]
    assert await ledger.earliest_hour() == TEN - timedelta(hours=4)


async def test_empty_ledger_and_empty_batch(ledger: LedgerStore) -> None:
    """Nothing in, nothing out, no error."""
    assert await ledger.insert([]) == []
    assert await ledger.earliest_hour() is None
    assert await ledger.high_positions("contoso") == {}


async def test_row_too_large_is_refused_before_anything_is_written(ledger: LedgerStore) -> None:
    """A row that no entity can hold is named by an error of its own, so that it cannot block its partition for ever."""
    with pytest.raises(RowTooLarge):
        await ledger.insert([usage(1), usage(2, id="x" * (MAX_ROW_TEXT + 1))])
    assert await stored(ledger) == []


async def test_hours_are_marked_before_rows_are_written(
    ledger: LedgerStore, hours: HourIndex, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the rows cannot be written the hour is dirty already: a crash in between loses no row from rollups."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise ServiceResponseError("down")

    monkeypatch.setattr(tables.ledger, "submit_transaction", refuse)
    with pytest.raises(ServiceResponseError):
        await ledger.insert([usage(1)])
    assert [(hour.key, hour.dirty) async for hour in hours.scan()] == [("2026112110", True)]


async def test_late_rows_of_a_frozen_month_are_booked_into_the_next_open_one(ledger: LedgerStore) -> None:
    """Time fixes where a row counts for budgets; a closed statement still never changes."""
    await ledger.periods.freeze("contoso", "2026-09")
    await ledger.periods.freeze("contoso", "2026-10")
    september = TEN.replace(month=9)
    late = [usage(n, time_utc=september, booked_period="", tenant=t) for n, t in enumerate(("contoso", "fabrikam"))]
    answers = await ledger.insert([*late, usage(5, booked_period="")])
    assert [answer.row.booked_period for answer in answers] == ["2026-11", "2026-09", "2026-11"]
