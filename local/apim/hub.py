"""The gateway's events on their way to Event Hubs, through the real SDK."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from local.apim.recent import Recent

if TYPE_CHECKING:
    from azure.eventhub.aio import EventHubProducerClient


log = logging.getLogger("tollkeeper.apim")


class LoggedEvent(NamedTuple):
    """One message of log-to-eventhub."""

    logger_id: str
    partition_key: str | None
    body: str


class HubSender:
    """Sends in the background and in order; a failure is kept for whoever looks, and reaches no policy."""

    def __init__(self, connection: str) -> None:
        self._connection = connection
        self._clients: dict[str, EventHubProducerClient] = {}
        self._queue: asyncio.Queue[tuple[str, str | None, bytes]] = asyncio.Queue()
        self._task = asyncio.create_task(self._work())
        self.failures: list[str] = Recent()

    def send(self, hub: str, partition_key: str | None, body: bytes) -> None:
        """Hand over one event."""
        self._queue.put_nowait((hub, partition_key, body))

    async def settle(self) -> None:
        """Return when everything handed over so far was sent or failed."""
        await self._queue.join()

    async def close(self) -> None:
        """Send what is left, then close the links."""
        await self.settle()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    async def _work(self) -> None:
        from azure.eventhub import EventData
        from azure.eventhub.aio import EventHubProducerClient
        from azure.eventhub.exceptions import EventHubError

        while True:
            hub, partition_key, body = await self._queue.get()
            try:
                if hub not in self._clients:
                    self._clients[hub] = EventHubProducerClient.from_connection_string(
                        self._connection, eventhub_name=hub
                    )
                await self._clients[hub].send_batch([EventData(body)], partition_key=partition_key)
            except (EventHubError, OSError, ValueError) as error:
                self.failures.append(f"{hub}: {type(error).__name__}: {error}")
                log.warning("an event did not reach the hub %s: %s", hub, type(error).__name__)
            finally:
                self._queue.task_done()
