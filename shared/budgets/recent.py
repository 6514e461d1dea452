"""Answers what was decided of late: the list that people look at when calls are refused or served by another model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shared.budgets.decision import Covers, shown
from shared.budgets.decisions_store import KEPT, DecisionStore


class RecentDecisions:
    """Reads the live list of a tenant for one reader."""

    def __init__(self, store: DecisionStore) -> None:
        self._store = store

    async def newest(
        self, tenant: str, limit: int, teams: Collection[str] | None, covers: Covers
    ) -> list[dict[str, Any]]:
        """At most `limit` decisions, the newest first; only of these teams unless `teams` is None.

        Keys of persons that `covers` denies are left out. Raises what the Redis client raises.
        """
        # A reader of one team is shown what is theirs among all that is kept, however busy the others are.
        found = await self._store.newest(tenant, limit if teams is None else 2 * KEPT)
        mine = [decision for decision in found if teams is None or decision.team in teams]
        return [shown(decision, covers) for decision in mine[:limit]]
