"""Shared round trips: commands that callers issue in the same instant go to Redis as one pipeline.

Sending, waking up and reading cost a client several times what a script costs Redis, so under load sharing them is
what decides how many calls one process can check. A lone command goes out alone and waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol


class RedisClient(Protocol):
    """What is needed of redis.asyncio's single-server and cluster clients."""

    def execute_command(self, *args: Any) -> Awaitable[Any]: ...
    def pipeline(self, transaction: bool) -> Any: ...
    async def aclose(self) -> None: ...


_MOST_TOGETHER = 8  # more would leave Redis idle while we read its replies, and us idle while it works


class _Waiting(NamedTuple):
    command: tuple[Any, ...]
    reply: asyncio.Future[Any]


class SharedTrips:
    """Executes commands on one server or cluster, at most `most_at_once` trips at a time, each bounded in time."""

    def __init__(self, client: RedisClient, most_at_once: int, timeout_seconds: float) -> None:
        from redis.asyncio import RedisCluster

        self._client = client
        self._is_cluster = isinstance(client, RedisCluster)
        self._slots = asyncio.Semaphore(most_at_once)
        self._timeout_seconds = timeout_seconds
        self._under_way = 0
        self._is_quiet = True  # nobody shared the last trip: no use in waiting a turn of the loop for others
        self._waiting: list[_Waiting] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def execute_command(self, *args: Any) -> Any:
        """The command's reply. Raises the server's error for this command, or what broke the trip it was on."""
        # A cluster client's pipelines ask again by themselves after an error, and a second check would hold twice.
        if self._is_cluster or (self._is_quiet and self._under_way == 0):
            return await self._alone(args)
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(args, reply))
        if len(self._waiting) % _MOST_TOGETHER == 1:
            trip = asyncio.create_task(self._together())
            self._trips.add(trip)  # the loop itself keeps only a weak reference
            trip.add_done_callback(self._trips.discard)
        return await reply

    async def _alone(self, command: tuple[Any, ...]) -> Any:
        self._under_way += 1
        try:
            async with self._slots, asyncio.timeout(self._timeout_seconds):
                return await self._client.execute_command(*command)
        finally:
            self._under_way -= 1

    async def _together(self) -> None:
        """Take all who wait on one trip, and give each its own reply."""
        async with self._slots:
            taken, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
            # A caller that gave up meanwhile must not hold budget for a call that will not be made.
            waiting = [one for one in taken if not one.reply.done()]
            self._is_quiet = len(waiting) < 2
            replies = await self._replies([one.command for one in waiting])
        for one, reply in zip(waiting, replies, strict=True):
            if one.reply.done():
                continue
            if isinstance(reply, Exception):
                one.reply.set_exception(reply)
            else:
                one.reply.set_result(reply)

    async def _replies(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """A reply or an exception per command."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever broke the trip, everyone on it must hear of it
            return [error] * len(commands)
        return replies
