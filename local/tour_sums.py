"""Does the ledger agree with the live counters, and both with the calls? Asked of the function app's own API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from local.options import Options
from shared.config.model import Config
from shared.money import nano_from_decimal
from shared.scopes import scope_id

SETTLE_TIMEOUT_SECONDS = 15.0
POLL_SECONDS = 0.25
SETTLE_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class TeamSums:
    """One team's sums in nano-USD from three places that should agree."""

    team: str
    requests: int
    calls_nano_usd: int | None  # None when an answer did not say what it used
    ledger_nano_usd: int
    counter_nano_usd: int | None  # None when the team has no counter that covers the tour
    reserved_nano_usd: int
    unpriced: int  # calls whose cost is unknown: not in the ledger's sum, in the counters at the guard price

    @property
    def agree(self) -> bool:
        """True when nothing is in flight any more and every figure that is known is the same."""
        if self.unpriced:
            return self.reserved_nano_usd == 0 and (self.counter_nano_usd or 0) >= self.ledger_nano_usd
        known = (figure for figure in (self.calls_nano_usd, self.counter_nano_usd) if figure is not None)
        return self.reserved_nano_usd == 0 and all(figure == self.ledger_nano_usd for figure in known)


def wait_until_equal(options: Options, config: Config, calls_nano_usd: dict[str, int | None]) -> list[TeamSums]:
    """The sums of every team that called: as soon as they agree, or as they are when the time is up."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    with httpx.Client(base_url=options.functions_url, timeout=10) as client:
        while True:
            sums = [
                _sums(client, config.teams[team].tenant, team, cost) for team, cost in sorted(calls_nano_usd.items())
            ]
            if all(each.agree for each in sums) or time.monotonic() > deadline:
                return sums
            time.sleep(POLL_SECONDS)


def wait_until_settled(options: Options, config: Config, team: str) -> None:
    """Return when nothing of the team's budgets is held by calls in flight any more, or when the time is up."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    with httpx.Client(base_url=options.functions_url, timeout=10) as client:
        while time.monotonic() < deadline:
            counters = _counters(client, config.teams[team].tenant, team)
            if all(nano_from_decimal(budget["reserved"]) == 0 for budget in counters):
                return
            time.sleep(SETTLE_POLL_SECONDS)


def _sums(client: httpx.Client, tenant: str, team: str, calls_nano_usd: int | None) -> TeamSums:
    summary = _get(client, "/usage/summary", {"tenant": tenant, "group_by": "team", "team": team})
    rows = [row for row in summary["rows"] if row.get("team") == team]
    counters = _counters(client, tenant, team)
    # The fullest one: a counter whose hour or day ended in the middle of the tour has seen only the calls since.
    fullest = max(counters, key=lambda budget: nano_from_decimal(budget["spent"]), default=None)
    return TeamSums(
        team=team,
        requests=sum(int(row["requests"]) for row in rows),
        calls_nano_usd=calls_nano_usd,
        ledger_nano_usd=sum(nano_from_decimal(row["cost"] or "0") for row in rows),
        counter_nano_usd=None if fullest is None else nano_from_decimal(fullest["spent"]),
        reserved_nano_usd=sum(nano_from_decimal(budget["reserved"]) for budget in counters),
        unpriced=sum(int(row["unpriced"]) for row in rows),
    )


def _counters(client: httpx.Client, tenant: str, team: str) -> list[dict[str, Any]]:
    spend = _get(client, "/spend", {"tenant": tenant, "scope_type": "team"})
    return [budget for budget in spend["budgets"] if budget["scope"] == scope_id("team", team)]


def _get(client: httpx.Client, path: str, params: dict[str, str]) -> dict[str, Any]:
    answer = client.get(path, params=params)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body
