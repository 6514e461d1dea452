"""LiteLLM's own reserve + settle, driven round by round from bench.engine. Runs in LiteLLM's virtualenv, on its own.

Reads lines `<cycles> <callers>` and answers each with one line of JSON: what the round took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

COST_USD = 48 * 2.5e-6 + 150 * 10e-6
LIMIT_USD = 1_000_000.0
PROMPT = "Summarise this support ticket in three sentences and name the product it is about: " * 2 + "printer " * 12


async def main(redis_host: str, redis_port: int) -> None:
    """Prepare the proxy's parts as the proxy itself does, then serve rounds until the input ends."""
    from litellm.caching.redis_cache import RedisCache  # type: ignore[import-not-found]
    from litellm.proxy import proxy_server  # type: ignore[import-not-found]
    from litellm.proxy._types import LiteLLM_OrganizationTable, LiteLLM_TeamTable, LiteLLM_UserTable, UserAPIKeyAuth  # type: ignore[import-not-found]
    from litellm.proxy.spend_tracking.budget_reservation import reserve_budget_for_request  # type: ignore[import-not-found]

    cache = RedisCache(host=redis_host, port=redis_port)
    proxy_server.spend_counter_cache.redis_cache = cache
    cached, logging = proxy_server.user_api_key_cache, proxy_server.proxy_logging_obj
    known: dict[int, tuple[Any, Any, Any]] = {}
    body = {"model": "gpt-4o", "max_tokens": 200, "messages": [{"role": "user", "content": PROMPT}]}

    def caller_of(number: int) -> tuple[Any, Any, Any]:
        """Key, team and user of a call; with the organization four scopes, as many of each as ours and the floor's."""
        if (found := known.get(number)) is not None:
            return found
        user, team = f"u{number}", f"t{number % 10}"
        limit = {"max_budget": LIMIT_USD, "spend": 0.0}
        known[number] = (
            UserAPIKeyAuth(token=f"hash-{number}", user_id=user, team_id=team, org_id="contoso", **limit),
            LiteLLM_TeamTable(team_id=team, organization_id="contoso", **limit),
            LiteLLM_UserTable(user_id=user, user_email=None, models=[], **limit),
        )
        return known[number]

    async def cycle(number: int) -> int:
        key, team, user = caller_of(number % 1000)
        reservation = await reserve_budget_for_request(
            request_body=dict(body),
            route="/chat/completions",
            llm_router=None,
            valid_token=key,
            team_object=team,
            user_object=user,
            prisma_client=None,
            user_api_key_cache=cached,
            proxy_logging_obj=logging,
            apply_user_budget_to_team_keys=True,
        )
        await proxy_server.increment_spend_counters(
            token=key.token,
            team_id=team.team_id,
            user_id=user.user_id,
            org_id="contoso",
            response_cost=COST_USD,
            budget_reservation=reservation,
        )
        return len(reservation["entries"]) if reservation else 0

    organization = LiteLLM_OrganizationTable(
        organization_id="contoso",
        budget_id="b",
        models=[],
        created_by="b",
        updated_by="b",
        spend=0.0,
        litellm_budget_table={"max_budget": LIMIT_USD},
    )
    await cached.async_set_cache(key="org_id:contoso:with_budget", value=organization)
    await cached.async_set_cache(key="org_id:contoso", value=organization)
    print(json.dumps({"scopes": await cycle(0)}), flush=True)
    loop = asyncio.get_running_loop()
    done = 1
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        cycles, callers = map(int, line.split())
        print(json.dumps(await _round(cycle, done, cycles, callers)), flush=True)
        done += cycles


async def _round(
    cycle: Callable[[int], Awaitable[int]], first: int, cycles: int, callers: int
) -> dict[str, float | list[float]]:
    latencies: list[float] = []

    async def call(at: int) -> None:
        for number in range(at, first + cycles, callers):
            begun = time.perf_counter()
            await cycle(number)
            latencies.append((time.perf_counter() - begun) * 1e6)

    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call(first + caller) for caller in range(callers)))
    return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu, "latencies_us": latencies}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
