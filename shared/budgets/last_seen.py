"""What a process saw of the counters last: what the `cached` fail mode decides on while they cannot be read."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from shared.budgets.plan import DatedPlan

_STANDS_IN_SECONDS = 300
_CELLS_KEPT = 100_000


class LastSeen:
    """Spent and held of each counter. When there are too many, the first ones go; their next check brings them back."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[int, int, float]] = OrderedDict()

    def remember(self, dated: DatedPlan, figures: Sequence[int]) -> None:
        """Keep what was read: spent and held of each cell of the plan, one after the other."""
        now = time.monotonic()
        for i, cell in enumerate(dated.cells):
            self._seen[dated.plan.tenant, cell.id] = (figures[2 * i], figures[2 * i + 1], now)
        while len(self._seen) > _CELLS_KEPT:
            self._seen.popitem(last=False)

    def figures(self, dated: DatedPlan) -> list[int] | None:
        """The same figures back; None when one is missing or too old."""
        oldest = time.monotonic() - _STANDS_IN_SECONDS
        figures: list[int] = []
        for cell in dated.cells:
            seen = self._seen.get((dated.plan.tenant, cell.id))
            if seen is None or seen[2] < oldest:
                return None
            figures += seen[:2]
        return figures
