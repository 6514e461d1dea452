"""A small circuit breaker, one per process: after repeated failures a dependency is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed until `failures` calls in a row failed; then open for `open_seconds`; then one probe decides.

    Without it every call would wait out the full timeout while Redis is away, and the gateway would queue up behind.
    """

    def __init__(
        self, failures: int = 5, open_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    def allows(self) -> bool:
        """Whether a call may be tried now. Half-open, only the first caller in each `open_seconds` gets through."""
        if self._failures < self._limit:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._open_seconds
        return True

    def succeeded(self) -> None:
        """Record a success: the breaker closes."""
        self._failures = 0

    def failed(self) -> None:
        """Record a failure."""
        self._failures += 1
        if self._failures >= self._limit:
            self._retry_at = self._clock() + self._open_seconds
