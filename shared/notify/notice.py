"""A notice: something a person should know, as it waits in the outbox, and how far its routes have come. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=3)
UNROUTED_AFTER = timedelta(days=7)  # what no route wanted for so long is forgotten, and the log says so


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one route has come with one notice. Instants are RFC 3339."""

    attempts: int = 0
    first_try_at: str = ""
    next_try_at: str = ""
    sent_at: str = ""
    given_up_at: str = ""
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to try."""
        return bool(self.sent_at or self.given_up_at)

    def is_due(self, now_utc: datetime) -> bool:
        """Whether it is to be tried now."""
        return not self.is_over and (not self.next_try_at or datetime.fromisoformat(self.next_try_at) <= now_utc)

    def sent(self, now_utc: datetime) -> Progress:
        """Delivered."""
        return msgspec.structs.replace(self, attempts=self.attempts + 1, sent_at=now_utc.isoformat(), error="")

    def failed(self, now_utc: datetime, error: str, retry_after_seconds: float | None = None) -> Progress:
        """Not delivered: try again after a wait that doubles, or that the receiver asked; give up after days."""
        attempts = self.attempts + 1
        first = datetime.fromisoformat(self.first_try_at) if self.first_try_at else now_utc
        tried = msgspec.structs.replace(self, attempts=attempts, first_try_at=first.isoformat(), error=error)
        if now_utc - first >= GIVE_UP_AFTER:
            return msgspec.structs.replace(tried, given_up_at=now_utc.isoformat())
        wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 20), LONGEST_WAIT)
        if retry_after_seconds is not None:
            asked = min(retry_after_seconds, LONGEST_WAIT.total_seconds())  # before a timedelta, which can overflow
            wait = max(wait, timedelta(seconds=asked))
        return msgspec.structs.replace(tried, next_try_at=(now_utc + wait).isoformat())


class Notice(msgspec.Struct, frozen=True):
    """One notification that waits to be sent. `id` is its row; `version` guards against two workers at once."""

    id: str
    key: str
    kind: str
    payload: dict[str, Any]
    added_at: str
    progress: Mapping[str, Progress] = msgspec.field(default_factory=dict)  # by destination
    claimed_until: str = ""
    version: str = ""

    @property
    def digest(self) -> str:
        """What names it to receivers: the same for every attempt."""
        return self.id.rpartition("-")[2]

    @property
    def tenant(self) -> str:
        """Whose it is; empty for what concerns the whole installation."""
        return str(self.payload.get("tenant") or "")
