"""Ledger rows for tests."""

from datetime import UTC, datetime
from typing import Any

from shared.ledger.row import LedgerRow, Position

STREAM = "ns/usage/0"
TEN = datetime(2026, 11, 21, 10, tzinfo=UTC)


def position(number: int, stream: str = STREAM) -> Position:
    """The place of the event with this number, one millisecond after the other."""
    return Position(stream, 1_763_700_000_000 + number, number)


def usage(number: int, **changes: Any) -> LedgerRow:
    """The row of call `number`: 1 micro-USD plus `number` nano-USD, admitted at ten o'clock unless changed."""
    values: dict[str, Any] = {
        "tenant": "contoso",
        "source": "apim/test",
        "id": f"call-{number}",
        "kind": "usage",
        "time_utc": TEN,
        "scopes": {"team": "search", "user": "u-1"},
        "position": position(number),
        "content_digest": f"digest-{number}",
        "charge_nano_usd": 1_000 + number,
        "cost_nano_usd": 1_000 + number,
        "tokens": {"input": 10, "output": 5},
        "lines_nano_usd": {"input": 1_000, "output": number},
        "price_id": "book/gpt-4o",
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": "gpt-4o",
        "model": "gpt-4o-mini",
        "deployment": "gpt-4o-mini-weu",
        "region": "westeurope",
        "decision": "downgrade",
        "latency_ms": 930,
        "booked_period": "2026-11",
    }
    return LedgerRow(**values | changes)
