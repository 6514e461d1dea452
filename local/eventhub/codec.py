"""AMQP 1.0 values to bytes and back (the subset that Event Hubs clients send or expect).

Python's types say less than AMQP's: a plain int is encoded as an AMQP int, and the wrapper types below ask for another
width. Maps keep their order.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Symbol(str):
    """An AMQP symbol: ASCII text from a defined vocabulary."""

    __slots__ = ()


class Described(NamedTuple):
    """A value with a descriptor that says what it stands for."""

    descriptor: Any
    value: Any


class Encoded(bytes):
    """Bytes that already are an encoded AMQP value."""

    __slots__ = ()


class Ubyte(int):
    """Unsigned 8 bits."""


class Ushort(int):
    """Unsigned 16 bits."""


class Uint(int):
    """Unsigned 32 bits."""


class Ulong(int):
    """Unsigned 64 bits."""


class Long(int):
    """Signed 64 bits."""


class Timestamp(int):
    """Milliseconds since 1970-01-01 UTC."""


class Array(tuple[str, ...]):
    """One AMQP array of short strings, or of symbols when the first item is one."""

    __slots__ = ()


_EMPTY: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0, 0x45: []}
_FIXED: dict[int, struct.Struct] = {
    code: struct.Struct(">" + layout)
    for code, layout in {
        0x50: "B", 0x51: "b", 0x52: "B", 0x53: "B", 0x54: "b", 0x55: "b", 0x56: "?", 0x60: "H", 0x61: "h",
        0x70: "I", 0x71: "i", 0x72: "f", 0x80: "Q", 0x81: "q", 0x82: "d", 0x83: "q",
    }.items()
}  # fmt: skip
_UUID = 0x98
# The high four bits of a type code say how long the value is: a fixed number of bytes, or a length in 1 or 4 bytes.
_WIDTH_BY_CLASS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SHORT_LENGTH = {0xA, 0xC, 0xE}
_LONG_LENGTH = {0xB, 0xD, 0xF}
_LIST_CODES, _MAP_CODES, _ARRAY_CODES = (0xC0, 0xD0), (0xC1, 0xD1), (0xE0, 0xF0)
_UINT32 = struct.Struct(">I")
_TWO_UINT32 = struct.Struct(">II")


def decode(buffer: bytes, offset: int = 0) -> tuple[Any, int]:
    """The value at `offset` and the offset after it. Raises ValueError on anything that is not AMQP."""
    try:
        if buffer[offset] == 0:
            descriptor, offset = decode(buffer, offset + 1)
            value, offset = decode(buffer, offset)
            return Described(descriptor, value), offset
        return _decode_as(buffer[offset], buffer, offset + 1)
    # TypeError: a map with a list as key, which AMQP allows, Python does not and no client of ours sends.
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise ValueError(f"truncated or malformed AMQP value at byte {offset}") from error


def value_length(buffer: bytes, offset: int) -> int:
    """Bytes that the value at `offset` takes, without decoding it. Raises ValueError as `decode` does."""
    try:
        code = buffer[offset]
        if code == 0:
            descriptor_length = value_length(buffer, offset + 1)
            return 1 + descriptor_length + value_length(buffer, offset + 1 + descriptor_length)
        kind = code >> 4
        if kind in _WIDTH_BY_CLASS:
            return 1 + _WIDTH_BY_CLASS[kind]
        if kind in _SHORT_LENGTH:
            return 2 + buffer[offset + 1]
        if kind in _LONG_LENGTH:
            return 5 + int(_UINT32.unpack_from(buffer, offset + 1)[0])
    except (IndexError, struct.error) as error:
        raise ValueError(f"truncated AMQP value at byte {offset}") from error
    raise ValueError(f"unknown AMQP type {code:#04x} at byte {offset}")


def encode(value: Any) -> bytes:
    """Bytes of a value. Raises TypeError for a type that no AMQP type is chosen for."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"no AMQP type for {type(value).__name__}")
    return encoder(value)


def encode_list(values: Sequence[Any]) -> bytes:
    """Bytes of an AMQP list."""
    payload = b"".join(map(encode, values))
    return b"\xd0" + _TWO_UINT32.pack(len(payload) + 4, len(values)) + payload


def encode_map_payload(payload: bytes, element_count: int) -> bytes:
    """Bytes of a map whose keys and values (`element_count` of them together) are encoded in `payload`."""
    return b"\xd1" + _TWO_UINT32.pack(len(payload) + 4, element_count) + payload


def encode_composite(descriptor: int, fields: Sequence[Any]) -> bytes:
    """Bytes of a described list: a performative, a section or a delivery state."""
    return b"\x00\x53" + bytes([descriptor]) + encode_list(fields)


def _decode_as(code: int, buffer: bytes, offset: int) -> tuple[Any, int]:
    if code in _EMPTY:
        return ([] if code == 0x45 else _EMPTY[code]), offset
    layout = _FIXED.get(code)
    if layout is not None:
        return layout.unpack_from(buffer, offset)[0], offset + layout.size
    if code == _UUID:
        return uuid.UUID(bytes=bytes(buffer[offset : offset + 16])), offset + 16
    kind = code >> 4
    if kind in (0xA, 0xB):
        return _decode_variable(code, buffer, offset)
    if code in _LIST_CODES or code in _MAP_CODES or code in _ARRAY_CODES:
        return _decode_compound(code, buffer, offset)
    if kind in _WIDTH_BY_CLASS:  # decimals and single characters: nothing here looks at them
        end = offset + _WIDTH_BY_CLASS[kind]
        return bytes(buffer[offset:end]), end
    raise ValueError(f"unknown AMQP type {code:#04x}")


def _decode_variable(code: int, buffer: bytes, offset: int) -> tuple[Any, int]:
    if code >> 4 == 0xA:
        length, offset = buffer[offset], offset + 1
    else:
        length, offset = int(_UINT32.unpack_from(buffer, offset)[0]), offset + 4
    end = offset + length
    if end > len(buffer):
        raise ValueError(f"AMQP value of {length} bytes ends after its buffer")
    raw = bytes(buffer[offset:end])
    kind = code & 0x0F
    if kind == 0:
        return raw, end
    return (Symbol(raw.decode()) if kind == 3 else raw.decode()), end


def _decode_compound(code: int, buffer: bytes, offset: int) -> tuple[Any, int]:
    if code >> 4 in _SHORT_LENGTH:
        end, count, offset = offset + 1 + buffer[offset], buffer[offset + 1], offset + 2
    else:
        length, count = _TWO_UINT32.unpack_from(buffer, offset)
        end, offset = offset + 4 + length, offset + 8
    if end > len(buffer) or count > len(buffer):
        raise ValueError("AMQP list, map or array ends after its buffer")
    values: list[Any] = []
    if code in _ARRAY_CODES:
        element_code, offset = buffer[offset], offset + 1
        for _ in range(count):
            value, offset = _decode_as(element_code, buffer, offset)
            values.append(value)
        return values, end
    for _ in range(count):
        value, offset = decode(buffer, offset)
        values.append(value)
    if code in _MAP_CODES:
        return dict(zip(values[::2], values[1::2], strict=True)), end
    return values, end


def _encode_text(short_code: int, raw: bytes) -> bytes:
    if len(raw) < 256:
        return bytes([short_code, len(raw)]) + raw
    return bytes([short_code + 0x10]) + _UINT32.pack(len(raw)) + raw


def _encode_described(value: Described) -> bytes:
    descriptor = value.descriptor
    head = b"\x53" + bytes([descriptor]) if isinstance(descriptor, int) else encode(descriptor)
    return b"\x00" + head + encode(value.value)


def _encode_map(value: dict[Any, Any]) -> bytes:
    return encode_map_payload(b"".join(encode(item) for pair in value.items() for item in pair), 2 * len(value))


def _encode_array(value: Array) -> bytes:
    element_code = b"\xa3" if isinstance(value[0], Symbol) else b"\xa1"
    payload = element_code + b"".join(bytes([len(item)]) + item.encode() for item in value)
    return b"\xf0" + _TWO_UINT32.pack(len(payload) + 4, len(value)) + payload


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    int: lambda value: b"\x71" + struct.pack(">i", value),
    float: lambda value: b"\x82" + struct.pack(">d", value),
    bytes: lambda value: _encode_text(0xA0, value),
    str: lambda value: _encode_text(0xA1, value.encode()),
    Symbol: lambda value: _encode_text(0xA3, value.encode()),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    Encoded: bytes,
    Ubyte: lambda value: b"\x50" + bytes([value]),
    Ushort: lambda value: b"\x60" + struct.pack(">H", value),
    Uint: lambda value: b"\x70" + _UINT32.pack(value) if value else b"\x43",
    Ulong: lambda value: b"\x80" + struct.pack(">Q", value),
    Long: lambda value: b"\x81" + struct.pack(">q", value),
    Timestamp: lambda value: b"\x83" + struct.pack(">q", value),
    list: encode_list,
    tuple: encode_list,
    dict: _encode_map,
    Described: _encode_described,
    Array: _encode_array,
}
