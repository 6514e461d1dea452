"""What a call costs on its way through the gateway, beside LiteLLM's proxy and Portkey's gateway in the same run.

python -m bench gateway           (make bench-gateway installs the other two first)

All stand in front of one fake model, which is also asked directly. Added milliseconds are a target's minus the fake
model's in the same round. The load comes from this process.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from dataclasses import dataclass, field

import uvloop

from bench.common import number, percentile, resident_mib, table, title, verdict
from bench.gateway_backing import Backing
from bench.gateway_load import Round, connect, drive
from bench.gateway_targets import (
    Target,
    cpu_seconds,
    require_litellm_counts,
    start_litellm,
    start_model,
    start_ours,
    start_portkey,
)
from local.redis_server import start_redis

ROUNDS = 4
SETTLE_SECONDS = 0.4  # after a round: events and cost callbacks of its last calls belong to its CPU time
OPEN_STREAMS, OPEN_SECONDS = 500, 120
MOST_OF_LITELLM, MOST_OF_PORTKEY = 0.1, 1.5
ALONE, TOGETHER, STREAMS = "1 connection", "16 connections", "16 streams at a time"
CONNECTIONS = {ALONE: 1, TOGETHER: 16, STREAMS: 16}
CALLS = {ALONE: 400, TOGETHER: 800, STREAMS: 320}
SLOW_CALLS = {ALONE: 60, TOGETHER: 160, STREAMS: 64}  # of LiteLLM, whose calls take ten times as long
DIRECT, OURS, LITELLM, PORTKEY = "fake model, direct", "ours, 4 budgets", "LiteLLM proxy", "Portkey OSS"


@dataclass
class Figures:
    """One target under one load, a value per round."""

    rounds: list[Round] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # of the server's processes, per call

    def p50_ms(self) -> list[float]:
        """The median latency of each round."""
        return [percentile(sorted(taken.latencies_ms), 50) for taken in self.rounds]

    def p99_ms(self) -> float:
        """Over all rounds together."""
        return percentile(sorted(ms for taken in self.rounds for ms in taken.latencies_ms), 99)

    def first_ms(self) -> float:
        """The median time to the head of the answer."""
        return statistics.median(ms for taken in self.rounds for ms in taken.first_bytes_ms)


Results = dict[str, dict[str, Figures]]  # by load, by target


def main() -> None:
    """Start everything, measure in turn, print, stop."""
    redis = start_redis()
    backing = Backing(redis)
    direct, model_url = start_model()
    try:
        uvloop.run(_measure(backing, direct, model_url, redis.port))
    finally:
        direct.process.stop()
        backing.stop()
        redis.stop()


async def _measure(backing: Backing, direct: Target, model_url: str, redis_port: int) -> None:
    await backing.open()
    ours = start_ours(model_url, backing.environment)
    litellm, portkey = start_litellm(model_url, redis_port), start_portkey(model_url)
    targets = [target for target in (direct, ours, litellm, portkey) if target is not None]
    title(
        "Gateway: a chat completion on its way to a fake model and back",
        f"{ROUNDS} rounds, targets in turn; each server is one process, the load another",
    )
    for name, found in ((LITELLM, litellm), (PORTKEY, portkey)):
        if found is None:
            print(f"{name} is not installed: `make bench-gateway` installs it")
    served: Counter[str] = Counter()
    results: Results = {load: {target.name: Figures() for target in targets} for load in CALLS}
    for target in targets:
        for load in CALLS:
            await _round(target, load, Figures(), served, calls=SLOW_CALLS[load])
    if litellm is not None:
        require_litellm_counts(redis_port)
    for _ in range(ROUNDS):
        for load in CALLS:
            for target in targets:
                await _round(target, load, results[load][target.name], served)
    for load in CALLS:
        _print(load, results[load])
    await _print_memory(targets, served)
    messages = await backing.require_events(served[OURS])
    print(
        f"events: the hub has those of all {served[OURS]:,} served calls, {messages - served[OURS]:,} of them repeated"
    )
    for target in targets[1:]:
        target.process.stop()


async def _round(
    target: Target, load: str, figures: Figures, served: Counter[str], *, calls: int | None = None
) -> None:
    ask = target.stream if load == STREAMS else target.whole
    calls = calls or (SLOW_CALLS if target.name == LITELLM else CALLS)[load]
    before = cpu_seconds(target.process.pid)
    taken = await drive(ask, calls, CONNECTIONS[load])
    await asyncio.sleep(SETTLE_SECONDS)
    figures.cpu_ms.append((cpu_seconds(target.process.pid) - before) / taken.calls * 1e3)
    figures.rounds.append(taken)
    served[target.name] += taken.calls


def _print(load: str, by_target: dict[str, Figures]) -> None:
    direct = by_target[DIRECT]
    added = {
        name: [mine - its for mine, its in zip(figures.p50_ms(), direct.p50_ms(), strict=True)]
        for name, figures in by_target.items()
    }
    rows = []
    for name, figures in by_target.items():
        row = [number(statistics.median(figures.p50_ms())), number(figures.p99_ms())]
        if load == STREAMS:
            row.append(number(figures.first_ms()))
        row += [number(statistics.median(added[name])), number(figures.p99_ms() - direct.p99_ms())]
        row.append(number(statistics.median(taken.per_second for taken in figures.rounds)))
        rows.append([name, *row, number(statistics.median(figures.cpu_ms))])
    print(f"\n{load}")
    headers = ["", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "calls/s", "CPU ms/call"]
    if load == STREAMS:
        headers.insert(3, "first byte ms")
    table(headers, rows)
    for name, most in ((LITELLM, MOST_OF_LITELLM), (PORTKEY, MOST_OF_PORTKEY)):
        if name in by_target:
            _print_ratios(name, most, added, by_target)


def _print_ratios(name: str, most: float, added: dict[str, list[float]], by_target: dict[str, Figures]) -> None:
    milliseconds = statistics.median(mine / its for mine, its in zip(added[OURS], added[name], strict=True))
    cpu = statistics.median(by_target[OURS].cpu_ms) / statistics.median(by_target[name].cpu_ms)
    shown = f"added ms {verdict(milliseconds, most, at_most=True)}, CPU {verdict(cpu, most, at_most=True)}"
    print(f"ours / {name}: {shown}")


async def _print_memory(targets: list[Target], served: Counter[str]) -> None:
    """Resident memory before and with many streams that have begun and do not end."""
    rows = []
    for target in targets[1:]:
        before, held = resident_mib(target.process.pid), await _held_mib(target)
        rows.append([target.name, number(before), number(held), number((held - before) * 1024 / OPEN_STREAMS)])
        served[target.name] += OPEN_STREAMS
    print(f"\nmemory with {OPEN_STREAMS} open streams")
    table(["", "MiB before", "MiB", "KiB per stream"], rows)


async def _held_mib(target: Target) -> float:
    """What the server holds while all the streams are open; then their clients leave."""
    streams = [await connect(target.paused) for _ in range(OPEN_STREAMS)]
    for stream in streams:
        stream.send(target.paused)
    async with asyncio.timeout(OPEN_SECONDS):
        for stream in streams:
            await stream.begun.wait()
    held = resident_mib(target.process.pid)
    for stream in streams:
        stream.close()
    await asyncio.sleep(SETTLE_SECONDS)
    return held


if __name__ == "__main__":
    main()
