"""What was spent on past days: the ledger's quarter hours, summed per scope, with the settled days kept in memory.

Eight weeks are two thousand hours to read. Days that are over for good are therefore kept, per worker and for a while;
the last days are read each time, because late events still change them.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from shared.budgets.matching import with_implicit_scopes
from shared.ledger.rollup import RollupCell
from shared.ppm import PPM
from shared.reports.forecast import LEVEL_DAYS, History
from shared.scopes import ORGANISATIONAL

QUARTERS = 96
_QUARTER = timedelta(minutes=15)
_DAY = timedelta(days=1)
_SETTLED_AFTER = timedelta(hours=48)
_KEEP_SECONDS = 6 * 3600  # a late event of long ago shows after this at the latest
_MAX_SERIES = 30_000  # of 96 integers each: some 25 MB

Scope = tuple[str, str]  # type and key
TeamModel = tuple[str, str]
Quarters = Sequence[tuple[datetime, int]]
"""Spend in nano-USD by the start of its quarter hour."""


class Ledger(Protocol):
    """What a history needs of the ledger: its sums per quarter hour, open hours included."""

    def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]: ...


class DaySums(NamedTuple):
    """One UTC day of a tenant in nano-USD: per scope and quarter hour, and per team and model in all."""

    scopes: dict[Scope, array[int]]
    team_models: dict[TeamModel, int]


class Spent(NamedTuple):
    """A scope's spend by local days: the complete ones before today, and what a usual day still spends from now on."""

    history: History
    today: date
    today_nano_usd: int
    today_left_ppm: int


class SpendHistory:
    """Reads past spend as budgets count it: calls without a price at the guard price, grants left out."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kept: OrderedDict[tuple[str, date], tuple[float, DaySums]] = OrderedDict()
        self._series = 0
        self._reading: dict[str, asyncio.Lock] = {}  # by tenant; those that exist, so they are few

    async def days(self, tenant: str, first: date, last: date, now_utc: datetime) -> dict[date, DaySums]:
        """The sums of each UTC day from first to last, both included. Holds names of no person."""
        async with self._reading.setdefault(tenant, asyncio.Lock()):  # a page asks several questions at once
            return await self._days(tenant, first, last, now_utc)

    async def _days(self, tenant: str, first: date, last: date, now_utc: datetime) -> dict[date, DaySums]:
        found: dict[date, DaySums] = {}
        missing: list[date] = []
        for day in _each(first, last):
            kept = self._kept.get((tenant, day))
            if kept is not None and monotonic() - kept[0] < _KEEP_SECONDS:
                found[day] = kept[1]
            else:
                missing.append(day)
        for start, end in _stretches(missing):
            found |= await self._read(tenant, start, end, now_utc)
        return found

    async def quarters(self, tenant: str, scope: Scope, first: date, now_utc: datetime) -> Quarters:
        """A scope's spend by quarter hour from the start of a UTC day until now."""
        if scope[0] in ORGANISATIONAL:
            return quarters_of(await self.days(tenant, first, now_utc.date(), now_utc), scope)
        start_utc = datetime.combine(first, time(), UTC)  # people and sessions: too many to keep, so read for this one
        return [
            (cell.quarter_utc, cell.charge_nano_usd)
            async for cell in self._ledger.cells(tenant, start_utc, now_utc)
            if cell.cell is None and cell.scopes.get(scope[0]) == scope[1]
        ]

    async def _read(self, tenant: str, first: date, last: date, now_utc: datetime) -> dict[date, DaySums]:
        days = {day: DaySums({}, {}) for day in _each(first, last)}
        start_utc, end_utc = datetime.combine(first, time(), UTC), datetime.combine(last, time(), UTC) + _DAY
        async for cell in self._ledger.cells(tenant, start_utc, end_utc):
            if cell.cell is None and cell.charge_nano_usd:
                _add(days[cell.quarter_utc.astimezone(UTC).date()], tenant, cell)
        for day, sums in days.items():
            if datetime.combine(day, time(), UTC) + _DAY + _SETTLED_AFTER <= now_utc:
                self._keep(tenant, day, sums)
        return days

    def _keep(self, tenant: str, day: date, sums: DaySums) -> None:
        before = self._kept.pop((tenant, day), None)
        self._series += len(sums.scopes) - (len(before[1].scopes) if before else 0)
        self._kept[tenant, day] = (monotonic(), sums)
        while self._series > _MAX_SERIES:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._series -= len(oldest.scopes)


def quarters_of(days: Mapping[date, DaySums], scope: Scope) -> Quarters:
    """A scope's quarter hours with spend, in order."""
    found = []
    for day in sorted(days):
        midnight_utc = datetime.combine(day, time(), UTC)
        series = days[day].scopes.get(scope, ())
        found += [(midnight_utc + number * _QUARTER, amount) for number, amount in enumerate(series) if amount]
    return found


def local_days(quarters: Quarters, zone: str, days: int, now_utc: datetime) -> Spent:
    """Spend by the complete days before today of a time zone, today's, and what a usual day still spends from now."""
    tz = ZoneInfo(zone)
    now = now_utc.astimezone(tz)
    today, clock = now.date(), now.time()
    first = today - timedelta(days=days)
    totals, after, today_nano_usd = [0] * days, [0] * days, 0
    for quarter_utc, amount in quarters:
        local = quarter_utc.astimezone(tz)
        index = (local.date() - first).days
        if index == days:
            today_nano_usd += amount
        elif 0 <= index < days:
            totals[index] += amount
            after[index] += amount if local.time() >= clock else 0
    lately, lately_after = sum(totals[-LEVEL_DAYS:]), sum(after[-LEVEL_DAYS:])
    left_ppm = min(PPM, max(0, lately_after * PPM // lately)) if lately > 0 else 0
    return Spent(History(first, tuple(totals)), today, today_nano_usd, left_ppm)


def totals(days: Mapping[date, DaySums]) -> tuple[dict[Scope, list[int]], dict[TeamModel, list[int]]]:
    """The series of day totals, in day order, of every scope and of every model of a team."""
    ordered = [days[day] for day in sorted(days)]
    scopes = {scope for sums in ordered for scope in sums.scopes}
    pairs = {pair for sums in ordered for pair in sums.team_models}
    return (
        {scope: [sum(sums.scopes.get(scope, ())) for sums in ordered] for scope in sorted(scopes)},
        {pair: [sums.team_models.get(pair, 0) for sums in ordered] for pair in sorted(pairs)},
    )


def _add(sums: DaySums, tenant: str, cell: RollupCell) -> None:
    utc = cell.quarter_utc.astimezone(UTC)
    number = utc.hour * 4 + utc.minute // 15
    for scope_type, scope_key in with_implicit_scopes(tenant, cell.scopes, cell.model).items():
        if scope_type in ORGANISATIONAL:
            series = sums.scopes.get((scope_type, scope_key))
            if series is None:
                series = sums.scopes[scope_type, scope_key] = array("q", bytes(8 * QUARTERS))
            series[number] += cell.charge_nano_usd
    if team := cell.scopes.get("team"):
        pair = (team, cell.model)
        sums.team_models[pair] = sums.team_models.get(pair, 0) + cell.charge_nano_usd


def _each(first: date, last: date) -> list[date]:
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def _stretches(days: list[date]) -> list[tuple[date, date]]:
    """Neighbouring days as stretches, so that each is read in one go."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and found[-1][1] + _DAY == day:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
