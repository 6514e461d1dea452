"""Threshold crossings: once per budget, period, threshold and limit, and from what was spent only.

Holds come and go; a notification that a burst of calls in flight could trigger would cry wolf.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from shared.budgets.cells import Applied
from shared.budgets.matching import BudgetIndex, limit_nano_usd
from shared.money import decimal_from_nano
from shared.notify.outbox import Outbox
from shared.ppm import PPM
from shared.scopes import ORGANISATIONAL

log = logging.getLogger("tollkeeper.budgets")


class Notice(NamedTuple):
    """A crossing: the key that makes it unique, and what the message says."""

    key: str
    payload: dict[str, Any]


def crossed_thresholds(index: BudgetIndex, tenant: str, applied: Iterable[Applied]) -> Iterator[Notice]:
    """The thresholds that these changes of counters passed."""
    for cell, before, after in applied:
        if after <= before:
            continue
        for budget in index.of_cell(tenant, cell):
            limit = limit_nano_usd(budget, cell.period.start_s, index.config)
            for name, ppm in (("warn", budget.warn_ppm), ("degrade", budget.degrade_ppm), ("stop", budget.stop_ppm)):
                if before < limit * ppm // PPM <= after:
                    yield Notice(
                        f"threshold|{tenant}|{budget.id}|{cell.id}|{name}|{limit}",
                        {
                            "tenant": tenant,
                            "budget": budget.id,
                            "scope": cell.scope,
                            "period": cell.period.label,
                            "threshold": name,
                            "spent": decimal_from_nano(after),
                            "limit": decimal_from_nano(limit),
                        },
                    )


async def add_crossed(outbox: Outbox, index: BudgetIndex, tenant: str, applied: Iterable[Applied]) -> None:
    """Add a notice of each threshold that these changes passed, once for ever; log those that are of no person."""
    for notice in crossed_thresholds(index, tenant, applied):
        added = await outbox.add_once(notice.key, "threshold", notice.payload)
        if added and notice.payload["scope"].partition(":")[0] in ORGANISATIONAL:
            log.warning("threshold_crossed", extra=notice.payload)
