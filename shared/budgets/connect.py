"""Opening the Redis client that the counters live behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

MAX_CONNECTIONS = 32  # per process; BudgetStore lets more callers wait their turn instead of opening sockets


def open_redis(settings: Settings) -> Redis | RedisCluster:
    """A client of one server or of a cluster; connects at first use.

    It never retries by itself: a script whose reply was lost may have run, and a second run would hold twice. Whoever
    may safely ask again (settlement, by its marks) does so. It bounds only the connecting; BudgetStore and its callers
    bound the whole question, with one timer instead of one per read, write and pool.
    """
    from redis.asyncio import ConnectionPool, Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    if settings.redis_cluster:
        return RedisCluster.from_url(
            settings.redis_url,
            max_connections=MAX_CONNECTIONS,
            socket_timeout=None,
            socket_connect_timeout=settings.redis_timeout_seconds,
            retry=Retry(NoBackoff(), 0),  # a slot that moved is still followed: that command has not run
        )
    pool = ConnectionPool.from_url(
        settings.redis_url,
        max_connections=MAX_CONNECTIONS,
        socket_timeout=None,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )
    pool.connection_class = _packing_in_c(pool.connection_class)
    return Redis.from_pool(pool)


def _packing_in_c(connection_class: Any) -> Any:
    """The connection class with commands packed by hiredis, as redis-py's blocking client does it.

    The asyncio client packs in Python, which for a script call of some eighty arguments takes longer than Redis needs
    to run it.
    """
    from hiredis import pack_command

    class PackingConnection(connection_class):  # type: ignore[misc]  # the base is known only at run time
        """Sends whole commands; a command name with a space becomes two words."""

        def pack_command(self, *args: Any) -> list[bytes]:
            return [pack_command((*args[0].split(), *args[1:]))]

    return PackingConnection
