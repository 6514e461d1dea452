"""Tokens of Entra ID as Redis passwords: real servers behind TLS, and tokens that end within seconds."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import ANY

import pytest

from local.process import PartMissingError
from local.redis_server import start_cluster, start_redis
from shared.budgets.connect import MAX_CONNECTIONS, open_redis
from shared.budgets.redis_errors import is_outage
from shared.budgets.trips import SharedTrips
from shared.errors import StateUnavailable
from shared.settings import Settings
from tests.support.engine import Engine, budget, config, usd
from tests.support.entra_redis import HEADER, Authority, EntraRedis

HOST = "counters.redis.test"
CLIENT_ID = "7c1d2f8e-0000-4000-8000-000000000001"
RESOURCE = "https://redis.azure.com"
CALLERS = 50
OpenEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=["server", "cluster"])
def servers(request: pytest.FixtureRequest) -> Any:
    """One server, then a cluster of three; of their own, because users and announced ports are changed."""
    try:
        started = start_redis() if request.param == "server" else start_cluster(3)
    except PartMissingError as missing:
        pytest.skip(f"Redis: {missing}")
    yield started
    started.stop()


@pytest.fixture
async def azure(servers: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EntraRedis]:
    """The servers with a user of the test's own, doors on the name HOST, and the environment of a function app."""
    nodes = getattr(servers, "nodes", [servers])
    azure = EntraRedis(nodes, str(uuid.uuid4()), CLIENT_ID)
    await azure.open(authority.server_context(HOST))
    if len(nodes) > 1:
        await _announce_doors(azure, nodes)
    monkeypatch.setenv("IDENTITY_ENDPOINT", azure.endpoint)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    resolve = socket.getaddrinfo

    def resolve_host(host: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == HOST else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_host)
    yield azure
    await azure.close()


async def _announce_doors(azure: EntraRedis, nodes: Any) -> None:
    """Let the nodes announce the doors' ports, as Azure's announce an address that is not the certificate's name."""
    import redis.asyncio as redis

    for node, door in zip(nodes, azure.doors, strict=True):
        async with redis.Redis(port=node.port) as admin:
            await admin.execute_command("CONFIG SET", "cluster-announce-bus-port", node.port + 10_000)
            await admin.execute_command("CONFIG SET", "cluster-announce-port", door.port)
    expected = {door.port for door in azure.doors}
    for node in nodes:
        async with redis.Redis(port=node.port) as admin:
            await eventually(partial(_announces, admin, expected))


async def _announces(admin: Any, ports: set[int]) -> bool:
    return {slots[2][1] for slots in await admin.execute_command("CLUSTER SLOTS")} == ports


def settings(azure: EntraRedis, authority: Authority, **changes: Any) -> Settings:
    url = f"rediss://{HOST}:{azure.doors[0].port}?ssl_ca_certs={authority.path}"
    return Settings(
        **{
            "redis_url": url,
            "redis_entra_id": True,
            "redis_timeout_seconds": 10,  # clients and doors share a loop, where fifty handshakes take their time
            "redis_cluster": len(azure.doors) > 1,
            "managed_identity_client_id": CLIENT_ID,
            **changes,
        }
    )


@pytest.fixture
async def open_engine(azure: EntraRedis, authority: Authority) -> AsyncIterator[OpenEngine]:
    """Opens a budget engine over the product's own client, with a tenant that fails closed."""
    clients: list[Any] = []

    async def open_engine(patience_seconds: float = 10) -> Engine:
        clients.append(open_redis(settings(azure, authority)))
        team = budget("team:search", usd(1_000_000))
        engine = Engine(clients[-1], config(team, fail_mode="closed"), timeout_seconds=patience_seconds)
        await engine.open()
        return engine

    yield open_engine
    for client in clients:
        await client.aclose()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock by which tokens end so many seconds ahead."""
    now = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: now() + seconds)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds; fail after 20 s."""
    for _ in range(200):
        if await holds():
            return
        await asyncio.sleep(0.1)
    pytest.fail("it did not come true in 20 s")


async def keep_checking(engine: Engine, seconds: float) -> Counter[str]:
    """CALLERS callers, each one check after the other. How they ended, by reason or by error."""
    ended: Counter[str] = Counter()
    stop_at = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < stop_at:
            try:
                ended[(await engine.check()).reason] += 1
            except StateUnavailable as error:
                ended[error.code] += 1
                await asyncio.sleep(0.01)  # it may come without a wait, and the servers' doors share this loop

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return ended


async def test_the_user_is_the_object_id_and_the_password_the_token(open_engine: OpenEngine, azure: EntraRedis) -> None:
    """The identity that AZURE_CLIENT_ID names is asked for a token of Redis, once for all connections."""
    engine = await open_engine()
    assert await keep_checking(engine, 0.2) == {"within_budget": ANY}
    users = await asyncio.gather(*(engine.client.execute_command("ACL WHOAMI") for _ in range(5)))
    assert set(users) == {azure.oid}
    assert [(asked["resource"], asked["client_id"]) for asked in azure.requests] == [(RESOURCE, CLIENT_ID)]
    assert [line.tokens for line in azure.lines()] == [azure.issued] * len(azure.lines())


async def test_no_check_fails_while_tokens_come_and_go(open_engine: OpenEngine, azure: EntraRedis) -> None:
    """Under fifty callers a connection signs in again with each new token, and outlives the one it was opened with."""
    azure.token_seconds = 3.0
    engine = await open_engine()
    assert await keep_checking(engine, 5.0) == {"within_budget": ANY}
    assert len(azure.issued) >= 3
    assert max(len(line.tokens) for line in azure.lines()) >= 3


async def test_connections_that_idled_past_their_token_are_replaced_unnoticed(
    open_engine: OpenEngine, azure: EntraRedis, later: Callable[[float], None]
) -> None:
    """Azure closed them all while nobody asked. The next callers get a new token, new connections and answers."""
    engine = await open_engine()
    assert await keep_checking(engine, 0.2) == {"within_budget": ANY}
    later(61)
    await azure.end(azure.issued[0])
    assert azure.cut > 1
    assert await keep_checking(engine, 0.2) == {"within_budget": ANY}
    assert len(azure.issued) == 2


@pytest.mark.parametrize("servers", ["server"], indirect=True)
async def test_an_old_token_serves_until_its_end_while_no_new_one_is_to_be_had(
    open_engine: OpenEngine, azure: EntraRedis, later: Callable[[float], None]
) -> None:
    """Then the tenant's fail mode decides, as for any other outage of Redis; and it ends when tokens are back."""
    engine = await open_engine(patience_seconds=2)
    azure.is_away = True
    for seconds in (31, 46):
        later(seconds)
        assert await keep_checking(engine, 0.2) == {"within_budget": ANY}
    assert len(azure.requests) > 1
    later(61)
    await azure.end(azure.issued[0])
    assert await keep_checking(engine, 0.2) == {"state_unavailable": ANY}
    azure.is_away = False

    async def checks_again() -> bool:
        return await keep_checking(engine, 0.2) == {"within_budget": ANY}

    await eventually(checks_again)


async def test_access_that_was_withdrawn_is_an_outage(open_engine: OpenEngine, azure: EntraRedis) -> None:
    """The token is valid, Redis takes it no longer: the fail mode decides, nothing breaks."""
    engine = await open_engine()
    await azure.end(azure.issued[0])
    assert (await keep_checking(engine, 0.2)).keys() == {"state_unavailable"}


async def test_replies_reach_whom_they_are_for_also_when_callers_give_up(
    open_engine: OpenEngine, azure: EntraRedis
) -> None:
    """A sign-in whose caller left half-way must not leave its reply for the next command on that connection."""
    azure.token_seconds = 3.0
    client = (await open_engine()).client
    trips, stop_at = SharedTrips(client, MAX_CONNECTIONS, 5), time.monotonic() + 3
    ended: Counter[str] = Counter()

    async def caller(name: int) -> None:
        random = Random(name)
        while time.monotonic() < stop_at:
            sent, patience = uuid.uuid4().hex, 2 if random.random() < 0.9 else random.uniform(0, 0.02)
            try:
                async with asyncio.timeout(patience):
                    got = await trips.execute_command("EVAL", "return ARGV[1]", 1, sent, sent)
                ended["own" if got == sent.encode() else "foreign"] += 1
            except TimeoutError:
                ended["gave up"] += 1

    await asyncio.gather(*map(caller, range(CALLERS)))
    assert ended == {"own": ANY, "gave up": ANY}
    assert max(len(line.tokens) for door in azure.doors for line in door.every) >= 2


@pytest.mark.parametrize("fault", ["another name", "another authority"])
async def test_no_token_is_shown_to_a_server_that_cannot_prove_its_name(
    azure: EntraRedis, authority: Authority, tmp_path: Path, fault: str
) -> None:
    """Neither to one with a certificate for another name nor to one whose authority is not trusted."""
    proof = Authority(tmp_path).server_context(HOST) if fault == "another authority" else authority.server_context("x")
    for door in azure.doors:
        await door.close()
        await door.open(proof)
    client: Any = open_redis(settings(azure, authority))
    with pytest.raises(Exception, match="certificate verify failed") as refused:
        await client.execute_command("PING")
    assert is_outage(refused.value)
    assert azure.issued
    assert sum(door.bytes_in for door in azure.doors) == 0
    await client.aclose()
