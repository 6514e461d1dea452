"""How fast a budget is being spent, and where that leads by the end of its period.

A straight line from the last hours, in integers. It knows no weekends and no month ends; the band around it says how
much the hours differed. Periods of a week and longer are better served by forecast.py once two weeks are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import isqrt

import msgspec

from shared.money import decimal_from_nano

RATE_WINDOW = timedelta(hours=24)
_FEWEST_HOURS = 2  # one hour alone has no spread
_HOUR = timedelta(hours=1)
_QUARTER = timedelta(minutes=15)
_US_PER_HOUR = 3_600_000_000
_BAND_PER_MILLE = 1282  # 1.282 standard deviations to each side hold 80 % of a normal distribution


Hourly = Sequence[tuple[datetime, int]]
"""Spend in nano-USD by the instant its quarter hour began, in any order."""


class Projection(msgspec.Struct, frozen=True):
    """What the period will have cost at its end, in nano-USD. `low` is never below what is spent already; `low` and
    `high` are None while too little is known to say how wrong the value may be."""

    value_nano_usd: int
    low_nano_usd: int | None
    high_nano_usd: int | None
    method: str = "linear"

    def body(self) -> dict[str, str | None]:
        """As the contract shows it."""
        return {
            "value": decimal_from_nano(self.value_nano_usd),
            "low": None if self.low_nano_usd is None else decimal_from_nano(self.low_nano_usd),
            "high": None if self.high_nano_usd is None else decimal_from_nano(self.high_nano_usd),
            "method": self.method,
        }


def rate_window(period_start_utc: datetime | None, now_utc: datetime) -> tuple[datetime, datetime]:
    """The stretch the rate is taken over: the last 24 hours, or since the period began when that is less."""
    start = now_utc - RATE_WINDOW
    return (start if period_start_utc is None else max(start, period_start_utc)), now_utc


def spend_by_hour(spends: Hourly, window: tuple[datetime, datetime]) -> list[int]:
    """The spend of each hour of the window, quiet hours included; the hours count back from its end."""
    start, end = window
    hours = [0] * max(1, -(-(end - start) // _HOUR))
    for began, spent_nano_usd in spends:
        if start - _QUARTER < began < end:
            hours[min((end - began) // _HOUR, len(hours) - 1)] += spent_nano_usd
    return hours


def rate_nano_usd_per_hour(spent_nano_usd: int, window: tuple[datetime, datetime]) -> int:
    """Spend per hour over a window; one shorter than an hour counts as an hour, or one call would look like a flood."""
    length_us = max(window[1] - window[0], _HOUR) // timedelta(microseconds=1)
    return spent_nano_usd * _US_PER_HOUR // length_us


def project(
    spent_nano_usd: int,
    rate_nano_usd: int,
    hourly_nano_usd: Sequence[int],
    now_utc: datetime,
    period_end_utc: datetime,
) -> Projection:
    """The period's spend at its end: what is spent, plus the hourly rate for every hour left.

    `hourly_nano_usd` is the spend of each hour of the rate window, quiet hours included; their spread makes the band,
    which holds both the chance in the hours to come and the error of a mean taken from few hours.
    """
    left_us = max(period_end_utc - now_utc, timedelta(0)) // timedelta(microseconds=1)
    value = spent_nano_usd + rate_nano_usd * left_us // _US_PER_HOUR
    if left_us and len(hourly_nano_usd) < _FEWEST_HOURS:
        return Projection(value, None, None)
    half = _half_band(hourly_nano_usd, left_us)
    return Projection(value, max(spent_nano_usd, value - half), value + half)


def _half_band(hourly_nano_usd: Sequence[int], left_us: int) -> int:
    """Half the 80 % band: z x s x sqrt(R + R^2 / n) for R hours left and n hours seen with standard deviation s."""
    hours = len(hourly_nano_usd)
    if hours < 2:
        return 0
    total = sum(hourly_nano_usd)
    # n^2 times the sum of squared deviations from the mean, exact in integers
    squares = hours * (hours * sum(spend * spend for spend in hourly_nano_usd) - total * total)
    # variance = squares / (n^2 (n - 1)); times R + R^2 / n with R = left_us / _US_PER_HOUR
    numerator = squares * left_us * (hours * _US_PER_HOUR + left_us)
    denominator = hours**2 * (hours - 1) * hours * _US_PER_HOUR**2
    return _BAND_PER_MILLE * isqrt(numerator // denominator) // 1000
