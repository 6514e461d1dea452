"""Exactly once: redelivery, disorder, duplicates, kills, and stores that fail before or after the act."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.engine import MICRO_USD, flushed
from tests.support.ingest_worker import Job, Plan, drill_config, main, read_checkpoint, write_plan
from tests.support.stack import Stack, usage_bytes

PARTITIONS = 4
KILLS = 20
HELD = 200  # events that carry a real reservation
_ENQUEUED_MS = 1_790_000_000_000


class Truth(NamedTuple):
    """What arithmetic says the open periods have spent, by scope, in nano-USD."""

    total: int
    by_scope: Mapping[str, int]


def events_and_truth(rng: random.Random, count: int, tokens: list[str]) -> tuple[list[bytes], Truth]:
    """Distinct events over twelve hours, oldest first, and what they cost: input x 1 + output x 2 micro-USD each."""
    now = datetime.now(UTC)
    bodies, total, by_scope = [], 0, defaultdict(int)
    tokens_by_number = dict(zip(rng.sample(range(count), len(tokens)), tokens, strict=True))
    for number in range(count):
        at = now - timedelta(hours=12) * (1 - number / count)
        scopes = {"team": rng.choice(["search", "ads", "legal"]), "user": f"u-{rng.randrange(20)}"}
        prompt, completion = rng.randint(1, 5_000), rng.randint(0, 2_000)
        extra = {"reservation": tokens_by_number[number]} if number in tokens_by_number else {}
        bodies.append(usage_bytes(f"e{number}", prompt, completion, time_utc=at, scopes=scopes, **extra))
        cost = (prompt * 1 + completion * 2) * MICRO_USD
        total += cost
        by_scope[f"user:{scopes['user']}"] += cost  # counted since ever
        if (at.year, at.month) == (now.year, now.month):  # counted by month
            by_scope[f"team:{scopes['team']}"] += cost
            by_scope["tenant:acme"] += cost
    return bodies, Truth(total, dict(by_scope))


def plan_of(rng: random.Random, bodies: list[bytes], batch_size: int, *, in_hub_order: bool) -> Plan:
    """The events and 5 % duplicates of them on four partitions, in batches that are each delivered twice.

    On the hub an event is up to half an hour late, as calls end in another order than they began, and its duplicate is
    anywhere. In hub order a partition's batches come one after the other, as the hub hands them out, and any of them
    comes again later; otherwise the batches are shuffled.
    """
    half_an_hour = len(bodies) / 24
    placed = [(number + rng.uniform(0, half_an_hour), body) for number, body in enumerate(bodies)]
    placed += [(rng.uniform(0, len(bodies)), body) for body in rng.sample(bodies, len(bodies) // 20)]
    published = [body for _, body in sorted(placed)]
    logs: list[list[tuple[int, int, bytes]]] = [[] for _ in range(PARTITIONS)]
    for number, body in enumerate(published):
        log = rng.choice(logs)
        log.append((_ENQUEUED_MS + number, len(log), body))
    batches: list[list[tuple[int, list[tuple[int, int, bytes]]]]] = []
    for partition, log in enumerate(logs):
        cuts = [0]
        while cuts[-1] < len(log):
            cuts.append(cuts[-1] + rng.randint(batch_size // 2, batch_size * 3 // 2))
        batches.append([(partition, log[a:b]) for a, b in pairwise(cuts)])
    flat = [batch for partition in batches for batch in partition]
    if not in_hub_order:
        plan = flat * 2
        rng.shuffle(plan)
        return plan
    turns = [partition for partition, mine in enumerate(batches) for _ in mine]
    rng.shuffle(turns)
    iterators = [iter(mine) for mine in batches]
    plan = [next(iterators[partition]) for partition in turns]
    for batch in flat:
        plan.insert(rng.randint(plan.index(batch) + 1, len(plan)), batch)
    return plan


def kill_again_and_again(rng: random.Random, job: Job, batches: int) -> int:
    """Run workers until the plan is done, killing them at 20 random moments spread over it; returns the kills."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.ingest_worker", "azure.data.tables.aio", "azure.storage.blob.aio"])
    moments = sorted(rng.sample(range(batches - 3), KILLS))  # a last batch of few events would be over before its kill
    for moment in [*moments, None]:
        job.seed = rng.randrange(2**32)
        worker = context.Process(target=main, args=(job,), daemon=True)
        worker.start()
        while worker.is_alive() and (moment is None or read_checkpoint(job.checkpoint_path).done < moment):
            time.sleep(0.01)
        if moment is not None:
            time.sleep(rng.uniform(0, 0.4))  # somewhere inside a batch
            assert worker.is_alive()
            worker.kill()
        worker.join()
    assert worker.exitcode == 0
    return len(moments)


async def assert_counters(stack: Stack, truth: Truth) -> None:
    """Ledger and every counter say what arithmetic says, to the nano-dollar, and nothing is held any more."""
    assert await stack.ledger_total_nano_usd() == truth.total
    for scope, spent in truth.by_scope.items():
        assert (scope, await stack.spent_and_held(scope)) == (scope, (spent, 0))


@pytest.mark.parametrize(
    ("count", "in_hub_order"), [(10_000, False), (3_000, True)], ids=["10000-shuffled", "3000-in-hub-order"]
)
async def test_every_event_is_billed_exactly_once(redis_server, azurite, tmp_path: Path, count, in_hub_order):
    """A batch whose worker died, whose reply was lost or that came twice would be counted 0, 2 or 3 times.

    Every batch is delivered twice, 5 % of the events are on the hub twice, the worker is killed with SIGKILL 20 times,
    storage and Redis refuse or lose replies in turn. Ledger and counters equal plain arithmetic.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    client = await flushed(redis_server.url)
    stack = await Stack.start(client, azurite.connection_string, drill_config(), hold_ttl_ms=600_000)
    await stack.open()
    tokens = [(await stack.check()).reservation for _ in range(HELD)]
    assert (await stack.spent_and_held())[1] > 0
    bodies, truth = events_and_truth(rng, count, tokens)
    plan = plan_of(rng, bodies, count // 15, in_hub_order=in_hub_order)
    job = Job(
        redis_server.url, azurite.connection_string, stack.prefix, str(tmp_path / "plan"), str(tmp_path / "at"), 0
    )
    write_plan(job.plan_path, plan)

    started = time.monotonic()
    kills = kill_again_and_again(rng, job, len(plan))
    seconds = time.monotonic() - started
    deliveries = sum(len(events) for _, events in plan)
    failures = read_checkpoint(job.checkpoint_path).failures
    print(f"{deliveries} deliveries in {len(plan)} batches, {kills} kills, {failures} failures: {seconds:.1f} s")
    assert failures >= 5

    first = await stack.repair.reconcile("acme")
    print(f"the reconciliation found {first.off} of {first.cells} counters off by {first.drift_nano_usd} nano-USD")
    if in_hub_order:
        assert first.drift_nano_usd == 0, "in hub order the counters need no reconciliation"
    await assert_counters(stack, truth)
    await stack.close()
    await client.aclose()
