"""The least a budget cycle could cost: one small script per phase on four hashes, same server, same client library.

It does what no product could do without: an atomic look at four limits, a reservation, a settlement that cannot
happen twice. No expiry, no periods, no learned estimates, no signed token, no prices, no answer to read.
"""

from __future__ import annotations

from typing import Any

_RESERVE = """
local amount = tonumber(ARGV[1])
for i = 2, #KEYS do
  local row = redis.call('HMGET', KEYS[i], 'spent', 'held')
  if (tonumber(row[1]) or 0) + (tonumber(row[2]) or 0) + amount > tonumber(ARGV[2]) then return i end
end
for i = 2, #KEYS do redis.call('HINCRBY', KEYS[i], 'held', amount) end
redis.call('SET', KEYS[1], amount, 'EX', 900)
return 0
"""

_SETTLE = """
local held = redis.call('GETDEL', KEYS[1])
if not held then return 0 end
for i = 2, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'held', -held)
  redis.call('HINCRBY', KEYS[i], 'spent', ARGV[1])
end
return 1
"""

ESTIMATE_MICRO_USD, COST_MICRO_USD, LIMIT_MICRO_USD = 2_120, 1_620, 10**12


class Floor:
    """Reserve and settle by the two scripts. Amounts are whole micro-USD."""

    def __init__(self, redis_url: str) -> None:
        from redis.asyncio import Redis

        self.client: Any = Redis.from_url(redis_url)
        self._reserve = self._settle = ""

    async def open(self) -> None:
        """Load the scripts."""
        self._reserve = await self.client.script_load(_RESERVE)
        self._settle = await self.client.script_load(_SETTLE)

    async def cycle(self, scopes: dict[str, str], number: int) -> None:
        """Reserve, then settle, on the hashes of these scopes."""
        keys = [f"floor:r:{number}", *(f"floor:{kind}:{key}" for kind, key in scopes.items())]
        if await self.client.evalsha(self._reserve, len(keys), *keys, ESTIMATE_MICRO_USD, LIMIT_MICRO_USD) != 0:
            raise SystemExit("the floor refused")
        if await self.client.evalsha(self._settle, len(keys), *keys, COST_MICRO_USD) != 1:
            raise SystemExit("the floor did not settle")

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()
