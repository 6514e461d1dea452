"""Applies true-ups and re-rates to calls in the ledger, however many of them meet at one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.budgets.snapshot import Snapshot
from shared.errors import TollkeeperError
from shared.ledger.adjustments import AdjustingEvent, adjust, call_id_of
from shared.ledger.delivery import Delivery
from shared.ledger.family import Family, Pair
from shared.ledger.inserted import Inserted, RowRef
from shared.usage.correcting_events import ReRateEvent
from shared.usage.rejected import EventRejected

_ROUNDS = 50  # each settles at least one correction of every call, ours or another worker's


class Pairs(Protocol):
    """What corrections need of the ledger."""

    async def families(self, refs: Sequence[RowRef]) -> Mapping[RowRef, Family]: ...
    async def insert(self, pairs: Sequence[Pair]) -> Sequence[tuple[Inserted, Inserted] | None]: ...


class Adjusted(NamedTuple):
    """What became of one event."""

    delivery: Delivery
    event: AdjustingEvent
    inserted: tuple[Inserted, Inserted] | None = None  # None: it had nothing to change, or was refused
    refused: EventRejected | None = None


class CorrectionsCollide(TollkeeperError):
    """Other workers kept correcting the same calls. Retrying later is right."""

    code, http_status = "corrections_collide", 503


class Adjuster:
    """Safe to run twice on the same events, in any order, killed at any point."""

    def __init__(
        self, pairs: Pairs, snapshot: Callable[[], Snapshot], refresh: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """`refresh` reads the configuration anew, for events that know a version which this worker does not."""
        self._pairs = pairs
        self._snapshot = snapshot
        self._refresh = refresh

    async def run(self, items: Sequence[tuple[Delivery, AdjustingEvent]]) -> list[Adjusted]:
        """What became of each event, in their order. Raises what storage raises; run it again then."""
        if not items:
            return []
        snapshot = await self._current(event for _, event in items)
        done: dict[int, Adjusted] = {}
        waiting = list(range(len(items)))
        for _ in range(_ROUNDS):
            if not waiting:
                return [done[index] for index in range(len(items))]
            waiting = await self._round(items, waiting, snapshot, done)
        raise CorrectionsCollide(f"corrections of {len(waiting)} calls met those of other workers {_ROUNDS} times")

    async def _round(
        self,
        items: Sequence[tuple[Delivery, AdjustingEvent]],
        waiting: Sequence[int],
        snapshot: Snapshot,
        done: dict[int, Adjusted],
    ) -> list[int]:
        """Apply the first waiting event of each call; the others must see what it did, and wait."""
        first: dict[RowRef, int] = {}
        for index in waiting:
            first.setdefault(_call_of(items[index][1]), index)
        families = await self._pairs.families(list(first))
        pairs: list[tuple[int, Pair]] = []
        for ref, index in first.items():
            delivery, event = items[index]
            try:
                pair = adjust(event, families[ref], delivery.position, snapshot)
            except EventRejected as error:
                done[index] = Adjusted(delivery, event, refused=error)
                continue
            if pair is None:
                done[index] = Adjusted(delivery, event)
            else:
                pairs.append((index, pair))
        answers = await self._pairs.insert([pair for _, pair in pairs]) if pairs else []
        for (index, _), inserted in zip(pairs, answers, strict=True):
            if inserted is not None:
                done[index] = Adjusted(*items[index], inserted=inserted)
        return [index for index in waiting if index not in done]

    async def _current(self, events: Iterable[AdjustingEvent]) -> Snapshot:
        """The configuration in force, at least as new as what a re-rate was asked under: rated by an older one it would
        find nothing to change, and the call would stay without its price."""
        snapshot = self._snapshot()
        known = {event.data.config_version for event in events if isinstance(event, ReRateEvent)}
        if self._refresh is not None and known - {snapshot.config.version}:
            await self._refresh()
            snapshot = self._snapshot()
        return snapshot


def _call_of(event: AdjustingEvent) -> RowRef:
    return RowRef(event.source, call_id_of(event), event.time_utc)
