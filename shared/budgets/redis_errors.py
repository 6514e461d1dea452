"""What an error from Redis means: the server is away, it refused, it will pass, or the fault is ours."""

from __future__ import annotations

# Words of Redis's errors. redis-py takes some out of the text and names a class after them; old servers wrap them.
_PASSING = (
    *("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASKERROR", "READONLY"),
    *("OOM", "OUTOFMEMORY", "NOREPLICAS", "BUSY", "MISCONF"),
)


def is_outage(error: Exception) -> bool:
    """Whether an exception is the client's, the server's or the network's; any other is a fault of ours."""
    from redis.exceptions import RedisClusterException, RedisError

    return isinstance(error, RedisError | RedisClusterException | OSError | TimeoutError)


def is_refusal(error: Exception) -> bool:
    """Whether the server answered, but with an error."""
    from redis.exceptions import ResponseError

    return isinstance(error, ResponseError)


def is_passing(error: Exception) -> bool:
    """Whether a refusal will go away by itself: starting up, failing over, full, read-only for now."""
    return any(word in _words(error) for word in _PASSING)


def is_unknown_script(error: Exception) -> bool:
    """Whether the server does not know a script by its digest: it restarted, failed over or was flushed."""
    return "NOSCRIPT" in _words(error)


def _words(error: Exception) -> str:
    return f"{type(error).__name__} {error}".upper()
