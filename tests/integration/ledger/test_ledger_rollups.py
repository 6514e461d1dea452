"""Rollups never miss a row and are never seen half, whatever runs at the same time or dies in between."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from shared.ledger.hours import HourIndex
from shared.ledger.retention import RetentionJob
from shared.ledger.rollup_job import RollupJob
from shared.ledger.row import LedgerRow, Position
from shared.ledger.store import LedgerStore
from shared.ledger.tables import Tables
from tests.ledger_rows import TEN, position, usage

START, END = TEN - timedelta(days=2), TEN + timedelta(days=2)


@pytest.fixture
def job(tables: Tables, hours: HourIndex, ledger: LedgerStore) -> RollupJob:
    """The rollup job under test."""
    return RollupJob(tables, hours, ledger.reader)


async def charged(
    ledger: LedgerStore, marks: Mapping[str, Position] | None = None, tenant: str = "contoso", **span: datetime
) -> tuple[int, int]:
    """Sum of the charges, and how many of them are sums of rows."""
    charges = [c async for c in ledger.charges(tenant, span.get("start", START), span.get("end", END), marks)]
    return sum(c.charge_nano_usd for c in charges), sum(c.position is None for c in charges)


def total(rows: Sequence[LedgerRow]) -> int:
    return sum(row.charge_nano_usd for row in rows)


async def generations(tables: Tables) -> set[str]:
    return {row["PartitionKey"] async for row in tables.rollups.query_entities("PartitionKey ge ''")}


async def test_rollup_keeps_every_sum(ledger: LedgerStore, job: RollupJob) -> None:
    """What the rows say and what the rollup says is the same, to the nano-dollar, tenant by tenant."""
    rows = [
        usage(n, tenant=f"tenant-{n % 3}", time_utc=TEN + timedelta(minutes=n % 60), scopes={"user": f"u{n % 4}"})
        for n in range(400)
    ]
    await ledger.insert(rows)
    before = [await charged(ledger, tenant=f"tenant-{n}") for n in range(3)]
    assert (await job.run()).published == 1
    after = [await charged(ledger, tenant=f"tenant-{n}") for n in range(3)]
    assert before == [(total(rows[n::3]), 0) for n in range(3)]
    # 4 quarter hours x 4 users
    assert after == [(total(rows[n::3]), 4 * 4) for n in range(3)]


async def test_late_row_dirties_its_hour_and_is_in_the_next_rollup(ledger: LedgerStore, job: RollupJob) -> None:
    """A row that arrives after the rollup is seen at once, and rolled up by the next run, which drops the old sums."""
    await ledger.insert([usage(1)])
    await job.run()
    ledger.hours._marked.clear()  # the worker's memory of its mark has run out, as it does before a rollup may run
    await ledger.insert([usage(2)])
    assert await charged(ledger) == (total([usage(1), usage(2)]), 0)
    assert (await job.run()).swept == 1
    assert await charged(ledger) == (total([usage(1), usage(2)]), 1)


async def test_row_inserted_while_a_rollup_reads_is_not_lost(
    ledger: LedgerStore, job: RollupJob, hours: HourIndex
) -> None:
    """A mark written after the rollup read the hour's entry changes its ETag: the rollup gives up."""
    await ledger.insert([usage(1)])
    (hour,) = await hours.settled()
    hours._marked.clear()
    await ledger.insert([usage(2)])
    assert await job._roll_up(hour) is False
    assert await charged(ledger) == (total([usage(1), usage(2)]), 0)
    assert (await job.run()).published == 1
    assert await charged(ledger) == (total([usage(1), usage(2)]), 1)


async def test_rollup_waits_until_marks_cover_no_insert(tables: Tables) -> None:
    """No rollup may take an hour while an insert under its mark may run: it would clear the flag over its rows."""
    await HourIndex(tables.hours).mark(["2026112110"])
    assert await HourIndex(tables.hours, cover_seconds=60, grace_seconds=0).settled() == []
    assert await HourIndex(tables.hours, cover_seconds=0, grace_seconds=60).settled() == []
    await asyncio.sleep(0.7)
    short = HourIndex(tables.hours, cover_seconds=0.4, grace_seconds=0.2)
    assert [hour.key for hour in await short.settled()] == ["2026112110"]


async def test_rollup_cannot_slip_between_mark_and_insert(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollup that reads after the mark and before the insert would publish sums without the row, on a fair ETag."""
    ledger = LedgerStore(tables)
    job = RollupJob(tables, ledger.hours, ledger.reader)
    submit = tables.ledger.submit_transaction

    async def late(*args: Any, **kwargs: Any) -> Any:
        assert await job.run() == (0, 0, 0)
        return await submit(*args, **kwargs)

    monkeypatch.setattr(tables.ledger, "submit_transaction", late)
    await ledger.insert([usage(1)])
    assert await charged(ledger) == (total([usage(1)]), 0)
    await asyncio.sleep(0.7)
    later = RollupJob(tables, HourIndex(tables.hours, cover_seconds=0.4, grace_seconds=0.2), ledger.reader)
    assert (await later.run()).published == 1
    assert await charged(ledger) == (total([usage(1)]), 1)


async def test_insert_that_outlasts_its_mark_is_given_up(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows written after the mark's time would escape the rollup, so the insert raises and its events come again."""
    ledger = LedgerStore(tables, HourIndex(tables.hours, cover_seconds=0.2))

    async def slow(*_: Any, **__: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(tables.ledger, "submit_transaction", slow)
    with pytest.raises(TimeoutError):
        await ledger.insert([usage(1)])


async def test_marks_are_reused_only_while_they_cover(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker writes one mark for many batches, and a new one long before the old one stops covering."""
    now = 1_000.0
    monkeypatch.setattr("shared.ledger.hours.time", SimpleNamespace(monotonic=lambda: now))
    index = HourIndex(tables.hours, cover_seconds=60)
    await index.mark(["2026112110"])
    first = await index.get("2026112110")
    now += 29
    await index.mark(["2026112110"])
    assert await index.get("2026112110") == first
    now += 2
    await index.mark(["2026112110"])
    again = await index.get("2026112110")
    assert first is not None
    assert again is not None
    assert again.etag != first.etag


async def test_two_rollup_workers_at_once_publish_one_rollup(
    ledger: LedgerStore, job: RollupJob, tables: Tables, hours: HourIndex
) -> None:
    """Both do the work, one publishes, the other cleans up after itself."""
    rows = [usage(n, scopes={"user": f"u{n}"}) for n in range(150)]
    await ledger.insert(rows)
    (hour,) = await hours.settled()
    published = await asyncio.gather(*(job._roll_up(hour) for _ in range(3)))
    assert sorted(published) == [False, False, True]
    assert await charged(ledger) == (total(rows), 150)
    assert len(await generations(tables)) == 1


async def test_rollup_killed_before_publishing_is_never_seen(
    ledger: LedgerStore, job: RollupJob, hours: HourIndex, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells without a pointer to them do not exist for readers; a later run sweeps them."""
    rows = [usage(n) for n in range(5)]
    await ledger.insert(rows)

    async def killed(*_: Any, **__: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hours, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            await job.run()
    assert await charged(ledger) == (total(rows), 0)
    assert await ledger.high_positions("contoso") == {"ns/usage/0": position(4)}
    assert await job.run() == (1, 0, 1)
    assert len(await generations(tables)) == 1
    assert await charged(ledger) == (total(rows), 1)


async def test_reader_that_meets_a_half_deleted_rollup_reads_rows(
    ledger: LedgerStore, job: RollupJob, tables: Tables
) -> None:
    """A generation that loses cells under a reader never yields a short sum."""
    rows = [usage(n, scopes={"user": f"u{n}"}) for n in range(4)]
    await ledger.insert(rows)
    await job.run()
    cells = [row async for row in tables.rollups.query_entities("PartitionKey ge ''")]
    await tables.rollups.delete_entity(cells[0])
    assert await charged(ledger) == (total(rows), 0)


async def test_tenant_without_rows_in_a_rolled_up_hour_reads_nothing(ledger: LedgerStore, job: RollupJob) -> None:
    """Another tenant's hour costs a reader no row scan and adds nothing."""
    await ledger.insert([usage(1)])
    await job.run()
    assert await charged(ledger, tenant="fabrikam") == (0, 0)


async def test_charges_stop_exactly_at_the_marks(ledger: LedgerStore, job: RollupJob) -> None:
    """Rows beyond their stream's mark, and rows of streams without a mark, are left out, rolled up or not."""
    rows = [usage(n, position=position(n, f"ns/usage/{n % 3}")) for n in range(90)]
    await ledger.insert(rows)
    marks = {"ns/usage/0": position(45, "ns/usage/0"), "ns/usage/1": position(89, "ns/usage/1")}
    expected = total([row for row in rows if is_within(row.position, marks)])
    assert await charged(ledger, marks) == (expected, 0)
    await job.run()
    assert await charged(ledger, marks) == (expected, 0)
    everything = {f"ns/usage/{n}": position(89, f"ns/usage/{n}") for n in range(3)}
    assert await charged(ledger, everything) == (total(rows), 1)
    assert await charged(ledger, {}) == (0, 0)


async def test_charges_are_exact_for_a_recreated_hub(ledger: LedgerStore, job: RollupJob) -> None:
    """A hub that was deleted and created again restarts its sequence; the rollup may then not vouch for its rows."""
    old = usage(1, position=Position("ns/usage/0", 1_000_000, 9_000))
    new = usage(2, position=Position("ns/usage/0", 2_000_000, 5))
    beyond = usage(3, position=Position("ns/usage/0", 2_000_001, 6))
    await ledger.insert([old, new, beyond])
    await job.run()
    mark = {"ns/usage/0": new.position}
    assert await charged(ledger, mark) == (total([old, new]), 0)
    assert await ledger.high_positions("contoso") == {"ns/usage/0": beyond.position}


async def test_span_cuts_inside_hours_are_exact(ledger: LedgerStore, job: RollupJob) -> None:
    """A period may start at any quarter hour (Kolkata), a report at any second; no row counts on the wrong side."""
    rows = [usage(n, time_utc=TEN + timedelta(seconds=10 * n)) for n in range(360)]
    await ledger.insert(rows)
    await job.run()
    quarter = await charged(ledger, start=TEN + timedelta(minutes=15), end=TEN + timedelta(minutes=45))
    assert quarter == (total(rows[90:270]), 2)
    odd = await charged(ledger, start=TEN + timedelta(seconds=100), end=TEN + timedelta(seconds=105))
    assert odd == (total(rows[10:11]), 0)


async def test_charges_stay_exact_under_random_histories(ledger: LedgerStore, job: RollupJob, hours: HourIndex) -> None:
    """Inserts, redeliveries and rollups in any order: charges at any cut equal the sum over the rows at that cut."""
    dice = random.Random(7)
    streams = [f"ns/usage/{n}" for n in range(3)]
    rows: dict[str, LedgerRow] = {}
    for step in range(25):
        batch = [random_row(dice, number, streams) for number in range(100 * step, 100 * step + dice.randrange(1, 40))]
        batch += [dice.choice(list(rows.values())) for _ in range(5) if rows]
        hours._marked.clear()
        await ledger.insert(batch)
        rows |= {row.id: row for row in batch}
        if dice.random() < 0.5:
            await job.run()
        marks = {s: position(dice.randrange(100 * (step + 1)), s) for s in streams if dice.random() < 0.9}
        within = [row for row in rows.values() if is_within(row.position, marks)]
        assert (await charged(ledger, marks))[0] == total(within)
        assert (await charged(ledger))[0] == total(list(rows.values()))


def random_row(dice: random.Random, number: int, streams: Sequence[str]) -> LedgerRow:
    return usage(
        number,
        time_utc=TEN + timedelta(minutes=dice.randrange(180)),
        position=position(number, dice.choice(streams)),
        scopes={"team": dice.choice("ab")},
    )


def is_within(place: Position, marks: Mapping[str, Position]) -> bool:
    return place.stream in marks and place.at_or_before(marks[place.stream])


async def test_readers_miss_no_acknowledged_row_while_writers_and_rollups_race(tables: Tables) -> None:
    """Two writers, two rollup workers and a reader at once: a row that insert() answered for is in every later read."""
    workers = [LedgerStore(tables, HourIndex(tables.hours, cover_seconds=0.5, grace_seconds=0.1)) for _ in range(2)]
    jobs = [RollupJob(tables, worker.hours, worker.reader) for worker in workers]
    acknowledged, begun, published = 0, 0, 0
    writing = True

    async def write(worker: LedgerStore, seed: int) -> None:
        nonlocal acknowledged, begun
        dice = random.Random(seed)
        for step in range(100):
            if step >= 20 and published:  # on a busy machine an hour comes to rest later
                return
            numbers = range(10_000 * seed + 100 * step, 10_000 * seed + 100 * step + 30)
            at = TEN + timedelta(hours=dice.randrange(8))  # one hour per batch, so that the others come to rest
            batch = [usage(number, time_utc=at) for number in numbers]
            begun += total(batch)
            await insert_at_last(worker, batch)
            acknowledged += total(batch)
            await asyncio.sleep(dice.choice((0, 0.1, 0.3)))

    async def roll_up(job: RollupJob) -> None:
        nonlocal published
        while writing:
            published += (await job.run()).published
            await asyncio.sleep(0.02)

    async def read() -> None:
        while writing:
            low = acknowledged
            seen, _ = await charged(workers[0])
            assert low <= seen <= begun

    rest = asyncio.gather(*map(roll_up, jobs), read())
    await asyncio.gather(*(write(worker, seed) for seed, worker in enumerate(workers)))
    writing = False
    await rest
    assert (await charged(workers[1]))[0] == begun
    assert published > 0


async def insert_at_last(ledger: LedgerStore, batch: Sequence[LedgerRow]) -> None:
    """Insert as ingest does: on a busy machine an insert may outlast its mark, and then it is tried again."""
    while True:
        try:
            await ledger.insert(batch)
        except TimeoutError:
            continue
        return


async def test_high_positions_come_from_rows_and_rollups_alike(ledger: LedgerStore, job: RollupJob) -> None:
    """The highest position per stream is right for clean and dirty hours together, and blind to other tenants."""
    early, late = TEN - timedelta(hours=1), TEN
    await ledger.insert([usage(7, time_utc=early), usage(3, time_utc=early, position=position(3, "ns/usage/1"))])
    await job.run()
    await ledger.insert([usage(5, time_utc=late), usage(9, time_utc=late, tenant="fabrikam")])
    assert await ledger.high_positions("contoso") == {
        "ns/usage/0": position(7),
        "ns/usage/1": position(3, "ns/usage/1"),
    }


async def test_retention_deletes_old_hours_whole_and_only_when_set(
    ledger: LedgerStore, job: RollupJob, tables: Tables, hours: HourIndex
) -> None:
    """Nothing goes while the setting is 0; then rows, sums and index entries of old hours go, and younger ones stay."""
    await ledger.insert([usage(1, time_utc=TEN - timedelta(days=1)), usage(2)])
    await job.run()
    assert await RetentionJob(tables, hours, 0).run(TEN + timedelta(days=900)) == 0
    assert await RetentionJob(tables, hours, 30).run(TEN + timedelta(days=30)) == 1
    assert [row.id async for row in ledger.rows(None, START, END)] == ["call-2"]
    assert [hour.key async for hour in hours.scan()] == ["2026112110"]
    assert len(await generations(tables)) == 1


async def test_hours_that_hand_rows_to_another_month_are_known(ledger: LedgerStore, job: RollupJob) -> None:
    """A statement that looks back over closed months reads those hours, rolled up or not, and no others."""
    own, other = usage(1), usage(2, time_utc=TEN + timedelta(hours=1), booked_period="2026-12")
    young = usage(3, time_utc=TEN + timedelta(hours=2))
    await ledger.insert([own, other])
    await job.run()
    await ledger.insert([young])
    found = [cell async for cell in ledger.reader.cells("contoso", START, END, booked_later=True)]
    assert [cell.quarter_utc for cell in found] == [other.time_utc, young.time_utc]
    await job.run()
    found = [cell async for cell in ledger.reader.cells("contoso", START, END, booked_later=True)]
    assert [cell.booked_period for cell in found] == ["2026-12"]
