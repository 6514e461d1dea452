"""Unusual days: much above the weekday's median, by the spread of eight weeks, and by enough money to matter."""

from __future__ import annotations

import random
from datetime import date, timedelta

from shared.config.reconciliation import AnomalyFloors
from shared.reports.anomalies import judge

USD = 1_000_000_000
MONDAY = date(2026, 9, 7)
FLOORS = AnomalyFloors()


def office(weeks: int) -> list[int]:
    """Working days of about 100 USD with a tenth of noise either way, weekends of 5."""
    rng = random.Random(7)
    week = [100, 100, 100, 100, 100, 5, 5]
    return [spend * USD * rng.randrange(90, 111) // 100 for _ in range(weeks) for spend in week]


def test_tripled_day_is_found_with_what_was_expected() -> None:
    """Three times a Monday stands out, and the expectation is about that of a Monday."""
    days = [*office(8), 300 * USD]
    found = judge("team:search", MONDAY, days, 56, FLOORS)
    assert found is not None
    assert found.day == MONDAY + timedelta(days=56)
    assert 90 * USD <= found.expected_nano_usd <= 110 * USD
    assert found.score > 3


def test_ordinary_days_are_left_alone() -> None:
    """None of four more ordinary weeks is named."""
    days = office(12)
    assert [judge("team:search", MONDAY, days, i, FLOORS) for i in range(56, 84)] == [None] * 28


def test_working_day_spend_on_a_quiet_weekend_is_found() -> None:
    """100 USD are nothing on a Tuesday and much on a Sunday."""
    days = office(9)
    days[62] = 100 * USD
    assert judge("team:search", MONDAY, days, 62, FLOORS) is not None


def test_floor_keeps_quiet_what_is_surprising_but_small() -> None:
    """Ten times the usual is no notice at 2 USD, but at 200."""
    days = [spend // 500 for spend in office(8)]
    assert judge("team:search", MONDAY, [*days, 2 * USD], 56, FLOORS) is None
    assert judge("team:search", MONDAY, [*days, 200 * USD], 56, FLOORS) is not None


def test_share_floor_keeps_quiet_what_is_large_but_expected() -> None:
    """A thousand more on ten thousand a day is a tenth: below the fifth that matters, whatever the spread says."""
    days = [10_000 * USD] * 56
    assert judge("tenant:contoso", MONDAY, [*days, 11_000 * USD], 56, FLOORS) is None
    assert judge("tenant:contoso", MONDAY, [*days, 12_500 * USD], 56, FLOORS) is not None


def test_three_weeks_are_needed() -> None:
    """A scope that is new may spend what it likes for three weeks: nobody knows yet what is usual."""
    days = [0] * 36 + [100 * USD] * 20 + [500 * USD]
    assert judge("team:new", MONDAY, days, 56, FLOORS) is None
    days = [0] * 35 + [100 * USD] * 21 + [500 * USD]
    assert judge("team:new", MONDAY, days, 56, FLOORS) is not None


def test_one_wild_day_does_not_hide_the_next() -> None:
    """A second spike in the same week is found as the first one was."""
    days = [*office(8), 300 * USD, 300 * USD]
    assert judge("team:search", MONDAY, days, 57, FLOORS) is not None
