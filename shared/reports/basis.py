"""Everything a statement takes from the configuration and from the month before, in one value.

Closing a month writes it down once, so that a closer that goes on after a crash, or a second one, builds the same
statement from the same facts whatever became of the configuration meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from shared.budgets.matching import limit_nano_usd
from shared.budgets.periods import period_at, previous_period
from shared.config.billing import Percent, Pool, SharedCost, percent_at
from shared.config.model import Budget, Config, ExchangeRate
from shared.money import NANO_PER_USD
from shared.months import month_span
from shared.reports.statement import BudgetStanding, Rate


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """What the month before's statement hands over."""

    currency: str
    totals_nano: Mapping[str, int]  # by team
    carried_nano_usd: Mapping[str, int] = msgspec.field(default_factory=dict)  # `budget id|scope` -> into that month


class BudgetMonth(msgspec.Struct, frozen=True):
    """A budget's own month and the one before, in Unix seconds, each with the limit that held at its start."""

    budget: Budget
    label: str
    before_s: int
    start_s: int
    end_s: int
    limit_before_nano_usd: int
    limit_nano_usd: int


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement is built on beside the ledger."""

    tenant: str
    period: str
    issuer: str = ""
    currency: str = "USD"
    rate: Rate | None = None  # None: in USD
    cost_centres: Mapping[str, str] = msgspec.field(default_factory=dict)  # by team, of every team of the tenant
    markup: Percent | None = None
    tax: Percent | None = None
    pools: tuple[Pool, ...] = ()
    shared: tuple[SharedCost, ...] = ()
    budgets: tuple[BudgetMonth, ...] = ()
    previous: Previous | None = None

    @property
    def previous_nano(self) -> Mapping[str, int] | None:
        """The amounts due of the month before by team; None without any in the statement's currency."""
        return None if self.previous is None or self.previous.currency != self.currency else self.previous.totals_nano

    @property
    def span(self) -> tuple[datetime, datetime]:
        """First instant of the month and of the one after."""
        return month_span(self.period)

    @property
    def usd_per_unit_nano(self) -> int:
        """What one unit of the currency is worth."""
        return NANO_PER_USD if self.rate is None else self.rate.usd_per_unit_nano


class PinnedBasis(msgspec.Struct, frozen=True):
    """What the first closer of a month writes down."""

    basis: Basis
    standings: tuple[BudgetStanding, ...]
    as_of_utc: datetime | None = None


def basis_of(config: Config, tenant: str, period: str, previous: Previous | None = None) -> Basis:
    """The basis of a tenant's month under a configuration. Raises InvalidRequest for what is no month, LookupError
    when the tenant's currency has no rate."""
    start_utc, _ = month_span(period)
    billing = config.billing
    known = config.tenants.get(tenant)
    currency = "USD" if known is None else known.currency
    return Basis(
        tenant=tenant,
        period=period,
        issuer=billing.issuer,
        currency=currency,
        rate=None if currency == "USD" else rate_at(config.rates, currency, start_utc),
        cost_centres={
            team.id: team.cost_centre or ""
            for team in sorted(config.teams.values(), key=lambda team: team.id)
            if team.tenant == tenant
        },
        markup=percent_at(billing.markup, tenant, start_utc),
        tax=percent_at(billing.tax, tenant, start_utc),
        pools=tuple(pool for pool in billing.pools if pool.tenant == tenant),
        shared=tuple(cost for cost in billing.shared if cost.tenant == tenant),
        budgets=_budget_months(config, tenant, start_utc),
        previous=previous,
    )


def rate_at(rates: tuple[ExchangeRate, ...], currency: str, instant_utc: datetime) -> Rate:
    """The newest rate not after an instant; the oldest of all where none is. Raises LookupError without any."""
    known = sorted((rate for rate in rates if rate.currency == currency), key=lambda rate: rate.effective_from)
    if not known:
        raise LookupError(f"no exchange rate for {currency}")
    past = [rate for rate in known if rate.effective_from <= instant_utc]
    chosen = past[-1] if past else known[0]
    return Rate(
        currency=currency,
        usd_per_unit_nano=chosen.usd_per_unit_nano,
        effective_from=chosen.effective_from,
        source=chosen.source,
    )


def _budget_months(config: Config, tenant: str, start_utc: datetime) -> tuple[BudgetMonth, ...]:
    middle_s = datetime(start_utc.year, start_utc.month, 15, tzinfo=UTC).timestamp()  # the same month in every zone
    found = []
    for budget in config.budgets:
        if budget.period != "month" or budget.tenant not in (None, tenant):
            continue
        if budget.scope_key == "*" and budget.scope_type != "team":
            continue  # one counter per user or session is no business of a statement
        period = period_at("month", budget.timezone, middle_s)
        before = previous_period(period)
        found.append(
            BudgetMonth(
                budget=budget,
                label=period.label,
                before_s=period.start_s if before is None else before.start_s,
                start_s=period.start_s,
                end_s=period.end_s,
                limit_before_nano_usd=0 if before is None else limit_nano_usd(budget, before.start_s, config),
                limit_nano_usd=limit_nano_usd(budget, period.start_s, config),
            )
        )
    return tuple(found)
