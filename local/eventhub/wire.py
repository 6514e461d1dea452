"""Sections of an encoded AMQP message: enough to split batches and stamp annotations without re-encoding bodies.

A message is a row of described sections (header, annotations, properties, data ...). The broker replaces the message
annotations and passes every other section through byte for byte, so what a client sent is what another one reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from local.eventhub.codec import (
    Described,
    Encoded,
    Long,
    Symbol,
    Timestamp,
    decode,
    encode,
    encode_composite,
    encode_map_payload,
    value_length,
)

BATCH_MESSAGE_FORMAT = 0x80013700

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES = 0x70, 0x71, 0x72, 0x73
APPLICATION_PROPERTIES, DATA, AMQP_VALUE = 0x74, 0x75, 0x77

_PARTITION_KEY = "x-opt-partition-key"
# Set by the broker alone; a client that sends them (it forwards an event it received) does not get to choose them.
_BROKER_ANNOTATIONS = frozenset({"x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time"})
_SEQUENCE_NUMBER_KEY = encode(Symbol("x-opt-sequence-number"))
_OFFSET_KEY = encode(Symbol("x-opt-offset"))
_ENQUEUED_TIME_KEY = encode(Symbol("x-opt-enqueued-time"))


class Section(NamedTuple):
    """Where one section lies: bytes start..end, its value at body."""

    code: int
    start: int
    body: int
    end: int


class Incoming(NamedTuple):
    """An event as a client sent it, taken apart once so that stamping it is a concatenation."""

    annotations: bytes
    annotation_count: int
    partition_key: bytes | None
    rest: bytes


class Request(NamedTuple):
    """A request to $cbs or $management."""

    message_id: Any
    properties: dict[Any, Any]


def sections(message: bytes) -> Iterator[Section]:
    """The sections of a message, in order. Raises ValueError when it is not one."""
    start = 0
    while start < len(message):
        if message[start] != 0 or start + 2 >= len(message):
            raise ValueError("not an AMQP message section")
        if message[start + 1] == 0x53:
            code, body = message[start + 2], start + 3
        elif message[start + 1] == 0x80:
            code, body = int(struct.unpack_from(">Q", message, start + 2)[0]), start + 10
        else:
            raise ValueError("section without a numeric descriptor")
        end = body + value_length(message, body)
        yield Section(code, start, body, end)
        start = end


def parse(message: bytes) -> Incoming:
    """Take an event apart. Header and delivery annotations concern one hop only and are dropped, as AMQP says."""
    kept, count, partition_key, rest = b"", 0, None, []
    for section in sections(message):
        if section.code == MESSAGE_ANNOTATIONS:
            for key, value in _map_items(message, section.body):
                name = decode(key)[0]
                if name in _BROKER_ANNOTATIONS:
                    continue
                if name == _PARTITION_KEY:
                    partition_key = _as_bytes(decode(value)[0])
                kept += key + value
                count += 2
        elif section.code not in (HEADER, DELIVERY_ANNOTATIONS):
            rest.append(message[section.start : section.end])
    return Incoming(kept, count, partition_key, b"".join(rest))


def split_batch(message: bytes) -> tuple[list[bytes], bytes | None]:
    """(events, partition key) of a batch: every data section of its envelope holds one complete message."""
    events: list[bytes] = []
    partition_key = None
    for section in sections(message):
        if section.code == DATA:
            events.append(decode(message, section.body)[0])
        elif section.code == MESSAGE_ANNOTATIONS:
            annotations = decode(message, section.body)[0]
            if _PARTITION_KEY in annotations:
                partition_key = _as_bytes(annotations[_PARTITION_KEY])
    return events, partition_key


def stamp(event: Incoming, partition_key: bytes | None, sequence_number: int, offset: int, enqueued_ms: int) -> bytes:
    """The message that receivers get: the event with the broker's annotations in front."""
    payload = (
        _SEQUENCE_NUMBER_KEY + encode(Long(sequence_number)) + _OFFSET_KEY + encode(str(offset))
    ) + (_ENQUEUED_TIME_KEY + encode(Timestamp(enqueued_ms)) + event.annotations)  # fmt: skip
    count = event.annotation_count + 6
    if partition_key and event.partition_key is None:
        payload += encode(Symbol(_PARTITION_KEY)) + encode(partition_key.decode())
        count += 2
    return b"\x00\x53" + bytes([MESSAGE_ANNOTATIONS]) + encode_map_payload(payload, count) + event.rest


def body(message: bytes) -> bytes:
    """The data sections of a message joined; empty for a message without data."""
    return b"".join(decode(message, section.body)[0] for section in sections(message) if section.code == DATA)


def message_annotations(message: bytes) -> dict[Any, Any]:
    """The message annotations, decoded."""
    for section in sections(message):
        if section.code == MESSAGE_ANNOTATIONS:
            return dict(decode(message, section.body)[0])
    return {}


def parse_request(message: bytes) -> Request:
    """Message id and application properties of a request."""
    message_id, properties = None, {}
    for section in sections(message):
        if section.code == PROPERTIES:
            message_id = _first_field(message, section.body)
        elif section.code == APPLICATION_PROPERTIES:
            properties = decode(message, section.body)[0]
    return Request(message_id, properties)


def response(message_id: Any, status_code: int, description: str, value: Any) -> bytes:
    """Answer to a request: correlated by its message id, status as application properties, `value` as body."""
    return (
        encode_composite(PROPERTIES, [None, None, None, None, None, message_id])
        + encode(Described(APPLICATION_PROPERTIES, {"status-code": status_code, "status-description": description}))
        + encode(Described(AMQP_VALUE, value))
    )


def delivery_annotations(values: dict[Symbol, Any]) -> bytes:
    """A delivery-annotations section."""
    return encode(Described(DELIVERY_ANNOTATIONS, values))


def _map_items(message: bytes, offset: int) -> Iterator[tuple[bytes, bytes]]:
    """Encoded keys and values of the map at `offset`."""
    short = message[offset] == 0xC1
    position = offset + (3 if short else 9)
    end = offset + value_length(message, offset)
    while position < end:
        key_end = position + value_length(message, position)
        value_end = key_end + value_length(message, key_end)
        yield message[position:key_end], message[key_end:value_end]
        position = value_end


def _first_field(message: bytes, offset: int) -> Encoded | None:
    """First field of the list at `offset`, kept encoded: an answer must repeat a message id in the type it came in."""
    if message[offset] == 0x45:
        return None
    start = offset + (3 if message[offset] == 0xC0 else 9)
    return Encoded(message[start : start + value_length(message, start)])


def _as_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()
