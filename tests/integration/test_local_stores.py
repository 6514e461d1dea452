"""The servers the tests stand on are what they claim: their versions, their settings, their semantics."""

import uuid
from pathlib import Path

import pytest
import redis
from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient

from local.azurite import Azurite, start_azurite
from local.redis_server import RedisCluster, RedisServer, start_redis


def test_redis_runs_scripts_and_never_evicts(any_redis: RedisServer) -> None:
    """Both engines run Lua and refuse writes when full instead of dropping budgets."""
    client = redis.Redis.from_url(any_redis.url)
    assert client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, uuid.uuid4().hex, 7) == 7
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.close()


def test_redis62_is_the_old_one(redis62: RedisServer) -> None:
    """The second engine really is Redis 6.2, so what it lacks cannot slip into a script."""
    client = redis.Redis.from_url(redis62.url)
    assert client.info()["redis_version"].startswith("6.2.")
    client.close()


def test_a_restarted_redis_is_empty() -> None:
    """A crash and restart on the same port loses everything, as a failed cache does."""
    server = start_redis()
    client = redis.Redis.from_url(server.url)
    client.set("a", 1)
    server.kill()
    server.restart()
    assert client.get("a") is None
    client.close()
    server.stop()


def test_cluster_spreads_keys_over_its_nodes(redis_cluster: RedisCluster) -> None:
    """Every node holds slots and a cluster client reaches keys on all of them."""
    client = redis.RedisCluster.from_url(redis_cluster.url)
    names = [f"{{{uuid.uuid4().hex}}}:x" for _ in range(60)]
    for name in names:
        client.set(name, name)
    assert [client.get(name) for name in names] == [name.encode() for name in names]
    owners = {client.get_node_from_key(name).port for name in names}
    assert owners == {port for _, port in redis_cluster.startup_nodes}
    client.close()


def test_azurite_serves_tables_and_blobs(azurite: Azurite) -> None:
    """Table insert-if-absent and blob upload work with the real SDKs."""
    name = "t" + uuid.uuid4().hex
    with TableServiceClient.from_connection_string(azurite.connection_string) as tables:
        table = tables.create_table(name)
        table.create_entity({"PartitionKey": "p", "RowKey": "r", "n": 1})
        with pytest.raises(ResourceExistsError):
            table.create_entity({"PartitionKey": "p", "RowKey": "r", "n": 2})
        assert table.get_entity("p", "r")["n"] == 1
    with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
        container = blobs.create_container(name)
        container.upload_blob("a", b"bytes")
        assert container.download_blob("a").readall() == b"bytes"


def test_azurite_keeps_its_directory(tmp_path: Path) -> None:
    """With a directory, what was written just before stop() is there after the next start."""
    server = start_azurite(tmp_path)
    with TableServiceClient.from_connection_string(server.connection_string) as tables:
        tables.create_table("kept").create_entity({"PartitionKey": "p", "RowKey": "r", "n": 1})
    server.stop()
    server = start_azurite(tmp_path)
    with TableServiceClient.from_connection_string(server.connection_string) as tables:
        assert tables.get_table_client("kept").get_entity("p", "r")["n"] == 1
    server.stop()
