"""tenants.yaml: the billing organisations; rates.yaml: what their currencies are worth."""

from __future__ import annotations

import re

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.identity import normal_id
from shared.config.model import ExchangeRate, Tenant
from shared.config.yaml_lines import Value
from shared.money import pico_per_token
from shared.scopes import SCOPE_TYPE, TENANT_ID

TENANT_FIELDS = (
    "id",
    "fail_mode",
    "exhausted_status",
    "currency",
    "client_asserted_scopes",
    "enforcement",
    "cache_seconds",
    "guard_usd_per_million",
    "allowed_models",
    "finance",
)
MAX_CACHE_SECONDS = 60
IDENTITY_SCOPES = ("org", "team", "user", "app", "subscription", "product", "model")


def read_tenants(document: Value | None, draft: Draft) -> None:
    """Add the listed tenants to the draft."""
    for section in draft.entries(document, "tenants", TENANT_FIELDS):
        tenant = _read_tenant(section, draft)
        if tenant.id in draft.tenants:
            section.problem("id", f"tenant {tenant.id!r} is listed twice")
        draft.tenants[tenant.id] = tenant


def read_rates(document: Value | None, draft: Draft) -> None:
    """Add the dated exchange rates to the draft."""
    seen = set()
    for section in draft.entries(document, "rates", ("currency", "effective_from", "usd_per_unit", "source")):
        currency = section.text("currency", required=True)
        if currency is not None and not re.fullmatch(r"[A-Z]{3}", currency):
            section.problem("currency", f"expected a three-letter code such as EUR, got {currency!r}")
        since, rate = section.instant("effective_from"), section.amount_nano("usd_per_unit", required=True)
        if currency is None or since is None or rate is None:
            continue
        if (currency, since) in seen:
            section.problem("effective_from", f"{currency} has two rates from the same moment on")
        seen.add((currency, since))
        source = section.text("source") or ""
        draft.rates.append(ExchangeRate(currency=currency, effective_from=since, usd_per_unit_nano=rate, source=source))


def _read_tenant(section: Section, draft: Draft) -> Tenant:
    tenant = section.text("id", required=True) or "default"
    if not TENANT_ID.fullmatch(tenant):
        section.problem("id", f"expected 1 to 63 letters, digits, '.', '_' or '-', got {tenant!r}")
    currency = section.text("currency") or "USD"
    draft.check_currency(section, currency)
    return Tenant(
        id=tenant,
        fail_mode=section.choice("fail_mode", ("closed", "open", "cached"), "closed"),  # type: ignore[arg-type]
        exhausted_status=429 if section.choice("exhausted_status", ("402", "429"), "402") == "429" else 402,
        currency=currency,
        client_asserted_scopes=_client_asserted(section),
        enforcement=section.choice("enforcement", ("on", "observe", "off"), "on"),  # type: ignore[arg-type]
        cache_seconds=section.integer("cache_seconds", 0, MAX_CACHE_SECONDS) or 0,
        guard_usd_per_million=_guard_prices(section),
        allowed_models=section.texts("allowed_models"),
        finance=frozenset(map(normal_id, section.texts("finance"))),
    )


def _client_asserted(section: Section) -> frozenset[str]:
    """Scope types a client header may name. Types that validated identity fills are refused: whoever can name the
    team in a header can spend another team's budget."""
    kinds = section.texts("client_asserted_scopes")
    for kind in kinds:
        if kind in IDENTITY_SCOPES:
            section.problem("client_asserted_scopes", f"{kind!r} comes from validated identity, never from a header")
        elif not SCOPE_TYPE.fullmatch(kind):
            section.problem("client_asserted_scopes", f"{kind!r} is not a scope type ([a-z][a-z0-9_-]*, up to 32)")
    return frozenset(kinds)


def _guard_prices(section: Section) -> dict[str, int]:
    guard = section.section("guard_usd_per_million", ("input", "output"))
    if guard is None:
        return {}
    prices = {}
    for kind in ("input", "output"):
        amount = guard.decimal(kind, required=True)
        if amount is None:
            continue
        try:
            prices[kind] = pico_per_token(str(amount))
        except ValueError as error:
            guard.problem(kind, str(error))
    return prices
