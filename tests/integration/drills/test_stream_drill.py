"""Streams under SIGKILL: two workers die again and again between any two steps, and no call is billed twice or not."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.engine import MICRO_USD, flushed
from tests.support.ingest_worker import drill_config
from tests.support.stack import Stack, changed, usage_bytes
from tests.support.stream_worker import StreamJob, append, lines_of, main, progress_of

CALLS = 400
KILLS = 20
ESTIMATE = 1_000 + 100 * 2  # micro-USD: default input and the stack's default output


def write_plans(rng: random.Random, directory: Path) -> tuple[int, int]:
    """Events and log messages in any order, with duplicates; returns what they cost and how many are measured."""
    truth = measured = 0
    events, messages = [], []
    now = datetime.now(UTC)
    for number in range(CALLS):
        id_ = f"{number:08x}-0000-4000-8000-000000000000"
        event = usage_bytes(id_, 0, time_utc=now - timedelta(seconds=rng.randrange(600)))
        events += [changed(event, usage=None, streamed=True)] * rng.choice([1, 1, 1, 2])
        if number % 10 == 0:
            truth += ESTIMATE
            continue
        measured += 1
        prompt, completion = rng.randint(1, 3_000), rng.randint(1, 3_000)
        truth += prompt + 2 * completion
        rows = [(1, prompt, 0), (2, 0, completion)] if rng.random() < 0.5 else [(1, prompt, completion), (2, 0, 0)]
        for sequence, p, c in rows:
            tokens = {"promptTokens": p, "completionTokens": c, "sequenceNumber": sequence, "isStreamCompletion": True}
            record = {"category": "GatewayLlmLogs", "correlationId": id_.upper(), "properties": tokens}
            messages += [json.dumps({"records": [record]}).encode()] * rng.choice([1, 1, 2])
    rng.shuffle(events)
    rng.shuffle(messages)
    append(directory / "usage.plan", events)
    append(directory / "logs.plan", messages)
    return truth * MICRO_USD, measured


async def test_every_stream_is_trued_up_exactly_once(redis_server, azurite, tmp_path: Path):
    """A worker dead between a half and its look for the other, between claim and publishing, between ledger and
    counters: whatever it left, the next one finishes, and only once.

    Two workers, killed 20 times, over storage, Redis and a hub that refuse or lose replies in turn.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    client = await flushed(redis_server.url)
    stack = await Stack.start(client, azurite.connection_string, drill_config())
    await stack.open()
    truth, measured = write_plans(rng, tmp_path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.stream_worker", "azure.data.tables.aio", "azure.storage.blob.aio"])
    jobs = [
        StreamJob(role, redis_server.url, azurite.connection_string, stack.prefix, str(tmp_path))
        for role in ("usage", "logs")
    ]
    workers = {}

    def start(job: StreamJob) -> None:
        job.seed = rng.randrange(2**32)
        workers[job.role] = context.Process(target=main, args=(job,), daemon=True)
        workers[job.role].start()

    for job in jobs:
        start(job)
    started, kills = time.monotonic(), 0
    while any(worker.is_alive() for worker in workers.values()):
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        job = rng.choice(jobs)
        if kills < KILLS and workers[job.role].is_alive():
            workers[job.role].kill()
            workers[job.role].join()
            kills += 1
            start(job)
    assert [worker.exitcode for worker in workers.values()] == [0, 0]
    failures = sum(progress_of(job).failures for job in jobs)
    published = lines_of(tmp_path / "hub")
    print(f"{kills} kills, {failures} failures, {len(published)} published: {time.monotonic() - started:.1f} s")
    assert kills >= 10
    assert len(set(published)) == measured

    start_utc, end_utc = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) + timedelta(hours=2)
    kinds = Counter([row.kind async for row in stack.ledger.rows("acme", start_utc, end_utc)])
    assert kinds == {"accrual": CALLS, "reversal": measured, "true_up": measured}
    assert await stack.ledger_total_nano_usd() == truth
    assert await stack.dead_letters.list() == []
    await stack.repair.run()
    assert (await stack.repair.reconcile("acme")).drift_nano_usd == 0
    assert await stack.spent_and_held("tenant:acme") == (truth, 0)
    assert (await stack.sweep.run(datetime.now(UTC) + timedelta(hours=1))).unmeasured == Counter(acme=CALLS - measured)
    await stack.close()
    await client.aclose()
