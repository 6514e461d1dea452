"""Retry policies of functions: how often and after which pause a failed call is made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`fixed_delay` waits the minimum each time; `exponential_backoff` doubles it up to the maximum."""

    max_retry_count: float = 0  # math.inf: until it succeeds
    minimum_seconds: float = 0.0
    maximum_seconds: float = 0.0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> RetryPolicy:
        """Policy from what `@app.retry` recorded (all values are strings), or no retries without it."""
        if not settings:
            return cls()
        count = int(settings["max_retry_count"])
        is_fixed = settings["strategy"] == "fixed_delay"
        minimum = seconds(settings["delay_interval" if is_fixed else "minimum_interval"])
        maximum = minimum if is_fixed else seconds(settings["maximum_interval"])
        return cls(math.inf if count < 0 else count, minimum, maximum)

    def allows(self, retry_count: int) -> bool:
        """Whether a call that was retried `retry_count` times may be retried once more."""
        return retry_count < self.max_retry_count

    def delay_seconds(self, retry_count: int) -> float:
        """Pause before retry number `retry_count` + 1."""
        # The exponent is capped, because 2.0 ** 1024 overflows and unlimited retries get there.
        return min(self.maximum_seconds, self.minimum_seconds * 2.0 ** min(retry_count, 60))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a function can read about its retries from `context.retry_context`."""

    count: int
    policy: RetryPolicy

    @property
    def retry_count(self) -> int:
        """0 for the first call."""
        return self.count

    @property
    def max_retry_count(self) -> int:
        """-1 for unlimited retries."""
        return -1 if math.isinf(self.policy.max_retry_count) else int(self.policy.max_retry_count)

    @property
    def exception(self) -> None:
        """The host knows the exception of the last attempt as text only; nothing here needs it."""
        return None


def seconds(interval: str) -> float:
    """Seconds of `hh:mm:ss`. Raises ValueError for anything else."""
    hours, minutes, rest = interval.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)
