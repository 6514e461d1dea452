"""The Event Hubs server inside the current process, on a thread of its own, with the controls tests need.

On its own thread it serves synchronous and asynchronous clients alike, whatever the test's event loop is doing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from local.eventhub import wire
from local.eventhub.broker import Broker, Fault
from local.eventhub.server import Server

T = TypeVar("T")


class Recorded(NamedTuple):
    """An event in a partition, decoded."""

    partition_id: str
    sequence_number: int
    offset: str
    enqueued_ms: int
    partition_key: str | None
    body: bytes


class EmbeddedHub:
    """A running server; every method may be called from any thread and returns when it has taken effect."""

    def __init__(self, hubs: dict[str, int] | None = None, *, port: int = 0) -> None:
        """Start serving `hubs` (partition count by name) on loopback. Raises OSError when the port is taken."""
        self._broker = Broker(hubs)
        self._server = Server(self._broker)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-eventhub", daemon=True)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._server.start(port), self._loop).result(10)

    @property
    def namespace(self) -> str:
        """What the SDK calls the fully qualified namespace of this server."""
        return f"127.0.0.1:{self.port}"

    def connection_string(self, hub: str | None = None) -> str:
        """Connection string for the SDK, of one hub when named. Any key is accepted."""
        entity = f"EntityPath={hub};" if hub else ""
        # The emulator flag makes the SDK speak AMQP without TLS, and only then honour the port.
        return f"{connection_string(self.port)}{entity}"

    def create_hub(self, name: str, partition_count: int = 4) -> None:
        """Add an empty hub. Raises ValueError when it exists."""
        self._run(lambda: self._broker.create_hub(name, partition_count))

    def delete_hub(self, name: str) -> None:
        """Delete a hub and its events; links to it end with an error. Raises AmqpError when there is none."""
        self._run(lambda: self._broker.delete_hub(name))

    def recreate_hub(self, name: str) -> None:
        """Delete a hub and create it again: sequence numbers restart at 0 and `created_at` changes."""
        partition_count = self._run(lambda: len(self._broker.hub(name).partitions))
        self.delete_hub(name)
        self.create_hub(name, partition_count)

    def set_fault(self, fault: Fault | None) -> None:
        """Ask `fault(hub, partition_id, event_count)` before storing; None takes the fault away.

        It answers None (store), an AmqpError (refuse; `com.microsoft:server-busy` is throttling), or
        StoreThenDisconnect() (store, but the sender never learns it and sends again).
        It runs on the server's thread.
        """
        self._run(lambda: setattr(self._broker, "fault", fault))

    def abort_connections(self) -> None:
        """Drop every connection as a network failure would; clients may connect again at once."""
        self._run(self._server.abort_connections)

    def stop_listening(self) -> None:
        """Drop every connection and refuse new ones, keeping the events, until `listen_again`."""
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(10)

    def listen_again(self) -> None:
        """Undo `stop_listening`, on the same port."""
        asyncio.run_coroutine_threadsafe(self._server.start(self.port), self._loop).result(10)

    def log(self, hub: str) -> list[Recorded]:
        """Every event in a hub, partition by partition, in order."""

        def read() -> list[Recorded]:
            return [
                _recorded(partition.id, stored.sequence_number, stored.offset, stored.enqueued_ms, stored.message)
                for partition in self._broker.hub(hub).partitions
                for stored in partition.log
            ]

        return self._run(read)

    def stop(self) -> None:
        """Stop serving and end the thread."""
        self.stop_listening()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, action: Callable[[], T]) -> T:
        async def call() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)


def connection_string(port: int) -> str:
    """Connection string of a server on this loopback port."""
    return (
        f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=local;SharedAccessKey=local;UseDevelopmentEmulator=true;"
    )


def _recorded(partition_id: int, sequence_number: int, offset: int, enqueued_ms: int, message: bytes) -> Recorded:
    key = wire.message_annotations(message).get("x-opt-partition-key")
    return Recorded(str(partition_id), sequence_number, str(offset), enqueued_ms, key, wire.body(message))
