"""Both sides of the comparison: what was billed, and what the ledger holds, per account, meter and UTC day. Pure.

Memory grows with accounts x meters x days and with the teams that used them, never with rows or calls.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from shared.config.billing import Pool
from shared.config.model import Config
from shared.config.reconciliation import Account, Reconciliation
from shared.ledger.rollup import RollupCell
from shared.pricing.book import canonical_provider
from shared.pricing.deployments import compact_region, price_lines
from shared.reports.reconcile.invoice import InvoiceRow
from shared.reports.reconcile.meters import MeterKey, Meters, is_provisioned
from shared.routing.deployments import DEFAULT_PROVIDER, Deployments

USD = "USD"
NO_ACCOUNT = "(no account)"  # ledger rows that no account of billing.yaml claims
MORE = "(more)"
MAX_LISTED = 1_000  # meters without a match and other services; the rest is one sum


class Line(NamedTuple):
    """What is compared."""

    account: str
    meter: MeterKey


class Payer(NamedTuple):
    """Whose calls a ledger amount is of; a correction is split over them."""

    tenant: str
    team: str


class Listed(msgspec.Struct):
    """A sum that is shown and not compared. `amount_atto` in 10^-18 of the currency."""

    amount_atto: int = 0
    rows: int = 0
    first: date | None = None
    last: date | None = None

    def add(self, row: InvoiceRow) -> None:
        """Add a row."""
        self.amount_atto += row.cost_atto
        self.rows += 1
        self.first = min(self.first or row.day, row.day)
        self.last = max(self.last or row.day, row.day)


class InvoiceSide:
    """Adds up invoice rows of one period."""

    def __init__(self, meters: Meters, accounts: Accounts, first: date, last: date) -> None:
        self.billed_atto: defaultdict[tuple[Line, date], int] = defaultdict(int)
        self.quantity: defaultdict[Line, Decimal] = defaultdict(Decimal)
        self.unmatched: dict[tuple[str, str], Listed] = {}  # (account, meter)
        self.ignored: dict[tuple[str, str], Listed] = {}
        self.capacity: dict[tuple[str, str], Listed] = {}
        self.others: dict[tuple[str, str], Listed] = {}  # (category, service)
        self.currencies: dict[tuple[str, str], Listed] = {}  # (currency, category)
        self.accounts: set[str] = set()  # that some usage in USD was billed to
        self.foreign: set[str] = set()  # that some usage in another currency was billed to
        self.outside = 0  # rows of days that are not compared
        self.rows = 0
        self._meters = meters
        self._accounts = accounts
        self._first, self._last = first, last

    def add(self, row: InvoiceRow) -> None:
        """Add one row to where it belongs. Every row is counted somewhere."""
        self.rows += 1
        if not self._first <= row.day <= self._last:
            self.outside += 1
        elif row.currency != USD:  # amounts of two currencies have no sum, and the ledger's is USD
            _list(self.currencies, (row.currency or "(none)", row.category), row)
            if row.account:
                self.foreign.add(self._accounts.of_resource(row.account))
        elif row.category != "Usage" or not row.account:
            _list(self.others, (row.category, row.service or "(no service)"), row)
        else:
            self._add_usage(self._accounts.of_resource(row.account), row)

    def _add_usage(self, account: str, row: InvoiceRow) -> None:
        self.accounts.add(account)
        if self._meters.ignores(row.meter):
            _list(self.ignored, (account, row.meter), row)
        elif is_provisioned(row.meter):
            _list(self.capacity, (account, row.meter), row)
        elif (key := self._meters.key(row.meter)) is None:
            _list(self.unmatched, (account, row.meter or "(no meter)"), row)
        else:
            line = Line(account, key)
            self.billed_atto[line, row.day] += row.cost_atto
            self.quantity[line] += row.quantity or 0


class Accounts:
    """Which account an invoice row and a ledger row belong to, by one configuration."""

    def __init__(self, accounts: tuple[Account, ...], seen: frozenset[str] = frozenset()) -> None:
        """`seen`: the only accounts there are when billing.yaml lists none; a single one then takes every call."""
        self._accounts = accounts
        self._by_deployment = {name: each.resource for each in accounts for name in each.deployments}
        regions: defaultdict[str, list[str]] = defaultdict(list)
        for each in accounts:
            for region in each.regions:
                regions[region].append(each.resource)
        self._by_region = {region: found[0] for region, found in regions.items() if len(found) == 1}
        rest = [each.resource for each in accounts if not each.deployments and not each.regions]
        self._rest = rest[0] if len(rest) == 1 else next(iter(seen)) if len(seen) == 1 and not accounts else None

    def of_resource(self, resource_id: str) -> str:
        """The configured account whose resource is this ARM id or ends it; else the id itself."""
        for each in self._accounts:
            if resource_id == each.resource or resource_id.endswith(f"/{each.resource}"):
                return each.resource
        return resource_id

    def of_call(self, deployment: str, region: str) -> str:
        """The account that served a call: by its deployment, else by its region, else the one that takes the rest."""
        found = self._by_deployment.get(deployment) or self._by_region.get(compact_region(region)) or self._rest
        return found or NO_ACCOUNT

    def tenant_of(self, account: str) -> str | None:
        """The tenant that an account is all of."""
        return next((each.tenant for each in self._accounts if each.resource == account), None)


class LedgerSide:
    """Adds up the ledger's quarter hours of one period, and what was corrected before."""

    def __init__(self, config: Config, meters: Meters, accounts: Accounts, remark_of: str) -> None:
        """`remark_of`: what the remark of every correction of this period's invoice starts with."""
        self.nano_usd: defaultdict[tuple[Line, date], int] = defaultdict(int)
        self.tokens: defaultdict[Line, int] = defaultdict(int)
        self.payers: defaultdict[Line, defaultdict[Payer, int]] = defaultdict(lambda: defaultdict(int))
        self.corrected_nano_usd: defaultdict[str, int] = defaultdict(int)  # by remark
        self.covered_nano_usd = 0  # of calls that a pool covers: the invoice bills their capacity
        self.elsewhere_nano_usd = 0  # of other providers, which are on no Azure invoice
        self.unpriced_rows = 0
        self._config = config
        self._meters = meters
        self._accounts = accounts
        self._deployments = Deployments(config.models)
        self._remark = remark_of
        self._pools = config.billing.pools

    def add(self, cell: RollupCell) -> None:
        """Add one cell."""
        if cell.correction == "adjustment":
            if cell.remark.startswith(self._remark):
                self.corrected_nano_usd[cell.remark] += cell.cost_nano_usd
            return
        if canonical_provider(cell.provider or DEFAULT_PROVIDER) != DEFAULT_PROVIDER:
            self.elsewhere_nano_usd += cell.cost_nano_usd
            return
        if self._is_covered(cell):
            self.covered_nano_usd += cell.cost_nano_usd
            return
        self.unpriced_rows += cell.unpriced
        account = self._accounts.of_call(cell.deployment, cell.region)
        day = cell.quarter_utc.astimezone(UTC).date()
        payer = Payer(cell.tenant, cell.scopes.get("team", ""))
        for each in cell.lines:
            line = Line(account, self._meter(cell, each.kind, each.tier))
            self.nano_usd[line, day] += each.cost_nano_usd
            self.tokens[line] += each.tokens
            self.payers[line][payer] += each.cost_nano_usd

    def _meter(self, cell: RollupCell, kind: str, tier: str) -> MeterKey:
        served = self._deployments.named(cell.deployment) if cell.deployment else None
        model = served.model if served is not None else self._meters.model(cell.model)
        known = self._config.models.get(model)
        lines = price_lines(known.deployment_type if known else None, cell.region, tier or "standard")
        place, line_tier = lines[-1] if lines else ("regional", tier or "standard")
        return MeterKey(model, kind, "data-zone" if place.startswith("data-zone") else place, line_tier)

    def _is_covered(self, cell: RollupCell) -> bool:
        return any(
            pool.tenant == cell.tenant and cell.deployment in pool.deployments and _covers(pool, cell.quarter_utc)
            for pool in self._pools
        )


def names_of(config: Config) -> Meters:
    """The meters that the configuration's models and overrides explain."""
    azure = [m.id for m in config.models.values() if canonical_provider(m.provider) == DEFAULT_PROVIDER]
    return Meters(azure, rules_of(config).meters)


def rules_of(config: Config) -> Reconciliation:
    """How billing.yaml wants the invoice compared."""
    return config.billing.reconciliation


def _covers(pool: Pool, at_utc: datetime) -> bool:
    term = pool.term_at(at_utc)
    return term is not None and term.covers


def _list(sums: dict[tuple[str, str], Listed], key: tuple[str, str], row: InvoiceRow) -> None:
    if key not in sums and len(sums) >= MAX_LISTED:
        key = (MORE, MORE)
    sums.setdefault(key, Listed()).add(row)
