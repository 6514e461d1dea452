"""The fields of billing.yaml that say how the Azure invoice is read, and which jumps in spend are worth a notice."""

from __future__ import annotations

from decimal import Decimal

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.reconciliation import (
    DEPLOYMENT_TYPES,
    TIERS,
    TOKEN_KINDS,
    Account,
    AnomalyFloors,
    MeterRule,
    Reconciliation,
)

RECONCILIATION_FIELDS = ("tolerance_percent", "tolerance_usd", "accounts", "meters")
ACCOUNT_FIELDS = ("resource", "tenant", "deployments", "regions")
METER_FIELDS = ("meter", "model", "kind", "deployment_type", "tier", "ignore")
ANOMALY_FIELDS = ("above_usd", "above_percent")

_MAX_PERCENT = 1_000


def read_reconciliation(billing: Section, draft: Draft) -> Reconciliation:
    """The field `reconciliation` of billing.yaml, or the defaults."""
    section = billing.section("reconciliation", RECONCILIATION_FIELDS)
    default = Reconciliation()
    if section is None:
        return default
    return Reconciliation(
        tolerance_ppm=_percent_ppm(section, "tolerance_percent", default.tolerance_ppm),
        tolerance_nano_usd=_usd(section, "tolerance_usd", default.tolerance_nano_usd),
        accounts=_accounts(section, draft),
        meters=_meters(section, draft),
    )


def read_anomalies(billing: Section) -> AnomalyFloors:
    """The field `anomalies` of billing.yaml, or the defaults."""
    section, default = billing.section("anomalies", ANOMALY_FIELDS), AnomalyFloors()
    if section is None:
        return default
    return AnomalyFloors(
        _usd(section, "above_usd", default.above_nano_usd), _percent_ppm(section, "above_percent", default.above_ppm)
    )


def _accounts(section: Section, draft: Draft) -> tuple[Account, ...]:
    accounts: list[Account] = []
    owners: dict[tuple[str, str], str] = {}
    for entry in section.sections("accounts", ACCOUNT_FIELDS):
        resource = (entry.text("resource", required=True) or "").lower().strip("/")
        if any(account.resource == resource for account in accounts):
            entry.problem("resource", f"{resource!r} is listed twice; one entry is one account")
        account = Account(
            resource=resource,
            tenant=draft.tenant_of(entry, None),
            deployments=frozenset(entry.texts("deployments")),
            regions=frozenset(region.lower().replace(" ", "") for region in entry.texts("regions")),
        )
        for field, names in (("deployments", account.deployments), ("regions", account.regions)):
            for name in sorted(names):
                other = owners.setdefault((field, name), resource)
                # Two accounts may serve one region; a deployment then tells them apart. A deployment is of one.
                if other != resource and field == "deployments":
                    entry.problem(field, f"{name!r} is of account {other!r} already; a deployment is of one account")
        accounts.append(account)
    return tuple(accounts)


def _meters(section: Section, draft: Draft) -> dict[str, MeterRule]:
    rules: dict[str, MeterRule] = {}
    for entry in section.sections("meters", METER_FIELDS):
        name = (entry.text("meter", required=True) or "").lower()
        if name in rules:
            entry.problem("meter", f"{name!r} is listed twice")
        ignore = entry.flag("ignore")
        model = entry.text("model", required=not ignore) or ""
        if model:
            draft.check_known(entry, "model", model, draft.models, "model", "models.yaml")
        rules[name] = MeterRule(
            model=model,
            kind=entry.choice("kind", TOKEN_KINDS, "input" if ignore else None),
            deployment_type=entry.choice("deployment_type", DEPLOYMENT_TYPES, "global"),
            tier=entry.choice("tier", TIERS, "standard"),
            ignore=ignore,
        )
    return rules


def _percent_ppm(section: Section, name: str, default: int) -> int:
    ppm = section.percent_ppm(name, _MAX_PERCENT)
    return default if ppm is None else ppm


def _usd(section: Section, name: str, default: int) -> int:
    """An amount that may be zero: no floor."""
    amount = section.decimal(name)
    if amount is not None and amount == Decimal(0):
        return 0
    return section.amount_nano(name) or default
