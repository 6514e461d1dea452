"""What all benchmarks share: driving a load, taking CPU and memory, and printing figures beside their baseline.

Wall time moves with whatever else the machine does, so every figure has a baseline measured in turn with it in the
same run, and CPU time per operation stands beside the rate. Nothing here fails on a slow machine.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Operation = Callable[[int, int], Awaitable[object]]
"""One operation: called with the caller's number and a running number that never repeats."""


class Load(NamedTuple):
    """What one round of operations took."""

    operations: int
    seconds: float
    client_cpu_seconds: float
    redis_cpu_seconds: float
    latencies_us: list[float]

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


class Summary(NamedTuple):
    """Several rounds of one load: medians over the rounds, percentiles over all operations, CPU per operation."""

    per_second: float
    p50_us: float
    p99_us: float
    client_cpu_us: float
    redis_cpu_us: float


async def drive(operation: Operation, operations: int, callers: int, first: int, redis: Any = None) -> Load:
    """Run `operations` operations by `callers` concurrent callers, numbered from `first` on."""
    latencies: list[float] = []

    async def call(caller: int) -> None:
        for number in range(first + caller, first + operations, callers):
            begun = time.perf_counter()
            await operation(caller, number)
            latencies.append((time.perf_counter() - begun) * 1e6)

    redis_before = await redis_cpu_seconds(redis)
    cpu_before, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_before
    return Load(operations, seconds, cpu_seconds, await redis_cpu_seconds(redis) - redis_before, latencies)


async def redis_cpu_seconds(redis: Any) -> float:
    """CPU seconds of the thread that runs commands and scripts; 0 without a server."""
    if redis is None:
        return 0.0
    info = await redis.info("cpu")
    return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])


def summarize(loads: Sequence[Load]) -> Summary:
    """One figure per column for all rounds of a load."""
    latencies = sorted(latency for load in loads for latency in load.latencies_us)
    operations = sum(load.operations for load in loads)
    return Summary(
        statistics.median(load.per_second for load in loads),
        percentile(latencies, 50),
        percentile(latencies, 99),
        sum(load.client_cpu_seconds for load in loads) / operations * 1e6,
        sum(load.redis_cpu_seconds for load in loads) / operations * 1e6,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of sorted values; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def ratio(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the rounds' ratios: rounds stand next to each other, so both saw the same machine."""
    return statistics.median(mine / its for mine, its in zip(ours, baseline, strict=True))


def best_seconds(run: Callable[[], object], rounds: int = 5) -> float:
    """The fastest of several runs of something that only computes."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def resident_mib(pid: int | None = None) -> float:
    """Memory a process holds now, in MiB; our own unless a process id is given."""
    status = Path(f"/proc/{pid or 'self'}/status")
    if not status.exists():  # not Linux: the peak of our own process is what there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def title(text: str, *notes: str) -> None:
    """A benchmark's heading."""
    print(f"\n{text}\n{'-' * len(text)}")
    for note in notes:
        print(note)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    for row in (headers, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join((row[0].ljust(widths[0]), *cells)).rstrip())


def number(value: float) -> str:
    """A figure with as many decimals as it deserves, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def verdict(value: float, target: float, *, at_most: bool = False) -> str:
    """A ratio beside its target; `(below target)` tells the reader, it fails nothing."""
    met = value <= target if at_most else value >= target
    bound = "at most" if at_most else "at least"
    return f"{value:.2f} ({bound} {target:g}{'' if met else ': MISSED'})"
