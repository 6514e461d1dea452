"""What our gateway needs around it in `bench.gateway`: its configuration, counters in Valkey, a hub over AMQP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from azure.eventhub.aio import EventHubConsumerClient

from bench.gateway_targets import KEY
from local.eventhub.embedded import connection_string
from local.process import Process, free_port, is_listening
from local.redis_server import RedisServer
from shared.budgets.connect import open_redis
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore
from shared.config.loader import load_config
from shared.config.source import DirectorySource
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.settings import Settings

_BUDGETS = ("team:*", "org:*", "session:*", "task:*")
_FILES = {
    "tenants.yaml": "tenants: [{id: default, fail_mode: closed, client_asserted_scopes: [session, task]}]",
    "budgets.yaml": json.dumps({"budgets": [{"scope": s, "period": "month", "limit": 1_000_000} for s in _BUDGETS]}),
    "models.yaml": "models: [{id: gpt-4o, provider: azure-openai, deployments: [gpt-4o], capabilities: [chat, tools]}]",
    "teams/bench.yaml": "{team: bench, org: contoso, identities: {subscriptions: [bench-prod]}}",
}
_ARRIVAL_SECONDS, _QUIET_SECONDS = 60, 2


class Backing:
    """Everything beside the gateway's own process."""

    def __init__(self, redis: RedisServer) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tollkeeper-bench-"))
        for name, text in _FILES.items():
            path = self.directory / "config" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        hub_port = free_port()
        self.hub = Process("event hub", [sys.executable, "-m", "local.eventhub", "--port", str(hub_port)])
        self.hub.wait_until(lambda: is_listening(hub_port))
        self.environment = {
            "TOLLKEEPER_ENV": "development",  # listens on loopback; nothing else that a call meets depends on it
            "CONFIG_DIR": str(self.directory / "config"),
            "REDIS_URL": redis.url,
            "REDIS_TIMEOUT_SECONDS": "10",  # a busy machine must not end the run
            "EventHubs": connection_string(hub_port),
            "RESERVATION_KEYS": secrets.token_hex(32),
            "GATEWAY_KEYS": json.dumps({hashlib.sha256(KEY.encode()).hexdigest(): "bench-prod"}),
            "SPOOL_DIR": str(self.directory / "spool"),
        }

    async def open(self) -> None:
        """Make the tenant's counters ready, as a rebuild from an empty ledger does."""
        config = load_config(DirectorySource(self.directory / "config").read(), "config")
        pricer = Pricer(PriceBook.load(), config)
        index = Snapshot(config, pricer, Router(config, pricer)).index
        store = BudgetStore(open_redis(Settings(redis_url=self.environment["REDIS_URL"])), 900_000, 30_000)
        for tenant in config.tenants:
            await store.begin(tenant, "gen-1", [])
            cut = await store.cut(tenant, [])
            families = [family.id for family in index.families(tenant)]
            if not await store.adjust(tenant, cut, [], families, ready=True):
                raise SystemExit("the benchmark's tenant could not be opened")
        await store.close()

    async def require_events(self, served: int) -> int:
        """Wait until the hub has an event of every served call; how many messages that took, repetitions included.

        The gateway sends again what the hub did not confirm in time, and the ledger drops what comes twice, so calls
        are told apart by their ids. Raises SystemExit when there are fewer calls, or more.
        """
        ids: set[str] = set()
        messages = 0
        arrived = asyncio.Event()

        async def read(_: Any, events: list[Any]) -> None:
            nonlocal messages
            messages += len(events)
            ids.update(json.loads(event.body_as_str())["id"] for event in events)
            if len(ids) >= served:
                arrived.set()

        consumer = EventHubConsumerClient.from_connection_string(
            self.environment["EventHubs"], "$Default", eventhub_name="usage"
        )
        reading = asyncio.create_task(consumer.receive_batch(read, starting_position="-1", max_wait_time=1))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ARRIVAL_SECONDS):
                await arrived.wait()
        await asyncio.sleep(_QUIET_SECONDS)  # one event too many would come now
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.close()
        if len(ids) != served:
            raise SystemExit(f"{served} calls were served and the hub has events of {len(ids)}")
        return messages

    def stop(self) -> None:
        """End what was started."""
        self.hub.stop()
