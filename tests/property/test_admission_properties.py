"""check.lua and settle.lua on a real server against the plain rules: the same answer to every question."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.budgets.cells import CellFamily
from shared.budgets.connect import open_redis
from shared.budgets.keys import tenant_keys
from shared.budgets.matching import BudgetIndex, budget_family
from shared.budgets.plan import CheckPlan, PlannedBudget, carry_field, date_plan
from shared.budgets.rules import BudgetFigures, Candidate, decide
from shared.budgets.store import BudgetStore
from shared.config.model import Budget
from shared.ledger.row import Position
from shared.ledger.settlement import Entry, TenantSettler
from shared.ppm import PPM
from shared.settings import Settings
from tests.support.engine import Engine, budget, config, row, usd

ON_REAL_SERVER = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
BIG = 2**60  # past 2^53 a Lua number would round
NEAR = st.one_of(st.integers(-3, 3), st.integers(-2 * 10**9, 2 * 10**9))
tenants = itertools.count()


@pytest.fixture
async def client(redis_server) -> AsyncIterator[Any]:
    """The product's client; every example uses a tenant of its own."""
    client = open_redis(Settings(redis_url=redis_server.url, redis_timeout_seconds=5))
    yield client
    await client.aclose()


@st.composite
def situations(draw) -> dict[str, Any]:
    """Cells with what is spent and held, budgets over them, and candidates, mostly close to some threshold."""
    n_cells = draw(st.integers(1, 3))
    budgets, cell_of, carries = [], [], []
    for number in range(draw(st.integers(1, 4))):
        limit = draw(st.one_of(st.integers(0, 10**6), st.integers(0, 10**13), st.integers(0, BIG)))
        stop_ppm = draw(st.sampled_from([PPM, PPM, 999_999, 333_333, 1]))
        budgets.append(
            Budget(
                f"b{number}", None, "team", f"k{number}", "month", "UTC", limit,
                degrade_ppm=min(stop_ppm, draw(st.integers(0, PPM))), stop_ppm=stop_ppm,
                on_stop=draw(st.sampled_from(["refuse", "refuse", "downgrade", "allow"])), rollover=draw(st.booleans()),
            )
        )  # fmt: skip
        cell_of.append(draw(st.integers(0, n_cells - 1)))
        carries.append(draw(st.one_of(st.just(0), st.integers(0, 10**17))) if budgets[-1].rollover else 0)
    candidates = []
    for number in range(draw(st.integers(1, 3))):
        flags = "".join(draw(st.lists(st.sampled_from("0012x"), min_size=len(budgets), max_size=len(budgets))))
        if number == 0:
            flags = flags.replace("x", "0")
        dear = draw(st.sampled_from([0, 1, 999, 300_000, 10**9, 10**15]))
        output_pico, default = draw(st.sampled_from([0, 1, 1_999, 10**7])), draw(st.sampled_from([0, 1, 500]))
        cap = draw(st.sampled_from([-1, -1, 0, 1, 499, 500, 10**6]))
        candidates.append((flags, (dear, output_pico, cap, default)))
    spent, held = [], []
    for cell in range(n_cells):
        mine = [i for i in range(len(budgets)) if cell_of[i] == cell]
        target = 0
        if mine:
            chosen = draw(st.sampled_from(mine))
            ppm = draw(st.sampled_from([budgets[chosen].stop_ppm, budgets[chosen].degrade_ppm]))
            target = BudgetFigures(
                budgets[chosen], budgets[chosen].limit_nano, 0, 0, carries[chosen]
            ).threshold_nano_usd(ppm)
        target += draw(NEAR) - draw(st.sampled_from([0, *(amount for _, (amount, *_) in candidates)]))
        holds = draw(st.one_of(st.just(0), st.integers(0, 10**6), st.integers(0, max(0, target))))
        held.append(holds)
        spent.append(target - holds)
    seeded = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=len(budgets), max_size=len(budgets)))
    return {
        "budgets": budgets, "cell_of": cell_of, "carries": carries, "candidates": candidates, "spent": spent,
        "held": held, "seeded": seeded,
    }  # fmt: skip


def estimated(args: tuple[int, int, int, int]) -> tuple[int, bool]:
    """The estimate of a candidate nobody has learned about yet, and whether it can be trusted."""
    input_nano_usd, output_pico, cap, default = args
    tokens, known = (cap, True) if 0 <= cap <= default else (default, default == 0)
    return input_nano_usd + math.ceil(tokens * output_pico / 1_000), known


async def written(client: Any, tenant: str, case: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The state of the case in the server, as scripts leave it; the plan of the check and its keys."""
    keys, index = tenant_keys(tenant), BudgetIndex(config(*case["budgets"]))
    plan = CheckPlan(
        tenant,
        tuple((CellFamily("team", "month", "UTC"), f"cell{i}") for i in range(len(case["spent"]))),
        tuple(PlannedBudget(each, cell) for each, cell in zip(case["budgets"], case["cell_of"], strict=True)),
        tuple(f"m{i}" for i in range(len(case["candidates"]))),
        tuple(flags for flags, _ in case["candidates"]),
        tuple("1" * len(case["spent"]) for _ in case["candidates"]),
    )
    dated = date_plan(plan, index, time.time())
    names = [keys.cell(cell.id) for cell in dated.cells]
    seeded = [f"fam:{budget_family(b).id}" for b, yes in zip(case["budgets"], case["seeded"], strict=True) if yes]
    meta = {"gen": "g", "ready": 1, "born": int(time.time() * 1000), **dict.fromkeys(seeded, 1)}
    await client.hset(keys.meta, mapping=meta)
    for name, spent, held in zip(names, case["spent"], case["held"], strict=True):
        await client.hset(name, mapping={"spent": spent, "held": held})
    for each, cell, carry in zip(case["budgets"], case["cell_of"], case["carries"], strict=True):
        if each.rollover:
            await client.hset(names[cell], carry_field(each), carry)
    learned = [keys.learned("nothing")] * 3 * len(case["candidates"])
    return dated, (keys.meta, keys.bits, keys.index, keys.asserted, *names, *learned)


@given(case=situations())
@ON_REAL_SERVER
async def test_the_script_decides_as_the_rules_do(client, case):
    """Whatever the amounts, the script admits, downgrades or refuses exactly as rules.decide, and names the budget."""
    tenant = f"prop{next(tenants)}-{uuid.uuid4().hex[:8]}"
    dated, keys = await written(client, tenant, case)
    figures = [
        BudgetFigures(each, each.limit_nano, case["spent"][cell], case["held"][cell], carry)
        for each, cell, carry in zip(case["budgets"], case["cell_of"], case["carries"], strict=True)
    ]
    models, args = [], []
    for number, (flags, estimate_args) in enumerate(case["candidates"]):
        amount, known = estimated(estimate_args)
        waiting = "".join(flag if yes else "x" for flag, yes in zip(flags, case["seeded"], strict=True))
        models.append(Candidate(f"m{number}", amount, waiting, known))
        args += estimate_args
    expected = decide(figures, models)

    reply = await BudgetStore(client, 60_000, 1_000).check(keys, dated.script_plan, args, False)

    assert (reply.outcome, reply.candidate) == (expected.outcome, expected.candidate)
    assert reply.estimate_nano_usd == models[expected.candidate].estimate_nano_usd
    assert reply.figures[: 2 * len(case["spent"])] == tuple(
        itertools.chain.from_iterable(zip(case["spent"], case["held"], strict=True))
    )
    assert reply.figures[2 * len(case["spent"]) :] == tuple(case["carries"])
    if expected.outcome != "ok":
        assert reply.binding == expected.binding
    held = expected.outcome == "ok"
    amount = models[expected.candidate].estimate_nano_usd if held else 0
    for name, before in zip(keys[4:], case["held"], strict=False):
        assert int(await client.hget(name, "held")) == before + amount


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("check"), st.sampled_from(["a", "b", "ab"])),
        st.tuples(st.just("settle"), st.integers(0, 30)),
        st.tuples(st.just("redeliver"), st.integers(0, 30)),
        st.tuples(st.just("release"), st.integers(0, 30)),
        st.tuples(st.just("expire"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


class Model:
    """What must be held: every admitted call's estimate until it is given back once, or expires."""

    def __init__(self) -> None:
        self.holds: list[tuple[Any, str, set[str]]] = []  # reservation, token, cells
        self.given_back: set[int] = set()
        self.seen_live: dict[str, int] = {}  # per cell: the bucket below which it last dropped what expired
        self.live = 0
        self.spent: dict[str, int] = {"a": 0, "b": 0}

    def give_back(self, number: int) -> None:
        if self.holds[number][0].bucket >= self.live:
            self.given_back.add(number)

    def held(self, cell: str) -> int:
        return sum(
            reservation.amount_nano_usd
            for number, (reservation, _, cells) in enumerate(self.holds)
            if cell in cells and number not in self.given_back and reservation.bucket >= self.seen_live.get(cell, 0)
        )


@given(operations=OPERATIONS)
@settings(parent=ON_REAL_SERVER, max_examples=60)
async def test_held_is_always_the_sum_of_the_open_holds(client, operations):
    """In any order of checks, settlements, redeliveries, releases and expiry: never negative, never off by one hold."""
    await client.flushdb()
    # TTL 0 and buckets of a millisecond: the watermark alone says what has expired.
    engine = Engine(
        client, config(budget("team:*", usd(1000)), budget("user:*", usd(1000))), hold_ttl_ms=0, bucket_ms=1
    )
    await engine.open()
    settler, model = TenantSettler(engine.store), Model()
    watermark_ms, sequence, settled = await engine.store.now_ms() - 10_000, 0, []
    await engine.store.set_watermark("acme", watermark_ms)
    for operation, what in operations:
        if operation == "check":
            scopes = {"team": "a", "user": "b"} if what == "ab" else {"team" if what == "a" else "user": what}
            answer = await engine.check(scopes=scopes)
            reservation = engine.signer.read(answer.reservation)
            model.live = max(model.live, min(reservation.admitted_ms, watermark_ms))
            model.seen_live.update(dict.fromkeys(what, model.live))
            model.holds.append((reservation, answer.reservation, set(what)))
        elif operation == "expire":
            watermark_ms = await engine.store.now_ms() + 1
            await engine.store.set_watermark("acme", watermark_ms)
        elif operation == "redeliver" and settled:
            await settler.settle(engine.snapshot.index, "acme", [settled[what % len(settled)]])
        elif operation in ("settle", "release") and model.holds:
            number = what % len(model.holds)
            reservation, token, cells = model.holds[number]
            if operation == "release":
                await engine.service.release(token)
            else:
                sequence += 1
                names = {"a": ("team", "a"), "b": ("user", "b")}
                scopes = dict(names[cell] for cell in cells)
                charged = row(7, Position("ns/usage/0", 1_000, sequence), id=str(sequence), scopes=scopes)
                settled.append(Entry(charged.position, charged, True, True, reservation))
                await settler.settle(engine.snapshot.index, "acme", [settled[-1]])
                for cell in cells:
                    model.spent[cell] += 7
            model.give_back(number)
        for cell, scope in (("a", "team:a"), ("b", "user:b")):
            assert await engine.spent_and_held(scope) == (model.spent[cell], model.held(cell))
            raw = [await client.hget(tenant_keys("acme").cell(c.id), "held") for c in await all_cells(engine, scope)]
            assert all(int(held or 0) >= 0 for held in raw)


async def all_cells(engine: Engine, scope: str) -> list[Any]:
    return [cell for cell in await engine.store.cells("acme", int(time.time() * 1000)) if cell.scope == scope]
