"""The product's own log records: what workbook and alerts read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(records: Iterable[logging.LogRecord], message: str) -> list[dict[str, Any]]:
    """The fields of every record of that name, in order."""
    return [
        {name: value for name, value in vars(record).items() if name not in STANDARD}
        for record in records
        if record.getMessage() == message and record.name.startswith("tollkeeper.")
    ]


_USAGE_KINDS = ("input", "cached_input", "output", "reasoning")
FIELDS: dict[str, set[str]] = {
    "usage_billed": {
        *("tenant", "team", "model", "requested_model", "decision", "provider", "day"),
        *("calls", "failed_calls", "estimated_calls", "unpriced_calls", "held_calls", "cost_usd", "estimated_cost_usd"),
        *("saved_usd", "saved_calls", "latency_ms", "latencies", "lag_seconds"),
        *(f"{kind}_tokens" for kind in _USAGE_KINDS),
    },
    "budget_standing": {
        *("tenant", "budget", "scope", "period", "state", "limit", "spent", "reserved", "remaining"),
    },
    "threshold_crossed": {"tenant", "budget", "scope", "period", "threshold", "spent", "limit"},
    "call_refused": {"tenant", "team", "model", "reason", "scope", "estimate_usd"},
    "ingest_lag": {"lag_seconds"},
    "dead_letter": {"code", "stream"},
    "counters_drifted": {"tenant", "reason", "cells", "off", "drift", "drift_nano_usd", "seconds"},
    "streams_unmeasured": {"tenant", "unmeasured", "aborted"},
    "streams_unreported": {"unreported"},
    "events_backlog": {"events", "spool_bytes", "error"},
    "notice_given_up": {"notice", "kind", "route", "attempts", "reason"},
}
"""The fields of every record that a query reads. One test holds them against what the code writes, another against what
the queries read."""
