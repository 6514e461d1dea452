"""Ingest and repair over a real Redis and a real Azurite, one fresh set of tables per test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared.ledger.deadletters import DeadLetters
from shared.ledger.delivery import Delivery
from shared.ledger.hours import HourIndex
from shared.ledger.ingest import IngestService
from shared.ledger.llm_logs import LlmLogs
from shared.ledger.reconcile import Reconciler
from shared.ledger.repair import RepairService
from shared.ledger.row import Position
from shared.ledger.settlement import TenantSettler
from shared.ledger.state import ProcessingState
from shared.ledger.store import LedgerStore
from shared.ledger.streams import Streams
from shared.ledger.streams_store import StreamTable
from shared.ledger.streams_sweep import StreamSweep
from shared.ledger.tables import open_tables
from shared.notify.outbox import Outbox
from shared.settings import Settings
from shared.telemetry import Telemetry
from shared.telemetry.unmeasured import Unmeasured
from shared.usage.build import usage_event_bytes
from shared.usage.hub import PartitionState
from tests.support.engine import Engine, flushed


class Stack(Engine):
    """The engine with its ledger. `hub_ends` says what the hub would answer about its partitions.

    `published` holds what the product itself put onto the usage hub, true-ups above all.
    """

    hub_ends: Sequence[PartitionState] = ()
    published: list[bytes]
    telemetry = Telemetry()  # which was not started: it tells nobody
    hours: HourIndex | None = None  # None: the product's own waiting times before an hour is rolled up

    @classmethod
    async def start(
        cls, client: Any, storage: str, configuration: Any, *, prefix: str | None = None, **options: Any
    ) -> Stack:
        """Open the tables of `prefix`, fresh ones when it is None, and wire the services."""
        stack = cls(client, configuration, **options)
        stack.prefix = prefix or f"t{uuid.uuid4().hex[:12]}"
        stack.published = []
        stack.tables = await open_tables(Settings(storage_connection=storage, table_prefix=stack.prefix))
        stack.wire()
        return stack

    def wire(self) -> None:
        """New services over the same stores: what a restarted worker has."""
        tables = self.tables
        self.ledger = LedgerStore(tables, self.hours)
        self.dead_letters = DeadLetters(tables.deadletters, tables.bodies)
        self.outbox = Outbox(tables.outbox)
        self.state = ProcessingState(tables.state)
        self.settler = TenantSettler(self.store)
        self.stream_table = StreamTable(tables.streams)
        self.streams = Streams(self.stream_table, self.publish)
        self.llm_logs = LlmLogs(self.streams, self.dead_letters, self.outbox)
        tell = Unmeasured(self.ledger.pairs, self.telemetry).tell
        self.sweep = StreamSweep(self.stream_table, self.streams, self.ledger.is_trued_up, self.outbox, 30, tell)
        self.ingest = IngestService(
            lambda: self.snapshot,
            self.ledger,
            self.settler,
            self.signer,
            self.dead_letters,
            self.outbox,
            self.state,
            self.streams,
            default_output_tokens=self.default_output_tokens,
            on_billed=lambda rows: self.telemetry.billed(rows),
        )
        reconciler = Reconciler(lambda: self.snapshot, self.store, self.ledger, self.settler, self.outbox)
        self.repair = RepairService(
            lambda: self.snapshot, self.store, reconciler, self.state, self.outbox, self._ends, "usage"
        )

    async def publish(self, events: Sequence[tuple[str, bytes]]) -> None:
        """Stands in for the hub."""
        self.published += [body for _, body in events]

    async def _ends(self) -> Sequence[PartitionState]:
        return self.hub_ends

    async def ledger_total_nano_usd(self, tenant: str = "acme") -> int:
        """The sum of all charges in the ledger."""
        start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=2)
        return sum([row.charge_nano_usd async for row in self.ledger.rows(tenant, start, end)])

    async def close(self) -> None:
        """Close the storage clients."""
        await self.tables.close()


@asynccontextmanager
async def open_stack(
    redis_url: str, storage: str, configuration: Any, *, tenants: Sequence[str] = ("acme",), **options: Any
) -> AsyncIterator[Stack]:
    """A stack on emptied stores with its tenants ready; closed at the end."""
    client = await flushed(redis_url)
    stack = await Stack.start(client, storage, configuration, **options)
    for tenant in tenants:
        await stack.open(tenant)
    yield stack
    await stack.close()
    await client.aclose()


def usage_bytes(
    id: str,  # noqa: A002
    prompt_tokens: int,
    completion_tokens: int = 0,
    *,
    time_utc: datetime | None = None,
    source: str = "apim/test",
    **data: Any,
) -> bytes:
    """A usage event of team search on `big`."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    base = {
        "tenant": "acme",
        "scopes": {"team": "search"},
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": "big",
        "model": "big",
        "usage": usage,
    }
    return usage_event_bytes(source, id, time_utc or datetime.now(UTC), {**base, **data})


def delivery(body: bytes, sequence: int, *, partition: int = 0, enqueued_ms: int | None = None) -> Delivery:
    """The event as partition `partition` delivers it; a millisecond between neighbours."""
    enqueued = 1_790_000_000_000 + sequence if enqueued_ms is None else enqueued_ms
    return Delivery(body, Position(f"ns/usage/{partition}", enqueued, sequence))


def changed(body: bytes, **data: Any) -> bytes:
    """The same event with other data."""
    event = msgspec.json.decode(body)
    event["data"] |= data
    return msgspec.json.encode(event)
