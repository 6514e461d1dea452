"""What has been read so far. Files are read in the order tenants, rates, models, teams, budgets, prices, alerts, so
that each can be checked against what it refers to while its line is still at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.config.billing import Billing
from shared.config.fields import Section
from shared.config.model import (
    AlertRoute,
    Budget,
    BudgetEdit,
    Discount,
    Endpoint,
    ExchangeRate,
    Model,
    PriceOverride,
    Team,
    Tenant,
)
from shared.config.problems import Problems, did_you_mean
from shared.config.yaml_lines import Value
from shared.errors import InvalidRequest
from shared.scopes import SCOPE_TYPE, validate_scope_key


@dataclass
class Draft:
    """A configuration in the making."""

    problems: Problems
    tenants: dict[str, Tenant] = field(default_factory=dict)
    rates: list[ExchangeRate] = field(default_factory=list)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    teams: dict[str, Team] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    budget_ids: set[str] = field(default_factory=set)
    entry_digests: dict[str, str] = field(default_factory=dict)  # budget id -> digest of its entry
    edits: dict[str, BudgetEdit] = field(default_factory=dict)
    prices: list[PriceOverride] = field(default_factory=list)
    discounts: list[Discount] = field(default_factory=list)
    alerts: list[AlertRoute] = field(default_factory=list)
    billing: Billing = field(default_factory=Billing)
    identities: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, id) -> the team that claims it

    def entries(self, document: Value | None, name: str, known: tuple[str, ...]) -> list[Section]:
        """The entries of a file whose only top field is the list `name`."""
        return [] if document is None else Section(document, (name,), self.problems).sections(name, known)

    def tenant_of(self, section: Section, default: str | None) -> str | None:
        """The section's `tenant`, which must be a listed one."""
        tenant = section.text("tenant") or default
        if tenant is not None:
            self.check_known(section, "tenant", tenant, self.tenants, "tenant", "tenants.yaml")
        return tenant

    def check_known(
        self, section: Section, name: str, value: str, known: Mapping[str, object], what: str, file: str
    ) -> None:
        """Record a reference to something not listed; silent when nothing is listed, as that is a problem already."""
        if known and value not in known:
            section.problem(name, f"{what} {value!r} is not listed in {file}{did_you_mean(value, known)}")

    def check_currency(self, section: Section, currency: str) -> None:
        """A currency is three capitals; all but USD need an exchange rate."""
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
            section.problem("currency", f"expected a three-letter code such as EUR, got {currency!r}")
        elif currency != "USD" and all(rate.currency != currency for rate in self.rates):
            section.problem("currency", f"{currency} has no exchange rate; add one to rates.yaml")

    def read_scope(self, section: Section, text: str) -> tuple[str, str]:
        """The type and key of a budget's `scope`, e.g. `team:search` or `user:*`."""
        kind, colon, key = text.partition(":")
        if not colon or not SCOPE_TYPE.fullmatch(kind):
            section.problem("scope", f"expected type:key or type:*, such as team:search or user:*, got {text!r}")
            return "team", "*"
        if key != "*" and "*" in key:
            section.problem("scope", f"the key is either exact or a lone *, got {key!r}")
        try:
            validate_scope_key(key, "scope")
        except InvalidRequest as error:
            section.problem("scope", error.message.removeprefix("scope: "))
        return kind, key
