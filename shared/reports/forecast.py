"""Where a month is heading: the shape of the last weeks at the level of the last days. Pure, integers throughout.

Offices rest on weekends, so a straight line from any one day is wrong on all others. A weekday's share comes from the
last 56 days and is stable; how high the days stand comes from the last 14 and follows a change. The band is not a
formula: it is how wrong the same method was on this very history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec

from shared.ppm import PPM
from shared.reports.projection import Projection

METHOD = "weekday_56d_level_14d"
PROFILE_DAYS = 56
LEVEL_DAYS = 14
HISTORY_DAYS = 84  # the profile's days and four weeks more, to have errors to learn from
MIN_HISTORY_DAYS = 14
_WEEK = 7
_FEWEST_ERRORS = 3


class History(msgspec.Struct, frozen=True):
    """Spend per complete day, oldest first, quiet days included; nano-USD. `first_day` is the day of the first."""

    first_day: date
    days_nano_usd: tuple[int, ...]

    def since_first_spend(self) -> History:
        """Without the days before anything was spent: they say nothing about the days to come."""
        skip = next((i for i, spent in enumerate(self.days_nano_usd) if spent), len(self.days_nano_usd))
        return History(self.first_day + timedelta(days=skip), self.days_nano_usd[skip:])


def forecast(
    history: History, spent_nano_usd: int, today: date, last_day: date, today_left_ppm: int = PPM
) -> Projection | None:
    """The spend of a period at its end, None when less than two weeks are known: then a straight line is as good.

    `spent_nano_usd` is what the period has cost so far, `last_day` its last day, `today_left_ppm` the part of a usual
    day's spend that is still to come today. The history must end the day before `today`.
    """
    known = history.since_first_spend()
    days = known.days_nano_usd
    if len(days) < MIN_HISTORY_DAYS:
        return None
    first_weekday = known.first_day.weekday()
    left_nano_usd = sum(days_to_come(history, today, last_day, today_left_ppm))
    if last_day < today:
        return Projection(spent_nano_usd, spent_nano_usd, spent_nano_usd, METHOD)
    band = band_ppm(days, first_weekday, (last_day - today).days + 1)
    if band is None:
        return Projection(spent_nano_usd + left_nano_usd, None, None, METHOD)
    low_ppm, high_ppm = band
    return Projection(
        spent_nano_usd + left_nano_usd,
        spent_nano_usd + left_nano_usd * min(low_ppm, PPM) // PPM,
        spent_nano_usd + left_nano_usd * max(high_ppm, PPM) // PPM,
        METHOD,
    )


def days_to_come(history: History, today: date, last_day: date, today_left_ppm: int = PPM) -> list[int]:
    """The expected spend of the rest of today and of every day after it; of none when the last day is over."""
    known = history.since_first_spend()
    ahead = (last_day - today).days + 1
    if ahead <= 0:
        return []
    days = _days_ahead(known.days_nano_usd, known.first_day.weekday(), ahead)
    return [days[0] * today_left_ppm // PPM, *days[1:]]


def _days_ahead(days: Sequence[int], first_weekday: int, ahead: int) -> list[int]:
    """The expected spend of each of the next days."""
    profile, whole_weeks = _profile(days, first_weekday)
    level_days = days[-LEVEL_DAYS:] if len(days) >= LEVEL_DAYS else days[-_WEEK:]
    weeks = len(level_days) // _WEEK
    usual = sum(profile) * weeks  # what that many weeks cost by the profile, times `whole_weeks`
    level = sum(level_days[-weeks * _WEEK :])
    next_weekday = first_weekday + len(days)
    if usual <= 0:
        return [0] * ahead
    # profile / whole_weeks is a weekday's mean; times level / (usual / whole_weeks): the weeks cancel out
    return [profile[(next_weekday + i) % _WEEK] * level // usual for i in range(ahead)] if whole_weeks else [0] * ahead


def _profile(days: Sequence[int], first_weekday: int) -> tuple[list[int], int]:
    """The sum of each weekday, Monday first, over the last whole weeks, at most eight; and how many weeks."""
    weeks = min(len(days), PROFILE_DAYS) // _WEEK
    start = len(days) - weeks * _WEEK
    sums = [0] * _WEEK
    for i in range(start, len(days)):
        sums[(first_weekday + i) % _WEEK] += days[i]
    return sums, weeks


def band_ppm(days: Sequence[int], first_weekday: int, ahead: int) -> tuple[int, int] | None:
    """P10 and P90 of actual / forecast over this history's own past, in parts per million.

    A forecast of the next days, seven at most, is repeated from every past day that leaves room for it. Errors over
    more days would overlap so much in so short a history that they say the same thing many times, and the band would
    be too narrow. None without enough of them to speak of.
    """
    known = len(days)
    horizon = max(1, min(ahead, _WEEK, (known - _WEEK) // 2))
    earliest = max(_WEEK, min(28, known // 3))
    ratios = []
    for origin in range(earliest, known - horizon + 1):
        past = days[max(0, origin - PROFILE_DAYS) : origin]
        weekday = (first_weekday + origin - len(past)) % _WEEK
        expected = sum(_days_ahead(past, weekday, horizon))
        if expected > 0:
            ratios.append(sum(days[origin : origin + horizon]) * PPM // expected)
    if len(ratios) < _FEWEST_ERRORS:
        return None
    ratios.sort()
    return quantile(ratios, 1, 10), quantile(ratios, 9, 10)


def quantile(ordered: Sequence[int], numerator: int, denominator: int) -> int:
    """A quantile of ordered values, between neighbours in proportion: exact integers, rounded down."""
    position = (len(ordered) - 1) * numerator
    index, remainder = divmod(position, denominator)
    if remainder == 0:
        return ordered[index]
    return ordered[index] + (ordered[index + 1] - ordered[index]) * remainder // denominator
