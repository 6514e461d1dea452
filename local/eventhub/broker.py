"""Hubs, partitions, positions, consumer groups and epochs: what Event Hubs keeps, without the network.

Everything here runs on the server's event loop; nothing is thread-safe.
"""

from __future__ import annotations

import re
import time
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from local.eventhub import wire

MAX_READERS_PER_GROUP = 5
_POSITION = re.compile(r"amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time) (>=?) '([^']*)'")
_LATEST, _BEGINNING = "@latest", "-1"


class AmqpError(Exception):
    """An error that travels to the client as an AMQP condition and a description."""

    def __init__(self, condition: str, description: str) -> None:
        """`condition` is what the SDK acts on, such as `amqp:not-found`."""
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


class Stored(NamedTuple):
    """One event in a partition's log."""

    sequence_number: int
    offset: int
    enqueued_ms: int
    message: bytes


class Attached(Protocol):
    """A link to a hub, as the broker sees it: something that can be told to go away."""

    def detach(self, error: AmqpError) -> None:
        """End the link, telling the client why."""


class Reader(Attached, Protocol):
    """A receiving link on one partition."""

    consumer_group: str
    epoch: int | None

    def deliver(self) -> None:
        """Send what the log holds and the client has asked for."""


class StoreThenDisconnect:
    """Fault: the events are stored and the connection drops before the sender learns it, so it sends them again."""


# Called before events are stored: hub name, partition id, number of events. None lets them pass, an AmqpError refuses.
Fault = Callable[[str, int, int], "AmqpError | StoreThenDisconnect | None"]


class Partition:
    """An append-only log of events and the readers that follow it."""

    def __init__(self, partition_id: int) -> None:
        """An empty log; sequence numbers start at 0."""
        self.id = partition_id
        self.log: list[Stored] = []
        self.byte_count = 0
        self.readers: list[Reader] = []

    def append(self, events: Iterable[wire.Incoming], partition_key: bytes | None) -> None:
        """Store events in order, all with one enqueue time, and wake the readers."""
        now_ms = max(int(time.time() * 1000), self.log[-1].enqueued_ms if self.log else 0)
        for event in events:
            sequence_number, offset = len(self.log), self.byte_count
            message = wire.stamp(event, partition_key, sequence_number, offset, now_ms)
            self.log.append(Stored(sequence_number, offset, now_ms, message))
            self.byte_count += len(message)
        for reader in list(self.readers):
            reader.deliver()

    def find(self, filter_expression: str | None) -> int:
        """Index in the log where a reader with this position filter starts. Raises AmqpError on a bad position.

        As in Azure, a position after the end of the log is refused: it comes from a checkpoint of an earlier hub of
        the same name, and waiting for the log to grow up to it would skip everything in between.
        """
        if not filter_expression:
            return 0
        match = _POSITION.fullmatch(filter_expression)
        if not match:
            raise AmqpError("com.microsoft:argument-error", f"The filter '{filter_expression}' is not understood.")
        field, operator, text = match.groups()
        if text == _LATEST:
            return len(self.log)
        if text == _BEGINNING and field != "enqueued-time":
            return 0
        if not re.fullmatch(r"-?\d+", text):
            raise AmqpError("com.microsoft:argument-error", f"The supplied {field} '{text}' is not a number.")
        column = {"sequence-number": 0, "offset": 1, "enqueued-time": 2}[field]
        value = int(text)
        last = int(self.log[-1][column]) if self.log else -1
        if field != "enqueued-time" and value > last:
            raise AmqpError(
                "com.microsoft:argument-error",
                f"The supplied {field} '{text}' is invalid. The last {field} in the system is '{last}'",
            )
        bisect = bisect_left if operator == ">=" else bisect_right
        return bisect(self.log, value, key=lambda stored: int(stored[column]))

    def admit(self, reader: Reader) -> None:
        """Register a reader, or raise AmqpError. A reader with an epoch displaces all with a lower or no epoch."""
        peers = [other for other in self.readers if other.consumer_group == reader.consumer_group]
        if reader.epoch is not None:
            if any(other.epoch is not None and other.epoch > reader.epoch for other in peers):
                raise AmqpError("amqp:link:stolen", "A receiver with a higher epoch exists on this partition.")
            for other in peers:
                self.readers.remove(other)
                other.detach(AmqpError("amqp:link:stolen", f"New receiver with epoch '{reader.epoch}' is created."))
        elif any(other.epoch is not None for other in peers):
            raise AmqpError("amqp:link:stolen", "A receiver with an epoch exists on this partition.")
        elif len(peers) >= MAX_READERS_PER_GROUP:
            raise AmqpError(
                "amqp:resource-limit-exceeded",
                f"At most {MAX_READERS_PER_GROUP} receivers may read a partition in one consumer group.",
            )
        self.readers.append(reader)

    def leave(self, reader: Reader) -> None:
        """Forget a reader; one that was displaced already is gone."""
        if reader in self.readers:
            self.readers.remove(reader)


class Hub:
    """A named set of partitions."""

    def __init__(self, name: str, partition_count: int = 4) -> None:
        """A new, empty hub, created now."""
        self.name = name
        self.created_ms = int(time.time() * 1000)
        self.partitions = [Partition(index) for index in range(partition_count)]
        self.senders: set[Attached] = set()
        self._round_robin = 0

    def partition(self, partition_id: str | int) -> Partition:
        """The partition of this id. Raises AmqpError when there is none."""
        index = int(partition_id)
        if index >= len(self.partitions):
            raise not_found(f"{self.name}/Partitions/{partition_id}")
        return self.partitions[index]

    def route(self, partition_key: bytes | None) -> Partition:
        """Where events without a partition go: by key always to the same one, without a key to each in turn."""
        if partition_key:
            return self.partitions[zlib.crc32(partition_key) % len(self.partitions)]
        self._round_robin += 1
        return self.partitions[self._round_robin % len(self.partitions)]


class Broker:
    """All hubs of the server. Names are matched without case, as in Azure."""

    def __init__(self, hubs: dict[str, int] | None = None) -> None:
        """`hubs`: partition count by hub name."""
        self._hubs: dict[str, Hub] = {}
        self.fault: Fault | None = None
        for name, partition_count in (hubs or {}).items():
            self.create_hub(name, partition_count)

    def hub(self, name: str | None) -> Hub:
        """The hub of this name. Raises AmqpError when there is none."""
        hub = self._hubs.get((name or "").lower())
        if hub is None:
            raise not_found(name or "")
        return hub

    def create_hub(self, name: str, partition_count: int = 4) -> Hub:
        """Add an empty hub. Raises ValueError when one of this name exists."""
        if name.lower() in self._hubs:
            raise ValueError(f"hub {name} exists")
        hub = self._hubs[name.lower()] = Hub(name, partition_count)
        return hub

    def delete_hub(self, name: str) -> None:
        """Drop a hub with its events; every link to it ends. A new hub of the name starts at sequence number 0."""
        hub = self.hub(name)
        del self._hubs[name.lower()]
        links: Sequence[Attached] = [*hub.senders, *(reader for part in hub.partitions for reader in part.readers)]
        for link in links:
            link.detach(not_found(name))

    def ingest(self, hub: Hub, partition: Partition | None, message: bytes, *, is_batch: bool) -> bool:
        """Store the event or batch of one transfer; False when the sender must not learn that it was stored.

        Raises AmqpError when a fault refuses it, ValueError when it is not a message.
        """
        encoded, partition_key = wire.split_batch(message) if is_batch else ([message], None)
        events = [wire.parse(event) for event in encoded]
        if not is_batch:
            partition_key = events[0].partition_key
        target = partition or hub.route(partition_key)
        verdict = self.fault(hub.name, target.id, len(events)) if self.fault else None
        if isinstance(verdict, AmqpError):
            raise verdict
        target.append(events, partition_key)
        return verdict is None


def not_found(entity: str) -> AmqpError:
    """The error for a hub or partition that does not exist."""
    return AmqpError("amqp:not-found", f"The messaging entity '{entity}' could not be found.")
