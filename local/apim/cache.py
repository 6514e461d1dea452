"""The gateway's internal cache."""

from __future__ import annotations

import time
from typing import Any

MOST_ENTRIES = 10_000


class Cache:
    """Values until their time is over."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, Any]] = {}  # key -> (monotonic time it ends, value)

    def get(self, key: str) -> tuple[Any] | None:
        """The value in a tuple, for it may be null; None when there is none."""
        ends, value = self._entries.get(key, (0.0, None))
        return (value,) if ends > time.monotonic() else None

    def put(self, key: str, value: Any, seconds: float) -> None:
        """Keep a value. A full cache first drops what is over, then the oldest."""
        self._entries.pop(key, None)
        if len(self._entries) >= MOST_ENTRIES:
            now = time.monotonic()
            self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
            while len(self._entries) >= MOST_ENTRIES:
                del self._entries[next(iter(self._entries))]
        self._entries[key] = (time.monotonic() + seconds, value)

    def remove(self, key: str) -> None:
        """Forget a value."""
        self._entries.pop(key, None)
