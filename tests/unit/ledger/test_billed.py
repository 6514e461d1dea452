"""What a batch billed, as log records: sums per kind of call, and nothing that names a person."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from shared.ledger.billed import billed, latency_bucket
from shared.ledger.row import LedgerRow
from tests.ledger_rows import TEN, position, usage

NOW_MS = position(0).enqueued_ms + 2_500


def records(*rows: LedgerRow, held: bool = True) -> list[dict[str, Any]]:
    return billed([(row, held) for row in rows], NOW_MS)


def test_calls_of_one_kind_are_one_record() -> None:
    """Their numbers are summed, amounts exactly: 1,001 and 1,002 nano-USD."""
    (record,) = records(usage(1), usage(2))
    assert (record["calls"], record["held_calls"], record["failed_calls"]) == (2, 2, 0)
    assert (record["input_tokens"], record["output_tokens"]) == (20, 10)
    assert record["cost_usd"] == "0.000002003"
    assert (record["latency_ms"], record["latencies"]) == (1_860, '{"1024":2}')


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "fabrikam"},
        {"scopes": {"team": "support"}},
        {"model": "gpt-4o"},
        {"requested_model": "gpt-4.1"},
        {"decision": "allow"},
        {"provider": "anthropic"},
        {"time_utc": TEN + timedelta(days=1)},
    ],
)
def test_whatever_reports_tell_apart_is_a_record_of_its_own(change: dict[str, Any]) -> None:
    """Tenant, team, both models, decision, provider and the day of the call."""
    assert [record["calls"] for record in records(usage(1), usage(2, **change))] == [1, 1]


def test_no_key_of_a_person_gets_out() -> None:
    """Users, sessions and ids of calls are in the rows and in no record; two users of a team are one record."""
    (record,) = records(
        usage(1, scopes={"team": "search", "user": "alice", "session": "s-1"}),
        usage(2, scopes={"team": "search", "user": "bob", "task": "t-1"}),
    )
    text = json.dumps(record)
    assert not [secret for secret in ("alice", "bob", "s-1", "t-1", "call-", "digest") if secret in text]


def accrual_and_true_up() -> tuple[LedgerRow, LedgerRow, LedgerRow]:
    """A stream at its estimate; and what its log brings: the reversal and the measured row."""
    estimate = {"tokens": {"input": 100, "output": 50}, "cost_nano_usd": 5_000}
    taken_back = {"tokens": {"input": -100, "output": -50}, "cost_nano_usd": -5_000}
    accrual = usage(1, kind="accrual", measured=False, **estimate)
    reversal = usage(2, kind="reversal", measured=False, **taken_back)
    return accrual, reversal, usage(3, kind="true_up", tokens={"input": 100, "output": 80}, cost_nano_usd=8_000)


def test_a_true_up_replaces_the_estimate_and_is_no_second_call() -> None:
    """In one batch or in two the sums are those of one measured call."""
    accrual, reversal, true_up = accrual_and_true_up()
    (together,) = records(accrual, reversal, true_up)
    (first,), (second,) = records(accrual), records(reversal, true_up)
    assert (first["calls"], first["estimated_calls"], first["estimated_cost_usd"]) == (1, 1, "0.000005")
    assert (second["calls"], second["estimated_calls"], second["estimated_cost_usd"]) == (0, -1, "-0.000005")
    assert (second["latency_ms"], second["latencies"]) == (0, "{}")
    assert (together["calls"], together["estimated_calls"], together["estimated_cost_usd"]) == (1, 0, "0.00")
    assert (together["output_tokens"], together["cost_usd"]) == (80, "0.000008")
    assert (together["latency_ms"], together["latencies"]) == (930, '{"1024":1}')


def test_what_downgrades_saved_is_summed_over_the_calls_of_which_it_is_known() -> None:
    """3 + 4 = 7 micro-USD of two calls; of the third nobody knows it, which is not the same as nothing."""
    known = [usage(1, saved_nano_usd=3_000), usage(2, saved_nano_usd=4_000)]
    (record,) = records(*known, usage(3, saved_nano_usd=None))
    assert (record["calls"], record["saved_usd"], record["saved_calls"]) == (3, "0.000007", 2)


def test_a_reversal_takes_back_what_its_accrual_was_said_to_save() -> None:
    """9 by the estimate, less 9, and 2 by the measurement: 2 micro-USD, of one call."""
    accrual, reversal, true_up = accrual_and_true_up()
    accrual.saved_nano_usd, reversal.saved_nano_usd, true_up.saved_nano_usd = 9_000, -9_000, 2_000
    (record,) = records(accrual, reversal, true_up)
    assert (record["saved_usd"], record["saved_calls"]) == ("0.000002", 1)


def test_failed_unpriced_and_unheld_calls_are_counted_apart() -> None:
    """A call without a price adds nothing to the cost, and says so."""
    (record,) = records(
        usage(1),
        usage(2, status=500, tokens={}, cost_nano_usd=0, latency_ms=None),
        usage(3, status=0, tokens={}, cost_nano_usd=0, latency_ms=None),
        usage(4, cost_nano_usd=None, pricing_status="unpriced"),
        held=False,
    )
    assert (record["calls"], record["failed_calls"], record["unpriced_calls"], record["held_calls"]) == (4, 2, 1, 0)
    assert record["cost_usd"] == "0.000001001"


def test_what_is_no_call_is_no_record() -> None:
    """A grant moves a counter, a correction is an amount of the invoice, and a refused call never took place."""
    kinds = ("grant", "correction", "refusal")
    assert records(*(usage(1, kind=kind, cost_nano_usd=0, tokens={}, cell="x") for kind in kinds)) == []


def test_the_lag_is_how_long_the_first_event_waited() -> None:
    """On the hub, before this batch was taken; the rows are in the hub's order."""
    assert [record["lag_seconds"] for record in records(usage(500), usage(900))] == [2.0]
    assert records() == []


@pytest.mark.parametrize("latency_ms", [0, 1, 7, 8, 9, 930, 1_023, 1_024, 59_999, 10**7])
def test_a_latency_bucket_is_at_most_a_quarter_above_the_latency(latency_ms: int) -> None:
    """Its bound is above what is in it, so a percentile never looks better than it is."""
    bound = latency_bucket(latency_ms)
    assert latency_ms < bound <= max(latency_ms + 1, latency_ms * 1.25 + 1)
    assert latency_bucket(bound) > bound
