"""Real servers for the tests, started when the first test asks for one and ended with the test session.

Each pytest-xdist worker is a process and starts its own servers on free ports, so workers never see each other's data.
Within a worker the servers are shared by all tests: a test makes its own names (a tenant, a table prefix, a hub) or
empties what it uses. A fixture skips only when a part it needs is not installed, and says which.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from local.apim.expressions import require_mono
from local.azurite import Azurite, start_azurite
from local.eventhub.embedded import EmbeddedHub
from local.process import PartMissingError
from local.redis_server import Engine, RedisCluster, RedisServer, start_cluster, start_redis
from local.stack import without_proxy

pytest_plugins = [
    "tests.support.file_order",
    "tests.support.policy_coverage",  # one figure for all files and workers, at the end of the run
]

without_proxy(os.environ)  # servers of the tests listen on loopback, which a developer's proxy cannot reach


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Table and Blob Storage in memory: `.connection_string`, `.table_endpoint`, `.blob_endpoint`."""
    try:
        server = start_azurite()
    except PartMissingError as missing:
        pytest.skip(f"Azurite: {missing}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Valkey, the Redis-protocol server the laptop uses: `.url`, `.restart()`, `.process.pause()`."""
    yield from _redis("valkey")


@pytest.fixture(scope="session")
def redis62() -> Iterator[RedisServer]:
    """Redis 6.2, the oldest server the product supports: scripts may not use what it lacks."""
    yield from _redis("redis62")


@pytest.fixture(scope="session", params=["redis_server", "redis62"], ids=["valkey", "redis62"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Runs the test once on Valkey and once on Redis 6.2."""
    server: RedisServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """URL of the Valkey server."""
    return redis_server.url


@pytest.fixture(scope="session")
def redis62_url(redis62: RedisServer) -> str:
    """URL of the Redis 6.2 server."""
    return redis62.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Three Valkey nodes that share all slots: `.url` of one node, `.startup_nodes`."""
    try:
        cluster = start_cluster(3)
    except PartMissingError as missing:
        pytest.skip(f"Redis cluster: {missing}")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def mono() -> None:
    """Skips without mono, which compiles and runs the expressions of the policies; the reason says what to install."""
    try:
        require_mono()
    except PartMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def hub() -> Iterator[EmbeddedHub]:
    """An Event Hubs server without hubs: `.create_hub(name)`, `.connection_string()`, `.log(name)`, `.set_fault(...)`.

    It runs on a thread of its own, so synchronous and asynchronous clients can both use it.
    """
    server = EmbeddedHub()
    yield server
    server.stop()


@pytest.fixture
def hub_name(hub: EmbeddedHub) -> Iterator[str]:
    """A new hub of two partitions on `hub`, deleted after the test; faults set by the test are taken away."""
    name = f"hub-{uuid.uuid4().hex[:12]}"
    hub.create_hub(name, partition_count=2)
    yield name
    hub.set_fault(None)
    hub.delete_hub(name)


def _redis(engine: Engine) -> Iterator[RedisServer]:
    try:
        server = start_redis(engine=engine)
    except PartMissingError as missing:
        pytest.skip(f"Redis ({engine}): {missing}")
    yield server
    server.stop()
