"""Opening the Redis client that the counters live behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

_CONNECTIONS = 32  # per process; more callers wait their turn, which is microseconds, instead of opening sockets


def open_redis(settings: Settings) -> Redis | RedisCluster:
    """A client of one server or of a cluster; connects at first use.

    It never retries by itself: a script whose reply was lost may have run, and a second run would hold twice. Whoever
    may safely ask again (settlement, by its marks) does so.
    """
    from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    patience = max(5.0, settings.redis_timeout_seconds)  # settling a large batch takes longer than a check may
    if settings.redis_cluster:
        return RedisCluster.from_url(
            settings.redis_url,
            max_connections=_CONNECTIONS,
            socket_timeout=patience,
            socket_connect_timeout=settings.redis_timeout_seconds,
        )
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=_CONNECTIONS,
        timeout=patience,
        socket_timeout=patience,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
