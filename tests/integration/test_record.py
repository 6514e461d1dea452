"""The export of the ledger and its restore, on a real Azurite and a real Redis: what comes back is what was there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from azure.storage.blob.aio import ContainerClient
from msgspec.structs import replace

from shared.ledger.hours import HourIndex
from shared.ledger.names import Names
from shared.ledger.reading import HourReader
from shared.ledger.rerate import RerateService
from shared.ledger.rollup_job import RollupJob
from shared.ledger.standing_rows import StandingRows
from shared.ledger.state import ProcessingState
from shared.ledger.store import LedgerStore
from shared.ledger.summary import Summaries
from shared.ledger.tables import Tables, open_tables
from shared.months import month_before, month_of
from shared.record.archive import Archive
from shared.record.export import LedgerExport
from shared.record.manifest import RecordBroken
from shared.record.parquet import plain
from shared.record.restore import Restore, RestoreProgress, RestoreRefused
from shared.settings import Settings
from shared.usage.build import correction_event_bytes, grant_event_bytes, refusal_event_bytes, true_up_event_bytes
from tests.support.engine import LONG_AGO, PriceOverride, budget, config, usd
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(1_000), period="total")
NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)
IN_TWO_DAYS = NOW + timedelta(days=2)  # when today is settled
ODD_USERS = ["Zoë O'Brien", "=cmd()", "‮drow", "a/b#c?d%e", "用户"]


class OnlyAdds:
    """A container as an immutability policy makes it: what is there can be read, and nothing else."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        assert name in ("list_blobs", "download_blob", "create_container"), f"{name} is refused by the policy"
        return getattr(self._container, name)

    async def upload_blob(self, name: str, data: Any, *, overwrite: bool, **options: Any) -> Any:
        assert not overwrite, "the policy lets nobody replace a file"
        assert set(options) <= {"length"}
        return await self._container.upload_blob(name, data, overwrite=False, **options)


class Record:
    """A ledger with its export, and fresh tables to restore it into."""

    def __init__(self, stack: Stack, container: ContainerClient, connection: str) -> None:
        self.stack = stack
        self.container = container
        self.connection = connection
        self.archive = Archive(OnlyAdds(container))
        self.sequence = 0
        self.opened: list[Tables] = []

    async def deliver(self, *events: bytes) -> None:
        batch = [delivery(event, self.sequence + at) for at, event in enumerate(events)]
        self.sequence += len(events)
        await self.stack.ingest.run(batch)

    async def fill(self) -> None:
        """Rows of every kind over two days: usage, a trued-up stream, refusals, a grant, a re-rated call of a closed
        month, a correction; and users whose keys nobody would choose."""
        [cell] = self.stack.snapshot.index.cells_of_call("acme", {"team": "search"}, "big", NOW.timestamp())
        stream = changed(usage_bytes("s", 0, time_utc=YESTERDAY), usage=None, streamed=True)
        last_month = month_before(month_of(NOW))
        old = datetime.fromisoformat(f"{last_month}-05T10:00:00+00:00")
        await self.deliver(
            *(usage_bytes(f"y{n}", n, n, time_utc=YESTERDAY - timedelta(minutes=n)) for n in range(40)),
            *(usage_bytes(user, 5, time_utc=NOW, scopes={"team": "search", "user": user}) for user in ODD_USERS),
            usage_bytes("late tier", 100, 10, time_utc=NOW, processing_tier="priority", status=200, latency_ms=12.5),
            usage_bytes("failed", 0, time_utc=NOW, status=429),
            usage_bytes("m", 100, 10, model="mystery", time_utc=old),
            stream,
            grant_event_bytes(
                "t/r", "g", NOW, tenant="acme", cell=cell.id, amount_nano_usd=-usd(1), who="oid-1", why="goodwill"
            ),
        )
        await self.deliver(
            true_up_event_bytes("apim/test", "s", YESTERDAY, tenant="acme", prompt_tokens=7, completion_tokens=9),
            correction_event_bytes(
                "t/rec", "c", YESTERDAY, tenant="acme", amount_nano_usd=-12_345, who="tollkeeper", why="variance"
            ),
            refusal_event_bytes(
                "t/refusals",
                "r",
                YESTERDAY,
                tenant="acme",
                scopes={"team": "search"},
                requested_model="big",
                reason="budget_exhausted",
                status=402,
                calls=3,
                estimate_nano_usd=1_234_567,
            ),
        )
        await self.stack.ledger.periods.freeze("acme", last_month)
        known = self.stack.snapshot.config
        mystery = PriceOverride("mystery", LONG_AGO, {"input": 3_000_000, "output": 5_000_000})
        self.stack.configure(replace(known, version="v2", prices=(*known.prices, mystery)))
        await self.roll_up()
        ledger, rows = self.stack.ledger, StandingRows(self.stack.tables.ledger)
        await RerateService(lambda: self.stack.snapshot, ledger.hours, ledger.reader, rows, self.stack.publish).run()
        await self.deliver(*self.stack.published)
        await self.roll_up()

    async def roll_up(self) -> None:
        ledger = self.stack.ledger
        await RollupJob(self.stack.tables, ledger.hours, ledger.reader).run()
        ledger.hours._marked.clear()  # as if the marks of before had grown old: this index waits for none

    def exporter(self) -> LedgerExport:
        tables = self.stack.tables
        return LedgerExport(tables.ledger, self.stack.ledger.hours, tables.periods, self.archive)

    async def fresh(self) -> Tables:
        """Empty tables, such as another region's."""
        prefix = f"t{uuid.uuid4().hex[:12]}"
        tables = await open_tables(Settings(storage_connection=self.connection, table_prefix=prefix))
        self.opened.append(tables)
        return tables

    def restore(self, tables: Tables) -> Restore:
        return Restore(tables, HourIndex(tables.hours, 10, -10), self.archive, ProcessingState(tables.state))

    async def blobs(self) -> dict[str, str]:
        return {blob.name: blob.etag async for blob in self.container.list_blobs()}


@pytest.fixture
async def record(redis_server, azurite) -> AsyncIterator[Record]:
    connection = azurite.connection_string
    async with (
        open_stack(redis_server.url, connection, config(TEAM)) as stack,
        ContainerClient.from_connection_string(connection, f"export-{uuid.uuid4().hex[:8]}") as container,
    ):
        stack.hours = HourIndex(stack.tables.hours, cover_seconds=10, grace_seconds=-10)
        stack.wire()
        record = Record(stack, container, connection)
        yield record
        for tables in record.opened:
            await tables.close()


async def entities(tables: Tables) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["PartitionKey"], row["RowKey"]): plain(row) async for row in tables.ledger.list_entities()}


async def reports(tables: Tables) -> tuple[Any, ...]:
    """Everything that reports are made of: cells, summary, positions, frozen months."""
    hours = HourIndex(tables.hours)
    reader, end = HourReader(tables, hours), NOW + timedelta(hours=2)
    cells = [msgspec.json.encode(cell, order="deterministic") async for cell in reader.cells("acme", LONG_AGO, end)]
    groups = ["month", "booked_period", "model", "user"]
    summary = await Summaries(reader).summarize("acme", LONG_AGO, end, groups, {}, NOW)
    ledger = LedgerStore(tables, hours)
    positions = await ledger.high_positions("acme")
    frozen = [month async for month in tables.periods.list_entities()]
    return sorted(cells), summary, positions, [dict(month) for month in frozen]


async def test_what_is_restored_is_what_was_exported(record):
    """Export, restore into empty tables: entities are equal column by column, cells, summary, positions and closed
    months too; and counters rebuilt from the restored ledger on an empty Redis show what they showed before."""
    await record.fill()
    report = await record.exporter().run(IN_TWO_DAYS)
    assert report.waiting_days == 0
    before = await entities(record.stack.tables)
    kinds = {row["kind"] for row in before.values()}
    assert kinds == {"usage", "accrual", "reversal", "true_up", "re_rate", "grant", "correction", "refusal"}
    tables = await record.fresh()
    restored = await record.restore(tables).run()
    assert (restored.rows, restored.present, restored.sums.rows) == (len(before), 0, len(before))
    assert await entities(tables) == before
    assert await reports(tables) == await reports(record.stack.tables)
    spent = await record.stack.spent_and_held()
    assert spent[0] < 0  # the grant outweighs the calls
    await record.stack.client.flushall()
    prefix = tables.ledger.table_name.removesuffix("ledger")
    other = await Stack.start(record.stack.client, record.connection, record.stack.snapshot.config, prefix=prefix)
    await other.repair.run()
    assert await other.spent_and_held() == spent
    await RollupJob(tables, HourIndex(tables.hours, 10, -10), HourReader(tables, HourIndex(tables.hours))).run()
    assert await reports(tables) == await reports(record.stack.tables)
    await other.close()


async def test_late_rows_go_into_a_further_part_and_nothing_is_written_twice(record):
    """A settled day is exported once; what comes late makes a part of its own with that row alone; files that are there
    keep their bytes. Without news a run adds nothing, and a day that is not settled waits."""
    await record.deliver(*(usage_bytes(f"y{n}", n, time_utc=YESTERDAY) for n in range(10)))
    assert (await record.exporter().run(IN_TWO_DAYS))[:3] == (0, 0, 1)  # its hour was not rolled up yet
    await record.roll_up()
    assert (await record.exporter().run(YESTERDAY + timedelta(hours=1))).parts == 0  # its day is not over
    first = await record.exporter().run(IN_TWO_DAYS)
    assert first[:3] == (1, 10, 0)
    there = await record.blobs()
    assert (await record.exporter().run(IN_TWO_DAYS)) == (0, 0, 0, first.head)
    await record.deliver(usage_bytes("late", 99, time_utc=YESTERDAY))
    await record.roll_up()
    assert (await record.exporter().run(IN_TWO_DAYS))[:3] == (1, 1, 0)
    now_there = await record.blobs()
    assert {name: now_there[name] for name in there} == there
    assert len(now_there) == len(there) + 2
    tables = await record.fresh()
    await record.restore(tables).run()
    assert await entities(tables) == await entities(record.stack.tables)


async def test_two_exporters_at_once_write_one_chain(record):
    """Whoever writes the next manifest first goes on; the other looks again. Every row is in the export once."""
    await record.deliver(*(usage_bytes(f"y{n}", n, time_utc=YESTERDAY - timedelta(hours=8 * n)) for n in range(6)))
    await record.roll_up()
    await asyncio.gather(*(record.exporter().run(IN_TWO_DAYS) for _ in range(2)))
    chain = await record.archive.chain()
    assert sum(manifest.sums.rows for manifest, _ in chain) == 6
    assert (await record.restore(await record.fresh()).run()).rows == 6


@pytest.mark.parametrize("harm", ["altered", "gone", "manifest altered", "manifest gone"])
async def test_a_harmed_export_is_refused_by_name(record, harm):
    """A part or a manifest that is not what was written is named, and nothing of that part is restored."""
    for n in range(3):
        await record.deliver(usage_bytes(f"y{n}", n, time_utc=YESTERDAY - timedelta(days=n)))
    await record.roll_up()
    await record.exporter().run(IN_TWO_DAYS)
    names = sorted(await record.blobs())
    name = next(each for each in names if each.startswith("manifests" if "manifest" in harm else "days"))
    body = await (await record.container.download_blob(name)).readall()
    await record.container.delete_blob(name)
    if "altered" in harm:
        in_manifest = body.replace(b'"rows":1', b'"rows":2')
        changed_body = in_manifest if "manifest" in harm else body[:-1] + b"x"
        assert changed_body != body
        await record.container.upload_blob(name, changed_body)
    tables = await record.fresh()
    for ask in (record.restore(tables).verify, record.restore(tables).run):
        with pytest.raises(RecordBroken) as refused:
            await ask()
        told = name if harm != "manifest altered" else "manifests/00000002.json"  # which names the digest of the first
        assert told in refused.value.message
    assert await entities(tables) == {}


async def test_a_restore_goes_on_where_it_was_broken_off(record):
    """Killed in the middle, run again: every row once. Tables with rows of their own are refused, and with force the
    rows that are there must be equal."""
    for n in range(4):
        await record.deliver(*(usage_bytes(f"y{n}/{i}", i, time_utc=YESTERDAY - timedelta(days=n)) for i in range(5)))
    await record.roll_up()
    await record.exporter().run(IN_TWO_DAYS)
    tables = await record.fresh()
    seen: list[RestoreProgress] = []

    def break_off(progress: RestoreProgress) -> None:
        seen.append(progress)
        if progress.part == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await record.restore(tables).run(progress=break_off)
    assert seen[-1] == RestoreProgress(3, 4, 15, 20)
    again = await record.restore(tables).run()
    assert (again.rows, again.present) == (5, 5)  # the part that was in the works was all written
    assert await entities(tables) == await entities(record.stack.tables)
    own = record.restore(record.stack.tables)
    with pytest.raises(RestoreRefused, match="empty tables"):
        await own.run()
    assert (await own.run(force=True)).present == 20
    other = await record.fresh()
    [row, *_] = [dict(each) async for each in record.stack.tables.ledger.list_entities()]
    await other.ledger.create_entity({**row, "charge_nano_usd": (1, "Edm.Int64")})
    with pytest.raises(RestoreRefused, match=row["RowKey"]):
        await record.restore(other).run(force=True)


async def test_a_column_of_a_later_version_is_not_lost(record):
    """Whatever property an entity has comes back with its type, be it known to this version or not."""
    await record.deliver(usage_bytes("a", 1, time_utc=YESTERDAY))
    [row] = [dict(each) async for each in record.stack.tables.ledger.list_entities()]
    odd = {**row, "RowKey": "0" * 32, "new_text": "x", "new_number": (5, "Edm.Int64"), "new_flag": False, "status": 7}
    await record.stack.tables.ledger.create_entity(odd)
    await record.roll_up()
    await record.exporter().run(IN_TWO_DAYS)
    tables = await record.fresh()
    await record.restore(tables).run()
    [stored] = [dict(each) async for each in tables.ledger.list_entities() if each["RowKey"] == "0" * 32]
    assert stored == odd


async def test_erasing_a_name_changes_no_sum_and_no_restore_brings_it_back(record):
    """A person's name stands in one table. Cells, summary and export are the same with and without it; the ledger, the
    events and the export never held it."""
    await record.deliver(usage_bytes("a", 10, time_utc=YESTERDAY, scopes={"team": "search", "user": "oid-7"}))
    await record.roll_up()
    names = Names(record.stack.tables.names)
    await names.put("acme", "oid-7", "Ada Lovelace", "oid-1")
    assert (await names.all("acme"))["oid-7"].name == "Ada Lovelace"
    before = await reports(record.stack.tables)
    await record.exporter().run(IN_TWO_DAYS)
    await names.erase("acme", "oid-7")
    assert await names.all("acme") == {}
    assert await reports(record.stack.tables) == before
    assert (await record.exporter().run(IN_TWO_DAYS)).parts == 0
    tables = await record.fresh()
    await record.restore(tables).run()
    assert await Names(tables.names).all("acme") == {}
    kept = [await (await record.container.download_blob(name)).readall() for name in await record.blobs()]
    for name in ("ledger", "hours", "rollups", "deadletters", "outbox", "periods", "state", "streams", "names"):
        kept += [str(dict(each)).encode() async for each in getattr(record.stack.tables, name).list_entities()]
    assert len(kept) > 5
    assert not [each for each in kept if b"Lovelace" in each]
