"""Reading both event hubs beside the functions, on a consumer group of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scripts.azure.verify.errors import CannotRunError

if TYPE_CHECKING:
    from azure.eventhub import EventData, EventHubConsumerClient, PartitionContext

USAGE, LLM_LOGS = "usage", "llm_logs"
CONSUMER_GROUP = "verify"
_CLOCKS_APART = timedelta(minutes=2)  # this machine's and Azure's, at most; earlier messages are strangers' and ignored
_CLOSING_SECONDS = 20


class Message(NamedTuple):
    """A message and when its hub took it."""

    hub: str
    body: bytes
    enqueued: datetime


class Hubs(Protocol):
    """What arrives on the hubs from `start` on."""

    def start(self) -> None:
        """Begin to read. Raises CannotRunError when a hub cannot be read."""
        ...

    def messages(self) -> list[Message]:
        """What came since the last time. Raises CannotRunError when reading broke off."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class EventHubs:
    """The hubs of the clients, by USAGE and LLM_LOGS, each read on a thread."""

    def __init__(self, clients: Mapping[str, EventHubConsumerClient]) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._messages: list[Message] = []
        self._problems: dict[str, str] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Ask each hub once, so that a missing role or route is known before anything costs money; then read."""
        from azure.core.exceptions import AzureError
        from azure.eventhub.exceptions import EventHubError

        # The SDK tells each retry of each partition; what matters is raised here.
        logging.getLogger("azure.eventhub").setLevel(logging.CRITICAL)
        since = datetime.now(UTC) - _CLOCKS_APART
        with ThreadPoolExecutor() as pool:  # each connection takes a second
            for hub, asking in [
                (hub, pool.submit(each.get_eventhub_properties)) for hub, each in self._clients.items()
            ]:
                try:
                    asking.result()
                except (EventHubError, AzureError) as error:
                    raise CannotRunError(_unreadable(hub, error)) from error
        self._threads = [
            threading.Thread(target=self._read, args=(hub, client, since), name=f"hub {hub}", daemon=True)
            for hub, client in self._clients.items()
        ]
        for thread in self._threads:
            thread.start()

    def messages(self) -> list[Message]:
        """What came since the last time."""
        with self._lock:
            if self._problems:
                raise CannotRunError("; ".join(self._problems.values()))
            new, self._messages = self._messages, []
            return new

    def close(self) -> None:
        """Stop reading."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda client: client.close(), self._clients.values()))
        for thread in self._threads:
            thread.join(_CLOSING_SECONDS)

    def _read(self, hub: str, client: EventHubConsumerClient, since: datetime) -> None:
        def take(context: PartitionContext, events: list[EventData]) -> None:
            with self._lock:
                self._problems.pop(hub, None)  # it goes on after all
                self._messages += [Message(hub, _body(event), _enqueued(event)) for event in events]

        def fail(context: PartitionContext | None, error: Exception) -> None:
            with self._lock:
                self._problems[hub] = _unreadable(hub, error)

        client.receive_batch(take, on_error=fail, starting_position=since)


def _body(event: EventData) -> bytes:
    parts: Any = event.body
    return parts if isinstance(parts, bytes) else b"".join(parts)


def _enqueued(event: EventData) -> datetime:
    at = event.enqueued_time
    return datetime.now(UTC) if at is None else at.astimezone(UTC)  # every received event has it


def _unreadable(hub: str, error: Exception) -> str:
    return (
        f"the hub {hub} cannot be read: {type(error).__name__}: {str(error).splitlines()[0][:200]} (the caller needs "
        f"the role Azure Event Hubs Data Receiver, the hub the consumer group {CONSUMER_GROUP}, and with private "
        "endpoints this must run inside their network)"
    )
