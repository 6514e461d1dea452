"""The health service: asks everything at once, forgives nothing, and is not a lever on the stores."""

from __future__ import annotations

import asyncio
import time

from shared.health import HealthService


async def test_one_dependency_that_is_down_is_named_and_the_rest_is_ok() -> None:
    """Raising and hanging both count as unavailable; a hanging one costs the deadline, not more."""

    async def works() -> None: ...

    async def raises() -> None:
        raise ConnectionError("10.0.0.4:6380 refused, password=hunter2")

    async def hangs() -> None:
        await asyncio.sleep(60)

    service = HealthService({"a": works, "b": raises, "c": hangs}, lambda: "v1", timeout_seconds=0.05)
    started = time.monotonic()
    health = await service.check()
    assert time.monotonic() - started < 5
    assert health.body() == {
        "status": "unavailable",
        "dependencies": {"a": "ok", "b": "unavailable", "c": "unavailable"},
        "config_version": "v1",
    }


async def test_a_flood_of_questions_asks_the_stores_once() -> None:
    """A thousand anonymous requests in a moment are one round of probes."""
    asked = 0

    async def probe() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    service = HealthService({"a": probe}, lambda: "v1", remember_seconds=60)
    await asyncio.gather(*(service.check() for _ in range(1000)))
    assert asked == 1


async def test_recovery_shows_after_the_memory_ends() -> None:
    """What was remembered does not outlive its time."""
    state = {"down": True}

    async def probe() -> None:
        if state["down"]:
            raise TimeoutError

    service = HealthService({"a": probe}, lambda: "v1", remember_seconds=0)
    assert not (await service.check()).ok
    state["down"] = False
    assert (await service.check()).ok
