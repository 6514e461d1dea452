"""Threshold notices: once per threshold, from what was spent, never for spend that falls."""

from __future__ import annotations

import time

import pytest

from shared.budgets.cells import Applied, CellFamily, cell_at
from shared.budgets.matching import BudgetIndex
from shared.budgets.periods import period_at
from shared.notify.thresholds import crossed_thresholds
from tests.support.engine import budget, config

CELL = cell_at(CellFamily("team", "month", "UTC"), "t", period_at("month", "UTC", time.time()))


def crossed(before: int, after: int, *budgets) -> list[str]:
    index = BudgetIndex(config(*(budgets or (budget("team:t", 1_000),))))
    return [notice.payload["threshold"] for notice in crossed_thresholds(index, "acme", [Applied(CELL, before, after)])]


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (0, 799, []),
        (0, 800, ["warn"]),
        (799, 800, ["warn"]),
        (800, 899, []),
        (800, 900, ["degrade"]),
        (0, 5_000, ["warn", "degrade", "stop"]),
        (999, 1_000, ["stop"]),
        (1_000, 9_000, []),
    ],
)
def test_each_threshold_is_crossed_where_it_lies(before, after, names):
    """From below to at or above, each on its own."""
    assert crossed(before, after) == names


def test_falling_spend_notifies_nobody():
    """A reset or a correction goes through the thresholds the other way."""
    assert crossed(1_000, 0) == []
    assert crossed(1_000, 1_000) == []


def test_a_limit_of_zero_never_notifies():
    """It is past every threshold from the start, so nothing is ever crossed."""
    assert crossed(0, 10, budget("team:t", 0)) == []


def test_every_budget_on_the_counter_has_its_own_notices():
    """Two limits on one counter, each with its own key."""
    one, other = budget("team:t", 1_000), budget("team:*", 500)
    index = BudgetIndex(config(one, other))
    notices = list(crossed_thresholds(index, "acme", [Applied(CELL, 0, 850)]))
    assert [(n.payload["budget"], n.payload["threshold"]) for n in notices] == [
        (one.id, "warn"),
        *((other.id, name) for name in ("warn", "degrade", "stop")),
    ]
    assert len({n.key for n in notices}) == 4


def test_a_notice_has_a_stable_key_until_the_limit_changes():
    """The key names budget, period, threshold and limit: a redelivery repeats it, a raised limit may notify again."""

    def key(limit: int) -> str:
        spec = budget("team:t", limit)
        [notice] = crossed_thresholds(BudgetIndex(config(spec)), "acme", [Applied(CELL, 0, limit * 8 // 10)])
        return notice.key

    assert key(1_000) == key(1_000)
    assert key(1_000) != key(2_000)


def test_a_counter_without_a_budget_notifies_nobody():
    """Its budget may have gone since."""
    assert crossed(0, 10**12, budget("user:*", 1)) == []
