"""Measured, estimated and missing: the three parts of every sum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger.coverage import Coverage, Parts, coverage_of
from shared.ledger.rollup import RollupCell
from shared.money import decimal_from_nano

QUARTER = datetime(2026, 11, 21, 10, 15, tzinfo=UTC)
WAIT = timedelta(minutes=30)
OVER = QUARTER + timedelta(minutes=15) + WAIT  # when the wait of the quarter's last call ends
amounts = st.integers(-(10**15), 10**15)


def cell(**fields: Any) -> RollupCell:
    """Two calls of 1,000 nano-USD together."""
    base = {"tenant": "t", "quarter_utc": QUARTER, "scopes": {}, "requests": 2, "cost_nano_usd": 1_000}
    return RollupCell(**{**base, **fields})


@pytest.mark.parametrize(
    ("as_of_utc", "part"),
    [
        (QUARTER, "estimated"),
        (OVER - timedelta(microseconds=1), "estimated"),
        (OVER, "missing"),
        (OVER + timedelta(days=40), "missing"),
    ],
)
def test_an_estimate_is_missing_its_measurement_once_the_wait_is_over(as_of_utc: datetime, part: str) -> None:
    """The wait runs from the end of the quarter hour, so that the call in its last second has had all of it."""
    found = coverage_of(cell(measured=False), as_of_utc, WAIT)
    assert found.costs_nano_usd == Parts(**{part: 1_000})
    assert found.requests == Parts(**{part: 2})


def test_what_was_measured_stays_measured() -> None:
    """Whatever the time."""
    for as_of_utc in (QUARTER, OVER):
        assert coverage_of(cell(), as_of_utc, WAIT).shares() == ("1.0000", "0.0000", "0.0000")


@pytest.mark.parametrize(
    ("costs", "requests", "shares"),
    [
        ((3_000, 1_000, 0), (1, 1, 0), ("0.7500", "0.2500", "0.0000")),
        ((1, 1, 1), (9, 0, 0), ("0.3334", "0.3333", "0.3333")),
        ((0, 0, 0), (1, 0, 3), ("0.2500", "0.0000", "0.7500")),  # free: by requests
        ((5, -1, 0), (1, 1, 0), ("0.5000", "0.5000", "0.0000")),  # a correction: by requests
        ((-5, 0, 0), (2, 0, 0), ("1.0000", "0.0000", "0.0000")),
        ((5, 0, -5), (1, 0, -1), ("1.0000", "0.0000", "0.0000")),  # a reversal without its accrual
        ((0, 0, 0), (0, 0, 0), ("1.0000", "0.0000", "0.0000")),
    ],
)
def test_shares_are_of_the_cost_or_else_of_the_requests(costs: Any, requests: Any, shares: Any) -> None:
    """Zero divides nothing, and a part below zero is no share of anything."""
    assert Coverage(Parts(*costs), Parts(*requests)).shares() == shares


@given(costs=st.tuples(amounts, amounts, amounts), requests=st.tuples(amounts, amounts, amounts))
def test_shares_always_sum_to_one_and_costs_to_the_cost(costs: Any, requests: Any) -> None:
    """Exactly, for any amounts: shares of four decimals that are neither negative nor over 1."""
    body = Coverage(Parts(*costs), Parts(*requests)).body()
    shares = [Decimal(body[f"{part}_share"]) for part in Parts._fields]
    assert sum(shares) == 1
    assert all(0 <= share <= 1 for share in shares)
    assert sum(Decimal(body[f"{part}_cost"]) for part in Parts._fields) == Decimal(decimal_from_nano(sum(costs)))


def test_a_true_up_replaces_the_estimate() -> None:
    """Accrual, its reversal and the measured row: one request, all of it measured."""
    accrual = coverage_of(cell(measured=False), OVER, WAIT)
    reversal = coverage_of(cell(measured=False, requests=-2, cost_nano_usd=-1_000), OVER, WAIT)
    true_up = coverage_of(cell(cost_nano_usd=1_234), OVER, WAIT)
    together = accrual.plus(reversal).plus(true_up)
    assert together == Coverage(Parts(measured=1_234), Parts(measured=2))
