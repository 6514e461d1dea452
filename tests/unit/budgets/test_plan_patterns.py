"""Calls that differ only in keys no budget names share one plan; a named key gets its own."""

from __future__ import annotations

from shared.budgets.snapshot import Snapshot
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from tests.support.engine import budget, config, usd

NOW_S = 1_795_000_000


def test_users_under_a_wildcard_share_all_but_the_name_of_their_counter():
    """A million users cost one plan: flags, limits and script arguments are the same object, the cells differ."""
    plans = _snapshot()
    anna = plans.prepare("acme", {"user": "anna"}, "big", NOW_S)
    ben = plans.prepare("acme", {"user": "ben"}, "big", NOW_S)
    assert anna.dated.script_plan is ben.dated.script_plan
    assert [cell.scope for cell in anna.dated.cells] == ["user:anna"]
    assert [cell.scope for cell in ben.dated.cells] == ["user:ben"]
    assert [key for key in ben.keys if "anna" in key] == []


def test_a_user_with_a_budget_of_their_own_is_held_to_it():
    """The named budget joins the wildcard one on the same counter."""
    zoe = _snapshot().prepare("acme", {"user": "zoe"}, "big", NOW_S)
    assert [planned.budget.limit_nano for planned in zoe.dated.plan.budgets] == [usd(1), usd(5)]
    assert [cell.scope for cell in zoe.dated.cells] == ["user:zoe"]


def test_tenant_and_model_counters_keep_their_names():
    """The two scopes nobody names are not taken from the call, even when it has scopes of those types."""
    plans = _snapshot(budget("tenant:*", usd(9)), budget("model:*", usd(9)))
    prepared = plans.prepare("acme", {"model": "cheap", "tenant": "other"}, "big", NOW_S)
    assert sorted(cell.scope for cell in prepared.dated.cells) == ["model:big", "tenant:acme"]


def _snapshot(*more) -> Snapshot:
    configuration = config(budget("user:*", usd(5)), budget("user:zoe", usd(1)), *more)
    pricer = Pricer(PriceBook.load([]), configuration)
    return Snapshot(configuration, pricer, Router(configuration, pricer))
