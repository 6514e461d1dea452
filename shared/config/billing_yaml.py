"""billing.yaml: markup, tax, pools and shared costs. An absent file bills usage as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TypeVar

from shared.config.billing import WEIGHT_UNITS, Billing, Percent, Pool, PoolTerm, SharedCost, SharedTerm
from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.problems import did_you_mean
from shared.config.reconciliation_yaml import read_anomalies, read_reconciliation
from shared.config.yaml_lines import Value
from shared.money import nano_from_decimal
from shared.usage.tokens import PRICED_KINDS

BILLING_FIELDS = (
    "issuer",
    "close_day",
    "markup",
    "tax",
    "pools",
    "shared",
    "dashboard_edits",
    "reconciliation",
    "anomalies",
)
PERCENT_FIELDS = ("percent", "effective_from", "label", "tenant")
POOL_FIELDS = (
    *("id", "tenant", "label", "kind", "deployments", "terms", "weights", "model_weights"),
    *("tokens_per_minute_per_unit", "idle", "owner"),
)
POOL_TERM_FIELDS = ("effective_from", "units", "usd_per_unit_hour", "usd_per_month")
SHARED_FIELDS = ("id", "tenant", "label", "by", "terms", "include", "exclude")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EXTRA_TEAMS = ("(unassigned)",)  # calls without a team can be left out of a shared cost like any team
MAX_PERCENT = 1000
MAX_WEIGHT = 1000

Entry = TypeVar("Entry", Pool, SharedCost)


def read_billing(document: Value | None, draft: Draft) -> None:
    """Put what billing.yaml says into the draft. Reads after tenants, models and teams, which it refers to."""
    if document is None:
        return
    section = Section(document, BILLING_FIELDS, draft.problems)
    issuer = section.text("issuer") or Billing().issuer
    if len(issuer) > 200:
        section.problem("issuer", f"at most 200 characters, got {len(issuer)}")
    pools = _unique([_pool(entry, draft) for entry in section.sections("pools", POOL_FIELDS)], section, "pools")
    _check_deployments(pools, section)
    draft.billing = Billing(
        issuer=issuer,
        close_day=section.integer("close_day", 1, 28) or Billing().close_day,
        markup=_percents(section, "markup", "Platform fee", draft),
        tax=_percents(section, "tax", "Tax", draft),
        pools=tuple(pools),
        shared=tuple(
            _unique([_shared(entry, draft) for entry in section.sections("shared", SHARED_FIELDS)], section, "shared")
        ),
        dashboard_edits=section.choice("dashboard_edits", ("git_wins", "keep"), "git_wins"),  # type: ignore[arg-type]
        reconciliation=read_reconciliation(section, draft),
        anomalies=read_anomalies(section),
    )


def _percents(section: Section, name: str, label: str, draft: Draft) -> tuple[Percent, ...]:
    entries: dict[tuple[str | None, datetime], Percent] = {}
    for entry in section.sections(name, PERCENT_FIELDS):
        tenant, since = draft.tenant_of(entry, None), entry.instant("effective_from")
        ppm = entry.percent_ppm("percent", MAX_PERCENT, required=True)
        if ppm is None or since is None:
            continue
        if (tenant, since) in entries:
            entry.problem("effective_from", "a second entry from the same moment on")
        entries[tenant, since] = Percent(ppm, since, entry.text("label") or label, tenant)
    return tuple(entries.values())


def _pool(entry: Section, draft: Draft) -> Pool:
    kind = entry.choice("kind", ("ptu", "fixed"), "ptu")
    pool_id, idle = _id(entry), entry.choice("idle", ("separate", "proportional", "owner"), "separate")
    owner = entry.text("owner")
    if owner is not None:
        draft.check_known(entry, "owner", owner, draft.teams, "team", "teams/")
    if (idle == "owner") != (owner is not None):
        entry.problem("owner", "is required with idle: owner, and has no effect without")
    deployments = entry.texts("deployments")
    if not deployments:
        entry.problem("deployments", "is required: the deployments whose calls it covers, such as [gpt-4o-ptu]")
    per_unit = entry.integer("tokens_per_minute_per_unit", 1, 10**9)
    terms = _pool_terms(entry, counted=per_unit is not None)
    return Pool(
        id=pool_id,
        tenant=draft.tenant_of(entry, "default") or "default",
        label=entry.text("label") or pool_id,
        kind="ptu" if kind == "ptu" else "fixed",
        deployments=frozenset(deployments),
        terms=terms,
        weights=_weights(entry),
        model_weights=_model_weights(entry, draft),
        tokens_per_minute_per_unit=per_unit,
        idle=idle,  # type: ignore[arg-type]
        owner=owner,
    )


def _pool_terms(entry: Section, *, counted: bool) -> tuple[PoolTerm, ...]:
    terms = []
    for term in entry.sections("terms", POOL_TERM_FIELDS):
        since, units = term.instant("effective_from"), term.integer("units", 0, 1_000_000)
        hourly, monthly = _amount(term, "usd_per_unit_hour"), _amount(term, "usd_per_month")
        if (hourly is None) == (monthly is None) and units != 0:
            term.problem("usd_per_unit_hour", "exactly one of usd_per_unit_hour and usd_per_month is required")
        if units is None and (hourly is not None or counted):
            term.problem("units", "is required: how many throughput units; 0 ends the pool")
        if since is not None and since != _whole_hour(since):
            term.problem("effective_from", "a pool is bought by the hour: expected a whole hour")
        if since is not None:
            terms.append(PoolTerm(since, units or 0, hourly, monthly))
    _check_dates(entry, [term.effective_from for term in terms])
    return tuple(sorted(terms, key=lambda term: term.effective_from))


def _shared(entry: Section, draft: Draft) -> SharedCost:
    shared_id = _id(entry)
    terms = []
    for term in entry.sections("terms", ("effective_from", "usd_per_month")):
        since, amount = term.instant("effective_from"), _amount(term, "usd_per_month", required=True)
        if since is not None and amount is not None:
            terms.append(SharedTerm(since, amount))
    _check_dates(entry, [term.effective_from for term in terms])
    include, exclude = (_teams(entry, name, draft) for name in ("include", "exclude"))
    if both := sorted(include & exclude):
        entry.problem("exclude", f"{both[0]!r} is included and excluded")
    return SharedCost(
        id=shared_id,
        tenant=draft.tenant_of(entry, "default") or "default",
        label=entry.text("label") or shared_id,
        by=entry.choice("by", ("tokens", "cost", "even")),  # type: ignore[arg-type]
        terms=tuple(sorted(terms, key=lambda term: term.effective_from)),
        include=include,
        exclude=exclude,
    )


def _teams(entry: Section, name: str, draft: Draft) -> frozenset[str]:
    teams = entry.texts(name)
    known = {**draft.teams, **dict.fromkeys(_EXTRA_TEAMS)}
    for team in teams:
        draft.check_known(entry, name, team, known, "team", "teams/")
    return frozenset(teams)


def _weights(section: Section, name: str = "weights") -> Mapping[str, int]:
    weights = {}
    for kind, value in section.mapping(name):
        content = value.content if isinstance(value.content, str) else ""
        if kind not in PRICED_KINDS:
            section.problem(name, f"{kind!r} is not a token kind{did_you_mean(kind, PRICED_KINDS)}")
        elif not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", content) or Decimal(content) > MAX_WEIGHT:
            section.problem(name, f"{kind}: expected 0 to {MAX_WEIGHT} with at most three decimals, got {content!r}")
        else:
            weights[kind] = int(Decimal(content) * WEIGHT_UNITS)
    return weights


def _model_weights(entry: Section, draft: Draft) -> dict[str, Mapping[str, int]]:
    found: dict[str, Mapping[str, int]] = {}
    for each in entry.sections("model_weights", ("model", "weights")):
        model = each.text("model", required=True)
        if model is None:
            continue
        draft.check_known(each, "model", model, draft.models, "model", "models.yaml")
        if model in found:
            each.problem("model", f"{model!r} has weights already")
        found[model] = _weights(each)
    return found


def _amount(section: Section, name: str, *, required: bool = False) -> int | None:
    """An amount of USD in nano that may be zero."""
    amount = section.decimal(name, required=required)
    if amount is None:
        return None
    try:
        nano = nano_from_decimal(amount)
    except ValueError as error:
        section.problem(name, str(error).replace(repr(amount), str(amount)))
        return None
    if nano < 0:
        section.problem(name, f"must not be below 0, got {amount}")
        return None
    return nano


def _id(entry: Section) -> str:
    stated = entry.text("id", required=True) or "?"
    if stated != "?" and not _ID.fullmatch(stated):
        entry.problem("id", f"expected 1 to 63 of a-z, 0-9, '.', '_' and '-', got {stated!r}")
    return stated


def _unique(entries: list[Entry], section: Section, name: str) -> list[Entry]:
    ids = [entry.id for entry in entries]
    for entry_id in sorted({i for i in ids if ids.count(i) > 1}):
        section.problem(name, f"the id {entry_id!r} is used twice")
    return entries


def _check_deployments(pools: list[Pool], section: Section) -> None:
    """A call is covered by one pool or none."""
    for index, pool in enumerate(pools):
        for other in pools[:index]:
            both = sorted({d.lower() for d in pool.deployments} & {d.lower() for d in other.deployments})
            if pool.tenant == other.tenant and both:
                section.problem("pools", f"{other.id!r} and {pool.id!r} both cover the deployment {both[0]!r}")


def _check_dates(entry: Section, dates: list[datetime]) -> None:
    if not dates:
        entry.problem("terms", "is required: at least one price with the date it is in force from")
    for earlier, later in pairwise(sorted(dates)):
        if earlier == later:
            entry.problem("terms", f"two are in force from {later:%Y-%m-%d %H:%M} on")


def _whole_hour(instant_utc: datetime) -> datetime:
    return datetime.fromtimestamp(instant_utc.timestamp() // 3600 * 3600, UTC)
