"""What a budget would have done to past calls: its rules of admission, replayed over sums of them. Pure.

A quarter hour's calls of one kind are taken as equal. Where a threshold lies among them they are split in whole calls,
so the answer is exact to one average call. Nothing is held in a replay: a call is charged before the next is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from shared.budgets.matching import BudgetIndex, limit_nano_usd
from shared.budgets.periods import Period, period_at
from shared.budgets.plan import CheckPlan, ResolveTarget, build_plan
from shared.budgets.rollover import carry_nano_usd
from shared.budgets.rules import BudgetFigures, Candidate, decide
from shared.config.model import Budget, Config
from shared.errors import InvalidRequest

MAX_SCOPES = 20_000
MAX_CROSSINGS = 1_000
_THRESHOLDS = ("warn", "degrade", "stop")


class Demand(NamedTuple):
    """Calls of one quarter hour, scope key and requested model."""

    quarter_s: int  # Unix seconds at which the quarter hour began
    scope_key: str
    model: str  # requested
    calls: int  # 0: only an amount, such as a correction, that moves the counter
    cost_nano_usd: int  # at the requested model's price
    tokens: Mapping[str, int]
    measured_calls: int  # those the tokens are of; refused ones have none


Costs = Callable[[Demand, str], int]
"""What the calls of a demand would have cost in nano-USD had another model served them."""


class Outcome(msgspec.Struct):
    """Sums of what would have happened; amounts in nano-USD."""

    calls: int = 0
    cost_nano_usd: int = 0  # as requested
    served_nano_usd: int = 0
    downgraded_calls: int = 0
    saved_nano_usd: int = 0
    refused_calls: int = 0
    refused_nano_usd: int = 0

    def add(self, other: Outcome) -> None:
        """Add another's sums."""
        self.calls += other.calls
        self.cost_nano_usd += other.cost_nano_usd
        self.served_nano_usd += other.served_nano_usd
        self.downgraded_calls += other.downgraded_calls
        self.saved_nano_usd += other.saved_nano_usd
        self.refused_calls += other.refused_calls
        self.refused_nano_usd += other.refused_nano_usd


class Crossing(NamedTuple):
    """The first quarter hour of a period in which a scope passed a threshold."""

    scope: str
    period: str
    threshold: str
    quarter_s: int


class _Counter(msgspec.Struct):
    """One scope's running period."""

    period: Period
    limit_nano_usd: int
    carry_nano_usd: int = 0
    spent_nano_usd: int = 0


class Replay:
    """Replays demands, in time order, against one budget. Holds one counter per scope key."""

    def __init__(self, config: Config, tenant: str, budget: Budget, resolve: ResolveTarget, costs: Costs) -> None:
        self.budget = budget
        self.by_day: dict[str, Outcome] = {}  # local day in the budget's zone
        self.by_scope: dict[str, Outcome] = {}
        self.crossings: list[Crossing] = []
        self._config = config
        self._tenant = tenant
        self._resolve = resolve
        self._costs = costs
        self._index = BudgetIndex(msgspec.structs.replace(config, budgets=(budget,)))
        self._plans: dict[str, CheckPlan] = {}
        self._counters: dict[str, _Counter] = {}

    def take(self, demand: Demand, *, counts: bool = True) -> None:
        """Replay one demand. `counts` False: it only moves counters, being before the span that is asked about."""
        counter = self._counter(demand.scope_key, demand.quarter_s)
        outcome = Outcome(demand.calls, demand.cost_nano_usd)
        if demand.calls <= 0:
            outcome.calls = 0
            outcome.served_nano_usd = demand.cost_nano_usd
            self._charge(demand.scope_key, counter, demand, demand.cost_nano_usd, counts=counts)
        else:
            self._serve(demand, outcome, counts=counts)
        if counts:
            day = period_at("day", self.budget.timezone, demand.quarter_s).label
            self.by_day.setdefault(day, Outcome()).add(outcome)
            self.by_scope.setdefault(demand.scope_key, Outcome()).add(outcome)

    def total(self) -> Outcome:
        """All days together."""
        total = Outcome()
        for outcome in self.by_day.values():
            total.add(outcome)
        return total

    def _serve(self, demand: Demand, outcome: Outcome, *, counts: bool) -> None:
        plan = self._plan(demand)
        keys = [demand.scope_key if family_key == _ANY else family_key for _, family_key in plan.cells]
        counters = [self._counter(key, demand.quarter_s) for key in keys]
        if demand.cost_nano_usd >= 0 and all(self._has_room(each, demand.cost_nano_usd) for each in counters):
            outcome.served_nano_usd = demand.cost_nano_usd
            for key, counter, holds in zip(keys, counters, plan.holds[0], strict=True):
                if holds == "1":
                    self._charge(key, counter, demand, demand.cost_nano_usd, counts=counts)
            return
        costs = [
            demand.cost_nano_usd if model == demand.model else self._costs(demand, model) for model in plan.candidates
        ]
        candidates = [
            Candidate(model, cost // demand.calls, flags)
            for model, cost, flags in zip(plan.candidates, costs, plan.flags, strict=True)
        ]
        done = 0
        while done < demand.calls:
            figures = [self._figures(counters[planned.cell]) for planned in plan.budgets]
            verdict = decide(figures, candidates)
            if verdict.outcome != "ok":
                outcome.refused_calls += demand.calls - done
                outcome.refused_nano_usd += _part(demand.cost_nano_usd, done, demand.calls, demand.calls)
                return
            chosen = verdict.candidate
            until = min(demand.calls, done + _calls_alike(figures, candidates[chosen].estimate_nano_usd))
            cost = _part(costs[chosen], done, until, demand.calls)
            outcome.served_nano_usd += cost
            if chosen:
                outcome.downgraded_calls += until - done
                outcome.saved_nano_usd += _part(demand.cost_nano_usd, done, until, demand.calls) - cost
            for key, counter, holds in zip(keys, counters, plan.holds[chosen], strict=True):
                if holds == "1":
                    self._charge(key, counter, demand, cost, counts=counts)
            done = until

    def _has_room(self, counter: _Counter, cost_nano_usd: int) -> bool:
        """Whether the calls together reach no threshold that decides anything: most quarter hours do not."""
        figures = self._figures(counter)
        ppm = min(self.budget.degrade_ppm, self.budget.stop_ppm)
        return counter.spent_nano_usd + cost_nano_usd < figures.threshold_nano_usd(ppm)

    def _plan(self, demand: Demand) -> CheckPlan:
        """The plan of such a call. Keys decide nothing but the counter, so one plan serves all keys."""
        plan = self._plans.get(demand.model)
        if plan is None:
            key = _ANY if self.budget.scope_key == "*" else self.budget.scope_key
            scopes = {self.budget.scope_type: key}
            plan = build_plan(self._index, self._tenant, scopes, demand.model, self._resolve)
            self._plans[demand.model] = plan
        return plan

    def _counter(self, scope_key: str, at_s: int) -> _Counter:
        """The scope's counter in the period of the instant, begun anew when that is another one."""
        counter = self._counters.get(scope_key)
        if counter is not None and counter.period.contains(at_s):
            return counter
        if counter is None and len(self._counters) >= MAX_SCOPES:
            message = f"budget.scope: more than {MAX_SCOPES} keys used it; name one key"
            raise InvalidRequest(message, param="budget.scope")
        period = period_at(self.budget.period, self.budget.timezone, at_s)
        carry = 0
        if counter is not None and self.budget.rollover and counter.period.end_s == period.start_s:
            carry = carry_nano_usd(self.budget, counter.limit_nano_usd, counter.carry_nano_usd, counter.spent_nano_usd)
        fresh = _Counter(period, limit_nano_usd(self.budget, period.start_s, self._config), carry)
        self._counters[scope_key] = fresh
        return fresh

    def _figures(self, counter: _Counter) -> BudgetFigures:
        return BudgetFigures(self.budget, counter.limit_nano_usd, counter.spent_nano_usd, 0, counter.carry_nano_usd)

    def _charge(self, key: str, counter: _Counter, demand: Demand, cost_nano_usd: int, *, counts: bool) -> None:
        before = self._figures(counter)
        counter.spent_nano_usd += cost_nano_usd
        if not counts or len(self.crossings) >= MAX_CROSSINGS:
            return
        budget = self.budget
        for name, ppm in zip(_THRESHOLDS, (budget.warn_ppm, budget.degrade_ppm, budget.stop_ppm), strict=True):
            if before.spent_nano_usd < before.threshold_nano_usd(ppm) <= counter.spent_nano_usd:
                crossing = Crossing(f"{budget.scope_type}:{key}", counter.period.label, name, demand.quarter_s)
                if not any(crossing[:3] == known[:3] for known in self.crossings):  # a correction may take it back
                    self.crossings.append(crossing)


_ANY = "\x00any"  # stands for whatever key a call has; no scope key holds a control character


def _calls_alike(figures: list[BudgetFigures], estimate_nano_usd: int) -> int:
    """How many equal calls are decided alike before a threshold may change that; at least one."""
    if estimate_nano_usd <= 0:
        return 2**62
    alike = 2**62
    for row in figures:
        to_degrade = row.threshold_nano_usd(row.budget.degrade_ppm) - row.spent_nano_usd
        to_stop = row.threshold_nano_usd(row.budget.stop_ppm) - row.spent_nano_usd
        if to_degrade > 0:
            alike = min(alike, -(-to_degrade // estimate_nano_usd))
        if to_stop > 0:
            alike = min(alike, to_stop // estimate_nano_usd)
    return max(1, alike)


def _part(whole: int, start: int, stop: int, of: int) -> int:
    """The share of the calls from start to stop; the shares of all stretches sum to the whole."""
    return whole * stop // of - whole * start // of
