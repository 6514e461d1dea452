"""Where tenants and teams are heading this month, and the days on which they spent unusually much."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from shared.config.model import Config
from shared.money import decimal_from_nano
from shared.months import month_of, month_span
from shared.reports.anomalies import WINDOW_DAYS, Anomaly, judge
from shared.reports.forecast import HISTORY_DAYS, days_to_come, forecast
from shared.reports.history import DaySums, Quarters, Scope, SpendHistory, Spent, local_days, quarters_of, totals
from shared.reports.projection import RATE_WINDOW, Projection, project, rate_nano_usd_per_hour, spend_by_hour
from shared.reports.statement import Forecast

log = logging.getLogger("tollkeeper.reports")


class Notices(Protocol):
    """Where a notice is added once for ever."""

    async def add_once(self, key: str, kind: str, payload: dict[str, Any]) -> bool: ...


class Forecasts:
    """Forecasts of the running month, in UTC as statements are."""

    def __init__(self, history: SpendHistory) -> None:
        self._history = history

    async def month(self, tenant: str, teams: Sequence[str] | None, now_utc: datetime) -> dict[str, Any]:
        """The month of a tenant (`teams` None: and of each of its teams) or of these teams.

        Amounts are what budgets count: a call without a price at the guard price.
        """
        period = month_of(now_utc)
        start_utc, end_utc = month_span(period)
        known = await self._history.days(
            tenant, (now_utc - timedelta(days=HISTORY_DAYS)).date(), now_utc.date(), now_utc
        )
        seen = sorted({scope[1] for sums in known.values() for scope in sums.scopes if scope[0] == "team"})
        whole = None if teams is not None else _line(known, ("tenant", tenant), start_utc, end_utc, now_utc)
        return {
            "tenant": tenant,
            "period": period,
            "as_of": now_utc,
            "currency": "USD",
            "forecast": whole,
            "teams": [
                {"team": team, **_line(known, ("team", team), start_utc, end_utc, now_utc)}
                for team in dict.fromkeys(seen if teams is None else teams)
            ],
        }

    async def of_statement(self, tenant: str, now_utc: datetime) -> Forecast | None:
        """The whole tenant's running month as its statement shows it; None while nothing was spent in it."""
        start_utc, end_utc = month_span(month_of(now_utc))
        first = (now_utc - timedelta(days=HISTORY_DAYS)).date()
        known = await self._history.days(tenant, first, now_utc.date(), now_utc)
        spent_nano_usd, projection, _, _ = _projected(known, ("tenant", tenant), start_utc, end_utc, now_utc)
        if not spent_nano_usd:
            return None
        return Forecast(
            value_nano_usd=projection.value_nano_usd,
            low_nano_usd=projection.low_nano_usd,
            high_nano_usd=projection.high_nano_usd,
            method=projection.method,
        )


def _projected(
    known: Mapping[date, DaySums], scope: Scope, start_utc: datetime, end_utc: datetime, now_utc: datetime
) -> tuple[int, Projection, Spent, int]:
    """What the month cost so far, where it leads, the days behind that, and how many of them are the month's."""
    quarters = quarters_of(known, scope)
    found = local_days(quarters, "UTC", HISTORY_DAYS, now_utc)
    gone = (found.today - start_utc.date()).days
    spent_nano_usd = sum(found.history.days_nano_usd[HISTORY_DAYS - gone :]) + found.today_nano_usd
    last_day = (end_utc - timedelta(days=1)).date()
    projection = forecast(found.history, spent_nano_usd, found.today, last_day, found.today_left_ppm)
    if projection is None:
        projection = straight_line(found, quarters, spent_nano_usd, now_utc, end_utc)
    return spent_nano_usd, projection, found, gone


def _line(
    known: Mapping[date, DaySums], scope: Scope, start_utc: datetime, end_utc: datetime, now_utc: datetime
) -> dict[str, Any]:
    spent_nano_usd, projection, found, gone = _projected(known, scope, start_utc, end_utc, now_utc)
    last_day = (end_utc - timedelta(days=1)).date()
    return {
        "spent": decimal_from_nano(spent_nano_usd),
        **projection.body(),
        "history_days": len(found.history.since_first_spend().days_nano_usd),
        "days": _path(found, spent_nano_usd, gone, last_day, projection),
    }


def _path(found: Spent, spent_nano_usd: int, gone: int, last_day: date, projection: Projection) -> list[dict[str, str]]:
    """The month's sum at the end of each day: what it was, then what it is expected to be, with the same range."""
    past = found.history.days_nano_usd[HISTORY_DAYS - gone :]
    rows, total = [], 0
    for i, spent in enumerate(past):
        total += spent
        day = (found.today - timedelta(days=gone - i)).isoformat()
        rows.append({"day": day, "value": decimal_from_nano(total)})
    coming = days_to_come(found.history, found.today, last_day, found.today_left_ppm)
    whole = sum(coming)
    left = projection.value_nano_usd - spent_nano_usd
    expected = 0
    for i, each in enumerate(coming):
        expected += each
        # The same share of value, low and high as of the days to come; without any shape, of the time.
        share, of = (expected, whole) if whole else (i + 1, len(coming))
        sums = {"value": left * share // of}
        for name, end in (("low", projection.low_nano_usd), ("high", projection.high_nano_usd)):
            if end is not None:
                sums[name] = (end - spent_nano_usd) * share // of
        day = (found.today + timedelta(days=i)).isoformat()
        rows.append({"day": day} | {name: decimal_from_nano(spent_nano_usd + amount) for name, amount in sums.items()})
    return rows


def straight_line(
    found: Spent, quarters: Quarters, spent_nano_usd: int, now_utc: datetime, end_utc: datetime
) -> Projection:
    """Less than two weeks are known: their mean rate since the first spend, for all the time that is left.

    The rate is of a day at least, or the first busy hour would look like every hour of the month. The spread of the
    hours makes the range; of less than a day there is none.
    """
    first = found.history.since_first_spend().first_day
    first_utc = min((quarter_utc for quarter_utc, _ in quarters if quarter_utc.date() >= first), default=now_utc)
    window = (min(first_utc, now_utc - RATE_WINDOW), now_utc)
    hourly = spend_by_hour(quarters, window)
    rate_nano_usd = rate_nano_usd_per_hour(sum(hourly), window)
    line = project(spent_nano_usd, rate_nano_usd, hourly, now_utc, end_utc)
    if now_utc - first_utc < RATE_WINDOW and now_utc < end_utc:
        return Projection(line.value_nano_usd, None, None)
    return line


class Anomalies:
    """Finds unusual days of tenants, teams and models of teams; keeps no state."""

    def __init__(
        self,
        config: Callable[[], Config],
        history: SpendHistory,
        notices: Notices,
    ) -> None:
        self._config = config
        self._history = history
        self._notices = notices

    async def find(self, tenant: str, teams: Sequence[str] | None, days: int, now_utc: datetime) -> list[Anomaly]:
        """The anomalies of the last complete UTC days, newest first; of these teams alone unless None."""
        last = now_utc.date() - timedelta(days=1)
        first = last - timedelta(days=WINDOW_DAYS + days - 1)
        scopes, pairs = totals(await self._history.days(tenant, first, last, now_utc))
        series = {f"{kind}:{key}": spends for (kind, key), spends in scopes.items() if kind in ("tenant", "team")}
        series |= {f"team:{team} model:{model}": spends for (team, model), spends in pairs.items()}
        if teams is not None:
            mine = {f"team:{team}" for team in teams}
            series = {name: spends for name, spends in series.items() if name.split(" model:")[0] in mine}
        floors = self._config().billing.anomalies
        found = [
            judge(name, first, spends, index, floors)
            for name, spends in series.items()
            for index in range(WINDOW_DAYS, WINDOW_DAYS + days)
        ]
        return sorted(
            (each for each in found if each is not None), key=lambda each: (-each.day.toordinal(), each.scope)
        )

    async def notify(self, now_utc: datetime | None = None) -> int:
        """Add a notice of each anomaly of yesterday, once per scope and day for ever; how many were new."""
        now_utc = now_utc or datetime.now(UTC)
        added = 0
        for tenant in self._config().tenants:
            for anomaly in await self.find(tenant, None, 1, now_utc):
                team = anomaly.scope.removeprefix("team:").split(" model:")[0] if anomaly.scope[:5] == "team:" else None
                payload = {"tenant": tenant, **({"team": team} if team else {}), **anomaly.body()}
                key = f"anomaly|{tenant}|{anomaly.scope}|{anomaly.day.isoformat()}"
                if await self._notices.add_once(key, "anomaly", payload):
                    added += 1
                    log.warning("anomaly", extra=payload)
        return added
