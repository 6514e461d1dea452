"""The weekly digest: one notice per tenant and week, with what a budget's owner wants to know on a Monday morning.

Weeks run from Monday 00:00 UTC to Monday 00:00 UTC, as the days of statements do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from shared.errors import StateUnavailable
from shared.notify.outbox import Outbox

KIND = "weekly_digest"
TOP = 5
Row = Mapping[str, Any]
WEEK = timedelta(days=7)


class Summaries(Protocol):
    """Sums of usage, as GET /usage/summary answers them."""

    async def summarize(
        self, tenant: str | None, start_utc: datetime, end_utc: datetime, group_by: Sequence[str]
    ) -> list[dict[str, Any]]: ...


class Spend(Protocol):
    """Budgets beside their counters, as GET /spend answers them."""

    async def list(self, tenant: str) -> list[dict[str, Any]]: ...


class WeeklyDigest:
    """Runs on a timer; run again in the same week it adds nothing."""

    def __init__(
        self, tenants: Callable[[], Iterable[str]], summaries: Summaries, spend: Spend, outbox: Outbox
    ) -> None:
        self._tenants = tenants
        self._summaries = summaries
        self._spend = spend
        self._outbox = outbox

    async def run(self, now_utc: datetime | None = None) -> int:
        """Add the digest of the last whole week of every tenant that was used then or the week before."""
        start, end = last_week(now_utc or datetime.now(UTC))
        added = 0
        for tenant in self._tenants():
            week = await self._summaries.summarize(tenant, start, end, ("team", "model"))
            before = await self._summaries.summarize(tenant, start - WEEK, start, ("tenant",))
            if not week and not before:
                continue
            payload = digest(tenant, start, week, before, await self._budgets(tenant))
            added += await self._outbox.add_once(f"{KIND}|{tenant}|{payload['week']}", KIND, payload)
        return added

    async def _budgets(self, tenant: str) -> list[dict[str, Any]] | None:
        """None while the counters are being rebuilt: the digest goes without them rather than not at all."""
        try:
            return await self._spend.list(tenant)
        except StateUnavailable:
            return None


def last_week(now_utc: datetime) -> tuple[datetime, datetime]:
    """The last whole week, [Monday, Monday)."""
    monday = (now_utc - timedelta(days=now_utc.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    return monday - WEEK, monday


def digest(
    tenant: str, start: datetime, week: Sequence[Row], before: Sequence[Row], budgets: Sequence[Row] | None
) -> dict[str, Any]:
    """The notice's payload: amounts are USD as decimal strings, shares percentages. Pure."""
    spent, spent_before = _sum(week, "cost"), _sum(before, "cost")
    payload: dict[str, Any] = {
        "tenant": tenant,
        "week": f"{start:%G-W%V}",
        "spent": _usd(spent),
        "spent_the_week_before": _usd(spent_before),
        "change": f"{(spent / spent_before - 1) * 100:+.0f} %" if spent_before > 0 else "",
        "calls": sum(row["requests"] for row in week),
        "top_teams": _top(week, "team"),
        "top_models": _top(week, "model"),
        "saved_by_downgrades_and_refusals": _usd(_sum(week, "saved")),
        "refused_calls": sum(row.get("refused") or 0 for row in week),
        "measured": f"{_sum(week, 'measured_cost') / spent * 100:.1f} %" if spent > 0 else "",
        "calls_without_a_price": sum(row["unpriced"] for row in week),
    }
    if budgets is None:
        return payload | {"budgets_near_their_limit": "not known: the counters are being rebuilt"}
    near = [row for row in budgets if row["state"] != "active"]
    near.sort(key=lambda row: Decimal(row["spent"]) / Decimal(row["limit"]), reverse=True)
    return payload | {"budgets_near_their_limit": [_standing(row) for row in near[:TOP]] or "none"}


def _standing(row: Row) -> dict[str, str]:
    return {
        "scope": row["scope"],
        "state": row["state"],
        "spent": f"{row['spent']} of {row['limit']} {row['currency']}",
    }


def _top(rows: Sequence[Row], name: str) -> list[dict[str, str]]:
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row[name] or "(none)"] = sums.get(row[name] or "(none)", Decimal()) + _amount(row, "cost")
    best = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return [{name: key, "cost": _usd(amount)} for key, amount in best]


def _sum(rows: Sequence[Row], name: str) -> Decimal:
    return sum((_amount(row, name) for row in rows), Decimal())


def _amount(row: Row, name: str) -> Decimal:
    return Decimal(row.get(name) or 0)  # null: the cost of a group without any price


def _usd(amount: Decimal) -> str:
    return f"{amount:.2f} USD"
