"""Metrics made from the log records of numbers, so that workbook and metrics can never say different things.

A record of a batch becomes a few additions; nothing is computed per call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter


class Figure(NamedTuple):
    """One instrument. `up_down`: sums that a reversal can lower; `gauge`: the last value counts."""

    name: str
    unit: str
    kind: str
    record: str  # the log record it is read from
    field: str
    labels: tuple[str, ...]
    description: str


_CALL = ("tenant", "team", "model", "provider", "decision")
_REFUSED = ("tenant", "team", "model", "reason")
_BUDGET = ("tenant", "budget", "scope", "period")
FIGURES = (
    Figure("tollkeeper.calls", "{call}", "up_down", "usage_billed", "calls", _CALL, "Billed calls"),
    Figure("tollkeeper.calls.failed", "{call}", "up_down", "usage_billed", "failed_calls", _CALL, "Of them failed"),
    Figure(
        "tollkeeper.calls.unpriced", "{call}", "up_down", "usage_billed", "unpriced_calls", _CALL, "Without a price"
    ),
    Figure("tollkeeper.calls.estimated", "{call}", "up_down", "usage_billed", "estimated_calls", _CALL, "Not measured"),
    Figure("tollkeeper.cost", "USD", "up_down", "usage_billed", "cost_usd", _CALL, "Cost of billed calls"),
    Figure("tollkeeper.saved", "USD", "up_down", "usage_billed", "saved_usd", _CALL, "Saved by downgrades"),
    Figure("tollkeeper.latency", "ms", "up_down", "usage_billed", "latency_ms", _CALL, "Sum of the calls' latencies"),
    Figure("tollkeeper.calls.refused", "{call}", "count", "call_refused", "", _REFUSED, "Refused checks"),
    Figure("tollkeeper.cost.refused", "USD", "up_down", "call_refused", "estimate_usd", _REFUSED, "Their estimates"),
    Figure("tollkeeper.dead_letters", "{event}", "count", "dead_letter", "", ("code",), "Events not billed"),
    Figure("tollkeeper.ingest.lag", "s", "gauge", "ingest_lag", "lag_seconds", (), "How far ingest is behind"),
    Figure("tollkeeper.budget.spent", "USD", "gauge", "budget_standing", "spent", _BUDGET, "Spent of a budget"),
    Figure("tollkeeper.budget.reserved", "USD", "gauge", "budget_standing", "reserved", _BUDGET, "Held by calls"),
    Figure("tollkeeper.budget.limit", "USD", "gauge", "budget_standing", "limit", _BUDGET, "Limit of a budget"),
)
_TOKENS = "tollkeeper.tokens"
_TOKEN_FIELD = "_tokens"  # noqa: S105 - a field's ending


class RecordMetrics(logging.Handler):
    """Turns records into metrics as they are logged."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(logging.INFO)
        self._by_record: dict[str, list[tuple[Figure, Any]]] = {}
        for figure in FIGURES:
            self._by_record.setdefault(figure.record, []).append((figure, _instrument(meter, figure)))
        self._tokens = meter.create_up_down_counter(_TOKENS, "{token}", "Tokens of billed calls by kind")

    def emit(self, record: logging.LogRecord) -> None:
        """Add what the record says; a record that is none of ours says nothing."""
        figures = self._by_record.get(str(record.msg))
        if figures is None:
            return
        fields = vars(record)
        for figure, instrument in figures:
            value = _value(fields, figure.field)
            if value is None:
                continue
            labels = {f"tollkeeper.{name}": str(fields.get(name, "")) for name in figure.labels}
            if figure.kind == "gauge":
                instrument.set(value, labels)
            elif value:
                instrument.add(value, labels)
        if record.msg == "usage_billed":
            self._add_tokens(fields)

    def _add_tokens(self, fields: Mapping[str, Any]) -> None:
        labels = {f"tollkeeper.{name}": str(fields.get(name, "")) for name in _CALL}
        for name, count in fields.items():
            if name.endswith(_TOKEN_FIELD) and isinstance(count, int) and count:
                self._tokens.add(count, {**labels, "tollkeeper.token.kind": name.removesuffix(_TOKEN_FIELD)})


def _instrument(meter: Meter, figure: Figure) -> Any:
    if figure.kind == "gauge":
        return meter.create_gauge(figure.name, figure.unit, figure.description)
    create = meter.create_counter if figure.kind == "count" else meter.create_up_down_counter
    return create(figure.name, figure.unit, figure.description)


def _value(fields: Mapping[str, Any], name: str) -> float | int | None:
    """A field as a number: counts as they are, amounts as the nearest fraction, which display needs and sums do not."""
    if not name:
        return 1
    value = fields.get(name)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None
