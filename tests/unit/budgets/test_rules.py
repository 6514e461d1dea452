"""Admission, case by case: every branch of the rules that check.lua repeats atomically."""

from __future__ import annotations

import pytest

from shared.budgets.rules import BudgetFigures, Candidate, Verdict, decide, worst_state
from tests.support.engine import budget

LIMIT = 1_000


def figures(spent: int = 0, held: int = 0, carry: int = 0, **fields) -> BudgetFigures:
    return BudgetFigures(budget("team:t", LIMIT, **fields), LIMIT, spent, held, carry)


def ask(*rows: BudgetFigures, estimate: int = 100, flags: str = "0", known: bool = True) -> Verdict:
    return decide(rows, [Candidate("m", estimate, flags * len(rows), known)])


@pytest.mark.parametrize(
    ("spent", "held", "state"),
    [
        (0, 0, "active"),
        (799, 0, "active"),
        (800, 0, "warned"),
        (400, 400, "warned"),
        (899, 0, "warned"),
        (900, 0, "degraded"),
        (999, 0, "degraded"),
        (1_000, 0, "stopped"),
        (0, 1_000, "stopped"),
        (5_000, 0, "stopped"),
    ],
)
def test_states_start_at_their_thresholds(spent, held, state):
    """80, 90 and 100 % of what is spent and held together."""
    assert figures(spent, held).state == state


def test_a_carry_raises_every_threshold_by_its_fraction():
    """With 1,000 carried into a limit of 1,000, warn stands at 1,600 and stop at 2,000."""
    assert figures(1_599, carry=1_000).state == "active"
    assert figures(1_600, carry=1_000).state == "warned"
    assert figures(1_999, carry=1_000).remaining_nano_usd == 1


def test_remaining_is_never_negative():
    """Past the stop nothing is left, not less than nothing."""
    assert figures(5_000).remaining_nano_usd == 0


def test_a_stop_over_the_limit_leaves_room():
    """stop: 1.2 admits up to 1,200."""
    assert ask(figures(1_050, stop_ppm=1_200_000)).outcome == "ok"
    assert ask(figures(1_101, stop_ppm=1_200_000)).outcome == "exhausted"


@pytest.mark.parametrize(("spent", "outcome"), [(900, "ok"), (901, "exhausted"), (1_000, "exhausted")])
def test_an_estimate_must_fit_what_is_left(spent, outcome):
    """100 fit into the last 100 exactly; one nano more does not."""
    assert ask(figures(spent)).outcome == outcome


@pytest.mark.parametrize(("held", "outcome"), [(400, "ok"), (401, "reserved"), (500, "reserved")])
def test_what_only_holds_fill_is_reserved(held, outcome):
    """Retrying helps then, and only then."""
    assert ask(figures(500, held)).outcome == outcome


def test_a_budget_at_its_stop_refuses_even_a_free_call():
    """An estimate of 0 is no ticket past the stop."""
    assert ask(figures(1_000), estimate=0).outcome == "exhausted"
    assert ask(figures(999, 1), estimate=0).outcome == "reserved"
    assert ask(figures(999), estimate=0).outcome == "ok"


def test_a_limit_of_zero_admits_nothing():
    """limit: 0 blocks a scope."""
    assert decide([BudgetFigures(budget("team:t", 0), 0, 0, 0)], [Candidate("m", 0, "0")]).outcome == "exhausted"


def test_what_was_granted_makes_room():
    """Spend below zero, after a reset, is room on top of the limit."""
    assert ask(figures(-500), estimate=1_500).outcome == "ok"
    assert ask(figures(-500), estimate=1_501).outcome == "exhausted"


def test_the_most_restrictive_budget_refuses_and_is_named():
    """All must fit; the worst verdict names the binding one, the first of equals."""
    assert ask(figures(0), figures(950), figures(0, 950)) == Verdict("exhausted", 0, 1)
    assert ask(figures(0, 950), figures(0, 950)) == Verdict("reserved", 0, 0)


def test_a_budget_that_does_not_apply_has_no_say():
    """x: a model budget and a call that another model serves."""
    assert decide([figures(5_000), figures(0)], [Candidate("m", 100, "x0")]).outcome == "ok"


def test_once_degraded_the_next_candidate_is_taken():
    """At 90 % the flagged model is passed over, before that it is served."""
    candidates = [Candidate("big", 50, "1"), Candidate("small", 5, "2")]
    assert decide([figures(899)], candidates) == Verdict("ok", 0, -1)
    assert decide([figures(900)], candidates) == Verdict("ok", 1, -1)
    assert decide([figures(0, 900)], candidates) == Verdict("ok", 1, -1)


def test_a_cheaper_candidate_may_fit_where_the_dear_one_does_not():
    """A call that would pass the stop is served cheaper before it is refused, even below the degrade threshold."""
    candidates = [Candidate("big", 500, "1"), Candidate("small", 5, "2")]
    assert decide([figures(800)], candidates) == Verdict("ok", 1, -1)


def test_on_stop_allow_never_refuses():
    """Alert only: whatever is spent, the call passes."""
    assert ask(figures(5_000, on_stop="allow")).outcome == "ok"


def test_on_stop_allow_still_downgrades():
    """It lets pass, on the model its rules say."""
    candidates = [Candidate("big", 50, "1"), Candidate("small", 5, "2")]
    assert decide([figures(5_000, on_stop="allow")], candidates).candidate == 1


@pytest.mark.parametrize(("flag", "outcome"), [("2", "ok"), ("0", "exhausted")])
def test_on_stop_downgrade_lets_only_targets_pass(flag, outcome):
    """Past the stop the cheap model is served, any other refused."""
    assert ask(figures(5_000, on_stop="downgrade"), flags=flag).outcome == outcome


def test_another_budget_may_still_refuse_the_target():
    """on_stop: downgrade of one budget does not open another."""
    rows = [figures(5_000, on_stop="downgrade"), figures(5_000)]
    assert decide(rows, [Candidate("small", 5, "20")]) == Verdict("exhausted", 0, 1)


def test_if_any_candidate_waits_only_for_holds_the_answer_is_to_retry():
    """reserved beats exhausted, and binds where the holds are."""
    rows = [figures(950), figures(0, 999)]
    candidates = [Candidate("big", 100, "00"), Candidate("small", 10, "00")]
    assert decide(rows, candidates) == Verdict("reserved", 0, 1)


def test_a_refusal_always_names_a_budget():
    """Being passed over is no reason to refuse; what refuses is the candidate that came last."""
    candidates = [Candidate("big", 50, "1"), Candidate("small", 200, "0")]
    assert decide([figures(950)], candidates) == Verdict("exhausted", 0, 0)


def test_unlearned_calls_together_hold_at_most_a_quarter():
    """An estimate nobody has learned may be several times too low; one alone may always try."""
    assert ask(figures(0, 0), known=False, estimate=900).outcome == "ok"
    assert ask(figures(0, 150), known=False).outcome == "ok"
    assert ask(figures(0, 151), known=False).outcome == "reserved"
    assert ask(figures(0, 151), known=True).outcome == "ok"


def test_without_budgets_every_call_is_allowed():
    """Nothing refuses."""
    assert decide([], [Candidate("m", 10**18, "")]) == Verdict("ok", 0, -1)


def test_the_worst_state_wins():
    """active < warned < degraded < stopped."""
    assert worst_state(["warned", "stopped", "degraded"]) == "stopped"
    assert worst_state(["active", "warned"]) == "warned"
    assert worst_state([]) == "active"
