"""Forecasts and anomalies from the ledger's quarter hours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from shared.budgets.cells import CellFamily, cell_at
from shared.budgets.periods import period_at
from shared.config.model import Config, Tenant
from shared.ledger.rollup import RollupCell
from shared.reports.budget_outlook import BudgetOutlook
from shared.reports.forecast import METHOD
from shared.reports.history import SpendHistory, local_days
from shared.reports.outlook import Anomalies, Forecasts

USD = 1_000_000_000
NOW = datetime(2026, 11, 16, 12, tzinfo=UTC)  # a Monday
CONFIG = Config(version="v", tenants={"contoso": Tenant(id="contoso")}, teams={}, budgets=(), models={})


class Ledger:
    """Cells in a list; `read` counts the hours asked for."""

    def __init__(self, cells: Sequence[RollupCell]) -> None:
        self.all = cells
        self.hours_read = 0

    async def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
        self.hours_read += int((end_utc - start_utc).total_seconds()) // 3600
        for cell in self.all:
            if cell.tenant == tenant and start_utc <= cell.quarter_utc < end_utc:
                yield cell


def used(at_utc: datetime, usd: int, team: str = "search", **fields: Any) -> RollupCell:
    """A quarter hour of a team."""
    values = {"model": "gpt-4o", "scopes": {"team": team, "user": "u-1"}, "requests": 1, "charge_nano_usd": usd * USD}
    return RollupCell(tenant="contoso", quarter_utc=at_utc, **{**values, **fields})


def office(days: int, usd: int = 10, hours: Sequence[int] = (9, 15)) -> list[RollupCell]:
    """Working days before NOW's: the amount in equal parts at those hours."""
    midnight = NOW.replace(hour=0)
    found = []
    for back in range(days, 0, -1):
        day = midnight - timedelta(days=back)
        if day.weekday() < 5:
            found += [used(day + timedelta(hours=hour), usd // len(hours)) for hour in hours]
    return found


async def test_month_adds_the_rest_of_today_and_the_working_days_left() -> None:
    """On Monday the 16th at noon: 10 working days at 10 USD are gone, this morning cost 5; 5 come this afternoon, and
    until the 30th there are 10 working days more: 100 + 5 + 5 + 100."""
    ledger = Ledger([*office(100), used(NOW.replace(hour=9), 5)])
    found = await Forecasts(SpendHistory(ledger)).month("contoso", None, NOW)
    assert (found["period"], found["forecast"]["method"], found["forecast"]["history_days"]) == ("2026-11", METHOD, 84)
    assert Decimal(found["forecast"]["spent"]) == 10 * 10 + 5
    assert Decimal(found["forecast"]["value"]) == 100 + 5 + 5 + 10 * 10
    assert [line["team"] for line in found["teams"]] == ["search"]


async def test_new_tenant_gets_a_straight_line_that_says_so() -> None:
    """Nine days of spend are no profile: the mean rate since the first goes on, and the method is named linear."""
    ledger = Ledger([used(NOW.replace(hour=1) - timedelta(days=back), 24) for back in range(1, 10)])
    found = (await Forecasts(SpendHistory(ledger)).month("contoso", ["search"], NOW))["teams"][0]
    assert (found["method"], found["history_days"]) == ("linear", 9)
    hours_seen, hours_left = 9 * 24 + 11, 14 * 24 + 12  # since 01:00 nine days ago, and until midnight of the 30th
    expected = 9 * 24 * USD + 9 * 24 * USD // hours_seen * hours_left
    assert Decimal(found["value"]) == Decimal(expected) / USD
    assert Decimal(found["low"]) < Decimal(found["value"]) < Decimal(found["high"])


async def test_first_day_has_no_range() -> None:
    """Three hours after the first call nobody can say how wrong the line is: null, not a range of nothing."""
    ledger = Ledger([used(NOW - timedelta(hours=3), 5)])
    found = (await Forecasts(SpendHistory(ledger)).month("contoso", None, NOW))["forecast"]
    assert (found["method"], found["low"], found["high"]) == ("linear", None, None)
    assert Decimal(found["value"]) > 5
    assert found["days"][-1] == {"day": "2026-11-30", "value": found["value"]}
    statement = await Forecasts(SpendHistory(ledger)).of_statement("contoso", NOW)
    assert statement is not None
    assert (statement.low_nano_usd, statement.high_nano_usd) == (None, None)


async def test_a_young_budget_leads_where_the_month_leads() -> None:
    """5 USD in three hours are a day's rate, not an hour's: 5 + 5 x 14.5 days, for /spend and /forecast alike."""
    ledger = Ledger([used(NOW - timedelta(hours=3), 5)])
    cell = cell_at(CellFamily("team", "month", "UTC"), "search", period_at("month", "UTC", NOW.timestamp()))

    async def one(tenant: str, scope_type: str, scope_key: str) -> list[dict[str, Any]]:
        return [{"cell": cell.id, "spent": "5.00"}]

    (counter,) = await BudgetOutlook(SimpleNamespace(one=one), SpendHistory(ledger)).of_scope(
        "contoso", "team", "search", NOW
    )
    (line,) = (await Forecasts(SpendHistory(ledger)).month("contoso", ["search"], NOW))["teams"]
    assert counter["projection"] == {name: line[name] for name in ("value", "low", "high", "method")}
    assert abs(Decimal(line["value"]) - (5 + 5 * Decimal("14.5"))) < Decimal("0.000001")


async def test_settled_days_are_read_once() -> None:
    """A second question reads the days that may still change, not eight weeks again."""
    ledger = Ledger(office(84))
    forecasts = Forecasts(SpendHistory(ledger))
    first = await forecasts.month("contoso", None, NOW)
    before = ledger.hours_read
    assert await forecasts.month("contoso", None, NOW) == first
    assert ledger.hours_read - before <= 4 * 24


async def test_questions_at_the_same_time_read_once() -> None:
    """A page that asks for several things at once does not read twelve weeks for each."""
    ledger = Ledger(office(84))
    forecasts = Forecasts(SpendHistory(ledger))
    await asyncio.gather(*(forecasts.month("contoso", None, NOW) for _ in range(5)))
    assert ledger.hours_read <= 85 * 24 + 4 * 4 * 24


async def test_weekly_budget_is_forecast_in_its_own_time_zone() -> None:
    """In Auckland it is one hour after midnight of Tuesday: of the week, Tuesday to Friday are to come."""
    period = period_at("week", "Pacific/Auckland", NOW.timestamp())
    cell = cell_at(CellFamily("team", "week", "Pacific/Auckland"), "search", period)
    nights = [used(NOW.replace(hour=20) - timedelta(days=back), 10) for back in range(1, 90)]  # 9 in the morning there
    workdays = [each for each in nights if (each.quarter_utc + timedelta(hours=13)).weekday() < 5]

    async def one(tenant: str, scope_type: str, scope_key: str) -> list[dict[str, Any]]:
        return [{"cell": cell.id, "spent": "10.00"}]

    outlook = BudgetOutlook(SimpleNamespace(one=one), SpendHistory(Ledger(workdays)))
    (counter,) = await outlook.of_scope("contoso", "team", "search", NOW)
    assert counter["projection"]["method"] == METHOD
    assert Decimal(counter["projection"]["value"]) == 10 + 4 * 10


async def test_hourly_budget_keeps_the_straight_line() -> None:
    """A period that ends within the hour knows no weekdays."""
    cell = cell_at(CellFamily("team", "hour", "UTC"), "search", period_at("hour", "UTC", NOW.timestamp()))

    async def one(tenant: str, scope_type: str, scope_key: str) -> list[dict[str, Any]]:
        return [{"cell": cell.id, "spent": "0.00"}]

    (counter,) = await BudgetOutlook(SimpleNamespace(one=one), SpendHistory(Ledger(office(84)))).of_scope(
        "contoso", "team", "search", NOW
    )
    assert counter["projection"]["method"] == "linear"


async def test_people_are_read_for_but_never_kept() -> None:
    """A user's own days are found, and nothing with a person's key stays in memory."""
    history = SpendHistory(Ledger(office(84)))
    spends = await history.quarters("contoso", ("user", "u-1"), (NOW - timedelta(days=28)).date(), NOW)
    assert sum(local_days(spends, "UTC", 28, NOW).history.days_nano_usd) == 20 * 10 * USD
    kept = (await history.days("contoso", NOW.date() - timedelta(days=5), NOW.date(), NOW)).values()
    assert {scope[0] for sums in kept for scope in sums.scopes} == {"tenant", "team", "model"}


async def test_grants_and_corrections_of_the_bill_are_no_spend() -> None:
    """A grant moves one counter and a correction only the bill: neither is a day's spend."""
    cells = [
        used(NOW - timedelta(days=1), -50, cell="team:search|month|UTC|0"),
        used(NOW - timedelta(days=1), 0, cost_nano_usd=900 * USD),
        used(NOW - timedelta(days=1), 3),
    ]
    spends = await SpendHistory(Ledger(cells)).quarters("contoso", ("team", "search"), NOW.date() - timedelta(2), NOW)
    assert [amount for _, amount in spends] == [3 * USD]


async def test_anomaly_is_noticed_once_for_tenant_team_and_model() -> None:
    """A spike of one team is one of the tenant and of the team's model too; a second run of the job adds nothing."""
    spike = used(NOW - timedelta(days=3), 500)  # a Friday
    keys: dict[str, dict[str, Any]] = {}

    async def add_once(key: str, kind: str, payload: dict[str, Any]) -> bool:
        assert kind == "anomaly"
        return keys.setdefault(key, payload) is payload

    ledger = Ledger([*office(90), spike])
    anomalies = Anomalies(lambda: CONFIG, SpendHistory(ledger), SimpleNamespace(add_once=add_once))
    saturday = NOW - timedelta(days=2)
    assert await anomalies.notify(saturday) == 3
    assert await anomalies.notify(saturday) == 0
    assert sorted(payload["scope"] for payload in keys.values()) == [
        "team:search",
        "team:search model:gpt-4o",
        "tenant:contoso",
    ]
    assert {payload["spent"] for payload in keys.values()} == {"510.00"}


async def test_member_sees_anomalies_of_own_teams_alone() -> None:
    """Of another team, and of the tenant, nothing is told."""
    cells = [*office(90), used(NOW - timedelta(days=3), 500)]
    anomalies = Anomalies(lambda: CONFIG, SpendHistory(Ledger(cells)), SimpleNamespace())
    assert await anomalies.find("contoso", ["ads"], 5, NOW) == []
    found = await anomalies.find("contoso", ["search"], 5, NOW)
    assert [each.scope for each in found] == ["team:search", "team:search model:gpt-4o"]


async def test_path_ends_at_the_forecast_and_starts_with_what_was() -> None:
    """The sum of each day so far is exact; the last day's value, low and high are those of the forecast."""
    cells = [*office(100), used(NOW.replace(hour=9), 5)]
    line = (await Forecasts(SpendHistory(Ledger(cells))).month("contoso", None, NOW))["forecast"]
    days = line["days"]
    assert (days[0], days[4]) == (
        {"day": "2026-11-01", "value": "0.00"},  # a Sunday
        {"day": "2026-11-05", "value": "40.00"},
    )
    assert days[-1] == {"day": "2026-11-30", **{name: line[name] for name in ("value", "low", "high")}}
    assert len(days) == 30


async def test_statement_gets_the_forecast_of_the_whole_tenant() -> None:
    """The same figures as the API's; nothing while the month has no spend."""
    cells = [*office(100), used(NOW.replace(hour=9), 5)]
    found = await Forecasts(SpendHistory(Ledger(cells))).of_statement("contoso", NOW)
    assert found is not None
    assert (found.value_nano_usd, found.method) == (210 * USD, METHOD)
    assert await Forecasts(SpendHistory(Ledger([]))).of_statement("contoso", NOW) is None
