"""Instants as stores, hubs and answers spell them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_ms(instant: datetime) -> int:
    """Whole milliseconds since 1970, exactly: a float of seconds would be off by one now and then."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(instant: datetime, timespec: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """`2026-11-21T10:00:00.123Z`."""
    return instant.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
