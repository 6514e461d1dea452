"""The two workers of streams as processes of their own, over stores that fail in turn, for drills that kill them.

One ingests usage events and the true-ups that both publish, the other the LLM log. The usage hub is a file of lines
that both append to; a checkpoint moves only after a batch has succeeded, as the Functions host does it.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from azure.core.exceptions import AzureError
from redis.exceptions import RedisError

from shared.budgets.connect import open_redis
from shared.ledger.delivery import Delivery
from shared.ledger.row import Position
from shared.settings import Settings
from shared.usage.hub import HubUnavailable
from tests.support.ingest_worker import Faults, FaultyRedis, drill_config, with_faults
from tests.support.stack import Stack

FAILURES = (AzureError, RedisError, OSError, TimeoutError, HubUnavailable)
_ENQUEUED_MS = 1_790_000_000_000
_BATCH = 40


class StreamJob(msgspec.Struct):
    """What a worker is told. `role` is `usage` or `logs`; a role reads the lines of its own plan, in base64."""

    role: str
    redis_url: str
    storage: str
    prefix: str
    directory: str
    seed: int = 0


class Progress(msgspec.Struct):
    """How far the plan and the hub were read, and how often something failed."""

    planned: int = 0
    published: int = 0
    failures: int = 0


def progress_of(job: StreamJob) -> Progress:
    """The checkpoint; the start while there is none."""
    path = Path(job.directory, f"{job.role}.progress")
    return msgspec.json.decode(path.read_bytes(), type=Progress) if path.exists() else Progress()


def write_progress(job: StreamJob, at: Progress) -> None:
    """Whole or not at all: the worker may be killed here too."""
    written = Path(job.directory, f"{job.role}.new")
    written.write_bytes(msgspec.json.encode(at))
    written.replace(Path(job.directory, f"{job.role}.progress"))


def is_done(directory: str) -> bool:
    """Whether the worker of the log has carried out its plan, so that no true-up comes from there any more."""
    return Path(directory, "logs.done").exists()


def lines_of(path: Path) -> list[bytes]:
    """The whole lines of a file; the last may be half written."""
    text = path.read_bytes() if path.exists() else b""
    return [base64.b64decode(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def append(path: Path, bodies: Sequence[bytes]) -> None:
    """Put lines behind the others in one write, so that two writers never mix theirs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b"".join(base64.b64encode(body) + b"\n" for body in bodies))
    finally:
        os.close(descriptor)


def main(job: StreamJob) -> None:
    """Work until the plan is done and, for `usage`, the other is done too and nothing is left on the hub."""
    asyncio.run(_work(job))


async def _work(job: StreamJob) -> None:
    faults = Faults(job.seed)
    client = open_redis(Settings(redis_url=job.redis_url))
    stack = await Stack.start(FaultyRedis(client, faults), job.storage, drill_config(), prefix=job.prefix)
    stack.tables = with_faults(stack.tables, faults)
    hub = Path(job.directory, "hub")

    async def publish(events: Sequence[tuple[str, bytes]]) -> None:
        async def send() -> None:
            append(hub, [body for _, body in events])

        try:
            await faults.call("storage", send)
        except AzureError as error:
            raise HubUnavailable("away") from error

    stack.publish = publish  # type: ignore[method-assign]
    stack.wire()
    plan = lines_of(Path(job.directory, f"{job.role}.plan"))
    at = progress_of(job)
    while True:
        others_done = job.role == "logs" or is_done(job.directory)
        batch, ends = _next(job, plan, lines_of(hub), at)
        if not batch:
            if others_done:
                break
            await asyncio.sleep(0.05)
            continue
        try:
            await (stack.ingest if job.role == "usage" else stack.llm_logs).run(batch)
        except FAILURES:
            at.failures += 1
            continue
        at.planned, at.published = ends
        write_progress(job, at)
    Path(job.directory, f"{job.role}.done").touch()  # noqa: ASYNC240 - the last act of the process
    await stack.close()
    await client.aclose()


def _next(
    job: StreamJob, plan: list[bytes], published: list[bytes], at: Progress
) -> tuple[list[Delivery], tuple[int, int]]:
    """The next batch: of the hub when something was published, else of the plan; and where that ends."""
    if job.role == "usage" and len(published) > at.published:
        stop = min(at.published + _BATCH, len(published))
        return _deliveries("ns/usage/9", published, at.published, stop), (at.planned, stop)
    stop = min(at.planned + _BATCH, len(plan))
    hub = "usage" if job.role == "usage" else "llm-logs"
    return _deliveries(f"ns/{hub}/0", plan, at.planned, stop), (stop, at.published)


def _deliveries(stream: str, bodies: list[bytes], start: int, stop: int) -> list[Delivery]:
    return [Delivery(bodies[n], Position(stream, _ENQUEUED_MS + n, n)) for n in range(start, stop)]
