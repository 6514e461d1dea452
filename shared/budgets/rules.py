"""The rules of admission, pure. check.lua applies the same ones atomically; a test holds the two against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from shared.budgets.plan import FLAG_NOT_APPLICABLE, FLAG_PASSED_OVER, FLAG_TARGET
from shared.config.model import Budget
from shared.ppm import PPM

State = Literal["active", "warned", "degraded", "stopped"]
Outcome = Literal["ok", "reserved", "exhausted"]
STATES: tuple[State, ...] = get_args(State)  # the more severe, the later


class BudgetFigures(msgspec.Struct, frozen=True):
    """A budget beside what its counter says now. All amounts in nano-USD."""

    budget: Budget
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    carry_nano_usd: int = 0

    def threshold_nano_usd(self, ppm: int) -> int:
        """A fraction of the limit, with the same fraction of the carry on top."""
        threshold = self.limit_nano_usd * ppm // PPM
        return threshold + self.carry_nano_usd * ppm // PPM if self.carry_nano_usd else threshold

    @property
    def used_nano_usd(self) -> int:
        """Spent and reserved."""
        return self.spent_nano_usd + self.held_nano_usd

    @property
    def remaining_nano_usd(self) -> int:
        """What may still be spent before the stop, never below zero."""
        return max(0, self.threshold_nano_usd(self.budget.stop_ppm) - self.used_nano_usd)

    @property
    def state(self) -> State:
        """Derived at each look from spent and reserved, never stored: it can neither flap nor go stale."""
        used = self.used_nano_usd
        if used < self.threshold_nano_usd(self.budget.warn_ppm):  # the thresholds are in order; most calls end here
            return "active"
        if used < self.threshold_nano_usd(self.budget.degrade_ppm):
            return "warned"
        return "degraded" if used < self.threshold_nano_usd(self.budget.stop_ppm) else "stopped"


class Candidate(msgspec.Struct, frozen=True):
    """A model a call may be served by, with its estimate and one flag per budget."""

    model: str
    estimate_nano_usd: int
    flags: str
    estimate_known: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """The outcome, the chosen candidate's number, and the number of the budget that refused (-1: none)."""

    outcome: Outcome
    candidate: int
    binding: int


def worst_state(states: Sequence[State]) -> State:
    """The most severe of the states; active when there is none."""
    return max(states, key=STATES.index, default="active")


def decide(figures: Sequence[BudgetFigures], candidates: Sequence[Candidate]) -> Verdict:
    """Take the first candidate that fits every budget.

    `exhausted`: what is spent alone is in the way. `reserved`: for some candidate only calls in flight are in the
    way, so retrying shortly helps.
    """
    outcome: Outcome = "exhausted"
    binding = -1
    for number, candidate in enumerate(candidates):
        worst, worst_budget = 0, -1
        for i, (row, flag) in enumerate(zip(figures, candidate.flags, strict=True)):
            verdict = 0 if flag == FLAG_NOT_APPLICABLE else _verdict(row, flag, candidate)
            if verdict > worst:
                worst, worst_budget = verdict, i
        if worst == _FITS:
            return Verdict("ok", number, -1)
        if worst > _PASSED_OVER and (binding < 0 or worst == _IN_FLIGHT):
            binding = worst_budget
        if worst == _IN_FLIGHT:
            outcome = "reserved"
    return Verdict(outcome, 0, binding)


_FITS, _PASSED_OVER, _IN_FLIGHT, _SPENT = range(4)


def _verdict(row: BudgetFigures, flag: str, candidate: Candidate) -> int:
    stop = row.threshold_nano_usd(row.budget.stop_ppm)
    if flag == FLAG_PASSED_OVER and row.used_nano_usd >= row.threshold_nano_usd(row.budget.degrade_ppm):
        return _PASSED_OVER
    if row.budget.on_stop == "allow" or (row.budget.on_stop == "downgrade" and flag == FLAG_TARGET):
        return _FITS
    if row.spent_nano_usd >= stop or row.spent_nano_usd + candidate.estimate_nano_usd > stop:
        return _SPENT
    if row.used_nano_usd >= stop or row.used_nano_usd + candidate.estimate_nano_usd > stop:
        return _IN_FLIGHT
    unproven = not candidate.estimate_known and row.held_nano_usd > 0
    if unproven and (row.held_nano_usd + candidate.estimate_nano_usd) * 4 > stop - row.spent_nano_usd:
        return _IN_FLIGHT
    return _FITS
