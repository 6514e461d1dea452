"""What a batch billed, as log records: Azure Monitor cannot query the ledger, so workbook and alerts read these. Pure.

One record per kind of call and batch, never one per call, and numbers only: no key of a user, a session or a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.ledger.rollup import CALLS
from shared.ledger.row import LedgerRow
from shared.money import decimal_from_nano

LogRecord = dict[str, Any]


class _Sum:
    """The calls of one kind. A reversal counts against the accrual it takes back, wherever that was logged."""

    __slots__ = ("calls", "cost", "estimated_calls", "estimated_cost", "failed_calls", "held_calls", "latencies",
                 "latency_ms", "saved", "saved_calls", "tokens", "unpriced_calls")  # fmt: skip

    def __init__(self) -> None:
        self.calls = self.failed_calls = self.estimated_calls = self.unpriced_calls = self.held_calls = 0
        self.cost = self.estimated_cost = self.saved = self.saved_calls = self.latency_ms = 0
        self.tokens: dict[str, int] = {}
        self.latencies: dict[int, int] = {}

    def add(self, row: LedgerRow, held: bool) -> None:
        """One row. This runs for every event: what most rows do not have costs them a look only."""
        sign = -1 if row.kind == "reversal" else 1
        self.calls += sign
        self.held_calls += held
        cost = row.cost_nano_usd
        if cost is None:
            self.unpriced_calls += sign
        else:
            self.cost += cost
        if not row.measured:
            self.estimated_calls += sign
            self.estimated_cost += cost or 0
        if not 0 < row.status < 300:
            self.failed_calls += sign
        tokens = self.tokens
        for kind, count in row.tokens.items():
            tokens[kind] = tokens.get(kind, 0) + count  # negative in a reversal already, as its cost is
        latency_ms = row.latency_ms
        if latency_ms is not None:
            self.latency_ms += sign * latency_ms
            bound = latency_bucket(latency_ms)
            self.latencies[bound] = self.latencies.get(bound, 0) + sign
        saved = row.saved_nano_usd
        if saved is not None:
            self.saved += saved
            self.saved_calls += sign


def billed(rows: Sequence[tuple[LedgerRow, bool]], now_ms: int) -> list[LogRecord]:
    """The fields of one record per tenant, team, models, decision, provider and day of rows that this run inserted.

    The rows are in hub order, each beside whether a reservation stood behind the call. Amounts are decimal strings in
    USD; what is not known, as the cost of unpriced calls or what a downgrade from an unpriced model saved, is left out.
    """
    sums: dict[tuple[Any, ...], _Sum] = {}
    for row, held in rows:
        if row.kind not in CALLS:
            continue
        team, day = row.scopes.get("team", ""), row.time_utc.date()
        kind = (row.tenant, team, row.model, row.requested_model, row.decision, row.provider, day)
        into = sums.get(kind)
        if into is None:
            into = sums[kind] = _Sum()
        into.add(row, held)
    lag_seconds = (now_ms - rows[0][0].position.enqueued_ms) / 1000 if rows else 0
    return [_record(kind, into, lag_seconds) for kind, into in sums.items()]


def latency_bucket(latency_ms: int) -> int:
    """The upper bound of the latency's bucket: four buckets for each doubling, so a percentile is at most 25 % high."""
    shift = max(0, latency_ms.bit_length() - 3)
    return ((latency_ms >> shift) + 1) << shift


def _record(kind: tuple[Any, ...], into: _Sum, lag_seconds: float) -> LogRecord:
    tenant, team, model, requested_model, decision, provider, day = kind
    record: LogRecord = {
        "tenant": tenant,
        "team": team,
        "model": model,
        "requested_model": requested_model,
        "decision": decision,
        "provider": provider,
        "day": day.isoformat(),  # of the calls; the record's own time is when they were billed
        "calls": into.calls,
        "failed_calls": into.failed_calls,
        "estimated_calls": into.estimated_calls,
        "unpriced_calls": into.unpriced_calls,
        "held_calls": into.held_calls,
        "cost_usd": decimal_from_nano(into.cost),
        "estimated_cost_usd": decimal_from_nano(into.estimated_cost),
        "saved_usd": decimal_from_nano(into.saved),
        "saved_calls": into.saved_calls,
        "latency_ms": into.latency_ms,
        # Calls by the upper bound of their bucket.
        "latencies": msgspec.json.encode({bound: calls for bound, calls in into.latencies.items() if calls}).decode(),
        "lag_seconds": lag_seconds,
    }
    record |= {f"{token}_tokens": count for token, count in into.tokens.items()}
    return record
