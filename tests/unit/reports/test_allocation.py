"""Who pays for what nobody used alone: each policy by an example, and sums that hold for any numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.billing import Pool, PoolTerm, SharedCost, SharedTerm
from shared.money import scale_half_up, scale_parts
from shared.reports.allocation import (
    pool_capacity,
    pool_cost_nano_usd,
    shared_cost_nano_usd,
    split_pool,
    split_shared,
)
from shared.reports.charge import PPB

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
MONTH = START, END
HOURS = 30 * 24
USD = 10**9


def pool(**changes: Any) -> Pool:
    """Ten units at one USD an hour, from before the month on."""
    fields: dict[str, Any] = {
        "id": "ptu",
        "tenant": "contoso",
        "label": "PTU",
        "kind": "ptu",
        "deployments": frozenset({"d"}),
        "terms": (PoolTerm(START - timedelta(days=100), 10, USD),),
        "tokens_per_minute_per_unit": 100,
    }
    return Pool(**fields | changes)


def shared(by: str, **changes: Any) -> SharedCost:
    """A cost of 90 USD a month."""
    fields: dict[str, Any] = {
        "id": "gateway",
        "tenant": "contoso",
        "label": "Gateway",
        "by": by,
        "terms": (SharedTerm(START, 90 * USD),),
    }
    return SharedCost(**fields | changes)


def test_a_pool_costs_the_hours_of_each_price() -> None:
    """Ten units until the tenth day, five after it, none in the last five days; an open month up to now."""
    terms = (PoolTerm(START, 10, USD), PoolTerm(START + timedelta(days=10), 5, 2 * USD))
    ended = pool(terms=(*terms, PoolTerm(END - timedelta(days=5), 0)))
    assert pool_cost_nano_usd(ended, START, END, MONTH) == 10 * 240 * 1 * USD + 5 * 360 * 2 * USD
    assert pool_cost_nano_usd(ended, START, START + timedelta(hours=7), MONTH) == 10 * 7 * USD
    assert pool_capacity(ended, START, END) == (10 * 240 + 5 * 360) * 60 * 100 * 1000  # thousandths
    assert pool_capacity(pool(tokens_per_minute_per_unit=None), START, END) is None


def test_a_monthly_price_runs_by_the_hour() -> None:
    """Half a month is half the price, rounded half-up once."""
    half = START + timedelta(days=15)
    monthly = pool(terms=(PoolTerm(START, 0, None, 101),))
    assert pool_cost_nano_usd(monthly, START, END, MONTH) == 101
    assert pool_cost_nano_usd(monthly, START, half, MONTH) == 51  # 50.5
    assert shared_cost_nano_usd(shared("even"), half, END, MONTH) == 45 * USD
    dearer = shared("even", terms=(SharedTerm(START, 90 * USD), SharedTerm(half, 180 * USD)))
    assert shared_cost_nano_usd(dearer, START, END, MONTH) == 45 * USD + 90 * USD


USE = {"search": 3_000, "shop": 1_000}


@pytest.mark.parametrize(
    ("policy", "capacity", "expected"),
    [
        # half of the capacity was used: 50 of 100 is paid 3 : 1, the other 50 by the policy
        ({}, 8_000, {"search": (37_500, 0), "shop": (12_500, 0), "(platform)": (0, 50_000)}),
        ({"idle": "proportional"}, 8_000, {"search": (37_500, 37_500), "shop": (12_500, 12_500)}),
        (
            {"idle": "owner", "owner": "shop"},
            8_000,
            {"search": (37_500, 0), "shop": (12_500, 50_000)},
        ),
        (
            {"idle": "owner", "owner": "labs"},
            8_000,
            {"search": (37_500, 0), "shop": (12_500, 0), "labs": (0, 50_000)},
        ),
        # all of it, or more than all of it, or nobody knows: nothing is idle
        ({}, 4_000, {"search": (75_000, 0), "shop": (25_000, 0)}),
        ({"idle": "proportional"}, 1_000, {"search": (75_000, 0), "shop": (25_000, 0)}),
        ({}, None, {"search": (75_000, 0), "shop": (25_000, 0)}),
    ],
)
def test_used_and_idle_parts_of_a_pool(
    policy: dict[str, str], capacity: int | None, expected: dict[str, tuple[int, int]]
) -> None:
    """A hundred micro-dollars over two teams that used 3 : 1."""
    shares = split_pool(pool(**policy), 100_000, USE, capacity)
    assert {share.team: (share.used_nano, share.idle_nano) for share in shares} == expected
    assert sum(share.allocation.elements[0].ratio_ppb for share in shares) == PPB


@pytest.mark.parametrize(("policy", "payer"), [({}, "(platform)"), ({"idle": "owner", "owner": "labs"}, "labs")])
def test_a_pool_that_nobody_used_is_all_idle(policy: dict[str, str], payer: str) -> None:
    """Whether or not its capacity is known; proportional has nothing to be proportional to."""
    for capacity in (None, 8_000):
        (share,) = split_pool(pool(**policy), 100, {}, capacity)
        assert (share.team, share.used_nano, share.idle_nano) == (payer, 0, 100)
    (share,) = split_pool(pool(idle="proportional"), 100, {"search": 0}, 8_000)
    assert (share.team, share.idle_nano) == ("(platform)", 100)


TOKENS = {"search": 200, "shop": 100, "(unassigned)": 300}
OWED = {"search": 10, "shop": 20, "labs": -5, "(platform)": 99}


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (shared("tokens"), {"search": 30, "shop": 15, "(unassigned)": 45}),
        (shared("tokens", exclude=frozenset({"(unassigned)"})), {"search": 60, "shop": 30}),
        (shared("tokens", include=frozenset({"shop"})), {"shop": 90}),
        (shared("cost"), {"search": 30, "shop": 60}),  # what is owed to a team counts as nothing
        (shared("even"), {"search": 30, "shop": 30, "labs": 30}),  # of teams: not of calls without one
        (shared("even", exclude=frozenset({"labs"})), {"search": 45, "shop": 45}),
        (shared("tokens", include=frozenset({"labs"})), {"(platform)": 90}),  # it used nothing
    ],
)
def test_a_shared_cost_by_each_rule(cost: SharedCost, expected: dict[str, int]) -> None:
    """Ninety dollars by tokens, by cost and even, with teams included and excluded."""
    shares = split_shared(
        cost,
        90 * USD,
        tokens=TOKENS,
        owed_nano=OWED,
        teams=["search", "shop", "labs", "(unassigned)", "(platform)"],
        currency="USD",
    )
    assert {share.team: share.nano for share in shares} == {team: usd * USD for team, usd in expected.items()}
    assert sum(share.allocation.elements[0].ratio_ppb for share in shares) == PPB


use = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(-5, 10**12))
capacities = st.none() | st.integers(0, 10**13)
policies = st.sampled_from([{}, {"idle": "proportional"}, {"idle": "owner", "owner": "z"}])


@given(st.integers(0, 10**15), use, capacities, policies)
def test_the_parts_of_a_pool_sum_to_its_price(
    amount: int, used: dict[str, int], capacity: int | None, policy: dict[str, str]
) -> None:
    """Nothing of the price is lost and nothing is added; nobody is paid for a pool."""
    shares = split_pool(pool(**policy), amount, used, capacity)
    assert sum(share.used_nano + share.idle_nano for share in shares) == amount
    assert all(share.used_nano >= 0 and share.idle_nano >= 0 for share in shares)


@given(
    st.lists(st.integers(-(10**15), 10**15), max_size=9),
    st.integers(1, 10**12),
    st.integers(1, 10**12),
)
def test_scaled_parts_sum_to_the_scaled_sum(parts: list[int], numerator: int, denominator: int) -> None:
    """For credits too, and each part is off by less than one unit."""
    scaled = scale_parts(parts, numerator, denominator)
    assert sum(scaled) == scale_half_up(sum(parts), numerator, denominator)
    for part, got in zip(parts, scaled, strict=True):
        assert abs(got * denominator - part * numerator) < 2 * denominator


def test_a_total_that_rounding_cannot_explain_is_refused() -> None:
    """A mistake in what is to be split must not end as an amount on somebody's bill."""
    with pytest.raises(ValueError, match="cannot be scaled"):
        scale_parts([1, 2], 1, 1, total=6)
