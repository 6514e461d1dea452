"""The four kinds of link a client attaches: send to a hub, read a partition, request and reply with the service."""

from __future__ import annotations

import re
import time
from typing import Any, Protocol
from urllib.parse import urlparse

from local.eventhub import wire
from local.eventhub.broker import AmqpError, Broker, Hub, Partition, not_found
from local.eventhub.codec import Array, Described, Long, Symbol, Timestamp

MAX_MESSAGE_BYTES = 1024 * 1024
SERVICE_NODES = ("$cbs", "$management")
_SENDER_ADDRESS = re.compile(r"([^/]+)(?:/Partitions/(\d+))?", re.IGNORECASE)
_READER_ADDRESS = re.compile(r"([^/]+)/ConsumerGroups/([^/]+)/Partitions/(\d+)", re.IGNORECASE)
_ACCEPTED = Described(0x24, [])


class Wire(Protocol):
    """What links need from their connection."""

    def send_transfer(self, link: Link, message: bytes) -> None:
        """Send one settled message over the link."""

    def send_detach(self, link: Link, error: AmqpError | None) -> None:
        """End the link from our side."""

    def can_send(self, link: Link) -> bool:
        """False while the client's session window or the socket is full."""

    def reply_link(self, link: RequestLink) -> ReplyLink | None:
        """The link on which answers to requests of `link` go back."""

    def abort(self) -> None:
        """Drop the connection without a goodbye."""


class Link:
    """What all links have: where they are attached and how many messages may still travel."""

    def __init__(self, connection: Wire, channel: int, handle: int, name: str) -> None:
        """`handle` is the client's; ours is the same number."""
        self.connection = connection
        self.channel = channel
        self.handle = handle
        self.name = name
        self.credit = 0
        self.delivery_count = 0
        self.is_detached = False

    def detach(self, error: AmqpError) -> None:
        """End the link because of `error`."""
        self.close()
        self.is_detached = True
        self.connection.send_detach(self, error)

    def close(self) -> None:
        """Let go of what the link holds in the broker."""

    def deliver(self) -> None:
        """Send what is there and allowed."""


class SenderLink(Link):
    """The client sends events to a hub, or to one partition of it."""

    def __init__(self, broker: Broker, address: str, connection: Wire, channel: int, handle: int, name: str) -> None:
        """Raises AmqpError when the address names no hub or partition."""
        super().__init__(connection, channel, handle, name)
        match = _SENDER_ADDRESS.fullmatch(address)
        if not match:
            raise not_found(address)
        self._broker = broker
        self.hub: Hub = broker.hub(match[1])
        self.partition: Partition | None = self.hub.partition(match[2]) if match[2] else None
        self.hub.senders.add(self)

    def close(self) -> None:
        """Stop being told when the hub goes away."""
        self.hub.senders.discard(self)

    def receive(self, message: bytes, *, is_batch: bool) -> Described | None:
        """Store a message; the delivery state to answer with, or None when the connection was dropped instead."""
        if len(message) > MAX_MESSAGE_BYTES:
            return _rejected(AmqpError("amqp:link:message-size-exceeded", f"The message has {len(message)} bytes."))
        try:
            may_answer = self._broker.ingest(self.hub, self.partition, message, is_batch=is_batch)
        except AmqpError as error:
            return _rejected(error)
        except ValueError as error:
            return _rejected(AmqpError("amqp:decode-error", str(error)))
        if not may_answer:
            self.connection.abort()
            return None
        return _ACCEPTED


class ReaderLink(Link):
    """The client reads one partition from a position on."""

    def __init__(
        self,
        broker: Broker,
        address: str,
        filter_expression: str | None,
        epoch: int | None,
        reports_last_enqueued: bool,
        connection: Wire,
        channel: int,
        handle: int,
        name: str,
    ) -> None:
        """Raises AmqpError without such a partition, for a bad position, or when a reader's epoch keeps others out."""
        super().__init__(connection, channel, handle, name)
        match = _READER_ADDRESS.fullmatch(address)
        if not match:
            raise not_found(address)
        self.partition = broker.hub(match[1]).partition(match[3])
        self.consumer_group = match[2].lower()
        self.epoch = epoch
        self._reports_last_enqueued = reports_last_enqueued
        self._next_index = self.partition.find(filter_expression)
        self.partition.admit(self)

    def close(self) -> None:
        """Stop following the partition."""
        self.partition.leave(self)

    def deliver(self) -> None:
        """Send events as far as the client's credit and window go."""
        log = self.partition.log
        while self._next_index < len(log) and self.credit > 0 and self.connection.can_send(self):
            message = log[self._next_index].message
            self._next_index += 1
            if self._reports_last_enqueued:
                message = self._last_enqueued() + message
            self.connection.send_transfer(self, message)

    def _last_enqueued(self) -> bytes:
        last = self.partition.log[-1]
        return wire.delivery_annotations(
            {
                Symbol("last_enqueued_sequence_number"): Long(last.sequence_number),
                Symbol("last_enqueued_offset"): str(last.offset),
                Symbol("last_enqueued_time_utc"): Timestamp(last.enqueued_ms),
                Symbol("runtime_info_retrieval_time_utc"): Timestamp(int(time.time() * 1000)),
            }
        )


class RequestLink(Link):
    """The client sends requests to $cbs (tokens) or $management (properties of hubs and partitions)."""

    def __init__(self, broker: Broker, node: str, connection: Wire, channel: int, handle: int, name: str) -> None:
        """`node` is one of SERVICE_NODES."""
        super().__init__(connection, channel, handle, name)
        self._broker = broker
        self.node = node

    def receive(self, message: bytes) -> None:
        """Answer a request on the reply link of the same node and session."""
        request = wire.parse_request(message)
        status_code, description, value = 202, "Accepted", None
        if self.node == "$management":
            try:
                status_code, description, value = 200, "OK", self._read(request.properties)
            except AmqpError as error:
                status_code, description = 404, error.description
        reply = self.connection.reply_link(self)
        if reply:
            self.connection.send_transfer(reply, wire.response(request.message_id, status_code, description, value))

    def _read(self, properties: dict[Any, Any]) -> dict[str, Any]:
        hub = self._broker.hub(properties.get("name"))
        kind = properties.get("type")
        if kind == "com.microsoft:eventhub":
            return {
                "name": hub.name,
                "type": kind,
                "created_at": Timestamp(hub.created_ms),
                "partition_count": len(hub.partitions),
                "partition_ids": Array(str(partition.id) for partition in hub.partitions),
                "georeplication_factor": 1,
            }
        partition = hub.partition(properties.get("partition") or "0")
        last = partition.log[-1] if partition.log else None
        return {
            "name": hub.name,
            "type": kind,
            "partition": str(partition.id),
            "begin_sequence_number": Long(0 if last else -1),
            "last_enqueued_sequence_number": Long(last.sequence_number if last else -1),
            "last_enqueued_offset": str(last.offset if last else -1),
            "last_enqueued_time_utc": Timestamp(last.enqueued_ms if last else 0),
            "is_partition_empty": last is None,
        }


class ReplyLink(Link):
    """The client reads answers of $cbs or $management."""

    def __init__(self, node: str, connection: Wire, channel: int, handle: int, name: str) -> None:
        """`node` is one of SERVICE_NODES."""
        super().__init__(connection, channel, handle, name)
        self.node = node


def node_path(terminus: Described | None) -> str:
    """Address of a source or target without scheme and host."""
    address = str(terminus.value[0] or "") if terminus and terminus.value else ""
    return (urlparse(address).path if "://" in address else address).strip("/")


def position_filter(source: Described) -> str | None:
    """The position filter of a source, or None."""
    filters = source.value[7] if len(source.value) > 7 else None
    first = next(iter((filters or {}).values()), None)
    return str(first.value if isinstance(first, Described) else first) if first is not None else None


def error_fields(error: AmqpError) -> Described:
    """An AMQP error as it stands in a detach, a close or a rejected state."""
    return Described(0x1D, [Symbol(error.condition), error.description, None])


def _rejected(error: AmqpError) -> Described:
    return Described(0x25, [error_fields(error)])
