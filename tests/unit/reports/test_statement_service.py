"""Statements on demand and by night, closes by the clock: what is incomplete is said, and nobody waits for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest

from shared.config.billing import Billing
from shared.config.model import Config, Tenant
from shared.errors import Forbidden, NotFound
from shared.ledger.rollup import RollupCell
from shared.reports.building import StatementBuilder
from shared.reports.close import CloseService
from shared.reports.formats import FORMATS
from shared.reports.freshness import LedgerFreshness
from shared.reports.manifest import team_slug
from shared.reports.published import PublishedStatements
from shared.reports.publishing import Publisher
from shared.reports.service import WRITTEN_AT_ONCE, Reports
from tests.support.reports import MemoryFiles, MemoryMonths, Settled, reports_over

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DUE = datetime(2026, 12, 3, 5, 30, tzinfo=UTC)
CONFIG = Config(
    version="v1",
    tenants={name: Tenant(id=name) for name in ("contoso", "fabrikam")},
    teams={},
    budgets=(),
    models={},
    billing=Billing(close_day=3),
)
JSON = {"json": FORMATS["json"]}


def cell(**changes: Any) -> RollupCell:
    """A call of November."""
    fields: dict[str, Any] = {
        "tenant": "contoso",
        "quarter_utc": NOVEMBER,
        "scopes": {"team": "search"},
        "booked_period": "2026-11",
        "requests": 1,
        "cost_nano_usd": 7,
        "model": "gpt-4o",
    }
    return RollupCell(**fields | changes)


class Ledger:
    """Cells in a list; one tenant's can be out of reach."""

    def __init__(self, *cells: RollupCell, broken: str = "") -> None:
        self.all = list(cells)
        self.broken = broken

    async def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        if tenant == self.broken:
            raise OSError("away")
        for each in self.all:
            if each.tenant == tenant and start_utc <= each.quarter_utc < end_utc:
                yield each


def closer(ledger: Ledger, files: MemoryFiles, months: MemoryMonths, freshness: Settled | None = None) -> CloseService:
    """A close service over memory whose fence takes no time."""
    builder = StatementBuilder(ledger, months.is_frozen)
    publisher = Publisher(files, JSON)
    freshness = freshness or Settled()
    reports = Reports(lambda: CONFIG, builder, months, files, publisher, freshness)
    return CloseService(lambda: CONFIG, reports, builder, months, files, publisher, freshness, fence_seconds=0)


async def test_what_is_incomplete_is_said() -> None:
    """Calls without a price, estimates that may still be measured and those that never were, each with its amount."""
    old, young = NOVEMBER, NOVEMBER + timedelta(hours=5)
    ledger = Ledger(
        cell(requests=3, unpriced=3, cost_nano_usd=0, pricing_status="unpriced", model="new"),
        cell(measured=False, cost_nano_usd=5),
        cell(measured=False, cost_nano_usd=9, quarter_utc=young),
    )
    assert old < young
    reports = reports_over(lambda: CONFIG, ledger, formats=JSON)
    statement = await reports.statement("contoso", "2026-11", None, young + timedelta(minutes=20))
    assert statement.notes == (
        "3 calls have no price yet and cost nothing here: new.",
        "1 streamed call is estimated at 0.000000009 USD and may still be measured.",
        "1 streamed call was never measured; the estimate of 0.000000005 USD stands.",
    )
    complete = await reports_over(lambda: CONFIG, Ledger(cell()), formats=JSON).statement(
        "contoso", "2026-11", None, DUE
    )
    assert complete.notes == ()


async def test_notes_of_a_team_tell_nothing_of_other_teams() -> None:
    """Counts, amounts and models of the whole tenant would show one team what others do; what holds for all stays."""
    ads = {"scopes": {"team": "ads"}}
    ledger = Ledger(
        cell(requests=3, unpriced=3, cost_nano_usd=0, pricing_status="unpriced", model="secret-model", **ads),
        cell(measured=False, cost_nano_usd=5, **ads),
        cell(measured=False, cost_nano_usd=9),
    )
    bill = await reports_over(lambda: CONFIG, ledger, formats=JSON).bill("contoso", "2026-11", DUE, with_charges=False)
    late = "Ingest is behind."
    statement = bill.noting((late, *bill.statement.notes)).statement
    mine = (late, "1 streamed call was never measured; the estimate of 0.000000009 USD stands.")
    assert statement.of_teams(["search"]).notes == mine
    assert dict(statement.by_team())["search"].notes == mine
    assert "secret-model" in statement.of_teams(["ads"]).notes[1]


async def test_many_statements_on_demand_are_written_in_turns() -> None:
    """A reader who asks for a hundred at once cannot fill the memory of the worker that answers checks."""
    running = most = 0

    class Slow(Ledger):
        async def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            async for found in super().cells(tenant, start_utc, end_utc):
                yield found

    reports = reports_over(lambda: CONFIG, Slow(cell()), formats=JSON)
    asked = (reports.write("contoso", "2026-11", None, FORMATS["json"], BytesIO(), DUE) for _ in range(10))
    assert len(await asyncio.gather(*asked)) == 10
    assert most == WRITTEN_AT_ONCE


class Hours:
    """An hour index with some hours that still get rows."""

    def __init__(self, dirty: int) -> None:
        self.dirty = dirty
        self.asked: list[tuple[str, str]] = []

    async def scan(self, start: str, end: str, *, dirty_only: bool) -> AsyncIterator[str]:
        assert dirty_only
        self.asked.append((start, end))
        for n in range(self.dirty):
            yield str(n)


@pytest.mark.parametrize(
    ("watermark", "dirty", "said"),
    [
        (DUE, 0, ()),
        (None, 0, ("How far ingest has come is unknown: calls may be missing.",)),
        (
            NOVEMBER + timedelta(days=20),
            0,
            ("Ingest is behind: calls reported after 2026-11-21T00:00:00Z may be missing.",),
        ),
        (DUE, 2, ("2 hours of it still get rows.",)),
    ],
)
async def test_a_ledger_that_lags_is_said(watermark: datetime | None, dirty: int, said: tuple[str, ...]) -> None:
    """By the hub's and by the hour index's word; a hub that fails or hangs makes it unknown and breaks nothing."""

    async def watermark_ms() -> int | None:
        if watermark is None:
            raise OSError("the hub is away")
        return int(watermark.timestamp() * 1000)

    hours = Hours(dirty)
    freshness = LedgerFreshness(hours, watermark_ms)  # type: ignore[arg-type]
    assert await freshness.notes("2026-11", DUE) == said
    assert hours.asked == [("2026110100", "2026120100")]


async def test_a_tenant_that_fails_keeps_no_other_from_its_statement() -> None:
    """The rest is published, and the failure reaches the host."""
    files = MemoryFiles()
    reports = reports_over(lambda: CONFIG, Ledger(cell(tenant="fabrikam"), broken="contoso"), files, formats=JSON)
    with pytest.raises(ExceptionGroup):
        await reports.publish_statements(DUE)
    assert sorted(name for name in files.files if name.endswith("manifest.json")) == [
        "fabrikam/2026-11/manifest.json",
        "fabrikam/2026-12/manifest.json",
    ]


async def test_the_clock_closes_from_the_day_on_and_tenant_by_tenant() -> None:
    """Not a day early; a tenant whose ledger is away stays fenced and is closed by the next run."""
    ledger, files, months = Ledger(cell(), cell(tenant="fabrikam"), broken="contoso"), MemoryFiles(), MemoryMonths()
    service = closer(ledger, files, months)
    assert await service.run(DUE - timedelta(days=1)) == []
    with pytest.raises(OSError, match="away"):
        await service.run(DUE)
    assert {key: each.state for key, each in months.known.items()} == {
        ("contoso", "2026-11"): "closing",
        ("fabrikam", "2026-11"): "closed",
    }
    ledger.broken = ""
    (manifest,) = await service.run(DUE + timedelta(days=1))
    assert (manifest.tenant, manifest.status, manifest.as_of) == ("contoso", "final", DUE)
    assert await service.run(DUE + timedelta(days=2)) == []
    with pytest.raises(Forbidden) as unknown:
        await service.close("acme", "2026-11", "ada", now_utc=DUE)
    assert unknown.value.code == "tenant_unknown"


async def test_a_closed_month_is_shown_as_it_was_closed() -> None:
    """Neither another configuration nor the time of asking changes it; a draft of it is never published again."""
    ledger, files, months = Ledger(cell()), MemoryFiles(), MemoryMonths()
    await closer(ledger, files, months).close("contoso", "2026-11", "ada", now_utc=DUE)
    closed = dict(files.files)
    other = Config(
        version="v2", tenants=CONFIG.tenants, teams={}, budgets=(), models={}, billing=Billing(issuer="Another")
    )
    reports = reports_over(lambda: other, ledger, files, months, JSON)
    statement = await reports.statement("contoso", "2026-11", None, DUE + timedelta(days=40))
    assert (statement.status, statement.as_of_utc, statement.issuer) == ("final", DUE, "Tollkeeper")
    await reports.publish_statements(DUE + timedelta(days=1))
    assert {name: body for name, body in files.files.items() if name.startswith("contoso/2026-11/")} == {
        name: body for name, body in closed.items() if name.startswith("contoso/2026-11/")
    }


async def test_a_final_statement_replaces_a_draft_that_came_between() -> None:
    """The night's draft is written after the closer looked; the closer looks again and wins."""
    ledger, months = Ledger(cell()), MemoryMonths()

    class Overtaken(MemoryFiles):
        """Lets a draft in just before the first final manifest is written."""

        let_in = False

        async def replace(self, name: str, body: bytes, media_type: str, version: str | None) -> bool:
            if b'"final"' in body and not self.let_in:
                self.let_in = True
                draft = reports_over(lambda: CONFIG, ledger, self, MemoryMonths(), JSON)
                await draft.publish_statements(DUE)
            return await super().replace(name, body, media_type, version)

    files = Overtaken()
    manifest = await closer(ledger, files, months).close("contoso", "2026-11", "ada", now_utc=DUE)
    assert files.let_in
    assert manifest.status == "final"
    stored = await PublishedStatements(files).manifest("contoso", "2026-11")
    assert stored == manifest


async def test_published_files_are_found_by_month_name_and_team() -> None:
    """The newest month first; what is not there is named in the error, and no name leaves the month's folder."""
    files = MemoryFiles()
    hostile = "../../x/<b>"
    ledger = Ledger(cell(), cell(scopes={"team": hostile}), cell(quarter_utc=DUE, booked_period="2026-12"))
    await reports_over(lambda: CONFIG, ledger, files, formats=JSON).publish_statements(DUE)
    published = PublishedStatements(files)
    assert [manifest.period for manifest in await published.all("contoso")] == ["2026-12", "2026-11"]
    download = await published.open("contoso", "2026-11", "statement.json", hostile)
    assert b"".join([chunk async for chunk in download.chunks]).startswith(b"{")
    assert all(".." not in name and "<" not in name for name in files.files)
    for name, team in (("manifest.json", None), ("statement.json", "shop"), ("../basis.json", None)):
        with pytest.raises(NotFound):
            await published.open("contoso", "2026-11", name, team)


def test_a_team_folder_is_safe_and_its_own() -> None:
    """Plain names stand for themselves; others get a digest, so that no two teams share a folder."""
    assert team_slug("search-2.b") == "search-2.b"
    slugs = [
        team_slug(name) for name in ("Search", "search", "(unassigned)", "../..", "", "\u202e", "a/b", "a-b", "a b")
    ]
    assert len(set(slugs)) == len(slugs)
    assert all(set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-~") for slug in slugs)
    assert not [slug for slug in slugs if slug.startswith(".")]
    assert team_slug("search.") != "search."  # which storage takes for "search"
    chosen = ("team !!!!??!!??!!??!!!??!", "team !!!?!!!!?!!?!?!!!???")
    assert [sha256(name.encode()).hexdigest()[:8] for name in chosen] == ["beeb952b"] * 2
    assert len({team_slug(name) for name in chosen}) == 2
