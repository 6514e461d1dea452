"""The rows that bill calls now: of each call the last of its chain, read in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from shared.ledger.codec import Entity, decode, literal
from shared.ledger.family import reversal_key
from shared.ledger.keys import call_key_of, partitions_of
from shared.ledger.row import LedgerRow

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

_BILLING = ("usage", "accrual", "true_up", "re_rate")


class StandingRows:
    """Reads them hour by hour."""

    def __init__(self, table: TableClient) -> None:
        self._table = table

    async def of_hour(
        self, hour: str, tenant: str, *, model: str | None = None, unpriced: bool = False
    ) -> AsyncIterator[LedgerRow]:
        """A tenant's rows of an hour, of one model, or those without a price."""
        condition = f" and tenant eq {literal(tenant)}"
        if model is not None:
            condition += f" and model eq {literal(model)}"
        if unpriced:
            condition += " and pricing_status eq 'unpriced'"
        for partition in partitions_of(hour):
            family: list[Entity] = []  # a partition is read in the order of its keys, so a call's rows follow it
            async for entity in self._table.query_entities(f"PartitionKey eq '{partition}'{condition}"):
                if family and call_key_of(family[0]["RowKey"]) != call_key_of(entity["RowKey"]):
                    for row in _standing(family):
                        yield row
                    family = []
                family.append(entity)
            for row in _standing(family):
                yield row


def _standing(family: Sequence[Entity]) -> Iterator[LedgerRow]:
    """A reversal has the model and the pricing of the row that it takes back, so no condition parts them."""
    keys = {entity["RowKey"] for entity in family}
    for entity in family:
        if entity["kind"] in _BILLING and reversal_key(entity["RowKey"]) not in keys:
            yield decode(entity)
