"""What one call costs as a tenant grows: more budgets, more users. The cost per call has to stay flat.

python -m bench.scale
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Sequence

from bench.common import Load, drive, number, ratio, resident_mib, summarize, table, title
from bench.product import FOUR_SCOPES, TENANT, Product, budget, configuration
from local.redis_server import RedisServer, start_redis
from shared.budgets.store import Charge, SettleBatch
from shared.config.model import Budget
from shared.ledger.row import Position

ROUNDS = 5
CYCLES = 600
CALLERS = 4
USERS = (10, 10_000, 1_000_000)
CELLS_PER_SETTLEMENT = 5_000


def main() -> None:
    """Print both curves."""
    server = start_redis()
    try:
        asyncio.run(_budgets(server))
        asyncio.run(_users(server))
    finally:
        server.stop()


async def _budgets(server: RedisServer) -> None:
    title(
        "Cost per cycle by budgets of the tenant", f"check + settle, {CALLERS} callers; how many budgets match a call"
    )
    plans = {
        "1 budget, 1 matches": [budget("team:*")],
        "10 budgets, 4 match": _with_strangers(10, FOUR_SCOPES),
        "100 budgets, 4 match": _with_strangers(100, FOUR_SCOPES),
        "4 budgets, 4 match": _with_strangers(4, FOUR_SCOPES),
        "10 budgets, 10 match": _overlapping(10),
        "100 budgets, 100 match": _overlapping(100),
    }
    loads: dict[str, list[Load]] = defaultdict(list)
    numbers = itertools.count(1, CYCLES)
    for _ in range(ROUNDS):
        for name, budgets in plans.items():
            product = Product(server.url, configuration(budgets))
            await product.open()
            await _round(product, next(numbers), 100)
            loads[name].append(await _round(product, next(numbers), 100))
            await product.close()
    _print(loads, "4 budgets, 4 match")


async def _users(server: RedisServer) -> None:
    product = Product(server.url, configuration([budget(scope) for scope in FOUR_SCOPES]))
    await product.open()
    title("Cost per cycle by users under `user:*`", f"check + settle on 4 scopes, {CALLERS} callers, users at random")
    loads: dict[str, list[Load]] = defaultdict(list)
    numbers = itertools.count(1, CYCLES)
    made, memory = 0, {}
    for users in USERS:
        await _make_cells(product, made, users)
        made, name = users, f"{users:,} users"
        memory[name] = resident_mib(server.process.pid)
        for _ in range(6):
            await _round(product, next(numbers), users)
        await asyncio.sleep(3)
        for _ in range(ROUNDS):
            loads[name].append(await _round(product, next(numbers), users))
    _print(loads, f"{USERS[0]:,} users")
    print("Redis memory: " + ", ".join(f"{mib:.0f} MiB with {name}" for name, mib in memory.items()))
    await product.close()


async def _round(product: Product, first: int, users: int) -> Load:
    async def cycle(caller: int, at: int) -> None:
        # A stride that shares no factor with the numbers of users visits them all over the place, the same each run.
        scopes = {"team": f"t{at % 10}", "user": f"u{at * 7_919 % users}", "app": f"a{at % 20}", "org": "contoso"}
        reservation = await product.check(scopes)
        await product.settle([product.entry(scopes, reservation, f"ns/hub/{caller}", at)])

    return await drive(cycle, CYCLES, CALLERS, first, product.client)


async def _make_cells(product: Product, first: int, users: int) -> None:
    """Give users `first` to `users` a counter, by the script that settles real events."""
    for start in range(first, users, CELLS_PER_SETTLEMENT):
        charges = []
        for user in range(start, min(users, start + CELLS_PER_SETTLEMENT)):
            [*cells] = product.snapshot.index.cells_of_call(
                TENANT, {"user": f"u{user}"}, "", product.started_utc.timestamp()
            )
            charges += [Charge(cell, 1_000, 0) for cell in cells]
        position = Position("ns/hub/prefill", start + 1, start + 1)
        batch = SettleBatch("ns/hub/prefill", position, position, None, False, charges, (), {})
        await product.store.settle(TENANT, batch)


def _with_strangers(count: int, matching: Sequence[str]) -> list[Budget]:
    """Some budgets that match every call, the others on teams that never call."""
    strangers = [budget(f"team:elsewhere-{number}") for number in range(count - len(matching))]
    return [*map(budget, matching), *strangers]


def _overlapping(count: int) -> list[Budget]:
    """Budgets that all match: limits of their own laid over the same four counters."""
    return [budget(FOUR_SCOPES[number % 4], 1_000_000 + number) for number in range(count)]


def _print(loads: dict[str, list[Load]], baseline: str) -> None:
    rates = {name: [load.per_second for load in rounds] for name, rounds in loads.items()}
    base = summarize(loads[baseline])
    rows = []
    for name, rounds in loads.items():
        figures = summarize(rounds)
        row = [name, *(number(figure) for figure in figures)]
        row.append(number((figures.client_cpu_us + figures.redis_cpu_us) / (base.client_cpu_us + base.redis_cpu_us)))
        rows.append([*row, number(ratio(rates[name], rates[baseline]))])
    figures_of = ["cycles/s", "p50 us", "p99 us", "client CPU us", "Redis CPU us"]
    table(["", *figures_of, f"CPU / {baseline}", f"cycles/s / {baseline}"], rows)


if __name__ == "__main__":
    main()
