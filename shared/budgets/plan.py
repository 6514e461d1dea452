"""What one kind of call needs to ask: its counters, its budgets, and the models it may be served by.

A plan depends on configuration, scopes and model only, so it is built once and reused by every such call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec.structs import replace

from shared.budgets.cells import Cell, CellFamily, cell_at
from shared.budgets.matching import (
    IMPLICIT_TYPES,
    BudgetIndex,
    budget_family,
    expire_at_ms,
    family_of,
    limit_nano_usd,
    with_implicit_scopes,
)
from shared.budgets.periods import period_at
from shared.config.model import Budget
from shared.money import NANO_PER_USD
from shared.ppm import PPM

ResolveTarget = Callable[[str, str], str | None]
"""The model that a rule's target means for a requested model (`cheapest` is resolved, if need be to the requested model
itself), or None when there is none."""

CHEAPEST = "cheapest"
FLAG_NOT_APPLICABLE, FLAG_PLAIN, FLAG_PASSED_OVER, FLAG_TARGET = "x", "0", "1", "2"


class PlannedBudget(msgspec.Struct, frozen=True, gc=False):
    """A budget and the number of the cell it reads."""

    budget: Budget
    cell: int


class CheckPlan(msgspec.Struct, frozen=True, gc=False):
    """Cells, budgets and candidate models of a kind of call; `flags` and `holds` have one string per candidate."""

    tenant: str
    cells: tuple[tuple[CellFamily, str], ...]  # family and scope key
    budgets: tuple[PlannedBudget, ...]
    candidates: tuple[str, ...]  # the requested model, then its downgrade chain
    flags: tuple[str, ...]  # per budget: see check.lua
    holds: tuple[str, ...]  # per cell: '1' = a call served by this candidate holds there


class DatedPlan(msgspec.Struct, frozen=True, gc=False):
    """A plan in the periods of one instant. Valid until the first of them ends."""

    plan: CheckPlan
    cells: tuple[Cell, ...]
    limits_nano_usd: tuple[int, ...]  # per budget
    valid_from_s: int
    valid_until_s: int
    script_plan: bytes  # the part of check.lua's arguments that is the same for every call, in MessagePack

    def valid_at(self, instant_s: float) -> bool:
        """Whether the instant lies in all of the plan's periods."""
        return self.valid_from_s <= instant_s < self.valid_until_s


def build_plan(
    index: BudgetIndex, tenant: str, scopes: Mapping[str, str], model: str, resolve: ResolveTarget
) -> CheckPlan:
    """The plan of a call. Downgrades chain: a rule's target may itself be downgraded by another rule."""
    candidates = [model]
    matched: dict[tuple[str, str], tuple[Budget, str]] = {}  # by budget and key
    applicable: list[set[tuple[str, str]]] = []
    for candidate in candidates:  # grows while we walk it
        mine: set[tuple[str, str]] = set()
        for scope_type, scope_key in with_implicit_scopes(tenant, scopes, candidate).items():
            for budget in index.matching(tenant, scope_type, scope_key):
                matched[budget.id, scope_key] = (budget, scope_key)
                mine.add((budget.id, scope_key))
                target = _target(budget, candidate, resolve)
                if target is not None and target not in candidates:
                    candidates.append(target)
        applicable.append(mine)

    cells: dict[tuple[CellFamily, str], int] = {}
    budgets = []
    for budget, scope_key in matched.values():
        cell = cells.setdefault((family_of(budget), scope_key), len(cells))
        budgets.append(PlannedBudget(budget, cell))
    flags, holds = [], []
    for number, (candidate, mine) in enumerate(zip(candidates, applicable, strict=True)):
        later = candidates[number + 1 :]
        flags.append(
            "".join(
                _flag(budget, candidate, later, index, resolve) if (budget.id, key) in mine else FLAG_NOT_APPLICABLE
                for budget, key in matched.values()
            )
        )
        held = {cells[family_of(matched[name][0]), name[1]] for name in mine}
        holds.append("".join("1" if cell in held else "0" for cell in range(len(cells))))
    return CheckPlan(tenant, tuple(cells), tuple(budgets), tuple(candidates), tuple(flags), tuple(holds))


def date_plan(plan: CheckPlan, index: BudgetIndex, instant_s: float) -> DatedPlan:
    """The plan in the periods that contain the instant, with limits in USD."""
    cells = tuple(
        cell_at(family, scope_key, period_at(family.period, family.zone, instant_s)) for family, scope_key in plan.cells
    )
    limits = tuple(
        limit_nano_usd(planned.budget, cells[planned.cell].period.start_s, index.config) for planned in plan.budgets
    )
    valid_from_s = max((cell.period.start_s for cell in cells), default=0)
    valid_until_s = min((cell.period.end_s for cell in cells), default=2**40)
    cell_args = [(expire_at_ms(cell), index.idle_ms(plan.tenant, cell)) for cell in cells]
    budget_args = [_budget_args(planned, limit) for planned, limit in zip(plan.budgets, limits, strict=True)]
    candidate_args = list(zip(plan.flags, plan.holds, strict=True))
    script_plan = msgspec.msgpack.encode(
        (cell_args, budget_args, candidate_args, valid_from_s * 1000, valid_until_s * 1000)
    )
    return DatedPlan(plan, cells, limits, valid_from_s, valid_until_s, script_plan)


def for_scopes(dated: DatedPlan, scopes: Mapping[str, str]) -> DatedPlan:
    """The plan made for one call, for another with the same scope types and other keys."""
    cells = tuple(
        cell
        if cell.family.scope_type in IMPLICIT_TYPES
        else cell_at(cell.family, scopes[cell.family.scope_type], cell.period)
        for cell in dated.cells
    )
    plan = replace(dated.plan, cells=tuple((cell.family, cell.scope_key) for cell in cells))
    return replace(dated, plan=plan, cells=cells)


def _budget_args(planned: PlannedBudget, limit_nano_usd: int) -> tuple[int | str, ...]:
    """A budget as check.lua reads it. Dollars and nanos apart: a Lua number holds neither whole beyond $9 million."""
    budget = planned.budget
    stop = divmod(limit_nano_usd * budget.stop_ppm // PPM, NANO_PER_USD)
    degrade = divmod(limit_nano_usd * budget.degrade_ppm // PPM, NANO_PER_USD)
    args = (planned.cell + 1, *stop, *degrade, budget.on_stop, f"fam:{budget_family(budget).id}")
    return (*args, carry_field(budget), budget.stop_ppm, budget.degrade_ppm) if budget.rollover else args


def carry_field(budget: Budget) -> str:
    """The field of a cell that holds what a rollover budget carried into the period."""
    return f"carry:{budget.id}"


def _target(budget: Budget, model: str, resolve: ResolveTarget) -> str | None:
    """The model this budget's first matching rule serves instead, or None when no rule changes the model."""
    for rule in budget.downgrade:
        if any(fnmatchcase(model, source) for source in rule.sources):
            target = resolve(model, rule.target)
            return None if target == model else target
    return None


def _flag(budget: Budget, candidate: str, later: Sequence[str], index: BudgetIndex, resolve: ResolveTarget) -> str:
    """A candidate is passed over only for a later one: rules in a circle would leave nothing to serve."""
    if _target(budget, candidate, resolve) in later:
        return FLAG_PASSED_OVER
    return FLAG_TARGET if _is_target(budget, candidate, index, resolve) else FLAG_PLAIN


def _is_target(budget: Budget, candidate: str, index: BudgetIndex, resolve: ResolveTarget) -> bool:
    """Whether some call that a rule of the budget matches is served by the candidate, be it by name or as the cheapest.

    A model that no rule leads to must not pass the stop.
    """
    for rule in budget.downgrade:
        if rule.target == candidate:
            return True
        if rule.target == CHEAPEST:
            matched = (m for m in (candidate, *index.config.models) if any(fnmatchcase(m, s) for s in rule.sources))
            if any(resolve(m, CHEAPEST) == candidate for m in matched):
                return True
    return False
