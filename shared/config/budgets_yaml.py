"""The `budgets` entries of budgets.yaml and of team files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import count, pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import Budget, DowngradeRule
from shared.config.yaml_lines import Value
from shared.money import MAX_NANO_USD
from shared.ppm import PPM, fraction_of_ppm
from shared.scopes import scope_id

BUDGET_FIELDS = (
    "id",
    "tenant",
    "scope",
    "period",
    "limit",
    "currency",
    "warn",
    "degrade",
    "stop",
    "downgrade",
    "disable_tools",
    "on_stop",
    "timezone",
    "rollover",
    "rollover_cap",
)
PERIODS = ("hour", "day", "week", "month", "quarter", "year", "total")
THRESHOLDS = {"warn": 800_000, "degrade": 900_000, "stop": PPM}  # defaults, parts per million of the limit
MAX_THRESHOLD_PPM = 10 * PPM
BUDGET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@*+#%-]{0,199}")


def read_budgets(document: Value | None, draft: Draft) -> None:
    """Add the entries of budgets.yaml to the draft."""
    for section in draft.entries(document, "budgets", BUDGET_FIELDS):
        read_budget(section, draft)


def read_budget(section: Section, draft: Draft, team: str | None = None, team_tenant: str | None = None) -> None:
    """Add one budget to the draft. In a team's file the scope defaults to the team, and the tenant is the team's."""
    if team is not None and section.has("tenant"):
        section.problem("tenant", "a team's budget belongs to the team's tenant; leave it out")
    tenant = team_tenant if team is not None else draft.tenant_of(section, None)
    scope = section.text("scope", required=team is None)
    kind, key = ("team", team or "*") if scope is None else draft.read_scope(section, scope)
    period = section.choice("period", PERIODS)
    limit = section.amount_nano("limit", required=True)
    currency = section.text("currency") or "USD"
    draft.check_currency(section, currency)
    warn, degrade, stop = read_thresholds(section, THRESHOLDS, "the default")
    if limit is not None:
        check_limit(section, limit, stop)
    timezone = _timezone(section)
    budget = Budget(
        id=_budget_id(section, draft, f"{tenant or '*'}/{scope_id(kind, key)}/{period}/{timezone}"),
        tenant=tenant,
        scope_type=kind,
        scope_key=key,
        period=period,  # type: ignore[arg-type]
        timezone=timezone,
        limit_nano=limit or 1,
        currency=currency,
        warn_ppm=warn,
        degrade_ppm=degrade,
        stop_ppm=stop,
        downgrade=_downgrade_rules(section, draft),
        disable_tools=section.texts("disable_tools"),
        on_stop=section.choice("on_stop", ("refuse", "downgrade", "allow"), "refuse"),  # type: ignore[arg-type]
        rollover=section.flag("rollover"),
        rollover_cap_nano=section.amount_nano("rollover_cap"),
    )
    _check_together(section, budget, draft)
    draft.budgets.append(budget)
    draft.entry_digests[budget.id] = section.digest(tenant, kind, key)


def check_limit(section: Section, limit_nano: int, stop_ppm: int) -> None:
    """A counter must be able to count to where the budget stops."""
    if limit_nano * max(stop_ppm, PPM) > MAX_NANO_USD * PPM:
        section.problem("limit", f"limit x stop is beyond the largest amount a counter holds ({MAX_NANO_USD} nano)")


def read_thresholds(section: Section, absent: Mapping[str, int], named: str) -> list[int]:
    """warn, degrade and stop in ppm, in order; one that is not given is as `absent` says, which messages call `named`.

    Those take part in the order: `stop: 0.5` alone would otherwise stop a budget long before anyone is warned.
    """
    found = []
    for name, default in absent.items():
        fraction = section.decimal(name)
        ppm = default if fraction is None else fraction.scaleb(6)
        if ppm != int(ppm) or not 0 < ppm <= MAX_THRESHOLD_PPM:
            section.problem(
                name, f"expected a fraction of the limit such as 0.8, above 0 to 10, six decimals; got {fraction}"
            )
            return list(absent.values())
        found.append(int(ppm))
    for (low, low_ppm), (high, high_ppm) in pairwise(zip(absent, found, strict=True)):
        if low_ppm > high_ppm:
            below, above = _fraction(section, low, low_ppm, named), _fraction(section, high, high_ppm, named)
            message = f"{low} ({below}) is above {high} ({above}); the order is warn <= degrade <= stop"
            section.problem(low if section.has(low) else high, message)
    return found


def _fraction(section: Section, name: str, ppm: int, named: str) -> str:
    return fraction_of_ppm(ppm) + ("" if section.has(name) else f", {named}")


def _timezone(section: Section) -> str:
    """An IANA zone; UTC when absent or unknown."""
    zone = section.text("timezone")
    if zone is None or _zone_exists(zone):
        return zone or "UTC"
    close = difflib.get_close_matches(zone, available_timezones(), n=1)
    section.problem(
        "timezone", f"{zone!r} is not an IANA time zone" + (f"; did you mean {close[0]!r}?" if close else "")
    )
    return "UTC"


@lru_cache(maxsize=1024)
def _zone_exists(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory, such as Europe
        return False
    return True


def _budget_id(section: Section, draft: Draft, default: str) -> str:
    """The stated id, which must be unique, or the default one, numbered when it repeats."""
    stated = section.text("id")
    if stated is None:
        numbered = (default if n == 1 else f"{default}#{n}" for n in count(1))
        budget_id = next(candidate for candidate in numbered if candidate not in draft.budget_ids)
    else:
        budget_id = stated
        if not BUDGET_ID.fullmatch(stated):
            section.problem("id", f"expected up to 200 letters, digits or any of ' ._:/@*+#%-', got {stated!r}")
        if stated in draft.budget_ids:
            section.problem("id", f"{stated!r} is another budget's id; an id names its notifications and rollover")
    draft.budget_ids.add(budget_id)
    return budget_id


def _downgrade_rules(section: Section, draft: Draft) -> tuple[DowngradeRule, ...]:
    rules = []
    for entry in section.sections("downgrade", ("from", "to")):
        sources = entry.text_or_texts("from")
        if not sources:
            entry.problem("from", "is required: one model or a list, such as [gpt-4o, 'gpt-4.1*']")
        for glob in sources:
            if not _is_glob(glob):
                entry.problem("from", f"{glob!r} is not a pattern: close every '[', and use no spaces")
        target = entry.text("to", required=True)
        if target is not None and target != "cheapest":
            draft.check_known(entry, "to", target, {**draft.models, "cheapest": None}, "model", "models.yaml")
        rules.append(DowngradeRule(sources=sources, target=target or "cheapest"))
    return tuple(rules)


def _is_glob(text: str) -> bool:
    """Whether a shell-style pattern means what it looks like: fnmatch silently takes an unclosed '[' literally."""
    outside = re.sub(r"\[!?\]?[^\]]*\]", "", text)
    return bool(text) and "[" not in outside and not any(c.isspace() for c in text)


def _check_together(section: Section, budget: Budget, draft: Draft) -> None:
    """What no single field can tell."""
    if budget.on_stop == "downgrade" and not budget.downgrade:
        section.problem("on_stop", "downgrade needs at least one downgrade rule saying to what")
    if budget.rollover and budget.period == "total":
        section.problem("rollover", "a total never ends, so nothing can roll over")
    if budget.rollover_cap_nano is not None and not budget.rollover:
        section.problem("rollover_cap", "has no effect without rollover: true")
    if budget.scope_key == "*" and budget.period == "total" and _client_asserted(budget, draft):
        section.problem(
            "period",
            f"total is not possible for {budget.scope_type}:*, which callers name themselves: "
            "invented keys would be kept for ever; use a period that ends",
        )


def _client_asserted(budget: Budget, draft: Draft) -> bool:
    tenants = [t for t in draft.tenants.values() if budget.tenant in (None, t.id)]
    return any(budget.scope_type in tenant.client_asserted_scopes for tenant in tenants)
