"""What a kind of call asks: candidates, budgets, counters, and what each candidate is to each budget."""

from __future__ import annotations

import pytest

from shared.budgets.matching import BudgetIndex
from shared.budgets.plan import build_plan, date_plan
from shared.config.model import Config, DowngradeRule, Model, Tenant
from tests.support.engine import budget, usd

MODELS = ("big", "middle", "small", "other")
NOW_S = 1_795_255_200


def rule(*sources: str, to: str) -> DowngradeRule:
    return DowngradeRule(sources, to)


def plan_of(*budgets, model="big", scopes=None, cheapest=None, lacking=(), **tenant):
    """A plan in which `cheapest` maps models to what stands in for them, and `lacking` models can stand in for none."""
    tenants = {"acme": Tenant("acme", **tenant)}
    index = BudgetIndex(Config("v1", tenants, {}, budgets, {name: Model(name) for name in MODELS}))

    def resolve(requested: str, target: str) -> str | None:
        found = (cheapest or {}).get(requested, requested) if target == "cheapest" else target
        return None if found in lacking else found

    return build_plan(index, "acme", scopes or {"team": "t"}, model, resolve), index


def test_without_rules_only_the_requested_model_is_a_candidate():
    """Plain for every budget."""
    plan, _ = plan_of(budget("team:t", 1), budget("tenant:acme", 1))
    assert (plan.candidates, plan.flags) == (("big",), ("00",))


def test_downgrades_chain():
    """What a rule leads to may be downgraded further, also by another budget."""
    plan, _ = plan_of(
        budget("team:t", 1, downgrade=(rule("big", to="middle"),)),
        budget("tenant:acme", 1, downgrade=(rule("mid*", to="small"),)),
    )
    assert plan.candidates == ("big", "middle", "small")
    assert plan.flags == ("10", "21", "02")


def test_a_circle_ends_and_its_last_model_can_be_served():
    """Rules in a circle must neither loop nor pass over every model, which would refuse without a budget to name."""
    plan, _ = plan_of(budget("team:t", 1, downgrade=(rule("big", to="small"), rule("small", to="big"))))
    assert plan.candidates == ("big", "small")
    assert plan.flags == ("1", "2")


def test_a_rule_to_itself_changes_nothing():
    """big to big is no downgrade: the model is served, and as a rule's target it may pass a stop."""
    plan, _ = plan_of(budget("team:t", 1, downgrade=(rule("*", to="big"),)))
    assert (plan.candidates, plan.flags) == (("big",), ("2",))


def test_the_first_matching_rule_decides():
    """Rules are read from the top, like every list in the configuration."""
    plan, _ = plan_of(budget("team:t", 1, downgrade=(rule("b*", to="middle"), rule("big", to="small"))))
    assert plan.candidates == ("big", "middle")


@pytest.mark.parametrize(
    ("glob", "hit"), [("b*", True), ("[ab]ig", True), ("BIG", False), ("*mini", False), ("?ig", True)]
)
def test_sources_are_shell_style_globs(glob, hit):
    """As configuration documents them, and case matters."""
    plan, _ = plan_of(budget("team:t", 1, downgrade=(rule(glob, to="small"),)))
    assert (len(plan.candidates) == 2) == hit


def test_a_target_that_cannot_stand_in_is_left_out():
    """A model without vision must not serve a call for one with it; the requested one is served until the stop."""
    plan, _ = plan_of(budget("team:t", 1, downgrade=(rule("big", to="small"),)), lacking={"small"})
    assert (plan.candidates, plan.flags) == (("big",), ("0",))


def test_cheapest_is_resolved_per_model():
    """`to: cheapest` means another model for each requested one, none where nothing is cheaper."""
    spec = budget("team:t", 1, downgrade=(rule("*", to="cheapest"),))
    plan, _ = plan_of(spec, cheapest={"big": "small", "middle": "small"})
    assert (plan.candidates, plan.flags) == (("big", "small"), ("1", "2"))
    plan, _ = plan_of(spec, model="small", cheapest={"big": "small"})
    assert (plan.candidates, plan.flags) == (("small",), ("2",))


def test_only_what_cheapest_leads_to_counts_as_its_target():
    """An unrelated model must not pass a hard stop because some rule says `cheapest`; the cheap one asked for may."""
    spec = budget("team:t", 1, downgrade=(rule("big", to="cheapest"),))
    assert plan_of(spec, model="other", cheapest={"big": "small"})[0].flags == ("0",)
    assert plan_of(spec, model="small", cheapest={"big": "small"})[0].flags == ("2",)


def test_a_model_budget_applies_only_to_the_candidate_it_names():
    """x: it neither refuses nor holds for calls that another model serves."""
    plan, _ = plan_of(
        budget("model:big", 1), budget("team:t", 1, downgrade=(rule("big", to="small"),)), budget("model:small", 1)
    )
    by_scope = {planned.budget.scope_type + planned.budget.scope_key: i for i, planned in enumerate(plan.budgets)}
    assert [flags[by_scope["modelbig"]] for flags in plan.flags] == ["0", "x"]
    assert [flags[by_scope["modelsmall"]] for flags in plan.flags] == ["x", "0"]
    holds = [{plan.cells[i][1] for i, held in enumerate(each) if held == "1"} for each in plan.holds]
    assert holds == [{"big", "t"}, {"small", "t"}]


def test_budgets_on_one_counter_hold_there_once():
    """Two limits on one scope and period are one counter."""
    plan, _ = plan_of(budget("team:t", 1), budget("team:*", 2))
    assert len(plan.cells) == 1
    assert [planned.cell for planned in plan.budgets] == [0, 0]


def test_a_dated_plan_is_valid_until_its_first_period_ends():
    """The shortest of its periods decides."""
    plan, index = plan_of(budget("team:t", 1, period="hour"), budget("team:t", 1, period="month"))
    dated = date_plan(plan, index, NOW_S)
    assert (dated.valid_from_s, dated.valid_until_s) == (NOW_S // 3600 * 3600, NOW_S // 3600 * 3600 + 3600)
    assert dated.valid_at(NOW_S)
    assert not dated.valid_at(dated.valid_until_s)
    assert not dated.valid_at(dated.valid_from_s - 1)


def test_a_plan_without_budgets_is_always_valid():
    """Nothing to look at, nothing that ends."""
    plan, index = plan_of()
    assert plan.cells == ()
    assert date_plan(plan, index, NOW_S).valid_at(NOW_S + 10**6)


def test_limits_are_dated_too():
    """In USD, as they were when their periods started."""
    plan, index = plan_of(budget("team:t", usd(5)), budget("team:t", usd(7), period="day"))
    assert date_plan(plan, index, NOW_S).limits_nano_usd == (usd(5), usd(7))
