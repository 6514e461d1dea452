"""The doors on forecasts, unusual days and what another budget would have done: who may ask what."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import CONFIG, NOW, Doors, FakeLedger, principal

from shared.budgets.simulations import Simulations
from shared.budgets.snapshot import Snapshot
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router

ADMIN = principal("Chargeback.Admin", oid="grace")
ADA = principal("Chargeback.Read", oid="ada")  # a member of team search of contoso
CONTOSO = {"tenant": "contoso"}
MONTH = f"{NOW:%Y-%m}"


@pytest.fixture
def replaying(services: SimpleNamespace) -> SimpleNamespace:
    """Services with real simulations over an empty ledger."""
    pricer = Pricer(PriceBook([]), CONFIG)
    snapshot = Snapshot(CONFIG, pricer, Router(CONFIG, pricer))
    services.simulations = Simulations(lambda: snapshot, FakeLedger())
    return services


def question(**budget: Any) -> bytes:
    """A question about this month."""
    return json.dumps({"tenant": "contoso", "period": MONTH, "budget": budget}).encode()


@pytest.mark.parametrize("name", ["forecast", "anomalies"])
async def test_member_may_ask_for_own_team_alone(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """Without a team the own ones are meant; another team is refused."""
    assert (await doors.call(name, query=CONTOSO, as_=ADA)).status == 200
    assert (await doors.call(name, query={**CONTOSO, "team": "search"}, as_=ADA)).status == 200
    reply = await doors.call(name, query={**CONTOSO, "team": "ads"}, as_=ADA)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


async def test_forecast_of_the_tenant_is_for_those_who_see_all_of_it(doors: Doors, services: SimpleNamespace) -> None:
    """An admin gets the tenant's forecast, a member of one team that team's."""
    whole = (await doors.call("forecast", query=CONTOSO, as_=ADMIN)).json
    assert (whole["forecast"]["method"], whole["teams"]) == ("linear", [])
    own = (await doors.call("forecast", query=CONTOSO, as_=ADA)).json
    assert (own["forecast"], [line["team"] for line in own["teams"]]) == (None, ["search"])


@pytest.mark.parametrize("days", ["0", "32", "x", "-1", "99999999", "\u0663", "00319999", "9" * 5_000])
async def test_days_of_anomalies_are_bounded(doors: Doors, services: SimpleNamespace, days: str) -> None:
    """One to 31 days, in plain digits."""
    reply = await doors.call("anomalies", query={**CONTOSO, "days": days}, as_=ADMIN)
    assert (reply.status, reply.param) == (400, "days")


async def test_simulation_of_a_scope_of_ones_own_is_answered(doors: Doors, replaying: SimpleNamespace) -> None:
    """A member of team search may ask what another limit would have done to search, number or text."""
    for limit in ("600.25", 600.25):
        body = question(scope="team:search", period="month", limit=limit)
        reply = await doors.call("budget_simulate", body=body, as_=ADA)
        assert reply.status == 200
        assert reply.json["changed"]["budget"]["limit"] == "600.25"
        assert reply.json["resolution"].startswith("quarter hours")


@pytest.mark.parametrize("scope", ["team:ads", "team:*", "tenant:contoso", "user:bob"])
async def test_simulation_of_others_is_refused(doors: Doors, replaying: SimpleNamespace, scope: str) -> None:
    """What a budget would have done to others tells what they spend."""
    reply = await doors.call("budget_simulate", body=question(scope=scope, period="month", limit="5"), as_=ADA)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")
    reply = await doors.call("budget_simulate", body=question(scope=scope, period="month", limit="5"), as_=ADMIN)
    assert reply.status == 200


async def test_simulation_tells_nothing_of_another_scope_by_the_id_of_its_budget(
    doors: Doors, replaying: SimpleNamespace
) -> None:
    """b1 is the budget of every team: named beside a scope of one's own it must not be replayed, nor shown."""
    body = question(id="b1", scope="team:search", period="month", limit="5")
    reply = await doors.call("budget_simulate", body=body, as_=ADA)
    assert (reply.status, reply.json["in_force"]) == (200, None)
    body = question(id="b1", limit="5")
    assert (await doors.call("budget_simulate", body=body, as_=ADMIN)).json["in_force"]["budget"]["id"] == "b1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (question(scope="team:search", period="month", limit="none"), "budget.limit"),
        (question(scope="team:search", period="month", limit="1e400"), "budget.limit"),
        (b'{"period": "2026-10", "budget": []}', "budget"),
        (question(scope="team:search\ud800", period="month", limit="5"), "body"),
        (
            question(
                scope="team:search",
                period="month",
                limit="5",
                downgrade=[{"from": [f"m{n}" for n in range(201)], "to": "gpt-4o"}],
            ),
            "budget.downgrade",
        ),
        (b'{"period": "10/2026", "budget": {"scope": "team:a", "period": "day", "limit": "1"}}', "period"),
        (b'{"budget": {}}', "period"),
    ],
)
async def test_wrong_question_names_the_field(
    doors: Doors, replaying: SimpleNamespace, body: bytes, param: str
) -> None:
    """The fields of a budget by the rules of budgets.yaml, the rest by the door's."""
    reply = await doors.call("budget_simulate", body=body, as_=ADMIN)
    assert (reply.status, reply.param) == (400, param)


async def test_question_is_as_long_as_a_budget_may_be(doors: Doors, replaying: SimpleNamespace) -> None:
    """Thousands of fields would keep the worker from the checks it answers too."""
    body = question(scope="team:search", period="month", limit="5", disable_tools=["x" * 20_000])
    reply = await doors.call("budget_simulate", body=body, as_=ADMIN)
    assert (reply.status, reply.code) == (413, "payload_too_large")


async def test_comparison_of_all_accounts_is_for_admins(doors: Doors, services: SimpleNamespace) -> None:
    """Without a tenant an admin sees every account; a reader must name a tenant, all of which they may read."""
    assert (await doors.call("reconciliation", as_=ADMIN)).status == 200
    assert services.reconciliation.latest.calls[-1] == ((None, MONTH), {})
    for query in ({}, CONTOSO):
        reply = await doors.call("reconciliation", query=query, as_=ADA)
        assert (reply.status, reply.code) == (403, "scope_not_allowed")
    finance = principal("Chargeback.Read", oid="fin", groups=["finance-group"])
    assert (await doors.call("reconciliation", query={**CONTOSO, "period": "2026-10"}, as_=finance)).status == 200
    assert services.reconciliation.latest.calls[-1] == (("contoso", "2026-10"), {})
