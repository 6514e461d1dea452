"""What the calls were billed: their rows, read from the ledger's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from shared.ledger.codec import decode
from shared.ledger.keys import hour_key, partitions_of
from shared.ledger.row import LedgerRow

if TYPE_CHECKING:
    from azure.data.tables import TableClient

ReadRows = Callable[[Iterable[str], Iterable[datetime]], list[LedgerRow]]  # of the calls with these ids, at these times
TABLE = "tollkeeperledger"


def rows_from(table: TableClient) -> ReadRows:
    """Reads rows by the id of their call, whatever their source: a call billed under two would be found twice."""

    def read(ids: Iterable[str], times: Iterable[datetime]) -> list[LedgerRow]:
        # `~` sorts behind every character of an id's suffixes (/2, /reversal, /true-up).
        wanted = " or ".join(f"(id ge '{each}' and id lt '{each}~')" for each in sorted(set(ids)))
        if not wanted:
            return []
        partitions = [partition for hour in sorted(set(map(hour_key, times))) for partition in partitions_of(hour)]
        return [
            decode(entity)
            for partition in partitions
            for entity in table.query_entities(f"PartitionKey eq '{partition}' and ({wanted})")
        ]

    return read
