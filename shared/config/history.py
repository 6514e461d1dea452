"""What changed in the budgets from one configuration to the next, by whom and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from shared.config.edits_yaml import EDITS
from shared.config.model import Budget, BudgetEdit, Config
from shared.money import decimal_from_nano
from shared.ppm import fraction_of_ppm

ChangeKind = Literal["publish", "edit", "revert"]


class Terms(msgspec.Struct, frozen=True):
    """The figures of a budget as the files spell them."""

    limit: str
    warn: str
    degrade: str
    stop: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the configuration's history. It names the step before, so a lost race leaves no trace in it."""

    sequence: int
    at_utc: datetime
    kind: ChangeKind
    who: str
    why: str
    version: str  # of the configuration that it made
    budgets: Mapping[str, tuple[Terms | None, Terms | None]]  # id -> before and after; None: there is none
    previous: str = ""  # name of the step before; empty: this is the first


class BudgetDifference(msgspec.Struct, frozen=True):
    """One budget before and after; None: there is none."""

    id: str
    before: Budget | None
    after: Budget | None

    @property
    def fields(self) -> dict[str, tuple[str, str]]:
        """Field -> what it was and what it becomes, of a budget that is on both sides."""
        if self.before is None or self.after is None:
            return {}
        was, becomes = budget_fields(self.before), budget_fields(self.after)
        return {name: (was[name], becomes[name]) for name in was if was[name] != becomes[name]}


class Difference(msgspec.Struct, frozen=True):
    """What publishing files would change against what is in force."""

    budgets: tuple[BudgetDifference, ...]
    files: Mapping[str, Literal["added", "changed", "removed"]]  # but edits.yaml
    discarded: tuple[BudgetEdit, ...]  # edits in force that would end
    kept: tuple[BudgetEdit, ...]

    def __bool__(self) -> bool:
        return bool(self.budgets or self.files or self.discarded)


def terms_of(budget: Budget | None) -> Terms | None:
    """The figures of a budget; None of none."""
    if budget is None:
        return None
    return Terms(
        limit=decimal_from_nano(budget.limit_nano),
        warn=fraction_of_ppm(budget.warn_ppm),
        degrade=fraction_of_ppm(budget.degrade_ppm),
        stop=fraction_of_ppm(budget.stop_ppm),
    )


def budget_fields(budget: Budget) -> dict[str, str]:
    """Every field of a budget as a person writes it; empty text for what is not set."""
    figures = terms_of(budget)
    assert figures is not None  # noqa: S101 - tells mypy that a budget has figures
    cap = budget.rollover_cap_nano
    return {
        "tenant": budget.tenant or "",
        "scope": f"{budget.scope_type}:{budget.scope_key}",
        "period": budget.period,
        "timezone": budget.timezone,
        "limit": figures.limit,
        "currency": budget.currency,
        "warn": figures.warn,
        "degrade": figures.degrade,
        "stop": figures.stop,
        "downgrade": "; ".join(f"{', '.join(rule.sources)} to {rule.target}" for rule in budget.downgrade),
        "disable_tools": ", ".join(budget.disable_tools),
        "on_stop": budget.on_stop,
        "rollover": "true" if budget.rollover else "false",
        "rollover_cap": "" if cap is None else decimal_from_nano(cap),
    }


def budget_differences(before: Config | None, after: Config) -> tuple[BudgetDifference, ...]:
    """The budgets that are not the same on both sides, by id."""
    was = {} if before is None else {budget.id: budget for budget in before.budgets}
    becomes = {budget.id: budget for budget in after.budgets}
    pairs = ((budget_id, was.get(budget_id), becomes.get(budget_id)) for budget_id in sorted({*was, *becomes}))
    return tuple(BudgetDifference(*pair) for pair in pairs if pair[1] != pair[2])


def changed_terms(before: Config | None, after: Config) -> dict[str, tuple[Terms | None, Terms | None]]:
    """The budgets whose figures changed, for the history."""
    pairs = {each.id: (terms_of(each.before), terms_of(each.after)) for each in budget_differences(before, after)}
    return {budget_id: pair for budget_id, pair in pairs.items() if pair[0] != pair[1]}


def file_differences(
    before: Mapping[str, bytes], after: Mapping[str, bytes]
) -> dict[str, Literal["added", "changed", "removed"]]:
    """The configuration files that are not the same on both sides."""
    found: dict[str, Literal["added", "changed", "removed"]] = {}
    for name in sorted({*before, *after} - {EDITS}):
        if before.get(name) != after.get(name):
            found[name] = "added" if name not in before else "removed" if name not in after else "changed"
    return found
