"""Tells of accrued calls that nobody measured in time, from the rows that bill them now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from shared.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.ledger.family import Family
    from shared.ledger.inserted import RowRef


class Families(Protocol):
    """What is needed of the ledger."""

    async def families(self, refs: Sequence[RowRef]) -> Mapping[RowRef, Family]: ...


class Unmeasured:
    """For the sweep of streams; reads nothing while nobody listens."""

    def __init__(self, ledger: Families, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._telemetry = telemetry

    async def tell(self, calls: Sequence[RowRef]) -> None:
        """Tell of these calls as they stand: at their estimate, which their spans say."""
        if self._telemetry.tells_calls:
            families = (await self._ledger.families(calls)).values()
            self._telemetry.unmeasured([family.call for family in families if family.call is not None])
