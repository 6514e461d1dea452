"""The answer of a check: body, status and headers of the contract."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.budgets.answer import CheckAnswer, budget_view, header_text, most_restrictive, refusal
from shared.budgets.cells import CellFamily, cell_at
from shared.budgets.periods import period_at
from shared.budgets.rules import BudgetFigures
from shared.instants import rfc3339
from tests.support.engine import budget, usd

NOW = datetime(2026, 11, 21, 10, 0, 0, 123_456, tzinfo=UTC)


def cell(key: str = "search", kind: str = "month"):
    return cell_at(CellFamily("team", kind, "UTC"), key, period_at(kind, "UTC", NOW.timestamp()))


def figures(limit: float = 100, spent: float = 81.2, held: float = 0.5, carry: float = 0) -> BudgetFigures:
    return BudgetFigures(budget("team:search", usd(limit)), usd(limit), usd(spent), usd(held), usd(carry))


def answer(**fields) -> CheckAnswer:
    base = {
        "decision": "allow", "reason": "within_budget", "tenant": "acme", "scopes": {"team": "search"},
        "requested_model": "big", "model": "big",
        "provider": "azure-openai", "deployment": "big-weu", "state": "active", "disabled_tools": [],
        "budget": budget_view(cell(), figures()), "admitted_at_utc": NOW,
    }  # fmt: skip
    return CheckAnswer(**{**base, **fields})


def test_a_budget_is_shown_as_the_contract_says():
    """Decimal strings in USD and the instant of the reset."""
    shown = budget_view(cell(), figures())
    del shown["id"]
    assert shown == {
        "scope": "team:search", "period": "2026-11", "limit": "100.00", "spent": "81.20", "reserved": "0.50",
        "remaining": "18.30", "currency": "USD", "resets_at": "2026-12-01T00:00:00Z",
    }  # fmt: skip


def test_what_was_carried_over_is_part_of_the_limit():
    """100 and 20 carried make 120, of which 81.20 + 0.50 are used."""
    shown = budget_view(cell(), figures(carry=20))
    assert (shown["limit"], shown["remaining"]) == ("120.00", "38.30")


def test_a_total_has_no_reset():
    """null, not the year 10000."""
    assert budget_view(cell(kind="total"), figures())["resets_at"] is None


def test_an_allowed_call_answers_200_with_its_budget_in_headers():
    """State, scope, what remains and when it resets; no model headers, nothing to retry."""
    given = answer(reservation="token")
    assert given.status == 200
    assert given.body["admitted_at"] == "2026-11-21T10:00:00.123Z"
    assert given.body["reservation"] == "token"
    assert given.headers == {
        "x-budget-state": "active", "x-budget-remaining": "18.30", "x-budget-scope": "team:search",
        "x-budget-resets-at": "2026-12-01T00:00:00Z",
    }  # fmt: skip


def test_a_downgrade_names_both_models():
    """The client sees what it asked for and what served it."""
    headers = answer(decision="downgrade", model="small").headers
    assert (headers["x-requested-model"], headers["x-served-model"]) == ("big", "small")


def test_without_a_budget_only_the_state_is_known():
    """A scope nobody limits, or counters that could not be read."""
    assert answer(budget=None).headers == {"x-budget-state": "active"}


def test_a_spent_budget_is_402_and_not_to_be_retried():
    """OpenAI's error object stands beside the contract's fields."""
    error = refusal("exhausted", figures(spent=100), cell(), 402, NOW)
    given = answer(decision="refuse", reason=error.code, state="stopped", error=error)
    assert given.status == 402
    assert given.headers["x-should-retry"] == "false"
    assert "Retry-After" not in given.headers
    assert given.body["error"]["code"] == given.body["reason"] == "budget_exhausted"
    assert "team:search (2026-11)" in given.body["error"]["message"]
    assert "resets at 2026-12-01T00:00:00Z" in given.body["error"]["message"]


def test_a_refusal_says_whether_the_budget_is_spent_or_the_call_too_large():
    """A fresh budget that one call would pass is not spent; what a period carried over counts as limit here too."""
    spent = refusal("exhausted", figures(limit=100, spent=120, carry=20), cell(), 402, NOW)
    assert "is spent: 120.00 USD of 120.00" in str(spent)
    too_large = refusal("exhausted", figures(limit=100, spent=30, held=0, carry=20), cell(), 402, NOW)
    assert "has 90.00 USD of 120.00 left, less than this call is estimated to cost" in str(too_large)
    held = refusal("reserved", figures(limit=100, spent=30, held=85, carry=20), cell(), 402, NOW)
    assert "5.00 USD of 120.00 is free" in str(held)


def test_402_as_429_waits_for_the_reset():
    """Nine days and fourteen hours until December, rounded up to whole seconds; still no retry by itself."""
    error = refusal("exhausted", figures(spent=100), cell(), 429, NOW)
    given = answer(error=error)
    seconds = 9 * 86_400 + 14 * 3_600
    assert (given.status, given.headers["Retry-After"]) == (429, str(seconds))
    assert given.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("kind", "most"), [("total", 31 * 86_400), ("year", 31 * 86_400), ("hour", 3_600)])
def test_nobody_is_told_to_wait_longer_than_a_month(kind, most):
    """A total never resets; some clients would overflow on what is left of a year."""
    error = refusal("exhausted", figures(), cell(kind=kind), 429, NOW)
    assert 1 <= error.retry_after_seconds <= most


def test_a_budget_held_by_calls_in_flight_is_429_soon():
    """Retrying helps: a second, and the client may."""
    given = answer(error=refusal("reserved", figures(), cell(), 402, NOW))
    assert (given.status, given.headers["Retry-After"]) == (429, "1")
    assert "x-should-retry" not in given.headers


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("team:search", "team:search"),
        ("a\r\nSet-Cookie: x", "a%0D%0ASet-Cookie: x"),
        ("ä", "%C3%A4"),
        ("\x00", "%00"),
        ("50%", "50%25"),
        ("😀", "%F0%9F%98%80"),
        (" ", "%20"),
        ("  a b ", "%20%20a b%20"),
        ('{"a": [1]}', '{"a": [1]}'),
    ],
)
def test_header_text_cannot_break_out_of_its_header(text, safe):
    """A caller's own names come back in headers: no line break, no byte beyond printable ASCII."""
    assert header_text(text) == safe
    assert all(32 <= ord(c) < 127 for c in header_text(text))


def test_hostile_scope_keys_and_models_are_safe_in_headers():
    """Through the whole answer."""
    hostile = "x\r\nx-admin: 1"
    given = answer(decision="downgrade", requested_model=hostile, budget=budget_view(cell(hostile), figures()))
    assert not any("\r" in value or "\n" in value for value in given.headers.values())


def test_the_least_remaining_budget_binds():
    """By amount; when amounts tie the larger limit, of which less is left by share."""
    assert most_restrictive([figures(100, 50), figures(100, 90), figures(100, 80)]) == 1
    assert most_restrictive([figures(10, 9, 0), figures(100, 99, 0)]) == 1
    assert most_restrictive([]) is None


def test_observe_mode_reports_beside_the_decision():
    """Only then."""
    assert "observed" not in answer().body
    assert answer(observed={"decision": "refuse"}).body["observed"] == {"decision": "refuse"}


def test_instants_are_utc_to_the_millisecond():
    """As events carry them."""
    assert rfc3339(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
