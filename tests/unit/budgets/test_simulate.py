"""What another budget would have done in a past month."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.budgets.simulations import REPLAYED_AT_ONCE, Simulations
from shared.budgets.snapshot import Snapshot
from shared.config.model import Budget, Config, DowngradeRule, Model, PriceOverride, Tenant
from shared.errors import InvalidRequest, NotFound
from shared.ledger.rollup import RollupCell
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router

USD = 1_000_000_000
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
CALL_TOKENS = 400_000  # input of one call: 1.00 USD on gpt-4o at 2.50 a million, 0.10 USD on gpt-4o-mini at 0.25
IN_FORCE = Budget(
    "b1", None, "team", "*", "month", "UTC", 1000 * USD, downgrade=(DowngradeRule(("gpt-4o",), "gpt-4o-mini"),)
)


def config(*budgets: Budget) -> Config:
    """One tenant, two models, and the budgets in force."""
    january = datetime(2026, 1, 1, tzinfo=UTC)
    return Config(
        version="v",
        tenants={"contoso": Tenant(id="contoso")},
        teams={},
        budgets=budgets,
        models={name: Model(id=name, capabilities=frozenset({"chat"})) for name in ("gpt-4o", "gpt-4o-mini")},
        prices=(
            PriceOverride("gpt-4o", january, {"input": 2_500_000}),
            PriceOverride("gpt-4o-mini", january, {"input": 250_000}),
        ),
    )


class Ledger:
    """Cells in a list."""

    def __init__(self, cells: Sequence[RollupCell]) -> None:
        self.all = cells

    async def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
        for cell in self.all:
            if start_utc <= cell.quarter_utc < end_utc:
                yield cell


def calls(number: int, at_utc: datetime, team: str = "search", **fields: Any) -> RollupCell:
    """So many calls of 1.00 USD to gpt-4o in a quarter hour."""
    values: dict[str, Any] = {
        "scopes": {"team": team},
        "model": "gpt-4o",
        "requested_model": "gpt-4o",
        "requests": number,
        "tokens": {"input": number * CALL_TOKENS},
        "charge_nano_usd": number * USD,
        "cost_nano_usd": number * USD,
    }
    return RollupCell(tenant="contoso", quarter_utc=at_utc, **{**values, **fields})


def service(cells: Sequence[RollupCell], *budgets: Budget, ledger: Ledger | None = None) -> Simulations:
    """Simulations over these cells and the budgets in force."""
    known = config(*budgets)
    pricer = Pricer(PriceBook([]), known)
    snapshot = Snapshot(known, pricer, Router(known, pricer))
    return Simulations(lambda: snapshot, ledger or Ledger(cells))


async def simulate(cells: Sequence[RollupCell], content: dict[str, Any], *budgets: Budget) -> dict[str, Any]:
    """The answer for October."""
    simulations = service(cells, *budgets)
    return await simulations.run("contoso", "2026-10", simulations.budget("contoso", content), NOW)


def day(number: int, hour: int = 10) -> datetime:
    """An hour of a day of October."""
    return OCTOBER + timedelta(days=number - 1, hours=hour)


REFUSE = {"scope": "team:*", "period": "month", "limit": "100.00"}
DOWNGRADE = {**REFUSE, "downgrade": [{"from": ["gpt-4o"], "to": "gpt-4o-mini"}]}


async def test_calls_past_the_stop_would_have_been_refused() -> None:
    """Of 130 calls of 1 USD a limit of 100 USD lets 100 pass; the day that crosses is split in whole calls."""
    found = (await simulate([calls(65, day(3)), calls(65, day(4))], REFUSE))["changed"]
    assert (found["calls"], found["cost"], found["served_cost"]) == (130, "130.00", "100.00")
    assert found["refused"] == {"calls": 30, "cost": "30.00"}
    assert [(row["day"], row["refused_calls"]) for row in found["days"]] == [("2026-10-03", 0), ("2026-10-04", 30)]


async def test_calls_past_the_degrade_threshold_would_have_been_served_by_the_target() -> None:
    """90 calls reach 90 USD; the other 40 cost 0.10 USD each on the cheaper model: saved 40 x 0.90, spent 94 USD."""
    found = (await simulate([calls(65, day(3)), calls(65, day(4))], DOWNGRADE))["changed"]
    assert found["downgraded"] == {"calls": 40, "saved": "36.00"}
    assert (found["served_cost"], found["refused"]["calls"]) == ("94.00", 0)


async def test_downgraded_calls_stop_at_the_limit_too() -> None:
    """From 90 USD on 100 calls of 0.10 USD fit below 100; of 300 calls 90 are served, 100 downgraded, 110 refused."""
    found = (await simulate([calls(300, day(3))], DOWNGRADE))["changed"]
    assert (found["downgraded"]["calls"], found["refused"]) == (100, {"calls": 110, "cost": "110.00"})
    assert Decimal(found["served_cost"]) == 100


async def test_thresholds_are_dated_by_the_quarter_hour_that_crossed_them() -> None:
    """Warn at 80, degrade at 90, stop at 100 USD, each once, in the month's order."""
    found = (await simulate([calls(85, day(3)), calls(10, day(4)), calls(50, day(5))], REFUSE))["changed"]
    assert [(each["threshold"], each["at"]) for each in found["crossed"]] == [
        ("warn", "2026-10-03T10:00:00Z"),
        ("degrade", "2026-10-04T10:00:00Z"),
        ("stop", "2026-10-05T10:00:00Z"),
    ]


async def test_budget_in_force_is_replayed_beside_the_change() -> None:
    """By id alone what is not given stays: the same downgrade at a tenth of the limit, beside the 1000 USD in force."""
    answer = await simulate([calls(130, day(3))], {"id": "b1", "limit": "100.00"}, IN_FORCE)
    assert (answer["changed"]["downgraded"]["calls"], answer["in_force"]["downgraded"]["calls"]) == (40, 0)
    assert (answer["changed"]["budget"]["limit"], answer["in_force"]["budget"]["limit"]) == ("100.00", "1000.00")
    assert answer["in_force"]["served_cost"] == "130.00"


async def test_past_downgrades_and_refusals_count_as_asked_for() -> None:
    """10 calls were served by the cheaper model for 1 USD and saved 9, 5 were refused at an estimate of 5: 15 USD."""
    past = [
        calls(10, day(3), model="gpt-4o-mini", charge_nano_usd=1 * USD, saved_nano_usd=9 * USD),
        calls(0, day(3), refused=5, saved_nano_usd=5 * USD, charge_nano_usd=0, tokens={}),
    ]
    found = (await simulate(past, {**REFUSE, "limit": "1000.00"}))["changed"]
    assert (found["calls"], found["cost"], found["served_cost"]) == (15, "15.00", "15.00")


async def test_every_key_has_a_counter_of_its_own() -> None:
    """Two teams of 80 USD each pass a limit of 100 that a budget of one key for both would not."""
    cells = [calls(80, day(3), team=team) for team in ("ads", "search")]
    found = (await simulate(cells, REFUSE))["changed"]
    assert found["refused"]["calls"] == 0
    assert [row["scope"] for row in found["scopes"]] == ["team:ads", "team:search"]
    tenant = (await simulate(cells, {**REFUSE, "scope": "tenant:contoso"}))["changed"]
    assert tenant["refused"]["calls"] == 60


async def test_daily_budget_begins_anew_at_its_own_midnight() -> None:
    """In Auckland 11:00 UTC is midnight: two days of 60 USD each, none refused; in UTC it is one of 120."""
    cells = [calls(60, day(3, 10)), calls(60, day(3, 11))]
    daily = {"scope": "team:search", "period": "day", "limit": "60.00", "timezone": "Pacific/Auckland"}
    assert (await simulate(cells, daily))["changed"]["refused"]["calls"] == 0
    assert (await simulate(cells, {**daily, "timezone": "UTC"}))["changed"]["refused"]["calls"] == 60


async def test_spend_before_the_month_counts_in_a_period_that_began_earlier() -> None:
    """The week of 1 October began in September: of its 100 USD 90 were spent then, so 10 of 50 calls pass. The month
    did not, so all pass. Calls of September are not in the answer."""
    cells = [calls(90, datetime(2026, 9, 30, 10, tzinfo=UTC)), calls(50, day(1))]
    weekly = (await simulate(cells, {**REFUSE, "period": "week"}))["changed"]
    assert (weekly["calls"], weekly["refused"]["calls"]) == (50, 40)
    monthly = (await simulate(cells, REFUSE))["changed"]
    assert (monthly["calls"], monthly["refused"]["calls"]) == (50, 0)


async def test_rollover_brings_what_september_left() -> None:
    """40 of 100 USD were spent in September, so 160 fit into October."""
    cells = [calls(40, datetime(2026, 9, 10, tzinfo=UTC)), calls(200, day(3))]
    found = (await simulate(cells, {**REFUSE, "rollover": True}))["changed"]
    assert found["refused"]["calls"] == 40


async def test_alert_only_budget_refuses_nothing() -> None:
    """`on_stop: allow` reports what it crosses and lets everything pass."""
    found = (await simulate([calls(300, day(3))], {**REFUSE, "on_stop": "allow"}))["changed"]
    assert (found["refused"]["calls"], len(found["crossed"])) == (0, 3)


async def test_shares_of_a_split_quarter_hour_sum_to_it() -> None:
    """Three calls of a third of an odd amount: what is served and what is refused are together all of it."""
    cells = [calls(3, day(3), charge_nano_usd=100 * USD + 1)]
    found = (await simulate(cells, {**REFUSE, "limit": "70.00"}))["changed"]
    assert Decimal(found["served_cost"]) + Decimal(found["refused"]["cost"]) == Decimal(100 * USD + 1) / USD


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({**REFUSE, "limit": "lots"}, "budget.limit"),
        ({**REFUSE, "limt": "5"}, "budget.limt"),
        ({**REFUSE, "warn": "0.95"}, "budget.warn"),
        ({**REFUSE, "timezone": "Europe/Amsterdan"}, "budget.timezone"),
        ({**REFUSE, "downgrade": [{"from": ["a"], "to": "gpt-9"}]}, "budget.downgrade[0].to"),
        ({**REFUSE, "tenant": "fabrikam"}, "budget.tenant"),
    ],
)
def test_wrong_field_is_named_as_in_the_files(content: dict[str, Any], param: str) -> None:
    """The reader of budgets.yaml judges, and its problem names the field."""
    with pytest.raises(InvalidRequest) as caught:
        service([]).budget("contoso", content)
    assert caught.value.param == param


@pytest.mark.parametrize("period", ["year", "total"])
async def test_budget_that_reaches_back_too_far_is_refused(period: str) -> None:
    """A year is eight thousand hours to read: said, not tried."""
    with pytest.raises(InvalidRequest, match=r"budget\.period"):
        await simulate([], {**REFUSE, "period": period})


async def test_unknown_id_and_month_to_come_are_refused() -> None:
    """An id alone must be configured, and a month must have begun."""
    with pytest.raises(NotFound):
        service([]).budget("contoso", {"id": "nope", "limit": "1"})
    simulations = service([])
    with pytest.raises(InvalidRequest, match="has not begun"):
        await simulations.run("contoso", "2026-12", simulations.budget("contoso", REFUSE), NOW)


async def test_many_replays_at_once_take_turns() -> None:
    """A reader who asks again and again cannot fill the worker that answers checks."""
    running = most = 0

    class Slow(Ledger):
        async def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            async for cell in super().cells(tenant, start_utc, end_utc):
                yield cell

    simulations = service([], ledger=Slow([calls(1, day(3))]))
    budget = simulations.budget("contoso", REFUSE)
    found = await asyncio.gather(*(simulations.run("contoso", "2026-10", budget, NOW) for _ in range(10)))
    assert ([each["changed"]["calls"] for each in found], most) == ([1] * 10, REPLAYED_AT_ONCE)
