"""How good the forecast and the search for anomalies are, on invented spend: `python -m bench.forecast`.

Every profile is made 60 times with other random numbers (the seed is fixed, so that the table is always the same). The
forecast of a month is taken on its fifth, tenth and twentieth day and compared with what the month came to: the mean of
the absolute errors in percent (MAPE), and how often the truth lay inside the band. For anomalies one day of each series
is tripled; recall is how many of them are found, the false positive rate how many ordinary days are named.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from statistics import mean

from shared.config.reconciliation import AnomalyFloors
from shared.money import NANO_PER_USD
from shared.reports.anomalies import WINDOW_DAYS, judge
from shared.reports.forecast import HISTORY_DAYS, History, forecast

SEED = 20260501
SERIES = 60
AS_OF_DAYS = (5, 10, 20)
MONTH_START, MONTH_DAYS = date(2026, 5, 1), 31
OFFICE_WEEK = (1.0, 1.08, 1.1, 1.05, 0.9, 0.12, 0.08)
FLAT_WEEK = (1.0,) * 7
PROFILES: dict[str, tuple[tuple[float, ...], float, float]] = {  # week, growth per 30 days, noise (sigma of the log)
    "office hours, +10 % a month": (OFFICE_WEEK, 0.10, 0.25),
    "round the clock, flat": (FLAT_WEEK, 0.0, 0.25),
    "growth, +40 % a month": (OFFICE_WEEK, 0.40, 0.30),
}


def series(week: tuple[float, ...], growth: float, noise: float, days: int, rng: random.Random) -> list[int]:
    """Daily spend in nano-USD that ends with the last day of the month; about 1000 USD a working day."""
    first = MONTH_START + timedelta(days=MONTH_DAYS - days)
    spends = []
    for i in range(days):
        weekday = (first + timedelta(days=i)).weekday()
        level = 1000 * week[weekday] * (1 + growth) ** (i / 30) * rng.lognormvariate(0, noise)
        spends.append(int(level * NANO_PER_USD))
    return spends


def linear(history: list[int], spent: int, as_of: int) -> int:
    """Month to date times the month's length over the days gone: what most dashboards do."""
    return spent * MONTH_DAYS // as_of


def last_month(history: list[int], spent: int, as_of: int) -> int:
    """What the 30 days before the month came to."""
    return sum(history[:-as_of][-30:])


def measure_forecasts() -> list[tuple[str, int, dict[str, float]]]:
    """Per profile and as-of day: errors in percent by method, and the share of months inside the band."""
    rng = random.Random(SEED)
    rows: list[tuple[str, int, dict[str, float]]] = []
    for name, (week, growth, noise) in PROFILES.items():
        sets = [series(week, growth, noise, HISTORY_DAYS + MONTH_DAYS, rng) for _ in range(SERIES)]
        rows += [(name, as_of, _errors(sets, as_of)) for as_of in AS_OF_DAYS]
    return rows


def _errors(sets: list[list[int]], as_of: int) -> dict[str, float]:
    errors: dict[str, list[float]] = {"linear": [], "last month": [], "weekday x level": []}
    inside = 0
    simple: dict[str, Callable[[list[int], int, int], int]] = {"linear": linear, "last month": last_month}
    for days in sets:
        actual = sum(days[-MONTH_DAYS:])
        today = MONTH_START + timedelta(days=as_of)
        seen = days[: len(days) - MONTH_DAYS + as_of]
        spent = sum(seen[-as_of:])
        history = History(today - timedelta(days=HISTORY_DAYS), tuple(seen[-HISTORY_DAYS:]))
        found = forecast(history, spent, today, MONTH_START + timedelta(days=MONTH_DAYS - 1))
        assert found is not None
        errors["weekday x level"].append(abs(found.value_nano_usd - actual) / actual * 100)
        assert found.low_nano_usd is not None
        assert found.high_nano_usd is not None
        inside += found.low_nano_usd <= actual <= found.high_nano_usd
        for method, value in simple.items():
            errors[method].append(abs(value(seen, spent, as_of) - actual) / actual * 100)
    return {method: mean(values) for method, values in errors.items()} | {"in band": inside / len(sets) * 100}


def measure_anomalies(factor: int = 3) -> dict[str, tuple[float, float]]:
    """Per profile: the share of multiplied days that are found, and the share of ordinary days that are named."""
    rng = random.Random(SEED)
    floors, rows = AnomalyFloors(), {}
    for name, (week, growth, noise) in PROFILES.items():
        found = named = ordinary = 0
        for _ in range(SERIES * 4):
            days = series(week, growth, noise, WINDOW_DAYS + 15, rng)
            first, spike = MONTH_START, WINDOW_DAYS + rng.randrange(15)
            for index in range(WINDOW_DAYS, len(days)):
                ordinary += 1
                named += judge("team:bench", first, days, index, floors) is not None
            days[spike] *= factor
            found += judge("team:bench", first, days, spike, floors) is not None
        rows[name] = (found / (SERIES * 4) * 100, named / ordinary * 100)
    return rows


def main() -> None:
    """Print both tables as Markdown."""
    print("| profile | as of day | linear | last month | weekday x level | truth inside P10-P90 |")
    print("|---|---|---|---|---|---|")
    for name, as_of, e in measure_forecasts():
        print(
            f"| {name} | {as_of} | {e['linear']:.1f} % | {e['last month']:.1f} % | {e['weekday x level']:.1f} % "
            f"| {e['in band']:.0f} % |"
        )
    print("\n| profile | recall of one tripled day | false positives per day |")
    print("|---|---|---|")
    for name, (recall, false) in measure_anomalies().items():
        print(f"| {name} | {recall:.0f} % | {false:.2f} % |")


if __name__ == "__main__":
    main()
