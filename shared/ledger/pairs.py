"""Stores corrections of calls: two rows beside the call, both or none, and only while the row they take back stands."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from shared.ledger.codec import Entity, decode, encode
from shared.ledger.family import Family, Pair
from shared.ledger.hours import HourIndex
from shared.ledger.insert import PartitionWriter
from shared.ledger.inserted import Inserted, RowRef, compare
from shared.ledger.keys import call_key_of, hour_key, partition_key, row_key
from shared.ledger.periods import Periods
from shared.ledger.row import LedgerRow
from shared.ledger.tables import TRANSACTION_ROWS


class EncodedPair(NamedTuple):
    """A pair as it is stored."""

    pair: Pair
    entities: tuple[Entity, Entity]

    @property
    def partition(self) -> str:
        """The partition of both."""
        return str(self.entities[0]["PartitionKey"])

    @property
    def keys(self) -> tuple[str, str]:
        """The row keys."""
        first, second = self.entities
        return first["RowKey"], second["RowKey"]


class PairStore:
    """Reads calls with their corrections, and adds corrections."""

    def __init__(self, writer: PartitionWriter, hours: HourIndex, periods: Periods) -> None:
        self._writer = writer
        self._hours = hours
        self._periods = periods

    async def families(self, refs: Sequence[RowRef]) -> dict[RowRef, Family]:
        """Each call with all that corrects it; without rows when the ledger does not know it."""
        keys: defaultdict[str, set[str]] = defaultdict(set)
        places: dict[RowRef, tuple[str, str]] = {}
        for ref in refs:
            key = row_key(ref.source, ref.id)
            places[ref] = partition_key(ref.time_utc, key), key
            keys[places[ref][0]].add(key)
        found = await asyncio.gather(*(self._writer.families(part, sorted(keys[part])) for part in keys))
        rows: dict[str, dict[str, LedgerRow]] = {key: {} for wanted in keys.values() for key in wanted}
        for each in found:
            for key, entity in each.items():
                rows[call_key_of(key)][key] = decode(entity)
        return {ref: Family(key, rows[key]) for ref, (_, key) in places.items()}

    async def insert(self, pairs: Sequence[Pair]) -> list[tuple[Inserted, Inserted] | None]:
        """Insert pairs of different calls; the answers are in their order, None where another correction came first.

        Then the call is to be read again. When it raises, any pair may be stored: insert the same ones again. Raises
        RowTooLarge before anything is written.
        """
        covered_until = await self._hours.mark({hour_key(pair.reversal.time_utc) for pair in pairs})
        async with asyncio.timeout(covered_until - time.monotonic()):
            encoded = [await self._encode(pair) for pair in pairs]
            written = await asyncio.gather(
                *(self._write(chunk) for chunk in _transactions(encoded)),
                return_exceptions=True,  # let the others finish: less is left for the next delivery
            )
        existing: dict[tuple[str, str], LedgerRow] = {}
        for result in written:
            if isinstance(result, BaseException):
                raise result
            existing |= {(entity["PartitionKey"], key): decode(entity) for key, entity in result.items()}
        return [_answer(each, existing) for each in encoded]

    async def _encode(self, pair: Pair) -> EncodedPair:
        """Both booked into one month: asked twice, a close in between would part them."""
        first = pair.reversal
        month = first.booked_period or await self._periods.booked(first.tenant, first.time_utc)
        booked = Pair(*(replace(row, booked_period=month) for row in pair))
        return EncodedPair(booked, (encode(booked.reversal), encode(booked.replacement)))

    async def _write(self, pairs: Sequence[EncodedPair]) -> dict[str, Entity]:
        partners: dict[str, str] = {}
        for first, second in (pair.keys for pair in pairs):
            partners |= {first: second, second: first}
        return await self._writer.insert([entity for pair in pairs for entity in pair.entities], partners)


def _answer(encoded: EncodedPair, existing: Mapping[tuple[str, str], LedgerRow]) -> tuple[Inserted, Inserted] | None:
    first, second = (existing.get((encoded.partition, key)) for key in encoded.keys)
    mine = encoded.pair
    if first is None and second is None:
        return Inserted(mine.reversal, "new"), Inserted(mine.replacement, "new")
    if first is None or second is None:
        return None
    return Inserted(first, compare(mine.reversal, first)), Inserted(second, compare(mine.replacement, second))


def _transactions(pairs: Sequence[EncodedPair]) -> Iterator[list[EncodedPair]]:
    """Pairs in chunks of one partition each; never parted, for a reader in between would see the call not billed."""
    partitions: defaultdict[str, list[EncodedPair]] = defaultdict(list)
    for pair in pairs:
        partitions[pair.partition].append(pair)
    room = TRANSACTION_ROWS // 2
    for mine in partitions.values():
        mine.sort(key=lambda pair: pair.keys)
        for start in range(0, len(mine), room):
            yield mine[start : start + room]
