"""The product's own services over real stores, configured for the benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from local.azurite import start_azurite
from local.redis_server import start_redis
from shared.budgets.connect import open_redis
from shared.budgets.decisions import DecisionLog
from shared.budgets.decisions_store import DecisionStore
from shared.budgets.request import CheckRequest
from shared.budgets.reservation import ReservationSigner
from shared.budgets.service import BudgetService
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore
from shared.config.model import Budget, Config, Model, PriceOverride, Tenant
from shared.ledger.row import LedgerRow, Position
from shared.ledger.settlement import Entry, TenantSettler
from shared.money import NANO_PER_USD
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.settings import Settings

TENANT = "contoso"
MODEL = "gpt-4o"
INPUT_TOKENS, OUTPUT_TOKENS, MAX_OUTPUT_TOKENS = 48, 150, 200
COST_NANO_USD = INPUT_TOKENS * 2_500 + OUTPUT_TOKENS * 10_000

_PRICES = PriceOverride(MODEL, datetime(2020, 1, 1, tzinfo=UTC), {"input": 2_500_000, "output": 10_000_000})


def on_stores(measure: Callable[[str, str], Coroutine[Any, Any, None]]) -> None:
    """Run a benchmark with a Redis server and an Azurite of its own: it gets a URL and a connection string."""
    redis, azurite = start_redis(), start_azurite()
    try:
        asyncio.run(measure(redis.url, azurite.connection_string))
    finally:
        redis.stop()
        azurite.stop()


def budget(scope: str, limit_usd: int = 1_000_000) -> Budget:
    """A monthly budget no benchmark reaches."""
    kind, key = scope.split(":", 1)
    limit_nano = limit_usd * NANO_PER_USD
    return Budget(f"{scope}/{limit_usd}", None, kind, key, "month", timezone="UTC", limit_nano=limit_nano)


def configuration(budgets: Sequence[Budget]) -> Config:
    """One tenant and one model."""
    models = {MODEL: Model(MODEL, capabilities=frozenset({"chat"}))}
    return Config("bench", {TENANT: Tenant(TENANT)}, {}, tuple(budgets), models, prices=(_PRICES,))


def scopes_of_call(number: int) -> dict[str, str]:
    """Four scopes; a thousand users, twenty apps and ten teams take turns."""
    return {"team": f"t{number % 10}", "user": f"u{number % 1000}", "app": f"a{number % 20}", "org": "contoso"}


FOUR_SCOPES = ("team:*", "user:*", "app:*", "org:*")


async def _nowhere(events: Sequence[tuple[str, bytes]]) -> None:
    """Refusals' way to the hub: none of the calls measured here is refused."""


async def _nothing() -> None:
    pass


class Product:
    """Checks and settles one tenant through the services the functions use."""

    def __init__(self, redis_url: str, config: Config) -> None:
        self.started_utc = datetime.now(UTC)
        self.client: Any = open_redis(Settings(redis_url=redis_url, redis_timeout_seconds=10))
        pricer = Pricer(PriceBook.load(), config)
        self.snapshot = Snapshot(config, pricer, Router(config, pricer))
        self.store = BudgetStore(self.client, hold_ttl_ms=900_000, bucket_ms=30_000)
        self.settler = TenantSettler(self.store)
        self.signer = ReservationSigner([b"benchmark-key"])
        self.decision_store = DecisionStore(open_redis(Settings(redis_url=redis_url, redis_timeout_seconds=10)))
        self.decisions = DecisionLog(self.decision_store, _nowhere, _nothing)
        self.service = BudgetService(
            lambda: self.snapshot,
            self.store,
            self.signer,
            default_output_tokens=500,
            timeout_seconds=10,
            stalled_ingest_ms=3_600_000,
            decisions=self.decisions,
        )

    async def open(self) -> None:
        """Make the tenant ready on an empty server, as a rebuild from an empty ledger does."""
        await self.client.flushall()
        await self.store.begin(TENANT, "gen-1", [])
        cut = await self.store.cut(TENANT, [])
        families = [family.id for family in self.snapshot.index.families(TENANT)]
        if not await self.store.adjust(TENANT, cut, [], families, ready=True):
            raise SystemExit("the benchmark's tenant could not be opened")

    async def check(self, scopes: dict[str, str]) -> str:
        """One budget check that must be allowed; the reservation."""
        answer = await self.service.check(
            CheckRequest(
                model=MODEL,
                tenant=TENANT,
                scopes=scopes,
                input_tokens=INPUT_TOKENS,
                max_output_tokens=MAX_OUTPUT_TOKENS,
            )
        )
        if answer.decision != "allow" or answer.reservation is None:
            raise SystemExit(f"the benchmark's call was not allowed: {answer.body}")
        return answer.reservation

    def entry(self, scopes: dict[str, str], reservation: str | None, stream: str, sequence: int) -> Entry:
        """The event of a call as settlement gets it from ingest."""
        position = Position(stream, 1_790_000_000_000 + sequence, sequence)
        row = LedgerRow(
            tenant=TENANT,
            source="bench",
            id=str(sequence),
            kind="usage",
            time_utc=datetime.now(UTC),
            scopes=scopes,
            position=position,
            content_digest="",
            charge_nano_usd=COST_NANO_USD,
            cost_nano_usd=COST_NANO_USD,
            tokens={"input": INPUT_TOKENS, "output": OUTPUT_TOKENS},
            model=MODEL,
            operation="chat",
        )
        held = None if reservation is None else self.signer.read(reservation)
        return Entry(position, row, counts=True, fresh=True, held=held)

    async def settle(self, entries: Sequence[Entry]) -> None:
        """Settle events of one stream."""
        await self.settler.settle(self.snapshot.index, TENANT, entries)

    async def close(self) -> None:
        """Close the connections."""
        await self.decisions.close()
        await self.decision_store.close()
        await self.client.aclose()
