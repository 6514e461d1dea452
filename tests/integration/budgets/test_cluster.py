"""The scripts on a cluster of three nodes: every tenant in its own slot, and nodes that forgot their scripts."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from shared.budgets.connect import open_redis
from shared.budgets.keys import tenant_keys
from shared.budgets.reservation import ReservationSigner
from shared.budgets.store import Charge
from shared.config.model import Config, Tenant
from shared.ledger.row import Position
from shared.ledger.settlement import Entry, TenantSettler
from shared.settings import Settings
from tests.support.engine import MICRO_USD, Engine, budget, config, row

CALL = 100 * 1 * MICRO_USD + 100 * 2 * MICRO_USD


@pytest.fixture
async def engine(redis_cluster) -> AsyncIterator[Engine]:
    """An engine over the cluster with twelve tenants, enough to land on every node."""
    settings = Settings(redis_url=redis_cluster.url, redis_cluster=True, redis_timeout_seconds=5)
    client: Any = open_redis(settings)
    prefix = uuid.uuid4().hex[:6]
    known = config(budget("team:search", 10 * CALL))
    tenants = {f"{prefix}-{i}": Tenant(f"{prefix}-{i}") for i in range(12)}
    engine = Engine(client, Config("v1", tenants, {}, known.budgets, known.models, prices=known.prices))
    for tenant in tenants:
        await engine.open(tenant)
    yield engine
    await client.aclose()


def tenants_of(engine: Engine) -> list[str]:
    return list(engine.snapshot.config.tenants)


async def figures(engine: Engine, tenant: str) -> tuple[int, int]:
    [cell] = await engine.store.cells(tenant, await engine.store.now_ms())
    spent, held, _ = await engine.store.figures(tenant, cell)
    return spent, held


async def test_tenants_live_on_every_node(engine, redis_cluster):
    """All keys of a tenant share its hash tag and so one slot; tenants spread over the nodes."""
    nodes = {}
    for tenant in tenants_of(engine):
        keys = tenant_keys(tenant)
        slots = {engine.client.keyslot(key) for key in (keys.meta, keys.bits, keys.cell("x"), keys.learned("y"))}
        assert len(slots) == 1
        nodes[tenant] = engine.client.get_node_from_key(keys.meta).port
    assert set(nodes.values()) == {port for _, port in redis_cluster.startup_nodes}


async def cycle(engine: Engine, tenant: str) -> None:
    """Two checks; one is settled with 7 nano, the other given back; then the ledger turns out to know of 5 more."""
    first, second = [await engine.check(tenant=tenant) for _ in range(2)]
    assert await figures(engine, tenant) == (0, 2 * CALL)
    charged = row(7, Position("ns/usage/0", 1_000, 1), tenant=tenant)
    entry = Entry(charged.position, charged, True, True, engine.signer.read(first.reservation))
    await TenantSettler(engine.store).settle(engine.snapshot.index, tenant, [entry])
    assert await engine.service.release(second.reservation)
    assert await figures(engine, tenant) == (7, 0)
    cells = await engine.store.cells(tenant, await engine.store.now_ms())
    cut = await engine.store.cut(tenant, cells)
    assert cut.spent_nano_usd == (7,)
    assert await engine.store.adjust(tenant, cut, [Charge(cells[0], 5, 0)], [], ready=True)
    assert await figures(engine, tenant) == (12, 0)


async def test_the_whole_cycle_works_in_every_slot(engine):
    """check, settle, release, cut and adjust reach the right node and touch only keys of one slot."""
    for tenant in tenants_of(engine):
        await cycle(engine, tenant)


async def test_nodes_that_forgot_their_scripts_are_told_again(engine, redis_cluster):
    """After a restart or failover EVALSHA finds no script on one node; each script is sent again in full."""
    for host, port in redis_cluster.startup_nodes[:2]:
        with redis.Redis(host=host, port=port) as node:
            node.script_flush()
    for tenant in tenants_of(engine):
        await cycle(engine, tenant)


async def test_a_tenants_token_gives_nothing_back_to_another(engine):
    """A token names its tenant; its cells do not exist in another slot."""
    one, other = tenants_of(engine)[:2]
    await engine.check(tenant=other)
    token = (await engine.check(tenant=one)).reservation
    assert await engine.service.release(token)
    assert await figures(engine, other) == (0, CALL)


async def test_a_forged_tenant_is_refused(engine):
    """Only our signature makes a token; one made with another key changes nothing on any node."""
    tenant = tenants_of(engine)[0]
    mine = engine.signer.read((await engine.check(tenant=tenant)).reservation)
    assert not await engine.service.release(ReservationSigner([b"another key"]).sign(mine))
    assert await figures(engine, tenant) == (0, CALL)


async def test_the_clock_the_policy_and_the_ping_answer_on_a_cluster(engine):
    """These commands name no key, so a cluster client sends them to several nodes and answers in another shape."""
    assert await engine.store.now_ms() > 1_700_000_000_000
    assert await engine.store.eviction_policy() == "noeviction"
    await engine.store.ping()
