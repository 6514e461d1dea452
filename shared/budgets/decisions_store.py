"""The live list of decisions in Redis: one capped stream per tenant, beside its counters.

It is a view for people, not a record: it may lose entries, and it goes with Redis. What refusals spared is in the
ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from shared.budgets.decision import Decision
from shared.budgets.keys import tenant_keys
from shared.budgets.trips import RedisClient

KEPT = 1_000  # per tenant, about: the server trims whole nodes of a stream
_KEEP_MS = 24 * 3_600_000  # a tenant that is not called any more gives its memory back
_PATIENCE_SECONDS = 2.0
_FIELD = b"d"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Decision).decode


class DecisionStore:
    """Adds to the lists and reads them. Errors of the client pass through; every trip is bounded in time."""

    def __init__(self, client: RedisClient) -> None:
        """A client of its own, so that nothing here can take a connection from a check."""
        self._client = client

    async def add(self, tenant: str, decisions: Sequence[Decision]) -> None:
        """Add decisions, the oldest first, in one trip."""
        key = tenant_keys(tenant).decisions
        pipeline = self._client.pipeline(transaction=False)
        for decision in decisions:
            pipeline.execute_command("XADD", key, "MAXLEN", "~", KEPT, "*", _FIELD, _encode(decision))
        pipeline.execute_command("PEXPIRE", key, _KEEP_MS)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await pipeline.execute()

    async def newest(self, tenant: str, count: int) -> list[Decision]:
        """The newest decisions, the newest first."""
        command = ("XREVRANGE", tenant_keys(tenant).decisions, "+", "-", "COUNT", count)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            entries: Any = await self._client.execute_command(*command)
        return [_decode(fields[_FIELD] if isinstance(fields, dict) else fields[1]) for _, fields in entries]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
