"""What comes for months that were closed long ago, and months that the clock forgot to close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from shared.config.model import Budget, Config, ExchangeRate, Tenant
from shared.ledger.periods import Closing
from shared.ledger.rollup import RollupCell
from shared.months import month_before
from shared.reports.basis import Previous, basis_of
from shared.reports.building import StatementBuilder
from shared.reports.close import CloseService
from shared.reports.formats import FORMATS
from shared.reports.publishing import Publisher
from shared.reports.service import Reports
from shared.reports.standings import Standings
from tests.support.reports import MemoryFiles, MemoryMonths, Settled, reports_over

DUE = datetime(2026, 12, 3, 5, 30, tzinfo=UTC)
CONFIG = Config("v1", {"contoso": Tenant("contoso")}, {}, (), {})
JSON = {"json": FORMATS["json"]}


class Ledger:
    """Cells in a list, which tells for what it was asked."""

    def __init__(self, *cells: RollupCell) -> None:
        self.all = cells
        self.asked: list[tuple[datetime, datetime, bool]] = []

    async def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        self.asked.append((start_utc, end_utc, booked_later))
        for each in self.all:
            if start_utc <= each.quarter_utc < end_utc:
                yield each


def years_of_closed_months() -> list[str]:
    """Three years of them, before December 2026."""
    months = ["2026-11"]
    while len(months) < 36:
        months.append(month_before(months[-1]))
    return months


async def test_a_correction_of_a_month_closed_years_ago_is_on_the_bill() -> None:
    """However many closed months lie between: what the open month books is on its statement. Of the closed ones only
    hours are read that hand something on."""
    old = RollupCell(
        tenant="contoso",
        quarter_utc=datetime(2024, 1, 31, 23, 45, tzinfo=UTC),
        scopes={"team": "search"},
        booked_period="2026-12",
        correction="new",
        requests=1,
        cost_nano_usd=7,
    )
    ledger = Ledger(old)
    reports = reports_over(lambda: CONFIG, ledger, months=MemoryMonths(years_of_closed_months()), formats=JSON)
    statement = await reports.statement("contoso", "2026-12", None, DUE)
    assert statement.total_nano == 7
    [line] = statement.corrections
    assert line.month == "2024-01"
    december = datetime(2026, 12, 1, tzinfo=UTC)
    assert ledger.asked == [
        (datetime(2023, 12, 1, tzinfo=UTC), december, True),
        (december, datetime(2027, 1, 1, tzinfo=UTC), False),
    ]


async def test_the_clock_closes_months_that_it_missed() -> None:
    """A timer that was off for two months leaves no month open behind closed ones; months before the first close stay
    as they were."""
    months, files = MemoryMonths(), MemoryFiles()
    months.known["contoso", "2026-08"] = Closing("closed", DUE - timedelta(days=90), "ada", "digest")
    builder, publisher = StatementBuilder(Ledger(), months.is_frozen), Publisher(files, JSON)
    reports = Reports(lambda: CONFIG, builder, months, files, publisher, Settled())
    service = CloseService(lambda: CONFIG, reports, builder, months, files, publisher, Settled(), fence_seconds=0)
    assert await service.run(DUE - timedelta(days=1)) == []  # not before the day
    assert [manifest.period for manifest in await service.run(DUE)] == ["2026-09", "2026-10", "2026-11"]
    assert await service.run(DUE) == []


def test_another_currency_takes_no_rollover_away() -> None:
    """A tenant that pays in euros from December on: amounts due cannot be compared, carried budgets can."""
    monthly = Budget("b", "contoso", "team", "search", "month", "UTC", limit_nano=100, rollover=True)
    euros = Config(
        "v2",
        {"contoso": Tenant("contoso", currency="EUR")},
        {},
        (monthly,),
        {},
        rates=(ExchangeRate("EUR", DUE - timedelta(days=300), 1_100_000_000, "test"),),
    )
    november = Previous(currency="USD", totals_nano={"search": 40}, carried_nano_usd={"b|team:search": 10})
    basis = basis_of(euros, "contoso", "2026-12", november)
    assert basis.previous_nano is None
    standings = Standings(basis)
    standings.add(
        RollupCell(
            tenant="contoso",
            quarter_utc=DUE - timedelta(days=20),
            scopes={"team": "search"},
            requests=1,
            charge_nano_usd=40,
        )
    )
    [standing] = standings.result()
    assert standing.carried_nano_usd == 100 + 10 - 40
