"""The weekly digest: sums a reader can check, and nothing where there is nothing to say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared.errors import StateUnavailable
from shared.notify.digest import WeeklyDigest, digest, last_week

START = datetime(2026, 11, 9, tzinfo=UTC)  # a Monday, of ISO week 46


def row(team: str, model: str, cost: str | None, **more: Any) -> dict[str, Any]:
    base = {"team": team, "model": model, "requests": 10, "cost": cost, "measured_cost": cost or "0", "unpriced": 0}
    return {**base, **more}


def test_week_is_the_last_whole_one() -> None:
    """From Monday to Monday in UTC, asked on any day and at the very turn."""
    for now in (datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 22, 23, 59, tzinfo=UTC)):
        assert last_week(now) == (START, datetime(2026, 11, 16, tzinfo=UTC))


def test_digest_adds_up() -> None:
    """120 + 30 spent after 100 is +50 %; the dearest come first; budgets near their limit are named with figures."""
    week = [
        row("search", "gpt-4o", "100", saved="5", refused=2),
        row("search", "gpt-4o-mini", "20", measured_cost="5"),
        row("", "gpt-4o-mini", "30"),
        row("support", "new-model", None, unpriced=10),
    ]
    budgets = [
        {"scope": "team:a", "state": "active", "spent": "1", "limit": "10", "currency": "USD"},
        {"scope": "team:b", "state": "warned", "spent": "8", "limit": "10", "currency": "USD"},
        {"scope": "team:c", "state": "stopped", "spent": "11", "limit": "10", "currency": "EUR"},
    ]
    assert digest("acme", START, week, [{"cost": "100"}], budgets) == {
        "tenant": "acme",
        "week": "2026-W46",
        "spent": "150.00 USD",
        "spent_the_week_before": "100.00 USD",
        "change": "+50 %",
        "calls": 40,
        "top_teams": [
            {"team": "search", "cost": "120.00 USD"},
            {"team": "(none)", "cost": "30.00 USD"},
            {"team": "support", "cost": "0.00 USD"},
        ],
        "top_models": [
            {"model": "gpt-4o", "cost": "100.00 USD"},
            {"model": "gpt-4o-mini", "cost": "50.00 USD"},
            {"model": "new-model", "cost": "0.00 USD"},
        ],
        "saved_by_downgrades_and_refusals": "5.00 USD",
        "refused_calls": 2,
        "measured": "90.0 %",
        "calls_without_a_price": 10,
        "budgets_near_their_limit": [
            {"scope": "team:c", "state": "stopped", "spent": "11 of 10 EUR"},
            {"scope": "team:b", "state": "warned", "spent": "8 of 10 USD"},
        ],
    }


class _Services:
    def __init__(self) -> None:
        self.added: list[str] = []

    async def summarize(self, tenant: str | None, start_utc: Any, end_utc: Any, group_by: Any) -> list[dict[str, Any]]:
        return [row("search", "gpt-4o", "1")] if tenant == "acme" else []

    async def list(self, tenant: str) -> list[dict[str, Any]]:
        raise StateUnavailable("being rebuilt", retry_after_seconds=2)

    async def add_once(self, key: str, kind: str, payload: dict[str, Any]) -> bool:
        self.added.append(f"{key} {payload['budgets_near_their_limit'][:9]}")
        return True


async def test_digest_is_written_of_tenants_in_use_and_without_counters_too() -> None:
    """A tenant that nobody used gets none; counters that are being rebuilt hold the rest up for no week."""
    services: Any = _Services()
    job = WeeklyDigest(lambda: ("acme", "quiet"), services, services, services)
    assert await job.run(datetime(2026, 11, 16, 7, tzinfo=UTC)) == 1
    assert services.added == ["weekly_digest|acme|2026-W46 not known"]
