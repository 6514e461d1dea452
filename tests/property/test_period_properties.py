"""Periods of any kind in any zone tile time: every instant lies in exactly one, and neighbours touch."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import get_args
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.budgets.periods import period_at, previous_period
from shared.config.model import PeriodKind

KINDS = [kind for kind in get_args(PeriodKind) if kind != "total"]
ZONES = sorted(name for name in available_timezones() if not name.startswith(("posix/", "right/", "local")))
# Until 1979 some zones were off by minutes (Kiritimati last), beyond the quarter-hour grid; a year to be clear of it.
FROM_S = int(datetime(1981, 1, 1, tzinfo=UTC).timestamp())
UNTIL_S = int(datetime(2120, 1, 1, tzinfo=UTC).timestamp())
LORD_HOWE_SPRING_S = int(datetime(2026, 10, 3, 15, 30, tzinfo=UTC).timestamp())
ST_JOHNS_AUTUMN_S = int(datetime(2010, 11, 7, 2, 31, tzinfo=UTC).timestamp())
APIA_SKIP_S = int(datetime(2011, 12, 30, 10, tzinfo=UTC).timestamp())


@st.composite
def instants(draw) -> tuple[str, int]:
    """A zone and an instant, half of the time within hours of a change of its clocks."""
    zone = draw(st.sampled_from(ZONES))
    at_s = draw(st.integers(FROM_S, UNTIL_S))
    if draw(st.booleans()):
        at_s = _next_change_s(zone, at_s) + draw(st.integers(-8, 8)) * 900 + draw(st.integers(0, 899))
    return zone, at_s


def _next_change_s(zone: str, at_s: int) -> int:
    """The quarter-hour of the next change of offset within a year, or the instant itself."""
    tz = ZoneInfo(zone)

    def offset(s: int):
        return datetime.fromtimestamp(s, tz).utcoffset()

    step = 15 * 24 * 3600
    for start in range(at_s, at_s + 365 * 24 * 3600, step):
        if offset(start) != offset(start + step):
            low, high = start, start + step
            while high - low > 900:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            return high // 900 * 900
    return at_s


@given(instants(), st.sampled_from(KINDS))
@example(("Australia/Lord_Howe", LORD_HOWE_SPRING_S), "hour")
@example(("Australia/Lord_Howe", LORD_HOWE_SPRING_S - 1), "hour")
@example(("America/St_Johns", ST_JOHNS_AUTUMN_S + 1_800), "day")
@example(("Pacific/Apia", APIA_SKIP_S), "day")
@settings(max_examples=400, deadline=None)
def test_periods_tile_time(where, kind):
    """No instant is in two periods or in none: a gap would leave spend uncounted, an overlap count it twice."""
    zone, at_s = where
    period = period_at(kind, zone, at_s)
    assert period.start_s <= at_s < period.end_s
    assert period_at(kind, zone, period.start_s) == period
    assert period_at(kind, zone, period.end_s - 1) == period
    following = period_at(kind, zone, period.end_s)
    assert following.start_s == period.end_s
    assert previous_period(following) == period


@given(instants(), st.sampled_from(KINDS))
@settings(max_examples=200, deadline=None)
def test_every_period_starts_and_ends_on_a_quarter_hour(where, kind):
    """Rollups sum quarter-hours, so a period that began inside one could not be rebuilt from them."""
    zone, at_s = where
    period = period_at(kind, zone, at_s)
    assert period.start_s % 900 == 0
    assert period.end_s % 900 == 0


@given(instants())
@settings(max_examples=200, deadline=None)
def test_longer_periods_contain_the_shorter_ones(where):
    """The day of an instant lies in its month, the month in its quarter, the quarter in its year."""
    zone, at_s = where
    spans = [period_at(kind, zone, at_s) for kind in ("day", "month", "quarter", "year")]
    for inner, outer in pairwise(spans):
        assert outer.start_s <= inner.start_s < inner.end_s <= outer.end_s
