"""Budget periods: calendar spans in a budget's own time zone, identified by the UTC instant they start at.

A local label would name two different hours when clocks go back, so labels are for people only.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from shared.config.model import PeriodKind

QUARTER_HOUR_SECONDS = 900  # every zone's offset since 1980 is a multiple, so no period starts inside a quarter-hour
NEVER_S = 253_402_300_800  # 10000-01-01: the end of a `total` budget


class Period(msgspec.Struct, frozen=True, gc=False):
    """A half-open span [start_s, end_s) in Unix seconds. `label` is for people: `2026-11`, `2026-W47`, `total`."""

    kind: PeriodKind
    zone: str
    start_s: int
    end_s: int
    label: str

    @property
    def resets_at_utc(self) -> datetime | None:
        """When the next period starts; None for a `total` budget, which never resets."""
        return None if self.kind == "total" else datetime.fromtimestamp(self.end_s, UTC)

    def contains(self, instant_s: float) -> bool:
        """Whether a Unix instant lies in the span."""
        return self.start_s <= instant_s < self.end_s


def period_at(kind: PeriodKind, zone: str, instant_s: float) -> Period:
    """The period of `kind` in `zone` that contains a Unix instant. Raises ZoneInfoNotFoundError for an unknown zone."""
    return _period_of_quarter_hour(kind, zone, int(instant_s // QUARTER_HOUR_SECONDS))


def previous_period(period: Period) -> Period | None:
    """The period before; None before a `total` budget."""
    return None if period.kind == "total" else period_at(period.kind, period.zone, period.start_s - 1)


@lru_cache(maxsize=8_192)
def _period_of_quarter_hour(kind: PeriodKind, zone: str, quarter_hour: int) -> Period:
    if kind == "total":
        return Period(kind, zone, 0, NEVER_S, "total")
    tz = ZoneInfo(zone)
    at_s = quarter_hour * QUARTER_HOUR_SECONDS
    local = datetime.fromtimestamp(at_s, tz)
    if kind == "hour":
        return _hour(zone, tz, at_s)
    first, following, label = _calendar_days(kind, local)
    # Where clocks were set back over midnight, minutes after the first midnight carry the old date again: a day starts
    # once, so they belong to the new one. Where midnight was skipped from the evening on it is the other way round.
    if at_s >= _midnight_s(following, tz):
        first, following, label = _calendar_days(kind, following)
    elif at_s < _midnight_s(first, tz):
        first, following, label = _calendar_days(kind, first - timedelta(days=1))
    return Period(kind, zone, _midnight_s(first, tz), _midnight_s(following, tz), label)


def _hour(zone: str, tz: ZoneInfo, at_s: int) -> Period:
    """The clock hour. Where clocks move by less than an hour (Lord Howe: 30 minutes) it is cut off at that instant."""
    offset_s = _offset_s(at_s, tz)
    start = (at_s + offset_s) // 3600 * 3600 - offset_s
    mine = [s for s in range(start, start + 3600, QUARTER_HOUR_SECONDS) if (_offset_s(s, tz) - offset_s) % 3600 == 0]
    label = f"{datetime.fromtimestamp(mine[0], tz):%Y-%m-%dT%H}"
    return Period("hour", zone, mine[0], mine[-1] + QUARTER_HOUR_SECONDS, label)


def _offset_s(at_s: int, tz: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(at_s, tz).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _calendar_days(kind: PeriodKind, local: datetime) -> tuple[datetime, datetime, str]:
    """The first local day of the period, the first of the next, and the label."""
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - a calendar day; the zone joins in _midnight_s
    if kind == "day":
        return day, day + timedelta(days=1), f"{day:%Y-%m-%d}"
    if kind == "week":
        monday = day - timedelta(days=day.weekday())
        year, week, _ = day.isocalendar()
        return monday, monday + timedelta(days=7), f"{year}-W{week:02d}"
    months = {"month": 1, "quarter": 3, "year": 12}[kind]
    first_month = (day.month - 1) // months * months
    first = day.replace(month=first_month + 1, day=1)
    years, month = divmod(first_month + months, 12)
    following = first.replace(year=day.year + years, month=month + 1)
    label = {"month": f"{first:%Y-%m}", "quarter": f"{day.year}-Q{first_month // 3 + 1}", "year": str(day.year)}[kind]
    return first, following, label


def _midnight_s(day: datetime, tz: ZoneInfo) -> int:
    """The Unix second a local day starts. Where clocks skip midnight the day starts at the skip; where midnight comes
    twice, at the first: fold=0 means both."""
    return int(day.replace(tzinfo=tz, fold=0).timestamp())
