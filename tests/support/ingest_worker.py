"""An ingest worker as a process of its own, over stores that fail in turn, for drills that kill it.

It runs the batches of a plan from its checkpoint on, each until it succeeds, and moves the checkpoint after each: what
the Functions host does under an unlimited retry policy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.budgets.connect import open_redis
from shared.config.model import Config
from shared.ledger.delivery import Delivery
from shared.ledger.row import Position
from shared.ledger.tables import TABLES, Tables
from shared.settings import Settings
from tests.support.engine import budget, config, usd
from tests.support.stack import Stack


class Job(msgspec.Struct):
    """What a worker is told: where its stores are, what to ingest, where its checkpoint lies."""

    redis_url: str
    storage: str
    prefix: str
    plan_path: str
    checkpoint_path: str
    seed: int


class Checkpoint(msgspec.Struct):
    """How far the plan was carried out, and what the stores did to us on the way."""

    done: int = 0
    failures: int = 0


Event = tuple[int, int, bytes]  # enqueued ms, sequence, body
Plan = list[tuple[int, list[Event]]]  # partition and batch, in the order of delivery

_plan_decoder = msgspec.msgpack.Decoder(Plan)
_CALLS_PER_PHASE = 40
_FAILING_IN_PHASE = ("storage", None, "redis", None, None)


def drill_config() -> Config:
    """Counters of every kind over the same spend; nobody reaches a limit."""
    much = usd(1_000_000)
    return config(budget("team:*", much), budget("user:*", much, period="total"), budget("tenant:acme", much))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint; the start of the plan while there is none."""
    path = Path(path)
    return msgspec.json.decode(path.read_bytes(), type=Checkpoint) if path.exists() else Checkpoint()


def write_plan(path: str, plan: Plan) -> None:
    """Put a plan where workers find it."""
    Path(path).write_bytes(msgspec.msgpack.encode(plan))


def main(job: Job) -> None:
    """Carry out the rest of the plan."""
    asyncio.run(_work(job, _plan_decoder.decode(Path(job.plan_path).read_bytes())))


def _write_checkpoint(path: str, checkpoint: Checkpoint) -> None:
    """Whole or not at all: the worker may be killed here too."""
    written = Path(path).with_suffix(".new")
    written.write_bytes(msgspec.json.encode(checkpoint))
    written.replace(path)


class Faults:
    """Lets storage and Redis fail in turn: some calls never reach them, of others only the reply is lost."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._calls = self._random.randrange(_CALLS_PER_PHASE * len(_FAILING_IN_PHASE))  # a life is short

    async def call(self, part: str, action: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Do it, fail before, or fail after it took effect."""
        luck = self._luck(part)
        if luck == "before":
            raise _refused(part)
        answer = await action(*args, **kwargs)
        if luck == "after":
            raise _reply_lost(part)
        return answer

    def before(self, part: str) -> None:
        """For calls without effect, which can only fail."""
        if self._luck(part) != "good":
            raise _refused(part)

    def _luck(self, part: str) -> str:
        self._calls += 1
        if _FAILING_IN_PHASE[self._calls // _CALLS_PER_PHASE % len(_FAILING_IN_PHASE)] != part:
            return "good"
        rate = 0.25 if part == "redis" else 0.03  # a batch asks Redis once and storage a dozen times
        roll = self._random.random()
        return "before" if roll < rate else "after" if roll < 2 * rate else "good"


class FaultyRedis:
    """A client with these faults on every call."""

    def __init__(self, client: Any, faults: Faults) -> None:
        self._client, self._faults = client, faults

    async def execute_command(self, *args: Any) -> Any:
        return await self._faults.call("redis", self._client.execute_command, *args)

    def pipeline(self, transaction: bool) -> Any:
        pipeline = self._client.pipeline(transaction=transaction)
        execute = pipeline.execute

        async def faulty(**options: Any) -> Any:
            return await self._faults.call("redis", execute, **options)

        pipeline.execute = faulty
        return pipeline

    async def aclose(self) -> None:
        await self._client.aclose()


class _FaultyTable:
    def __init__(self, table: Any, faults: Faults) -> None:
        self._table, self._faults = table, faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._table, name)
        if name == "query_entities":

            def query(*args: Any, **kwargs: Any) -> Any:
                self._faults.before("storage")
                return method(*args, **kwargs)

            return query

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._faults.call("storage", method, *args, **kwargs)

        return call


def with_faults(tables: Tables, faults: Faults) -> Tables:
    """The tables, with these faults on every call."""
    return dataclasses.replace(tables, **{name: _FaultyTable(getattr(tables, name), faults) for name in TABLES})


def _refused(part: str) -> Exception:
    return RedisConnectionError("refused") if part == "redis" else ServiceRequestError("refused")


def _reply_lost(part: str) -> Exception:
    return RedisConnectionError("reply lost") if part == "redis" else ServiceResponseError("reply lost")


async def _work(job: Job, plan: Plan) -> None:
    faults = Faults(job.seed)
    client = open_redis(Settings(redis_url=job.redis_url))
    stack = await Stack.start(FaultyRedis(client, faults), job.storage, drill_config(), prefix=job.prefix)
    stack.tables = with_faults(stack.tables, faults)
    stack.wire()
    checkpoint = read_checkpoint(job.checkpoint_path)
    while checkpoint.done < len(plan):
        partition, events = plan[checkpoint.done]
        stream = f"ns/usage/{partition}"
        batch = [Delivery(body, Position(stream, ms, sequence)) for ms, sequence, body in events]
        try:
            await stack.ingest.run(batch)
        except (AzureError, RedisError, OSError, TimeoutError):
            checkpoint.failures += 1
            continue
        checkpoint.done += 1
        _write_checkpoint(job.checkpoint_path, checkpoint)
    await stack.close()
    await client.aclose()
