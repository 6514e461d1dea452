"""A statement that contains every kind of charge, small enough to check by hand, and its charges."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from shared.ledger.coverage import Coverage
from shared.reports.charge import PPB, Allocation, Charge, Element
from shared.reports.statement import (
    AllocatedLine,
    BudgetStanding,
    CorrectionLine,
    DayAmount,
    Forecast,
    KindAmount,
    PriceUsed,
    Saving,
    Statement,
    Unpriced,
    Usage,
    UsageLine,
)

AS_OF = datetime(2026, 12, 3, 2, 10, tzinfo=UTC)
USD = 1_000_000_000  # nano
PICO = 1_000  # of a nano
POOL = "ptu-weu"
HOSTILE_NAMES = (
    '=HYPERLINK("https://evil.example","pay")',
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    "  =1+1",
    "\uff1d1+1",
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "abc\u202egnp.exe",
    "\u2066hidden\u2069",
    "quote\"comma,semicolon;'tick'",
    "two\nlines",
    "\U0001f469\u200d\U0001f4bb \U0001f4b8",
    "https://evil.example/click",
    "x" * 5_000,
)


def day(number: int) -> datetime:
    """Midnight UTC of a day of November 2026."""
    return datetime(2026, 11, number, tzinfo=UTC)


def used(team: str, kind: str, tokens: int, usd_per_million: str, **changes: Any) -> Charge:
    """A day's use of one token kind at a price in USD per million; what is owed is their product."""
    pico = int(Decimal(usd_per_million) * 10**6)
    fields: dict[str, Any] = {
        "starts_utc": day(5),
        "ends_utc": day(6),
        "description": f"gpt-4o, {kind}",
        "team": team,
        "cost_centre": "CC-1",
        "app": "assistant",
        "provider": "azure-openai",
        "model": "gpt-4o",
        "deployment": "gpt-4o-weu",
        "region": "westeurope",
        "operation": "chat",
        "token_kind": kind,
        "tokens": tokens,
        "unit_pico": pico,
        "list_pico": pico,
        "price_pico": pico,
        "list_price_pico": pico,
        "price_id": "book/azure-openai/gpt-4o/2024-08-06",
        "ledger_nano_usd": (tokens * pico + 500) // 1000,
        "billed_pico": tokens * pico,
        "effective_pico": tokens * pico,
    }
    return Charge(**(fields | changes))


def amount(team: str, category: str, billed_nano: int, description: str, **changes: Any) -> Charge:
    """A charge that is not priced per token."""
    fields: dict[str, Any] = {
        "category": category,
        "starts_utc": day(1),
        "ends_utc": datetime(2026, 12, 1, tzinfo=UTC),
        "description": description,
        "team": team,
        "cost_centre": "CC-1",
        "pricing_status": "none",
        "billed_pico": billed_nano * PICO,
        "effective_pico": billed_nano * PICO,
    }
    return Charge(**(fields | changes))


def every_charge(team: str = "search") -> list[Charge]:
    """A team's charges of every kind: usage at a discount, cached, estimated, unpriced, covered by a pool; the pool's
    idle part and its purchase, shared cost, markup, tax, and corrections of all three kinds."""
    weights = Allocation("pool-weighted-tokens", POOL, (Element(PPB, "Weighted Tokens", 4_000_000),))
    part = Allocation("shared-cost", "platform", (Element(310_000_000, "USD", 12 * USD + 1),))
    pool = {"commitment_id": POOL, "billed_pico": 0}
    october = {"starts_utc": day(1) - timedelta(days=2), "ends_utc": day(1) - timedelta(days=1)}
    unknown = {"unit_pico": None, "list_pico": None, "price_pico": None, "list_price_pico": None, "price_id": ""}
    nothing = {"billed_pico": 0, "effective_pico": 0, "ledger_nano_usd": 0}
    covered = {"commitment_status": "Used", "commitment_quantity": 3_000_000, "effective_pico": 30 * USD * PICO}
    idle = {"commitment_status": "Unused", "commitment_quantity": 1_000_000, "effective_pico": 10 * USD * PICO}
    return [
        used(team, "input", 1_250_500, "1.80", list_pico=2_000_000, list_price_pico=2_000_000),
        used(team, "cached_input", 400_000, "1.00"),
        used(team, "output", 300_001, "8.00"),
        used(team, "output", 7, "0.000137", measured=False, model="tiny", ledger_nano_usd=1),
        used(team, "input", 500, "0", model="brand-new", pricing_status="unpriced", **unknown, **nothing),
        used(team, "input", 3_000_000, "2.00", deployment="gpt-4o-ptu", **covered | pool),
        amount(team, "Usage", 0, "Idle capacity of ptu-weu", **pool | idle),
        amount(
            team,
            "Purchase",
            40 * USD,
            "Provisioned throughput ptu-weu",
            commitment_id=POOL,
            commitment_quantity=4_000_000,
            effective_pico=0,
            allocation=weights,
        ),
        amount(team, "Adjustment", 5 * USD + 1, "Shared: API Management", allocation=part),
        amount(team, "Adjustment", 2 * USD, "Markup 4 %"),
        amount(team, "Tax", 3 * USD, "Tax 6 %"),
        used(team, "input", -1_000, "2.00", correction="negative", **october),
        used(team, "input", 1_000, "1.50", correction="new", **october),
        amount(team, "Adjustment", 123_456_789, "Invoice variance of 2026-10", correction="adjustment", **october),
    ]


def statement_of(charges: Iterable[Charge], **changes: Any) -> tuple[Statement, list[Charge]]:
    """The statement that charges of November 2026 make, and the charges with what rounding left per team.

    Written apart from the product's own builder, so that the files can be checked against something else.
    """
    charges = list(charges)
    lines: dict[tuple[str, ...], list[KindAmount]] = {}
    corrections, allocated, unpriced, days = [], [], [], []
    owed_nano: dict[str, int] = {}
    for charge in charges:
        nano = (charge.billed_pico + PICO // 2) // PICO
        worth = (charge.contracted_cost_pico + PICO // 2) // PICO if charge.commitment_status == "Used" else 0
        ledger = charge.ledger_nano_usd
        if charge.correction:
            usage = Usage(requests=0, tokens={charge.token_kind: charge.tokens}, cost_nano_usd=ledger)
            corrections.append(
                CorrectionLine(
                    team=charge.team,
                    cost_centre=charge.cost_centre,
                    correction=charge.correction,
                    month="2026-10",
                    provider=charge.provider,
                    model=charge.model,
                    remark=charge.description if charge.correction == "adjustment" else "",
                    usage=usage,
                    owed_nano=nano,
                    covered_nano=0,
                )
            )
        elif charge.token_kind:
            nano = ledger if charge.commitment_status != "Used" and charge.price_pico == charge.unit_pico else nano
            place = (charge.team, charge.cost_centre, charge.app, charge.provider, charge.model, charge.deployment)
            listed = (charge.list_cost_pico + PICO // 2) // PICO
            lines.setdefault(place, []).append(
                KindAmount(
                    kind=charge.token_kind,
                    tokens=charge.tokens,
                    ledger_nano_usd=ledger,
                    list_nano=listed,
                    owed_nano=nano,
                    covered_nano=worth,
                )
            )
            days.append(DayAmount(team=charge.team, day=charge.starts_utc.date(), ledger_nano_usd=ledger))
            if charge.pricing_status == "unpriced":
                tokens = {charge.token_kind: charge.tokens}
                missing = Unpriced(
                    team=charge.team, provider="azure-openai", model=charge.model, calls=1, tokens=tokens
                )
                unpriced.append(missing)
        elif charge.commitment_status != "Unused":
            kind = {"Purchase": "pool", "Tax": "tax"}.get(charge.category) or (
                "shared" if charge.allocation else "markup"
            )
            allocated.append(
                AllocatedLine(
                    team=charge.team,
                    cost_centre=charge.cost_centre,
                    kind=kind,  # type: ignore[arg-type]
                    id=charge.commitment_id or (charge.allocation.origin if charge.allocation else ""),
                    label=charge.description,
                    basis="31 % of what teams spent" if charge.allocation else "",
                    amount_nano=nano,
                )
            )
        owed_nano[charge.team] = owed_nano.get(charge.team, 0) + nano
    rounding = []
    for team, nano in owed_nano.items():
        left = nano * PICO - sum(charge.billed_pico for charge in charges if charge.team == team)
        if left:
            row = amount(team, "Adjustment", 0, "Rounding to the nano-dollar", billed_pico=left, effective_pico=left)
            rounding.append(row)
    usage_lines = []
    for place, kinds in sorted(lines.items()):
        cost = sum(kind.ledger_nano_usd for kind in kinds)
        tokens: dict[str, int] = {}
        for kind in kinds:
            tokens[kind.kind] = tokens.get(kind.kind, 0) + kind.tokens
        usage = Usage(requests=10, tokens=tokens, cost_nano_usd=cost, coverage=Coverage())
        team, centre, app, provider, model, deployment = place
        usage_lines.append(
            UsageLine(
                team=team,
                cost_centre=centre,
                app=app,
                provider=provider,
                model=model,
                deployment=deployment,
                usage=usage,
                kinds=tuple(kinds),
            )
        )
    teams = sorted(owed_nano)
    values: dict[str, Any] = {
        "tenant": "contoso",
        "period": "2026-11",
        "number": "contoso-2026-11",
        "status": "final",
        "as_of_utc": AS_OF,
        "notes": ("500 tokens of 1 call have no price yet.",),
        "issuer": "Contoso Platform Team",
        "lines": tuple(usage_lines),
        "corrections": tuple(corrections),
        "allocated": tuple(allocated),
        "days": tuple(days),
        "unpriced": tuple(unpriced),
        "prices": tuple(
            PriceUsed(
                team=charge.team,
                price_id=charge.price_id,
                provider=charge.provider,
                model=charge.model,
                kind=charge.token_kind,
                tier=charge.tier,
                unit_pico=charge.unit_pico,
                list_pico=charge.list_pico or 0,
                tokens=charge.tokens,
            )
            for charge in charges
            if charge.unit_pico is not None
        ),
        "savings": tuple(
            Saving(
                team=team,
                decision="downgrade",
                requested_model="gpt-4o",
                model="gpt-4o-mini",
                calls=1_234,
                saved_nano_usd=17 * USD,
            )
            for team in teams
        )
        + tuple(
            Saving(team=team, decision="refuse", requested_model="o3", model="", calls=1, saved_nano_usd=2 * USD + 1)
            for team in teams
        ),
        "budgets": tuple(
            BudgetStanding(
                team=team,
                id=f"team-{team[:20]}",
                scope=f"team:{team}",
                period="2026-11",
                timezone="Europe/Amsterdam",
                currency="USD",
                limit_nano=100 * USD,
                warn_ppm=800_000,
                degrade_ppm=900_000,
                stop_ppm=1_000_000,
                carried_nano_usd=0,
                limit_nano_usd=100 * USD,
                spent_nano_usd=63 * USD,
            )
            for team in teams
        ),
        "previous_nano": dict.fromkeys(teams, 40 * USD),
        "forecast": Forecast(value_nano_usd=70 * USD, low_nano_usd=60 * USD, high_nano_usd=85 * USD, method="weekday"),
    }
    by_team = sorted([*charges, *rounding], key=lambda charge: charge.team)
    return Statement(**(values | changes)), by_team


def renamed(charges: Iterable[Charge], **names: str) -> list[Charge]:
    """The charges under other names."""
    return [msgspec.structs.replace(charge, **names) for charge in charges]
