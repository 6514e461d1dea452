"""One scope's budgets with how fast they are being spent and where that leads by the end of their periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from shared.budgets.cells import parse_cell
from shared.budgets.periods import Period
from shared.money import decimal_from_nano, nano_from_decimal
from shared.reports.forecast import HISTORY_DAYS, forecast
from shared.reports.history import Quarters, SpendHistory, local_days
from shared.reports.outlook import straight_line
from shared.reports.projection import Projection, project, rate_nano_usd_per_hour, rate_window, spend_by_hour
from shared.scopes import ORGANISATIONAL

_LONG = ("week", "month", "quarter", "year")  # shorter periods end before a weekday's shape matters
_DAY_ELSEWHERE = 1  # a local day may begin on the UTC day before
_DAYS_OF_A_PERSON = 28  # read for each question, as nothing of people is kept


class Spend(Protocol):
    """What an outlook needs of the counters."""

    async def one(self, tenant: str, scope_type: str, scope_key: str) -> list[dict[str, Any]]: ...


class BudgetOutlook:
    """Answers from live counters and past spend; holds no state of its own."""

    def __init__(self, spend: Spend, history: SpendHistory) -> None:
        self._spend = spend
        self._history = history

    async def of_scope(self, tenant: str, scope_type: str, scope_key: str, now_utc: datetime) -> list[dict[str, Any]]:
        """One scope's counters, each with `rate` (USD per hour) and `projection` (None: the budget never resets)."""
        counters = await self._spend.one(tenant, scope_type, scope_key)
        if not counters:
            return []
        periods = [parse_cell(counter["cell"]).period for counter in counters]
        most = HISTORY_DAYS if scope_type in ORGANISATIONAL else _DAYS_OF_A_PERSON
        days_back = most if any(period.kind in _LONG for period in periods) else 1
        first = (now_utc - timedelta(days=days_back + _DAY_ELSEWHERE)).date()
        spends = await self._history.quarters(tenant, (scope_type, scope_key), first, now_utc)
        return [_with_outlook(*pair, spends, now_utc) for pair in zip(counters, periods, strict=True)]


def _with_outlook(counter: dict[str, Any], period: Period, spends: Quarters, now_utc: datetime) -> dict[str, Any]:
    """The counter with its rate, over the part of the last day that lies in its own period, and its projection."""
    window = rate_window(datetime.fromtimestamp(period.start_s, UTC), now_utc)
    hourly = spend_by_hour(spends, window)
    rate = rate_nano_usd_per_hour(sum(hourly), window)
    projection = _projection(counter, period, spends, rate, hourly, now_utc)
    return {**counter, "rate": decimal_from_nano(rate), "projection": projection and projection.body()}


def _projection(
    counter: dict[str, Any], period: Period, spends: Quarters, rate: int, hourly: list[int], now_utc: datetime
) -> Projection | None:
    ends_at_utc = period.resets_at_utc
    if ends_at_utc is None:
        return None
    spent_nano_usd = nano_from_decimal(counter["spent"])
    if period.kind in _LONG:
        known = local_days(spends, period.zone, HISTORY_DAYS, now_utc)
        last_day = datetime.fromtimestamp(period.end_s - 1, ZoneInfo(period.zone)).date()
        found = forecast(known.history, spent_nano_usd, known.today, last_day, known.today_left_ppm)
        return straight_line(known, spends, spent_nano_usd, now_utc, ends_at_utc) if found is None else found
    return project(spent_nano_usd, rate, hourly, now_utc, ends_at_utc)
