"""Opening the Redis client that the counters live behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig

    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # a slot that moved is still followed: that command has not run
        # While it listens for these, redis-py hands out connections that the server has closed, and follows the server
        # to bare addresses, for which no certificate speaks.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if settings.redis_cluster:
        return _open_cluster(settings, options)
    pool = ConnectionPool.from_url(settings.redis_url, **options)
    pool.connection_class = _connection_class(pool.connection_class, settings)
    return Redis.from_pool(pool)


def _open_cluster(settings: Settings, options: dict[str, Any]) -> RedisCluster:
    from redis.asyncio import RedisCluster

    client = RedisCluster.from_url(settings.redis_url, **options)
    connection_class = _connection_class(client.connection_kwargs["connection_class"], settings)
    client.connection_kwargs["connection_class"] = connection_class  # of nodes still to be found
    for node in client.startup_nodes:
        node.connection_class = connection_class
    return client


def _connection_class(base: Any, settings: Settings) -> Any:
    connection_class = _cheap(base)
    if not settings.redis_entra_id:
        return connection_class
    from shared.budgets.entra import entra_logins, signing_in

    return signing_in(connection_class, entra_logins(settings), urlsplit(settings.redis_url).hostname)


def _cheap(connection_class: Any) -> Any:
    """The connection class without two costs that redis-py's asyncio client would put on the event loop.

    It packs in Python, which for a script call of some eighty arguments takes longer than Redis needs to run it;
    hiredis packs in C, as for the blocking client. Over TLS each connection would load the certificate authorities
    anew, which takes tens of milliseconds; here the first one loads them for all.
    """
    from hiredis import pack_command

    first_tls: list[Any] = []

    class CheapConnection(connection_class):  # type: ignore[misc]  # the base is known only at run time
        """Sends whole commands; a command name with a space becomes two words."""

        ssl_context: Any  # only over TLS

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if hasattr(self, "ssl_context"):
                if not first_tls:
                    first_tls.append(self.ssl_context)
                self.ssl_context = first_tls[0]

        def pack_command(self, *args: Any) -> list[bytes]:
            return [pack_command((*args[0].split(), *args[1:]))]

    return CheapConnection
