"""The straight line from the last hours to the end of the period."""

from datetime import UTC, datetime, timedelta
from math import isqrt

from shared.reports.projection import Projection, project, rate_nano_usd_per_hour, rate_window

USD = 1_000_000_000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_rate_is_taken_over_the_last_day():
    """A month that began long ago is judged by its last 24 hours, not by its average."""
    window = rate_window(datetime(2026, 11, 1, tzinfo=UTC), NOON)
    assert window == (NOON - timedelta(hours=24), NOON)
    assert rate_nano_usd_per_hour(48 * USD, window) == 2 * USD


def test_rate_of_a_young_period_counts_since_its_start():
    """Six hours into a day the quiet day before does not halve the rate."""
    window = rate_window(NOON - timedelta(hours=6), NOON)
    assert rate_nano_usd_per_hour(12 * USD, window) == 2 * USD


def test_first_minutes_are_not_blown_up_to_an_hourly_flood():
    """One dollar in the first second of a period is a dollar per hour, not 3600."""
    window = rate_window(NOON - timedelta(seconds=1), NOON)
    assert rate_nano_usd_per_hour(1 * USD, window) == 1 * USD


def test_steady_spend_projects_exactly_with_no_band():
    """Equal hours leave nothing to doubt: value, low and high are the same exact amount."""
    projection = project(100 * USD, 2 * USD, [2 * USD] * 24, NOON, NOON + timedelta(hours=30))
    assert projection == Projection(160 * USD, 160 * USD, 160 * USD)


def test_uneven_hours_widen_the_band_by_the_formula():
    """The band is 1.282 standard deviations of the hours left, the error of the mean included."""
    hourly = [0, 4 * USD]  # mean 2, sample variance 8
    projection = project(10 * USD, 2 * USD, hourly, NOON, NOON + timedelta(hours=2))
    half = 1282 * isqrt(8 * (2 + 2 * 2 // 2) * USD**2) // 1000
    assert projection == Projection(14 * USD, max(10 * USD, 14 * USD - half), 14 * USD + half)


def test_low_never_falls_below_what_is_spent():
    """Money that is spent cannot come back by projection."""
    projection = project(10 * USD, 1, [0, 0, 0, 100 * USD], NOON, NOON + timedelta(hours=500))
    assert projection.low_nano_usd == 10 * USD


def test_a_period_that_ended_projects_to_what_was_spent():
    """With no hours left there is nothing to add."""
    assert project(7 * USD, 5 * USD, [1, 2], NOON, NOON - timedelta(hours=1)).value_nano_usd == 7 * USD


def test_body_carries_decimal_strings():
    """The contract's projection object: money as strings, and the method named."""
    assert Projection(1_500_000_001, USD, 2 * USD).body() == {
        "value": "1.500000001",
        "low": "1.00",
        "high": "2.00",
        "method": "linear",
    }


def test_one_hour_alone_has_no_range():
    """A spread needs two hours at least; without one the range is unknown, not empty."""
    projection = project(10 * USD, 2 * USD, [2 * USD], NOON, NOON + timedelta(hours=2))
    assert projection == Projection(14 * USD, None, None)
    assert (projection.body()["low"], projection.body()["high"]) == (None, None)
