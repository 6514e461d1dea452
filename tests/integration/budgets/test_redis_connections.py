"""What the client does with the connections it keeps open."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis

from shared.budgets.connect import open_redis
from shared.settings import Settings


async def test_a_connection_closed_while_it_idled_costs_no_command(any_redis) -> None:
    """Servers and load balancers close idle connections; the next check must not end in its fail mode for that."""
    client: Any = open_redis(Settings(redis_url=any_redis.url))
    number = await client.execute_command("CLIENT ID")
    async with redis.Redis(port=any_redis.port) as admin:
        assert await admin.execute_command("CLIENT KILL", "ID", number) == 1
    await asyncio.sleep(0.1)
    assert await client.execute_command("CLIENT ID") > number
    await client.aclose()
