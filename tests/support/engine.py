"""A budget engine on a real Redis for tests: configuration written inline, prices that make arithmetic easy to read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from shared.budgets.connect import open_redis
from shared.budgets.decisions import DecisionLog
from shared.budgets.request import CheckRequest
from shared.budgets.reservation import ReservationSigner
from shared.budgets.service import BudgetService
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore
from shared.config.model import Budget, Config, Model, PriceOverride, Tenant
from shared.ledger.row import LedgerRow, Position
from shared.money import NANO_PER_USD
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.settings import Settings

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MICRO_USD = 1_000  # nano

# One token of `big` costs 1 micro-USD in and 2 out; `small` a tenth of that.
BIG = PriceOverride("big", LONG_AGO, {"input": 1_000_000, "output": 2_000_000, "cached_input": 500_000})
SMALL = PriceOverride("small", LONG_AGO, {"input": 100_000, "output": 200_000, "cached_input": 50_000})


def usd(amount: float) -> int:
    """Nano-USD of a round number of dollars."""
    return round(amount * NANO_PER_USD)


def budget(scope: str, limit_nano: int, *, period: str = "month", **fields: Any) -> Budget:
    """A budget in UTC with the usual thresholds."""
    scope_type, scope_key = scope.split(":", 1)
    fields = {"tenant": None, "timezone": "UTC", **fields}
    name = f"{scope}/{period}/{limit_nano}"
    return Budget(name, scope_type=scope_type, scope_key=scope_key, period=period, limit_nano=limit_nano, **fields)


def config(*budgets: Budget, version: str = "v1", **tenant: Any) -> Config:
    """One tenant `acme`, the models big and small, and these budgets."""
    known = Tenant("acme", **{"client_asserted_scopes": frozenset({"session"}), **tenant})
    models = {
        "big": Model("big", capabilities=frozenset({"chat"})),
        "small": Model("small", capabilities=frozenset({"chat"})),
    }
    return Config(version, {"acme": known}, {}, budgets, models, prices=(BIG, SMALL))


class Engine:
    """The services over one Redis client and one configuration."""

    def __init__(
        self,
        client: Any,
        configuration: Config,
        *,
        hold_ttl_ms: int = 60_000,
        bucket_ms: int = 1_000,
        default_output_tokens: int = 100,
        timeout_seconds: float = 5,
        decisions: DecisionLog | None = None,
    ) -> None:
        self.client = client
        self.default_output_tokens = default_output_tokens
        self.configure(configuration)
        self.store = BudgetStore(client, hold_ttl_ms, bucket_ms)
        self.signer = ReservationSigner([b"test-key"])
        self.service = BudgetService(
            lambda: self.snapshot,
            self.store,
            self.signer,
            default_output_tokens=default_output_tokens,
            timeout_seconds=timeout_seconds,
            stalled_ingest_ms=3_600_000,
            decisions=decisions,
        )

    def configure(self, configuration: Config) -> None:
        """Swap the configuration, as a worker does when a new version arrives."""
        pricer = Pricer(PriceBook.load([]), configuration)
        self.snapshot = Snapshot(configuration, pricer, Router(configuration, pricer))

    async def open(self, tenant: str = "acme") -> None:
        """Make an empty tenant ready, as a rebuild from an empty ledger does."""
        await self.store.begin(tenant, "gen-1", [])
        cut = await self.store.cut(tenant, [])
        families = [family.id for family in self.snapshot.index.families(tenant)]
        assert await self.store.adjust(tenant, cut, [], families, ready=True)

    async def check(self, model: str = "big", **fields: Any) -> Any:
        """A budget check of team search in tenant acme unless said otherwise."""
        request = {
            "tenant": "acme",
            "scopes": {"team": "search"},
            "input_tokens": 100,
            "max_output_tokens": 100,
            **fields,
        }
        return await self.service.check(CheckRequest(model=model, **request))

    async def spent_and_held(self, scope: str = "team:search") -> tuple[int, int]:
        """The counter of a scope in its first open cell, in nano-USD."""
        for cell in await self.store.cells("acme", int(time.time() * 1000)):
            if cell.scope == scope:
                spent, held, _ = await self.store.figures("acme", cell)
                return spent, held
        return 0, 0


async def flushed(url: str, *, cluster: bool = False) -> Any:
    """The product's own client of an emptied server or cluster."""
    client = open_redis(Settings(redis_url=url, redis_cluster=cluster, redis_timeout_seconds=5))
    await client.flushall()
    return client


def row(charge_nano: int, position: Position, *, id: str = "1", **fields: Any) -> LedgerRow:  # noqa: A002
    """A priced usage row of team search, admitted now."""
    base: dict[str, Any] = {
        "tenant": "acme",
        "source": "test",
        "id": id,
        "kind": "usage",
        "time_utc": datetime.now(UTC),
        "scopes": {"team": "search"},
        "position": position,
        "content_digest": "d",
        "charge_nano_usd": charge_nano,
        "cost_nano_usd": charge_nano,
        "model": "big",
        "operation": "chat",
    }
    return LedgerRow(**{**base, **fields})
