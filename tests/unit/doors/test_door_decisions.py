"""The decisions door: who sees which decisions, and how much of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace

import pytest
from door_fakes import NOW, Doors, principal

from shared.budgets.decision import Decision
from shared.budgets.recent import RecentDecisions

HERE = {"tenant": "contoso"}
ADA = principal("Chargeback.Read", oid="ada")  # of team search
FINANCE = principal("Chargeback.Read", groups=["finance-group"])


class Listed:
    """The live list, held in memory."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = list(decisions)

    async def newest(self, tenant: str, count: int) -> list[Decision]:
        return self.decisions[:count] if tenant == "contoso" else []


def refused(number: int, team: str, user: str, budget: str) -> Decision:
    return Decision(
        at_utc=NOW - timedelta(seconds=number),
        decision="refuse",
        reason="budget_exhausted",
        state="stopped",
        requested_model="gpt-4o",
        model="gpt-4o",
        scopes={"team": team, "user": user, "session": f"s-{number}", "app": "search-app"},
        estimate_nano_usd=12_000_000,
        budget=budget,
    )


@pytest.fixture
def listed(services: SimpleNamespace) -> SimpleNamespace:
    decisions = [
        refused(0, "ads", "eve", "team:ads"),
        refused(1, "search", "ada", "user:ada"),
        refused(2, "search", "bob", "user:bob"),
        refused(3, "search", "bob", "team:search"),
    ]
    services.recent_decisions = RecentDecisions(Listed(decisions))
    return services


async def test_finance_sees_every_decision_in_full(doors: Doors, listed: SimpleNamespace) -> None:
    """Newest first, with scopes, estimate and the budget that binds."""
    reply = await doors.call("decisions", query=HERE, as_=FINANCE)
    assert reply.status == 200
    first = reply.json["decisions"][0]
    assert [each["scopes"]["user"] for each in reply.json["decisions"]] == ["eve", "ada", "bob", "bob"]
    assert (first["estimate"], first["budget"], first["state"], first["sampled"]) == (
        "0.012",
        "team:ads",
        "stopped",
        False,
    )
    assert first["at"].endswith("Z")


async def test_a_member_sees_their_teams_decisions_without_other_persons(doors: Doors, listed: SimpleNamespace) -> None:
    """Nothing of team ads; of a colleague's call that it was refused, but neither who nor which session it was."""
    decisions = (await doors.call("decisions", query=HERE, as_=ADA)).json["decisions"]
    assert [each["scopes"] for each in decisions] == [
        {"team": "search", "app": "search-app", "user": "ada"},
        {"team": "search", "app": "search-app"},
        {"team": "search", "app": "search-app"},
    ]
    assert [each["budget"] for each in decisions] == ["user:ada", "user", "team:search"]


async def test_another_teams_traffic_does_not_crowd_out_a_members_own(doors: Doors, services: SimpleNamespace) -> None:
    """A hundred newer decisions of another team, and the member still gets their one."""
    noise = [refused(number, "ads", "eve", "team:ads") for number in range(100)]
    services.recent_decisions = RecentDecisions(Listed([*noise, refused(100, "search", "ada", "team:search")]))
    reply = await doors.call("decisions", query={**HERE, "limit": "1"}, as_=ADA)
    assert [each["scopes"]["user"] for each in reply.json["decisions"]] == ["ada"]


async def test_a_member_of_no_team_there_sees_nothing(doors: Doors, listed: SimpleNamespace) -> None:
    """Neither an empty list, which would say that the tenant exists and is quiet, nor another tenant's."""
    reply = await doors.call("decisions", query=HERE, as_=principal("Chargeback.Read", oid="nobody"))
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


@pytest.mark.parametrize("limit", ["0", "501", "-1", "ten", "1e2", "²"])
async def test_a_limit_that_is_none_is_named(doors: Doors, listed: SimpleNamespace, limit: str) -> None:
    """The field and the range."""
    reply = await doors.call("decisions", query={**HERE, "limit": limit}, as_=FINANCE)
    assert (reply.status, reply.param) == (400, "limit")
