"""The forecast by weekday: the shape of eight weeks at the level of the last two."""

from __future__ import annotations

from datetime import date, timedelta

from shared.reports.forecast import METHOD, History, band_ppm, forecast, quantile

USD = 1_000_000_000
MONDAY = date(2026, 9, 7)
OFFICE = [10, 10, 10, 10, 10, 0, 0]  # USD per weekday


def history(weeks: int, week: list[int] = OFFICE, factor: int = 1) -> History:
    """Whole weeks of the same spend, beginning on a Monday."""
    return History(MONDAY, tuple(spend * factor * USD for spend in week) * weeks)


def test_weekends_cost_nothing_where_they_never_did() -> None:
    """From a Monday morning on, a fortnight of an office is ten working days, not fourteen: 5 + 10 x 10 USD."""
    known = history(8)
    today = MONDAY + timedelta(days=56)
    found = forecast(known, 5 * USD, today, today + timedelta(days=13))
    assert found is not None
    assert (found.value_nano_usd, found.method) == ((5 + 10 * 10) * USD, METHOD)


def test_steady_weeks_leave_no_doubt() -> None:
    """A method that was never wrong has no band: low, value and high are one amount."""
    found = forecast(history(12), 0, MONDAY + timedelta(days=84), MONDAY + timedelta(days=90))
    assert found is not None
    assert found.low_nano_usd == found.value_nano_usd == found.high_nano_usd == 50 * USD


def test_level_of_the_last_two_weeks_scales_the_profile() -> None:
    """After two weeks at twice the spend a week is expected to cost as much as those: 5 x 20 USD."""
    days = history(6).days_nano_usd + history(2, factor=2).days_nano_usd
    today = MONDAY + timedelta(days=56)
    found = forecast(History(MONDAY, days), 0, today, today + timedelta(days=6))
    assert found is not None
    assert found.value_nano_usd == 5 * 20 * USD


def test_rest_of_today_is_what_a_usual_day_still_spends() -> None:
    """At a time after which a quarter of a day's spend comes, a Monday of 10 USD has 2.50 USD left."""
    today = MONDAY + timedelta(days=56)
    found = forecast(history(8), 7 * USD, today, today, today_left_ppm=250_000)
    assert found is not None
    assert found.value_nano_usd == 7 * USD + 10 * USD // 4


def test_two_weeks_are_needed() -> None:
    """With thirteen days of history a straight line is as good; quiet days before the first spend are no history."""
    quiet = History(MONDAY, (0,) * 70 + (USD,) * 13)
    today = MONDAY + timedelta(days=83)
    assert forecast(quiet, 0, today, today) is None
    assert forecast(History(MONDAY, (0,) * 70 + (USD,) * 14), 0, today, today) is not None


def test_a_period_that_ended_is_what_was_spent() -> None:
    """Nothing is added to a period whose last day is over."""
    today = MONDAY + timedelta(days=56)
    found = forecast(history(8), 33 * USD, today, today - timedelta(days=1))
    assert found is not None
    assert (found.low_nano_usd, found.value_nano_usd, found.high_nano_usd) == (33 * USD,) * 3


def test_band_holds_past_errors() -> None:
    """Weeks that swing between 50 and 150 USD were forecast wrongly, so the band is wide, and around the value."""
    days = tuple(spend for i in range(12) for spend in history(1, factor=3 if i % 2 else 1).days_nano_usd)
    band = band_ppm(days, 0, 14)
    assert band is not None
    low, high = band
    assert low < 800_000 < 1_000_000 < 1_200_000 < high


def test_a_history_without_errors_to_learn_from_has_no_band() -> None:
    """One day of spend and thirteen quiet ones were forecast once: a value, and no range that would look certain."""
    today = MONDAY + timedelta(days=14)
    found = forecast(History(MONDAY, (USD,) + (0,) * 13), USD, today, today + timedelta(days=6))
    assert found is not None
    assert (found.low_nano_usd, found.high_nano_usd) == (None, None)


def test_quantile_lies_between_neighbours_in_proportion() -> None:
    """P10 of eleven values is the second; of six it is half way between the first two."""
    assert quantile(list(range(0, 110, 10)), 1, 10) == 10
    assert quantile([0, 10, 20, 30, 40, 50], 1, 10) == 5
