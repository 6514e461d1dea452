"""Which budgets apply to a call, and what their limits are worth."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.budgets.cells import CellFamily, cell_at
from shared.budgets.matching import BudgetIndex, expire_at_ms, limit_nano_usd, with_implicit_scopes
from shared.budgets.periods import period_at
from shared.config.model import Budget, Config, ExchangeRate, Tenant
from tests.support.engine import usd

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
DAY_MS = 24 * 3_600_000


def budget(scope: str, *, tenant: str | None = None, period: str = "month", zone: str = "UTC", **fields) -> Budget:
    scope_type, key = scope.split(":", 1)
    name = f"{tenant}/{scope}/{period}/{zone}"
    return Budget(name, tenant, scope_type, key, period, zone, usd(10), **fields)


def index_of(*budgets: Budget, **tenant) -> BudgetIndex:
    tenants = {name: Tenant(name, **tenant) for name in ("acme", "other")}
    return BudgetIndex(Config("v1", tenants, {}, budgets, {}))


def names(found) -> set[str]:
    return {each.id.split("/")[1] for each in found}


def test_exact_and_wildcard_budgets_both_apply():
    """A team's own budget does not replace the one for every team: the most restrictive answer wins."""
    index = index_of(budget("team:a"), budget("team:*"), budget("team:b"), budget("user:a"))
    assert names(index.matching("acme", "team", "a")) == {"team:a", "team:*"}


def test_a_budget_of_one_tenant_does_not_reach_another():
    """Without a tenant a budget applies in all; with one only there."""
    index = index_of(budget("team:a", tenant="acme"), budget("team:*"))
    assert names(index.matching("acme", "team", "a")) == {"team:a", "team:*"}
    assert names(index.matching("other", "team", "a")) == {"team:*"}


def test_a_scope_named_star_is_matched_once():
    """A caller that calls itself `*` gets the wildcard's budget once, not twice, and no one else's counter."""
    index = index_of(budget("team:*"))
    assert len(list(index.matching("acme", "team", "*"))) == 1
    [star] = index.cells_of_call("acme", {"team": "*"}, "m", NOW)
    [plain] = index.cells_of_call("acme", {"team": "a"}, "m", NOW)
    assert star.id != plain.id


def test_every_call_has_its_tenant_and_its_model_as_scopes():
    """Budgets on tenant:* and model:* apply though nobody names these scopes."""
    index = index_of(budget("tenant:*"), budget("model:gpt-4o"), budget("team:a"))
    cells = index.cells_of_call("acme", {"team": "a"}, "gpt-4o", NOW)
    assert {cell.scope for cell in cells} == {"tenant:acme", "model:gpt-4o", "team:a"}


def test_nobody_can_forge_the_implicit_scopes():
    """A call that states another tenant or model as a scope is charged to its own."""
    assert with_implicit_scopes("acme", {"tenant": "other", "model": "free"}, "m") == {"tenant": "acme", "model": "m"}


def test_budgets_on_one_scope_and_period_share_a_counter():
    """So editing a limit, or adding a second one, loses nothing."""
    index = index_of(budget("team:a"), budget("team:*"), budget("team:a", period="day"))
    cells = index.cells_of_call("acme", {"team": "a"}, "m", NOW)
    assert sorted(cell.family.period for cell in cells) == ["day", "month"]
    assert names(index.of_cell("acme", next(c for c in cells if c.family.period == "month"))) == {"team:a", "team:*"}


def test_zones_have_counters_of_their_own():
    """A day in Amsterdam and one in Kolkata start at different instants."""
    index = index_of(budget("team:a", period="day", zone="Europe/Amsterdam"), budget("team:a", period="day"))
    assert len(index.cells_of_call("acme", {"team": "a"}, "m", NOW)) == 2


def test_a_family_is_a_selector_with_its_period_and_zone():
    """`team:*` and `team:a` are seeded apart, for only matching budgets are charged."""
    index = index_of(budget("team:a"), budget("team:*"), budget("team:b", tenant="other"))
    assert {family.id for family in index.families("acme")} == {"team:a|month|UTC", "team:*|month|UTC"}
    assert len(index.families("other")) == 3


def test_what_clients_may_assert_is_the_tenants_choice():
    """An unlisted tenant lets nobody assert anything."""
    index = index_of(client_asserted_scopes=frozenset({"session"}))
    assert index.is_asserted("acme", "session")
    assert not index.is_asserted("acme", "team")
    assert not index.is_asserted("stranger", "session")


@pytest.mark.parametrize(("kind", "kept_days"), [("hour", 2 + 1 / 24), ("day", 3), ("month", 32), ("year", 2 + 365)])
def test_a_counter_is_kept_one_period_and_two_days_longer(kind, kept_days):
    """Rollover and late events need it; after that it would only fill memory."""
    cell = cell_at(CellFamily("team", kind, "UTC"), "a", period_at(kind, "UTC", NOW))
    assert expire_at_ms(cell) - cell.period.end_s * 1000 == kept_days * DAY_MS


def test_a_total_is_kept_for_ever():
    """0 means that Redis may never forget it."""
    assert expire_at_ms(cell_at(CellFamily("team", "total", "UTC"), "a", period_at("total", "UTC", NOW))) == 0


def rates(*pairs: tuple[str, int]) -> tuple[ExchangeRate, ...]:
    return tuple(ExchangeRate("EUR", datetime.fromisoformat(day).replace(tzinfo=UTC), nano) for day, nano in pairs)


def limit_in_eur(*known: ExchangeRate, start: str = "2026-11-01") -> int:
    spec = budget("team:a", currency="EUR")
    configuration = Config("v1", {}, {}, (spec,), {}, rates=known)
    return limit_nano_usd(spec, int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()), configuration)


def test_a_limit_in_euro_uses_the_rate_at_the_start_of_its_period():
    """A rate that changes inside the month must not move the month's limit."""
    known = rates(("2026-01-01", 1_100_000_000), ("2026-11-01", 1_200_000_000), ("2026-11-15", 1_500_000_000))
    assert limit_in_eur(*known) == 10 * 1_200_000_000
    assert limit_in_eur(*known, start="2026-10-01") == 10 * 1_100_000_000


def test_a_period_before_the_first_rate_uses_the_first():
    """A total starts in 1970; some rate is better than a failing check."""
    assert limit_in_eur(*rates(("2026-05-01", 1_100_000_000)), start="1970-01-01") == 10 * 1_100_000_000


def test_a_converted_limit_is_rounded_once():
    """Half a nano-dollar goes up."""
    assert limit_in_eur(ExchangeRate("EUR", datetime(2026, 1, 1, tzinfo=UTC), 1_111_111_111)) == 10 * 1_111_111_111


def test_without_any_rate_there_is_no_limit_to_compute():
    """The loader refuses such a configuration; should one get through, no limit is invented."""
    with pytest.raises(LookupError, match="EUR"):
        limit_in_eur()
