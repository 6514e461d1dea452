"""Which month books a row, where clocks disagree and storage is slow."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError

from shared.ledger import periods
from shared.ledger.hours import COVER_SECONDS, GRACE_SECONDS
from shared.ledger.periods import REMEMBER_SECONDS, Periods
from shared.ledger.store import LedgerStore
from shared.reports.close import FENCE_SECONDS
from tests.ledger_rows import usage

LAST_MINUTES = datetime(2026, 10, 31, 23, 58, tzinfo=UTC)


class Months:
    """A table in which October is frozen."""

    async def get_entity(self, tenant: str, month: str) -> dict[str, Any]:
        if month != "2026-10":
            raise ResourceNotFoundError
        return {"frozen": True}


class Behind(datetime):
    """The clock of a worker that is two minutes behind: October, that was just closed, still runs there."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return LAST_MINUTES


async def test_a_clock_that_is_behind_books_nothing_into_a_closed_month(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row would be on no statement at all."""
    monkeypatch.setattr(periods, "datetime", Behind)
    booked = Periods(Months())  # type: ignore[arg-type]
    assert await booked.booked("contoso", LAST_MINUTES - timedelta(seconds=1)) == "2026-11"
    assert await booked.booked("contoso", LAST_MINUTES + timedelta(minutes=3)) == "2026-11"


class Slow:
    """Periods and hours on storage that answers late; marks cover a tenth of a second."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def mark(self, hours: set[str]) -> float:
        self.asked.append("mark")
        return time.monotonic() + 0.1

    async def booked(self, tenant: str, time_utc: datetime) -> str:
        self.asked.append("booked")
        await asyncio.sleep(5)
        return "2026-11"


async def test_an_insert_that_knows_its_month_for_long_is_given_up() -> None:
    """What a close waits for bounds the time from booking to insert, however slow the storage in between."""
    slow = Slow()
    store = object.__new__(LedgerStore)
    store.hours = store.periods = slow  # type: ignore[assignment]
    with pytest.raises(TimeoutError):
        await store.insert([usage(1, booked_period="")])
    assert slow.asked == ["mark", "booked"]
    assert REMEMBER_SECONDS + COVER_SECONDS + GRACE_SECONDS < FENCE_SECONDS
