"""Days on which somebody spent far more than that weekday usually costs. Pure.

Spend grows and shrinks in proportions, so a day is judged by the logarithm of how far it is from the median of its
weekday; medians, because one wild day must not hide the next. Whether that is much is told by the spread of all days of
the last eight weeks together: one weekday alone has eight days, too few to know a spread from. A floor in money keeps
quiet what is surprising but small. Logarithms are floats: they decide whether to speak, and no amount comes from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from math import log
from statistics import median
from typing import Any

import msgspec

from shared.config.reconciliation import AnomalyFloors
from shared.money import decimal_from_nano
from shared.ppm import PPM

METHOD = "log_weekday_median_mad_56d"
WINDOW_DAYS = 56
MIN_HISTORY_DAYS = 21  # three of each weekday: below that a median is one of two
THRESHOLD = 3.0  # robust standard deviations above the usual
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_LEAST_SIGMA = 0.05  # spend that never varies must not make five per cent more an alarm
_QUIET_SHARE = 20  # days below a twentieth of the mean day count as quiet: a weekend's zero has no logarithm
_WEEK = 7
_LEVEL_DAYS = 14


class Anomaly(msgspec.Struct, frozen=True):
    """One scope's day. `expected_nano_usd` is the median of its weekday, `score` robust standard deviations above."""

    scope: str
    day: date
    spent_nano_usd: int
    expected_nano_usd: int
    score: float

    def body(self) -> dict[str, Any]:
        """As answers and notices show it."""
        return {
            "scope": self.scope,
            "day": self.day.isoformat(),
            "spent": decimal_from_nano(self.spent_nano_usd),
            "expected": decimal_from_nano(self.expected_nano_usd),
            "above": decimal_from_nano(self.spent_nano_usd - self.expected_nano_usd),
            "score": f"{self.score:.1f}",
            "method": METHOD,
        }


def judge(
    scope: str, first_day: date, days_nano_usd: Sequence[int], index: int, floors: AnomalyFloors
) -> Anomaly | None:
    """Whether day number `index` of the series is an anomaly, seen from the days before it; None when it is not, or
    when less than three weeks are known since the scope first spent anything."""
    window = days_nano_usd[max(0, index - WINDOW_DAYS) : index]
    offset = index - len(window)
    skip = next((i for i, spent in enumerate(window) if spent), len(window))
    window, offset = window[skip:], offset + skip
    if len(window) < MIN_HISTORY_DAYS:
        return None
    spent = days_nano_usd[index]
    medians = _weekday_medians(window, offset)
    expected = medians[index % _WEEK]
    if not _passes_floors(spent, expected, floors):
        return None
    quiet = sum(window) // len(window) // _QUIET_SHARE + 1
    residuals = [log((each + quiet) / (medians[(offset + i) % _WEEK] + quiet)) for i, each in enumerate(window)]
    centre = median(residuals)
    sigma = max(_LEAST_SIGMA, _MAD_TO_SIGMA * median(abs(each - centre) for each in residuals))
    lately = median(residuals[-_LEVEL_DAYS:])  # what grows by the week stands above its medians on every day
    score = (log((spent + quiet) / (expected + quiet)) - lately) / sigma
    if score < THRESHOLD:
        return None
    return Anomaly(scope, first_day + timedelta(days=index), spent, expected, score)


def _weekday_medians(window: Sequence[int], offset: int) -> list[int]:
    """The median of each seventh day, by its place modulo seven."""
    places: list[list[int]] = [[] for _ in range(_WEEK)]
    for i, spent in enumerate(window):
        places[(offset + i) % _WEEK].append(spent)
    return [int(median(spends)) for spends in places]


def _passes_floors(spent_nano_usd: int, expected_nano_usd: int, floors: AnomalyFloors) -> bool:
    above = spent_nano_usd - expected_nano_usd
    return above > floors.above_nano_usd and above * PPM > expected_nano_usd * floors.above_ppm
