"""The statement as a JSON document: what the printable page shows, for programs. Equal statements give equal bytes.

Amounts are decimal strings. Those named `cost` are what the ledger holds, in USD; all others are of the statement's
currency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.reports.charge import Charge
from shared.reports.exact import plain, scaled
from shared.reports.statement import (
    BudgetStanding,
    CorrectionLine,
    Forecast,
    PriceUsed,
    Rate,
    Statement,
    Usage,
    UsageLine,
)
from shared.reports.team_sums import team_sums


def write_json(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The document. Its amounts are the statement's, so no charge is read."""
    out.write(msgspec.json.encode(document(statement)))


def document(statement: Statement) -> dict[str, Any]:
    """The statement as JSON values."""
    money = decimal_from_nano
    bridge = statement.bridge
    previous = statement.previous_total_nano
    return {
        "tenant": statement.tenant,
        "period": statement.period,
        "number": statement.number,
        "status": statement.status,
        "as_of": rfc3339(statement.as_of_utc, "seconds"),
        "issuer": statement.issuer,
        "currency": statement.currency,
        "cost_currency": "USD",
        "rate": _rate(statement.rate),
        "teams": statement.teams,
        "notes": statement.notes,
        "amount_due": money(bridge.total_nano),
        "previous_amount_due": None if previous is None else money(previous),
        "bridge": {
            "ledger_cost": money(bridge.ledger_nano_usd),
            "usage": money(bridge.usage_nano),
            "corrections": money(bridge.corrections_nano),
            "covered_by_pools": money(bridge.covered_nano),
            "pools": money(bridge.pools_nano),
            "idle": money(bridge.idle_nano),
            "shared": money(bridge.shared_nano),
            "markup": money(bridge.markup_nano),
            "tax": money(bridge.tax_nano),
            "total": money(bridge.total_nano),
        },
        "totals": _figures(statement.totals),
        "team_totals": [
            {
                "team": team.team,
                "cost_centre": team.cost_centre,
                **_figures(team.usage),
                "amount_due": money(team.due_nano),
                "previous_amount_due": None if team.previous_nano is None else money(team.previous_nano),
            }
            for team in team_sums(statement)
        ],
        "lines": [_line(line) for line in statement.lines],
        "corrections": [_correction(line) for line in statement.corrections],
        "allocated": [
            {
                "team": line.team,
                "cost_centre": line.cost_centre,
                "kind": line.kind,
                "id": line.id,
                "label": line.label,
                "basis": line.basis,
                "amount": money(line.amount_nano),
            }
            for line in statement.allocated
        ],
        "days": [
            {"team": day.team, "day": day.day.isoformat(), "cost": money(day.ledger_nano_usd)} for day in statement.days
        ],
        "savings": [
            {
                "team": saving.team,
                "decision": saving.decision,
                "requested_model": saving.requested_model,
                "model": saving.model,
                "calls": saving.calls,
                "saved": money(saving.saved_nano_usd),
            }
            for saving in statement.savings
        ],
        "unpriced": [
            {
                "team": missing.team,
                "provider": missing.provider,
                "model": missing.model,
                "calls": missing.calls,
                "tokens": missing.tokens,
            }
            for missing in statement.unpriced
        ],
        "budgets": [_budget(budget) for budget in statement.budgets],
        "forecast": _forecast(statement.forecast),
        "prices": [_price(price) for price in statement.prices],
    }


def _figures(usage: Usage) -> dict[str, Any]:
    return {
        "requests": usage.requests,
        "tokens": {kind: usage.tokens[kind] for kind in sorted(usage.tokens) if usage.tokens[kind]},
        "cost": usage.cost,
        **usage.coverage.body(),
        "unpriced_requests": usage.unpriced_requests,
    }


def _line(line: UsageLine) -> dict[str, Any]:
    return {
        "team": line.team,
        "cost_centre": line.cost_centre,
        "app": line.app,
        "provider": line.provider,
        "model": line.model,
        "deployment": line.deployment,
        **_figures(line.usage),
        "amount": decimal_from_nano(line.owed_nano),
        "covered_by_pools": decimal_from_nano(line.covered_nano),
        "kinds": [
            {
                "kind": kind.kind,
                "tokens": kind.tokens,
                "cost": decimal_from_nano(kind.ledger_nano_usd),
                "list": decimal_from_nano(kind.list_nano),
                "amount": decimal_from_nano(kind.owed_nano),
                "covered_by_pools": decimal_from_nano(kind.covered_nano),
            }
            for kind in line.kinds
        ],
    }


def _correction(line: CorrectionLine) -> dict[str, Any]:
    return {
        "team": line.team,
        "cost_centre": line.cost_centre,
        "correction": line.correction,
        "month": line.month,
        "provider": line.provider,
        "model": line.model,
        "remark": line.remark,
        **_figures(line.usage),
        "amount": decimal_from_nano(line.owed_nano),
        "covered_by_pools": decimal_from_nano(line.covered_nano),
    }


def _budget(budget: BudgetStanding) -> dict[str, Any]:
    return {
        "team": budget.team,
        "id": budget.id,
        "scope": budget.scope,
        "period": budget.period,
        "timezone": budget.timezone,
        "currency": budget.currency,
        "limit": decimal_from_nano(budget.limit_nano),
        "limit_usd": decimal_from_nano(budget.limit_nano_usd),
        "carried_usd": decimal_from_nano(budget.carried_nano_usd),
        "spent_usd": decimal_from_nano(budget.spent_nano_usd),
    }


def _forecast(forecast: Forecast | None) -> dict[str, str | None] | None:
    if forecast is None:
        return None
    return {
        "cost": decimal_from_nano(forecast.value_nano_usd),
        "low": None if forecast.low_nano_usd is None else decimal_from_nano(forecast.low_nano_usd),
        "high": None if forecast.high_nano_usd is None else decimal_from_nano(forecast.high_nano_usd),
        "method": forecast.method,
    }


def _rate(rate: Rate | None) -> dict[str, str] | None:
    if rate is None:
        return None
    return {
        "usd_per_unit": decimal_from_nano(rate.usd_per_unit_nano),
        "effective_from": rate.effective_from.date().isoformat(),
        "source": rate.source,
    }


def _price(price: PriceUsed) -> dict[str, Any]:
    return {
        "team": price.team,
        "price_id": price.price_id,
        "provider": price.provider,
        "model": price.model,
        "kind": price.kind,
        "tier": price.tier,
        "usd_per_million": plain(scaled(price.unit_pico, 6)),
        "list_usd_per_million": plain(scaled(price.list_pico, 6)),
        "tokens": price.tokens,
    }
