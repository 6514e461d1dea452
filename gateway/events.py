"""Usage events on their way to the hub: a bounded queue in the background, so that no caller waits for the hub.

A call is let in only when its event will have a place. So a hub that is down becomes 503 at the door, before a model
was called, instead of spend that nobody counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from shared.errors import TollkeeperError
from shared.usage.build import partition_key_of

log = logging.getLogger("tollkeeper.gateway")

MOST_PENDING_EVENTS = 10_000
MOST_EVENTS_PER_PUBLISH = 500
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 5.0
FLUSH_TIMEOUT_SECONDS = 20.0


class Publisher(Protocol):
    """What the queue needs of the hub."""

    async def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Put (partition key, event) pairs onto the hub, or raise; sending all again must be safe."""


class BacklogFull(TollkeeperError):
    """The hub does not take events and the queue is full; no call is let in that could not be billed."""

    code, http_status, kind = "events_backlog", 503, "server_error"


class EventQueue:
    """Places for events: `reserve` at the door, then exactly one of `put` or `give_back`."""

    def __init__(self, publisher: Publisher, *, most_pending: int = MOST_PENDING_EVENTS) -> None:
        self._publisher = publisher
        self._most_pending = most_pending
        self._taken = 0  # calls in flight and events not yet on the hub
        self._events: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()  # no call in flight, no event waiting
        self._idle.set()
        self._worker: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Events that are not on the hub yet."""
        return len(self._events)

    def start(self) -> None:
        """Begin publishing; needs a running event loop."""
        self._worker = asyncio.create_task(self._publish_forever(), name="usage-events")

    def reserve(self) -> None:
        """Take a place. Raises BacklogFull when there is none."""
        if self._taken >= self._most_pending:
            raise BacklogFull("usage cannot be recorded at the moment; try again shortly", retry_after_seconds=2)
        self._taken += 1
        self._idle.clear()

    def give_back(self, places: int = 1) -> None:
        """Free places: of a call that made no event, or of events that are on the hub."""
        self._taken -= places
        if self._taken == 0:
            self._idle.set()

    def put(self, event: bytes) -> None:
        """Hand over the event of a call that reserved a place. Never waits, so it works while a call is torn down."""
        self._events.append(event)
        self._arrived.set()

    async def close(self) -> None:
        """Publish what is left, then stop. What the hub does not take in time is counted in an error.

        Waits for calls in flight too: a call that is torn down by the same shutdown makes its event a moment later.
        """
        if self._worker is None:
            return
        with contextlib.suppress(TimeoutError):  # what is left then is counted below
            await asyncio.wait_for(self._idle.wait(), FLUSH_TIMEOUT_SECONDS)
        if self._events:
            log.error("shutting down with %d usage events the hub did not take", len(self._events))
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._worker = None

    async def _publish_forever(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            await self._arrived.wait()
            batch = [self._events[i] for i in range(min(len(self._events), MOST_EVENTS_PER_PUBLISH))]
            try:
                await self._publisher.publish([(partition_key_of(event), event) for event in batch])
            except Exception as error:  # noqa: BLE001 - whatever the hub's client raises, the events must stay queued
                log.warning("the hub took no usage events (%d wait): %s", len(self._events), error)
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, LONGEST_RETRY_SECONDS)
                continue
            retry_seconds = FIRST_RETRY_SECONDS
            for _ in batch:
                self._events.popleft()
            if not self._events:
                self._arrived.clear()
            self.give_back(len(batch))
