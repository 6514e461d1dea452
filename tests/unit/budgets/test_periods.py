"""Calendar periods in a budget's own zone: what starts when, through every oddity of clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args
from zoneinfo import ZoneInfoNotFoundError

import pytest

from shared.budgets.periods import NEVER_S, period_at, previous_period
from shared.config.model import PeriodKind

HOUR, DAY = 3_600, 86_400
AMSTERDAM, KOLKATA, SAO_PAULO, APIA = "Europe/Amsterdam", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia"


def at(text: str) -> float:
    """Unix seconds of a UTC instant such as `2026-03-29 00:59`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def span(kind: str, zone: str, instant: str) -> tuple[str, str, str]:
    """Start, end and label of the period, as UTC text."""
    period = period_at(kind, zone, at(instant))
    start, end = (f"{datetime.fromtimestamp(s, UTC):%Y-%m-%d %H:%M}" for s in (period.start_s, period.end_s))
    return start, end, period.label


@pytest.mark.parametrize(
    ("kind", "start", "end", "label"),
    [
        ("hour", "2026-11-21 10:00", "2026-11-21 11:00", "2026-11-21T10"),
        ("day", "2026-11-21 00:00", "2026-11-22 00:00", "2026-11-21"),
        ("week", "2026-11-16 00:00", "2026-11-23 00:00", "2026-W47"),
        ("month", "2026-11-01 00:00", "2026-12-01 00:00", "2026-11"),
        ("quarter", "2026-10-01 00:00", "2027-01-01 00:00", "2026-Q4"),
        ("year", "2026-01-01 00:00", "2027-01-01 00:00", "2026"),
    ],
)
def test_every_kind_of_period_in_utc(kind, start, end, label):
    """Each kind starts and ends on its calendar boundary and is labelled for people."""
    assert span(kind, "UTC", "2026-11-21 10:59:59") == (start, end, label)


def test_a_total_budget_never_ends():
    """A total has one period for ever, no reset, and nothing before it."""
    period = period_at("total", AMSTERDAM, at("2026-11-21"))
    assert (period.start_s, period.end_s, period.label) == (0, NEVER_S, "total")
    assert period.resets_at_utc is None
    assert previous_period(period) is None


@pytest.mark.parametrize("kind", get_args(PeriodKind))
def test_an_unknown_zone_is_an_error(kind):
    """A zone that does not exist is refused, not taken for UTC; only `total` has no use for one."""
    if kind == "total":
        return
    with pytest.raises(ZoneInfoNotFoundError):
        period_at(kind, "Nowhere/Zone", 0)


def test_the_day_clocks_go_forward_has_23_hours():
    """Amsterdam, 29 March 2026: 02:00 becomes 03:00."""
    day = period_at("day", AMSTERDAM, at("2026-03-29 12:00"))
    assert day.end_s - day.start_s == 23 * HOUR


def test_the_day_clocks_go_back_has_25_hours():
    """Amsterdam, 25 October 2026: 03:00 becomes 02:00."""
    day = period_at("day", AMSTERDAM, at("2026-10-25 12:00"))
    assert day.end_s - day.start_s == 25 * HOUR


def test_the_hour_that_comes_twice_is_two_periods_under_one_label():
    """A label as a key would merge 02:00 and 02:00 and give one hour's limit for two."""
    first = period_at("hour", AMSTERDAM, at("2026-10-25 00:30"))
    second = period_at("hour", AMSTERDAM, at("2026-10-25 01:30"))
    assert first.label == second.label == "2026-10-25T02"
    assert second.start_s == first.end_s


def test_days_of_kolkata_start_at_half_past_six_in_the_evening_utc():
    """Its offset is 5:30, so hours and days start between UTC hours."""
    assert span("day", KOLKATA, "2026-11-21 18:29") == ("2026-11-20 18:30", "2026-11-21 18:30", "2026-11-21")
    assert span("hour", KOLKATA, "2026-11-21 18:45") == ("2026-11-21 18:30", "2026-11-21 19:30", "2026-11-22T00")


def test_a_day_whose_midnight_was_skipped_starts_at_the_skip():
    """Sao Paulo, 4 November 2018: 00:00 became 01:00, so the day began at 03:00 UTC and had 23 hours."""
    assert span("day", SAO_PAULO, "2018-11-04 12:00") == ("2018-11-04 03:00", "2018-11-05 02:00", "2018-11-04")


def test_a_day_whose_evening_came_twice_ends_after_the_second():
    """Sao Paulo, 18 February 2018: 00:00 became 23:00 of the 17th, which had 25 hours."""
    day = period_at("day", SAO_PAULO, at("2018-02-18 02:30"))
    assert day.label == "2018-02-17"
    assert day.end_s - day.start_s == 25 * HOUR


def test_the_day_that_apia_skipped_has_no_instant():
    """Samoa crossed the date line: after 29 December 2011 came the 31st, without gap or overlap."""
    last = period_at("day", APIA, at("2011-12-30 09:59"))
    following = period_at("day", APIA, at("2011-12-30 10:00"))
    assert (last.label, following.label) == ("2011-12-29", "2011-12-31")
    assert last.end_s == following.start_s
    assert last.end_s - last.start_s == DAY


def test_clocks_set_back_over_midnight_do_not_reopen_a_day():
    """St. John's until 2011 went from 00:01 back to 23:01: the new day had begun, its limit must not be given twice."""
    repeated = period_at("day", "America/St_Johns", at("2010-11-07 03:00"))  # 23:30 of the 6th, for the second time
    assert repeated.label == "2010-11-07"


def test_an_hour_is_cut_where_clocks_move_by_half_an_hour():
    """Lord Howe moves by 30 minutes: the hour of the change is short, and no instant is in two hours."""
    change = at("2026-10-03 15:30")
    before, after = (period_at("hour", "Australia/Lord_Howe", change + s) for s in (-1, 0))
    assert before.end_s == after.start_s == change
    assert after.end_s - after.start_s == HOUR // 2


@pytest.mark.parametrize(
    ("day", "label", "monday"),
    [
        ("2026-12-31", "2026-W53", "2026-12-28"),
        ("2027-01-01", "2026-W53", "2026-12-28"),
        ("2027-01-04", "2027-W01", "2027-01-04"),
        ("2024-12-30", "2025-W01", "2024-12-30"),
    ],
)
def test_weeks_over_new_year_are_iso_weeks(day, label, monday):
    """A week belongs to the year of its Thursday and always starts on Monday."""
    start, _, found = span("week", "UTC", f"{day} 12:00")
    assert (found, start) == (label, f"{monday} 00:00")


@pytest.mark.parametrize(
    ("instant", "label", "end"),
    [
        ("2026-03-31 23:59", "2026-Q1", "2026-04-01 00:00"),
        ("2026-06-30 23:59", "2026-Q2", "2026-07-01 00:00"),
        ("2026-09-30 23:59", "2026-Q3", "2026-10-01 00:00"),
        ("2026-12-31 23:59", "2026-Q4", "2027-01-01 00:00"),
    ],
)
def test_the_ends_of_quarters(instant, label, end):
    """The last minute of a quarter is in it; the next starts at midnight."""
    assert span("quarter", "UTC", instant)[1:] == (end, label)


@pytest.mark.parametrize(("year", "days"), [(2024, 29), (2026, 28), (2100, 28), (2000, 29)])
def test_february_in_leap_years(year, days):
    """Every fourth year, but not 2100."""
    month = period_at("month", "UTC", at(f"{year}-02-10"))
    assert month.end_s - month.start_s == days * DAY


def test_the_period_before_is_the_one_that_ends_where_this_starts():
    """January's previous month is December of the year before; in local time, over a change of clocks."""
    january = period_at("month", AMSTERDAM, at("2027-01-15"))
    december = previous_period(january)
    assert (december.label, december.end_s) == ("2026-12", january.start_s)
    assert previous_period(period_at("quarter", AMSTERDAM, at("2026-05-01"))).label == "2026-Q1"


def test_a_period_resets_when_the_next_starts():
    """The instant that the contract shows as resets_at."""
    assert period_at("month", AMSTERDAM, at("2026-11-21")).resets_at_utc == datetime(2026, 11, 30, 23, tzinfo=UTC)


def test_every_instant_of_a_quarter_hour_has_the_same_period():
    """Periods are cached by quarter-hour; the last second of one must not leak into the next."""
    assert period_at("day", "UTC", at("2026-11-21 23:59:59")).label == "2026-11-21"
    assert period_at("day", "UTC", at("2026-11-22 00:00:00")).label == "2026-11-22"
