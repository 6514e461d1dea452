"""Closing a month on real storage: twice, half-way, by two at once, and late rows after it. Always the same bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from shared.config.billing import Billing, Percent, Pool, PoolTerm
from shared.config.model import Budget, Config, Team, Tenant
from shared.errors import Conflict
from shared.ledger.periods import Periods
from shared.ledger.row import LedgerRow
from shared.ledger.store import LedgerStore
from shared.ledger.tables import Tables
from shared.reports.building import StatementBuilder
from shared.reports.close import CloseService
from shared.reports.files import BlobFiles
from shared.reports.formats import FORMATS, Format
from shared.reports.published import PublishedStatements
from shared.reports.publishing import Publisher
from shared.reports.service import Reports
from tests.ledger_rows import usage
from tests.support.reports import Settled, asked_formats

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
CLOSING = datetime(2026, 11, 3, 5, 30, tzinfo=UTC)
FEW = {name: FORMATS[name] for name in ("json", "focus")}
CONFIG = Config(
    version="v1",
    tenants={"contoso": Tenant(id="contoso")},
    teams={"search": Team(id="search", tenant="contoso", cost_centre="CC-1")},
    models={},
    budgets=(Budget("search", "contoso", "team", "search", "month", "UTC", limit_nano=10**12),),
    billing=Billing(
        tax=(Percent(210_000, OCTOBER, "VAT"),),
        pools=(
            Pool(
                id="ptu",
                tenant="contoso",
                label="PTU",
                kind="ptu",
                deployments=frozenset({"ptu-1"}),
                terms=(PoolTerm(OCTOBER, 1, 10**9),),
                tokens_per_minute_per_unit=1,
            ),
        ),
    ),
)


def october(n: int, **changes: Any) -> LedgerRow:
    """A call of October: 1,000 input tokens at 2.50 USD per million."""
    fields: dict[str, Any] = {
        "time_utc": OCTOBER + timedelta(hours=n % 3),
        "booked_period": "",
        "scopes": {"team": "search" if n % 2 else "shop"},
        "tokens": {"input": 1000},
        "lines_nano_usd": {"input": 2_500_000},
        "unit_pico": {"input": 2_500_000},
        "cost_nano_usd": 2_500_000,
        "charge_nano_usd": 2_500_000,
    }
    return usage(n, **fields | changes)


class Closer:
    """One worker's services around one month's close, over storage that others share."""

    def __init__(self, ledger: LedgerStore, container: ContainerClient, periods: Any, formats: dict[str, Format]):
        self.files: Any = BlobFiles(container)
        self.periods = periods
        self._ledger, self._formats = ledger, formats

    @property
    def reports(self) -> Reports:
        publisher = Publisher(self.files, self._formats)
        return Reports(lambda: CONFIG, self.builder, self.periods, self.files, publisher, Settled())

    @property
    def builder(self) -> StatementBuilder:
        return StatementBuilder(self._ledger.reader, self.periods.is_frozen)

    @property
    def service(self) -> CloseService:
        publisher = Publisher(self.files, self._formats)
        return CloseService(
            lambda: CONFIG,
            self.reports,
            self.builder,
            self.periods,
            self.files,
            publisher,
            Settled(),
            fence_seconds=0,
        )

    async def close(self) -> None:
        """Close October, always asked at the same moment."""
        await self.service.close("contoso", "2026-10", "ada", now_utc=CLOSING)


@asynccontextmanager
async def place(azurite: Azurite, tables: Tables) -> AsyncIterator[tuple[ContainerClient, Any]]:
    """A container and a table of periods of their own."""
    name = uuid.uuid4().hex[:12]
    async with ContainerClient.from_connection_string(azurite.connection_string, f"s{name}") as container:
        yield container, await tables.service.create_table(f"p{name}")


async def blobs_of(container: ContainerClient) -> dict[str, str]:
    """The digest of every blob by its name."""
    found = {}
    async for blob in container.list_blobs():
        body = await (await container.download_blob(blob.name)).readall()
        found[blob.name] = hashlib.sha256(body).hexdigest()
    return found


class Crash(RuntimeError):
    """The worker dies."""


class Dying:
    """Something whose `fatal`-th call, counted over all that share the count, kills before it does anything.

    To die right after a call is to die before the next one.
    """

    def __init__(self, inner: Any, count: list[int], fatal: int) -> None:
        self._inner, self._count, self._fatal = inner, count, fatal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._count[0] += 1
            if self._count[0] == self._fatal:
                raise Crash(name)
            return await method(*args, **kwargs)

        return call


@pytest.fixture
async def filled(ledger: LedgerStore) -> LedgerStore:
    """A ledger with an October."""
    rows = [october(n) for n in range(40)]
    rows += [october(n, deployment="ptu-1", model="gpt-4o-mini") for n in range(100, 110)]
    await ledger.insert(rows)
    return ledger


async def test_closing_again_or_twice_at_once_gives_one_statement(
    azurite: Azurite, tables: Tables, filled: LedgerStore
) -> None:
    """Three closers at once and one afterwards: one folder, one manifest, and the same bytes, as it says."""
    async with place(azurite, tables) as (container, table):
        closers = [Closer(filled, container, Periods(table), dict(asked_formats())) for _ in range(4)]
        await asyncio.gather(*(closer.close() for closer in closers[:3]))
        first = await blobs_of(container)
        await closers[3].close()
        assert await blobs_of(container) == first
        manifest = await PublishedStatements(closers[0].files).manifest("contoso", "2026-10")
        assert manifest is not None
        assert manifest.status == "final"
        folder = f"contoso/2026-10/{manifest.digest}/"
        assert {name.removeprefix(folder): digest for name, digest in first.items() if name.startswith(folder)} == {
            file.path: file.sha256 for file in manifest.files
        }
        assert len(first) == len(manifest.files) + 2  # the manifest and the basis; no second folder
        download = await PublishedStatements(closers[0].files).open("contoso", "2026-10", "statement.json", "search")
        body = b"".join([chunk async for chunk in download.chunks])
        assert hashlib.sha256(body).hexdigest() == download.file.sha256
        assert (await closers[3].periods.closing("contoso", "2026-10")).state == "closed"
        # 50 calls at 0.0025, 10 of them covered by the pool, which costs 744 hours x 1 USD; 21 % tax on all of it
        assert manifest.total == "900.361"  # (50 x 0.0025 - 10 x 0.0025 + 744) x 1.21
        assert manifest.ledger_cost == "0.125"


async def test_a_closer_that_dies_anywhere_is_taken_over(azurite: Azurite, tables: Tables, filled: LedgerStore) -> None:
    """Killed before every single call to storage; whoever goes on ends with the same blobs."""
    async with place(azurite, tables) as (container, table):
        await Closer(filled, container, Periods(table), FEW).close()
        reference = await blobs_of(container)
    assert len(reference) > 5
    deaths = 0
    for fatal in range(1, 100):
        async with place(azurite, tables) as (container, table):
            dying = Closer(filled, container, Periods(table), FEW)
            count = [0]
            dying.files = Dying(dying.files, count, fatal)
            dying.periods = Dying(dying.periods, count, fatal)
            try:
                await dying.close()
            except* Crash:
                deaths += 1
                await Closer(filled, container, Periods(table), FEW).close()
                assert await blobs_of(container) == reference, fatal
            else:
                assert count[0] < fatal
                break
    assert deaths > 10


async def test_late_rows_after_the_close_are_corrections_of_the_next_month(
    azurite: Azurite, tables: Tables, filled: LedgerStore
) -> None:
    """October's statement stays byte for byte; November's shows the late call as billed anew, and both sums hold it."""
    async with place(azurite, tables) as (container, table):
        closer = Closer(filled, container, Periods(table), FEW)
        filled.periods = closer.periods
        await closer.close()
        before = await blobs_of(container)
        (late,) = await filled.insert([october(500)])
        assert late.row.booked_period == "2026-11"
        await closer.close()
        assert await blobs_of(container) == before
        november = await closer.reports.statement("contoso", "2026-11", None, CLOSING)
        (line,) = november.corrections
        assert (line.correction, line.month, line.team, line.owed_nano) == ("new", "2026-10", "shop", 2_500_000)
        october_again = await closer.reports.statement("contoso", "2026-10", None, CLOSING + timedelta(days=9))
        assert (october_again.status, october_again.as_of_utc) == ("final", CLOSING)
        assert october_again.totals.cost_nano_usd == 50 * 2_500_000
        await closer.reports.publish_statements(CLOSING)
        after = {name: digest for name, digest in (await blobs_of(container)).items() if "/2026-10/" in name}
        assert after == before
        manifest = json.loads((await closer.files.get("contoso/2026-11/manifest.json"))[0])
        assert (manifest["status"], manifest["ledger_cost"]) == ("draft", "0.0025")


async def test_a_month_closes_only_when_it_can(azurite: Azurite, tables: Tables, filled: LedgerStore) -> None:
    """Not while it runs, and not while ingest is behind its end unless forced; the timer waits for the day."""
    async with place(azurite, tables) as (container, table):
        closer = Closer(filled, container, Periods(table), FEW)
        service = closer.service
        with pytest.raises(Conflict) as running:
            await service.close("contoso", "2026-11", "ada", now_utc=CLOSING)
        assert running.value.code == "period_open"
        service._freshness.watermark = OCTOBER + timedelta(days=30)  # type: ignore[attr-defined]
        with pytest.raises(Conflict) as behind:
            await service.close("contoso", "2026-10", "ada", now_utc=CLOSING)
        assert behind.value.code == "ingest_behind"
        assert await service.run(CLOSING - timedelta(days=1)) == []
        assert await closer.periods.closing("contoso", "2026-10") is None
        manifest = await service.close("contoso", "2026-10", "ada", force=True, now_utc=CLOSING)
        assert manifest.status == "final"
        assert await service.run(CLOSING) == []
