"""What the printable statement says, ready to be shown: every table cut to its largest rows and one of all others.

Pure: texts and numbers come out, the template only places them. Whatever is shown in a column adds up to the figure
below it, and the amount due also stands there in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from shared.money import decimal_from_nano
from shared.months import month_before, month_span
from shared.pricing.pricer import INPUT_KINDS
from shared.reports import charts
from shared.reports.names import shortened
from shared.reports.shown import amount, column, decimals_for, percent
from shared.reports.statement import AllocatedLine, BudgetStanding, Statement
from shared.reports.team_sums import TeamSum, team_sums
from shared.scopes import parse_scope_id

TOP = 8
FEW = 5
NOTES = 5
_KIND_PARTS = ("Input", "Cached input", "Cache writes", "Output")
_ALLOCATED = {"pool": "Pool", "idle": "Idle", "shared": "Shared", "markup": "Markup", "tax": "Tax"}
_CORRECTION = {"negative": "taken back", "new": "charged anew", "adjustment": "adjusted", "": ""}


class Row(NamedTuple):
    """A row of a table: what it is for, what else is said of it, its amount, its share."""

    name: str
    detail: str
    amount: str
    share: str = ""


class Table(NamedTuple):
    """Rows whose amounts add up to the total."""

    rows: list[Row]
    total: str


def page(statement: Statement) -> dict[str, Any]:
    """The values of the template."""
    teams = team_sums(statement)
    due = statement.total_nano
    return {
        "statement": statement,
        "title": shortened(statement.number),
        "issuer": shortened(statement.issuer) or "Tollkeeper",
        "tenant": shortened(statement.tenant),
        "for_teams": _for_teams(statement),
        "notes": [shortened(note, 200) for note in statement.notes[:NOTES]],
        "more_notes": max(0, len(statement.notes) - NOTES),
        "due": amount(due, max(2, decimals_for(due))),
        "due_exact": decimal_from_nano(due),
        "previous": _previous(statement),
        "requests": f"{statement.totals.requests:,}",
        "measured": percent_of_share(statement.totals.coverage.shares()[0]),
        "bridge": _bridge(statement),
        "days": _days(statement),
        "split": _split(statement),
        "unit": _unit_costs(statement),
        "models": _top(_models(statement), TOP),
        "apps": _top(_apps(statement), TOP),
        "teams": _top(_team_items(teams), TOP) if len(teams) > 1 else None,
        "allocated": _allocated(statement.allocated),
        "budgets": _budgets(statement),
        "forecast": _forecast(statement),
        "corrections": _corrections(statement),
        "unpriced": _unpriced(statement),
        "savings": _savings(statement),
    }


def percent_of_share(share: str) -> str:
    """`0.9834` as `98.3 %`."""
    return percent(int(share.replace(".", "")), 10_000)


class _Item(NamedTuple):
    name: str
    detail: str
    nano: int


def _top(items: Sequence[_Item], most: int) -> Table:
    """The largest items and the sum of all others."""
    ordered = sorted(items, key=lambda item: (-item.nano, item.name))
    if len(ordered) > most + 1:
        rest = ordered[most:]
        ordered = [*ordered[:most], _Item(f"{len(rest)} others", "", sum(item.nano for item in rest))]
    total = sum(item.nano for item in items)
    places = decimals_for(total)
    shown = column([item.nano for item in ordered], places)
    rows = [
        Row(shortened(item.name, 60), shortened(item.detail, 120), text, percent(item.nano, total))
        for item, text in zip(ordered, shown, strict=True)
    ]
    return Table(rows, amount(total, places))


def _models(statement: Statement) -> list[_Item]:
    unpriced = {missing.model for missing in statement.unpriced}
    items = _grouped(statement, lambda line: line.model or "(no model)")
    return [item._replace(detail=f"{item.detail}, not all priced") if item.name in unpriced else item for item in items]


def _apps(statement: Statement) -> list[_Item]:
    return _grouped(statement, lambda line: line.app or "(no app)")


def _grouped(statement: Statement, name: Callable[[Any], str]) -> list[_Item]:
    """Usage at pay-as-you-go worth by some name; adds up to the bridge's usage."""
    sums: dict[str, list[int]] = {}
    for line in statement.lines:
        found = sums.setdefault(name(line), [0, 0])
        found[0] += line.owed_nano + line.covered_nano
        found[1] += line.usage.requests
    return [_Item(key, _calls(calls), nano) for key, (nano, calls) in sums.items()]


def _team_items(teams: Iterable[TeamSum]) -> list[_Item]:
    return [_Item(team.team, team.cost_centre, team.due_nano) for team in teams]


def _allocated(lines: Sequence[AllocatedLine]) -> Table | None:
    """Shares of what was bought for many, each with how it was split; of several teams, those of one kind summed."""
    if not lines:
        return None
    sums: dict[tuple[str, str, str], list[Any]] = {}
    for line in lines:
        found = sums.setdefault((line.kind, line.id, line.label), [0, set(), line.basis])
        found[0] += line.amount_nano
        found[1].add(line.team)
    items = [
        _Item(
            f"{_ALLOCATED[kind]}: {label}" if label else _ALLOCATED[kind],
            basis if len(teams) == 1 else f"split over {len(teams)} teams",
            nano,
        )
        for (kind, _, label), (nano, teams, basis) in sums.items()
    ]
    return _top(items, TOP)


def _bridge(statement: Statement) -> Table:
    bridge = statement.bridge
    steps = [
        ("Usage of the month", "what its calls cost at your prices", bridge.usage_nano),
        ("Corrections of closed months", "late calls, calls rated again, invoice differences", bridge.corrections_nano),
        ("Covered by pools", "paid for by reserved capacity instead", bridge.covered_nano),
        ("Pools", "reserved capacity, by use", bridge.pools_nano),
        ("Idle capacity", "reserved and not used", bridge.idle_nano),
        ("Shared platform cost", "", bridge.shared_nano),
        ("Markup", "", bridge.markup_nano),
        ("Tax", "", bridge.tax_nano),
    ]
    kept = [step for step in steps if step[2] or step is steps[0]]
    places = decimals_for(bridge.total_nano)
    shown = column([nano for _, _, nano in kept], places)
    rows = [Row(name, detail, text) for (name, detail, _), text in zip(kept, shown, strict=True)]
    return Table(rows, amount(bridge.total_nano, places))


def _previous(statement: Statement) -> dict[str, str] | None:
    before = statement.previous_total_nano
    if before is None:
        return None
    change = statement.total_nano - before
    places = max(2, decimals_for(max(statement.total_nano, before)))
    return {
        "month": month_before(statement.period),
        "amount": amount(before, places),
        "change": f"{'+' if change > 0 else ''}{amount(change, places)}",
        "percent": percent(change, before),
    }


def _days(statement: Statement) -> dict[str, str]:
    """The month's days, quiet ones included, over all teams."""
    start, end = month_span(statement.period)
    sums = dict.fromkeys(((start + timedelta(days=n)).date() for n in range((end - start).days)), 0)
    for day in statement.days:
        sums[day.day] = sums.get(day.day, 0) + day.ledger_nano_usd
    highest = max(sums, key=lambda day: (sums[day], day))
    places = decimals_for(max(sums.values()))
    used = sum(1 for spent in sums.values() if spent)
    return {
        "svg": charts.daily_bars(list(sums.values()), f"{amount(max(sums.values()), places)} USD"),
        "text": f"Usage on {used} of {len(sums)} days; the dearest was {highest.isoformat()} with "
        f"{amount(sums[highest], places)} USD.",
    }


def _part_of(kind: str) -> int:
    if kind == "cached_input":
        return 1
    if kind.startswith("cache_write"):
        return 2
    return 0 if kind in INPUT_KINDS else 3


def _split(statement: Statement) -> dict[str, Any] | None:
    """Input, cached input, cache writes and output: tokens and what they were worth."""
    tokens, worth = [0] * 4, [0] * 4
    for line in statement.lines:
        for kind in line.kinds:
            part = _part_of(kind.kind)
            tokens[part] += kind.tokens
            worth[part] += kind.owed_nano + kind.covered_nano
    if not any(tokens):
        return None
    places = decimals_for(sum(worth))
    read = sum(tokens[:3])
    rows = [
        {
            "name": name,
            "colour": colour,
            "tokens": f"{count:,}",
            "amount": text,
            "share": percent(nano, sum(worth)),
        }
        for name, colour, count, nano, text in zip(
            _KIND_PARTS, charts.PARTS, tokens, worth, column(worth, places), strict=True
        )
        if count
    ]
    return {"svg": charts.split_bar(worth), "rows": rows, "hit_rate": percent(tokens[1], read) if read else None}


def _unit_costs(statement: Statement) -> dict[str, str] | None:
    totals = statement.totals
    tokens = sum(count for kind, count in totals.tokens.items() if kind != "reasoning")
    if totals.requests <= 0 or tokens <= 0:
        return None
    per_thousand = totals.cost_nano_usd * 1_000 // totals.requests
    per_million = totals.cost_nano_usd * 1_000_000 // tokens
    return {
        "per_thousand_calls": amount(per_thousand, max(2, decimals_for(per_thousand))),
        "per_million_tokens": amount(per_million, max(2, decimals_for(per_million))),
        "tokens_per_call": f"{tokens // totals.requests:,}",
    }


def _forecast(statement: Statement) -> dict[str, str | None] | None:
    forecast = statement.forecast
    if forecast is None or statement.status != "draft":
        return None
    spent = sum(line.usage.cost_nano_usd for line in statement.lines)
    places = decimals_for(forecast.value_nano_usd)
    low, value, high = forecast.low_nano_usd, forecast.value_nano_usd, forecast.high_nano_usd
    return {
        "value": amount(value, places),
        "low": amount(low, places) if low is not None else None,
        "high": amount(high, places) if high is not None else None,
        "method": forecast.method,
        # without a range yet none is drawn
        "svg": "" if low is None or high is None else charts.forecast_band(spent, low, value, high),
    }


def _budgets(statement: Statement) -> dict[str, Any] | None:
    """The budgets nearest to their limit, or furthest beyond."""

    def used_ppm(budget: BudgetStanding) -> int:
        return budget.spent_nano_usd * 1_000_000 // budget.limit_nano_usd if budget.limit_nano_usd > 0 else 10**12

    ordered = sorted(statement.budgets, key=lambda budget: (-used_ppm(budget), budget.id))
    if not ordered:
        return None
    rows = [
        {
            "name": shortened(":".join(parse_scope_id(budget.scope)), 50),
            # A budget that nobody named has an id made of its parts, which its scope and limit say already.
            "detail": "" if "/" in budget.id else shortened(budget.id, 50),
            "spent": amount(budget.spent_nano_usd, decimals_for(budget.limit_nano_usd)),
            "limit": amount(budget.limit_nano_usd, decimals_for(budget.limit_nano_usd)),
            "share": percent(budget.spent_nano_usd, budget.limit_nano_usd),
            "svg": charts.budget_bar(budget.spent_nano_usd, budget.limit_nano_usd, budget.warn_ppm, budget.stop_ppm),
        }
        for budget in ordered[:FEW]
    ]
    over = sum(1 for budget in ordered if used_ppm(budget) >= budget.stop_ppm)
    return {"rows": rows, "more": len(ordered) - len(rows), "over": over}


def _corrections(statement: Statement) -> Table | None:
    sums: dict[tuple[str, str, str], list[int]] = {}
    for line in statement.corrections:
        what = line.remark or line.model or line.provider
        found = sums.setdefault((line.month, _CORRECTION[line.correction], what), [0, 0])
        found[0] += line.owed_nano + line.covered_nano
        found[1] += line.usage.requests
    items = [_Item(f"{month}: {what}", how, nano) for (month, how, what), (nano, _) in sums.items()]
    return _top(items, FEW) if items else None


def _unpriced(statement: Statement) -> dict[str, Any] | None:
    sums: dict[str, list[int]] = {}
    for missing in statement.unpriced:
        found = sums.setdefault(missing.model or missing.provider, [0, 0])
        found[0] += missing.calls
        found[1] += sum(count for kind, count in missing.tokens.items() if kind != "reasoning")
    ordered = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))
    if not ordered:
        return None
    most = FEW if len(ordered) > FEW + 1 else FEW + 1
    rows = [(shortened(model, 60), f"{calls:,}", f"{tokens:,}") for model, (calls, tokens) in ordered[:most]]
    rest = ordered[most:]
    if rest:
        calls, tokens = sum(found[0] for _, found in rest), sum(found[1] for _, found in rest)
        rows.append((f"{len(rest)} others", f"{calls:,}", f"{tokens:,}"))
    return {"rows": rows, "calls": _calls(sum(found[0] for found in sums.values()))}


def _savings(statement: Statement) -> Table | None:
    sums: dict[tuple[str, str, str], list[int]] = {}
    for saving in statement.savings:
        found = sums.setdefault((saving.decision, saving.requested_model, saving.model), [0, 0])
        found[0] += saving.saved_nano_usd
        found[1] += saving.calls
    items = [
        _Item(
            f"{asked} \u2192 {served}" if decision == "downgrade" else f"{asked or 'any model'} refused",
            _calls(calls),
            nano,
        )
        for (decision, asked, served), (nano, calls) in sums.items()
    ]
    return _top(items, FEW) if items else None


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"


def _for_teams(statement: Statement) -> str:
    if statement.teams is None:
        return "all teams"
    names = [shortened(team, 60) for team in statement.teams]
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
