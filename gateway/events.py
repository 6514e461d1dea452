"""Usage events on their way to the hub: a bounded queue in the background, so that no caller waits for the hub.

What the hub does not take at once goes to the spool on disk and from there to the hub, in order. A call is let in only
when its event will have a place. So a hub that is away for longer than the disk lasts becomes 503 at the door, before a
model was called, instead of spend that nobody counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from shared.errors import TollkeeperError
from shared.usage.build import partition_key_of

if TYPE_CHECKING:
    from gateway.spool import Segment, Spool

log = logging.getLogger("tollkeeper.gateway")

MOST_PENDING_EVENTS = 10_000
MOST_EVENTS_PER_PUBLISH = 500
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 5.0
FLUSH_SECONDS = 20.0
PATIENCE_SECONDS = 1.0  # so long an event is only in memory; then it is written to disk, whether or not it gets through
LINGERING_SECONDS = 0.1  # after the first event: a message to the hub costs as much for one as for many
GATHERING_SECONDS = 0.05  # between two writes to disk: each is an fsync
ADOPTING_SECONDS = 60.0  # between two looks for what dead gateways left
ROOM_PER_CALL_BYTES = 8 * 1024  # of the spool, for the event of a call in flight; most have a quarter of it
REPORTED_EVERY_SECONDS = 60.0


class Publisher(Protocol):
    """What the queue needs of the hub."""

    async def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Put (partition key, event) pairs onto the hub, or raise; sending all again must be safe."""


class BacklogFull(TollkeeperError):
    """The hub does not take events and there is no place left; no call is let in that could not be billed."""

    code, http_status, kind = "events_backlog", 503, "server_error"


class EventQueue:
    """Places for events: `reserve` at the door, then exactly one of `put` or `give_back`."""

    def __init__(
        self, publisher: Publisher, *, spool: Spool | None = None, most_pending: int = MOST_PENDING_EVENTS
    ) -> None:
        """Without a spool what the hub does not take waits in memory, and is lost with the process."""
        self._publisher = publisher
        self._spool = spool
        self._most_pending = most_pending
        self._taken = 0  # calls in flight and events in memory
        self._events: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()  # no call in flight, no event in memory
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_hub_away = False
        self._is_spool_broken = False
        self._moved = 0  # how often what was in memory went to disk
        self._sending: tuple[Segment, list[bytes]] | None = None  # what of a segment the hub has not taken yet
        self._reported = float("-inf")

    @property
    def pending(self) -> int:
        """Events that are not on the hub yet."""
        return len(self._events) + (self._spool.events if self._spool is not None else 0)

    def health(self) -> dict[str, Any]:
        """What waits, for GET /health: `status` is `ok`, `backlog` while the hub takes nothing, `full` at the limit."""
        spool = self._spool
        found: dict[str, Any] = {
            "status": "full" if self._is_full() else "backlog" if self._is_hub_away else "ok",
            "pending_events": self.pending,
        }
        if spool is not None:
            found["spool"] = {
                "events": spool.events,
                "bytes": spool.size,
                "max_bytes": spool.max_bytes,
                "oldest_seconds": round(spool.oldest_seconds, 1),
                "writable": not self._is_spool_broken,
            }
        return found

    async def start(self) -> None:
        """Begin publishing, first what an earlier gateway left."""
        if self._spool is not None:
            try:
                await asyncio.to_thread(self._spool.open)
            except OSError as error:
                self._spool_failed(error)
            self._tasks.append(asyncio.create_task(self._adopt_forever(self._spool), name="spool-adoption"))
        self._tasks.append(asyncio.create_task(self._publish_forever(), name="usage-events"))

    def reserve(self) -> None:
        """Take a place. Raises BacklogFull when there is none."""
        if self._is_full():
            raise BacklogFull("usage cannot be recorded at the moment; try again shortly", retry_after_seconds=2)
        self._taken += 1
        self._idle.clear()

    def give_back(self, places: int = 1) -> None:
        """Free places: of a call that made no event, or of events that are on the hub or on disk."""
        self._taken -= places
        if self._taken == 0:
            self._idle.set()

    def put(self, event: bytes) -> None:
        """Hand over the event of a call that reserved a place. Never waits, so it works while a call is torn down."""
        self._events.append(event)
        self._arrived.set()

    async def close(self, flush_seconds: float = FLUSH_SECONDS) -> None:
        """Publish what is left, for so long at most, then stop; the rest stays in the spool for the next gateway.

        Waits for calls in flight too: a call that is torn down by the same shutdown makes its event a moment later.
        What neither hub nor disk took is counted in an error.
        """
        if not self._tasks:
            return
        with contextlib.suppress(TimeoutError):  # what is left then is counted below
            async with asyncio.timeout(flush_seconds):
                await self._idle.wait()
                while self._spool is not None and self._spool.events:  # noqa: ASYNC110 - written to by a thread
                    await asyncio.sleep(GATHERING_SECONDS)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._move_to_disk()
        if self._events:
            log.error("shutting down with %d usage events that neither hub nor disk took", len(self._events))
        if self._spool is not None:
            if self._spool.events:
                log.warning("events_left_in_spool", extra={"events": self._spool.events})
            await asyncio.to_thread(self._spool.close)

    def _is_full(self) -> bool:
        if self._taken >= self._most_pending:
            return True
        if self._spool is None:
            return False
        if self._is_hub_away and self._is_spool_broken:
            return True  # neither takes anything: the events of the calls in flight are risk enough
        if not self._is_hub_away and not self._spool.events:
            return False
        return self._spool.size + (self._taken + 1) * ROOM_PER_CALL_BYTES > self._spool.max_bytes

    async def _publish_forever(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                is_sent = await self._send_some()
            except Exception:  # a defect must not end the one task that brings events to the hub
                log.exception("events_not_sent")
                is_sent = False
            if is_sent:
                retry_seconds, self._is_hub_away = FIRST_RETRY_SECONDS, False
                continue
            self._is_hub_away = True
            await self._wait(retry_seconds)
            retry_seconds = min(retry_seconds * 2, LONGEST_RETRY_SECONDS)

    async def _send_some(self) -> bool:
        """Send the next events in order, waiting for some if there are none; False when the hub did not take them."""
        if self._spool is not None and self._spool.events:
            await self._move_to_disk()  # behind what waits there
            return await self._send_from_disk(self._spool)
        await self._arrived.wait()
        if len(self._events) < MOST_EVENTS_PER_PUBLISH:
            await asyncio.sleep(LINGERING_SECONDS)
        batch = [self._events[i] for i in range(min(len(self._events), MOST_EVENTS_PER_PUBLISH))]
        moved = self._moved
        if batch and not await self._publish(batch):
            return False
        if moved == self._moved:
            self._forget(len(batch))
        elif not self._events:
            self._arrived.clear()
        return True

    async def _send_from_disk(self, spool: Spool) -> bool:
        try:
            if self._sending is None:
                segment = await asyncio.to_thread(spool.oldest)
                if segment is None:
                    return True
                self._sending = segment, await asyncio.to_thread(spool.read, segment)
            segment, events = self._sending
            while events:
                if not await self._publish(events[:MOST_EVENTS_PER_PUBLISH]):
                    return False
                del events[:MOST_EVENTS_PER_PUBLISH]
            await asyncio.to_thread(spool.drop, segment)
            self._sending = None
        except OSError as error:
            self._spool_failed(error)
            return False
        return True

    async def _publish(self, events: Sequence[bytes]) -> bool:
        """Whether the hub took them. What waits for an answer that does not come is put on disk meanwhile."""
        sending = asyncio.create_task(self._publisher.publish([(partition_key_of(event), event) for event in events]))
        try:
            while not (await asyncio.wait({sending}, timeout=PATIENCE_SECONDS))[0]:
                self._is_hub_away = True
                self._report()
                await self._move_to_disk()
            await sending
        except Exception as error:  # noqa: BLE001 - whatever the hub's client raises, the events must stay
            self._report(error)
            return False
        finally:
            sending.cancel()
        return True

    async def _wait(self, seconds: float) -> None:
        """Let the hub rest; what arrives meanwhile goes to disk."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._spool is None or self._is_spool_broken:
                await asyncio.sleep(left)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), left)
                await asyncio.sleep(min(left, GATHERING_SECONDS))
            await self._move_to_disk()

    async def _move_to_disk(self) -> None:
        """Write what is in memory to the spool; where that fails it stays in memory, in its order."""
        if self._spool is None or not self._events:
            return
        events = list(self._events)
        try:
            await asyncio.to_thread(self._append, self._spool, events)
        except OSError as error:
            self._spool_failed(error)
            return
        self._is_spool_broken = False
        self._moved += 1
        self._forget(len(events))

    def _append(self, spool: Spool, events: Sequence[bytes]) -> None:
        if self._is_spool_broken:
            spool.open()  # the directory may be there by now
        spool.append(events)

    def _forget(self, count: int) -> None:
        """Drop the oldest events of the memory: they are on the hub or on disk."""
        for _ in range(count):
            self._events.popleft()
        if not self._events:
            self._arrived.clear()
        self.give_back(count)

    async def _adopt_forever(self, spool: Spool) -> None:
        while True:
            await asyncio.sleep(ADOPTING_SECONDS)
            with contextlib.suppress(OSError):  # the next append says what is wrong with the directory
                if await asyncio.to_thread(spool.adopt):
                    self._arrived.set()

    def _spool_failed(self, error: OSError) -> None:
        if not self._is_spool_broken:
            log.error("spool_unwritable", extra={"error": error.strerror or type(error).__name__})
        self._is_spool_broken = True

    def _report(self, error: Exception | None = None) -> None:
        """Say that events wait: at once, then every minute while they do."""
        if time.monotonic() - self._reported < REPORTED_EVERY_SECONDS:
            return
        self._reported = time.monotonic()
        spool_bytes = self._spool.size if self._spool is not None else 0
        fields = {
            "events": self.pending,
            "spool_bytes": spool_bytes,
            "error": type(error).__name__ if error else "slow",
        }
        log.warning("events_backlog", extra=fields)
