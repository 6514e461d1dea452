"""Notices of dead letters: one per code and day, with how many there were when it was written."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from shared.ledger.deadletters import DeadLetters
from shared.notify.outbox import Outbox

KIND = "dead_letters"
_SHOWN_TENANTS = 5


class DeadLetterNotices:
    """Runs on a timer, some minutes apart, so that a burst is counted as one and ingest waits for nothing."""

    def __init__(self, letters: DeadLetters, outbox: Outbox) -> None:
        self._letters = letters
        self._outbox = outbox

    async def run(self, now_utc: datetime | None = None) -> int:
        """Add a notice of each code that got letters today and has none yet; returns how many were added.

        The count goes on after the notice was written, so the first notice of a code on the next day carries the
        whole count of the day before.
        """
        now_utc = now_utc or datetime.now(UTC)
        day = now_utc.replace(hour=0, minute=0, second=0, microsecond=0)
        counts: dict[str, Counter[str]] = {}
        before: Counter[str] = Counter()
        async for code, tenant, received_utc in self._letters.received_since(day - timedelta(days=1)):
            if received_utc < day:
                before[code] += 1
            else:
                counts.setdefault(code, Counter())[tenant] += 1
        added = 0
        for code, tenants in sorted(counts.items()):
            named = {tenant: count for tenant, count in tenants.most_common(_SHOWN_TENANTS) if tenant}
            payload = {
                "code": code,
                "day": f"{day:%Y-%m-%d}",
                "count": tenants.total(),
                "count_the_day_before": before[code],
                "tenants": named,
            }
            added += await self._outbox.add_once(f"{KIND}|{code}|{payload['day']}", KIND, payload)
        return added
