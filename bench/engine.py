"""The budget cycle, check + settle on four scopes: ours beside the floor and, when it is installed, LiteLLM.

python -m bench engine            (make bench-litellm installs LiteLLM in a virtualenv of its own first)
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

from bench.common import Load, Operation, drive, number, ratio, resident_mib, summarize, table, title, verdict
from bench.floor import Floor
from bench.litellm_runner import LiteLlm
from bench.product import FOUR_SCOPES, Product, budget, configuration, scopes_of_call
from local.redis_server import RedisServer, start_redis
from shared.ledger.settlement import Entry

ROUNDS = 7
CYCLES = 1_500
LITELLM_CYCLES = 150
CALLERS = (1, 16)
BATCH = 100
LEAST_OF_FLOOR, LEAST_OF_LITELLM = 0.7, 10.0

OURS, OURS_BATCHED, FLOOR = "ours, settle per call", f"ours, settle per {BATCH} calls", "floor"
LITELLM = "LiteLLM"


def main() -> None:
    """Run all contenders in turn and print the figures."""
    server = start_redis()
    try:
        asyncio.run(_compare(server))
    finally:
        server.stop()


async def _compare(server: RedisServer) -> None:
    product = Product(server.url, configuration([budget(scope) for scope in FOUR_SCOPES]))
    floor = Floor(server.url)
    await product.open()
    await floor.open()
    litellm = LiteLlm.start(server.port)
    title(
        "Budget cycle: check + settle on 4 scopes",
        f"{server.engine} on loopback; {ROUNDS} rounds of {CYCLES} cycles, contenders in turn",
        "with LiteLLM beside, in a process of its own"
        if litellm
        else "LiteLLM is not installed: `make bench-litellm` puts it into a virtualenv of its own",
    )
    numbers = itertools.count(1, CYCLES)
    for callers in CALLERS:
        contenders = {OURS: _single(product), OURS_BATCHED: _batched(product, callers), FLOOR: _floor(floor)}
        loads: dict[str, list[Load]] = defaultdict(list)
        for operation in contenders.values():
            await drive(operation, CYCLES // 5, callers, next(numbers))
        for _ in range(ROUNDS):
            for name, operation in contenders.items():
                loads[name].append(await drive(operation, CYCLES, callers, next(numbers), product.client))
            if litellm:
                loads[LITELLM].append(await litellm.drive(LITELLM_CYCLES, callers, product.client))
        _print(callers, loads)
    print(f"memory: client {resident_mib():.0f} MiB, server {resident_mib(server.process.pid):.0f} MiB")
    await product.close()
    await floor.close()
    if litellm:
        litellm.stop()


def _single(product: Product) -> Operation:
    async def cycle(caller: int, at: int) -> None:
        scopes = scopes_of_call(at)
        reservation = await product.check(scopes)
        await product.settle([product.entry(scopes, reservation, f"ns/hub/{caller}", at)])

    return cycle


def _batched(product: Product, callers: int) -> Operation:
    waiting: list[list[Entry]] = [[] for _ in range(callers)]

    async def cycle(caller: int, at: int) -> None:
        scopes, mine = scopes_of_call(at), waiting[caller]
        mine.append(product.entry(scopes, await product.check(scopes), f"ns/batched/{caller}", at))
        if len(mine) >= BATCH:
            entries, waiting[caller] = mine, []
            await product.settle(entries)

    return cycle


def _floor(floor: Floor) -> Operation:
    return lambda _, at: floor.cycle(scopes_of_call(at), at)


def _print(callers: int, loads: dict[str, list[Load]]) -> None:
    rates = {name: [load.per_second for load in rounds] for name, rounds in loads.items()}
    rows = []
    for name, rounds in loads.items():
        figures = summarize(rounds)
        row = [number(figure) for figure in figures]
        row.append(number(figures.client_cpu_us / summarize(loads[FLOOR]).client_cpu_us))
        ours = name in (OURS, OURS_BATCHED)
        row.append(verdict(ratio(rates[name], rates[FLOOR]), LEAST_OF_FLOOR) if ours else "")
        if LITELLM in rates:
            row.append(verdict(ratio(rates[name], rates[LITELLM]), LEAST_OF_LITELLM) if ours else "")
        rows.append([name, *row])
    print(f"\n{callers} concurrent caller{'s' if callers > 1 else ''}")
    headers = ["", "cycles/s", "p50 us", "p99 us", "client CPU us", "Redis CPU us", "CPU / floor", "cycles/s / floor"]
    table([*headers, "cycles/s / LiteLLM"] if LITELLM in rates else headers, rows)


if __name__ == "__main__":
    main()
