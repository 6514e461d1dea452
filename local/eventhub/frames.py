"""Frames of an AMQP connection: splitting the byte stream, the opening handshake, heartbeats and the close.

The SDK's AMQP library reads the fields of what we send by position and takes a transfer's payload as its twelfth
field, so every list sent here and in server.py carries its full number of fields, although AMQP would allow trailing
nulls to be left out.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Sequence
from typing import Any

from local.eventhub.broker import AmqpError
from local.eventhub.codec import Array, Described, Symbol, Ubyte, Uint, Ushort, decode, encode_composite
from local.eventhub.links import error_fields

logger = logging.getLogger("tollkeeper.local.eventhub")

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
MAX_FRAME_BYTES = 1024 * 1024

_SASL_MECHANISMS, _SASL_INIT, _SASL_OUTCOME = 0x40, 0x41, 0x44
_MECHANISMS = Array((Symbol("ANONYMOUS"),))
_SASL_PROTOCOL = 3
_AMQP_FRAME, _SASL_FRAME = 0, 1
_FRAME_HEADER = struct.Struct(">IBBH")
_EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"
_LONGEST_PERFORMATIVE = 14
_IDLE_TIMEOUT_MS = 240_000
_SMALLEST_FRAME_BYTES = 512  # what any peer must take before it has said more
_NAME = "tollkeeper-local"


class FrameProtocol(asyncio.Protocol):
    """One client connection up to its performatives, which a subclass handles in `handle`."""

    def __init__(self) -> None:
        """Not connected yet."""
        self.max_frame_bytes = _SMALLEST_FRAME_BYTES  # that the client takes
        self._buffer = bytearray()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def handle(self, code: int, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        """Act on a performative; `frame` holds it and, from `end` on, a payload. Raises ValueError to refuse it."""
        raise NotImplementedError

    def send(
        self, channel: int, code: int, fields: Sequence[Any], payload: bytes = b"", *, frame_type: int = _AMQP_FRAME
    ) -> None:
        """Send one performative with its payload."""
        content = encode_composite(code, fields) + payload
        self._transport.write(_FRAME_HEADER.pack(len(content) + 8, 2, frame_type, channel) + content)

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._heartbeat:
            self._heartbeat.cancel()

    def data_received(self, data: bytes) -> None:
        """Handle the whole frames received so far. Anything malformed ends the connection with an error."""
        self._buffer += data
        try:
            self._split()
        except ValueError as error:
            logger.warning("closing a connection: %s", error)
            self.send(0, CLOSE, [error_fields(AmqpError("amqp:decode-error", str(error)))])
            self._transport.close()

    def _split(self) -> None:
        position, buffer = 0, self._buffer
        while len(buffer) - position >= 8:
            if buffer[position : position + 4] == b"AMQP":
                self._on_protocol_header(bytes(buffer[position : position + 8]))
                position += 8
                continue
            size, data_offset, frame_type, channel = _FRAME_HEADER.unpack_from(buffer, position)
            if not 8 <= size <= MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes")
            if len(buffer) - position < size:
                break
            frame = bytes(buffer[position + 4 * data_offset : position + size])
            position += size
            if frame:
                self._on_frame(frame_type, channel, frame)
        del buffer[:position]

    def _on_protocol_header(self, header: bytes) -> None:
        self._transport.write(header)
        if header[4] == _SASL_PROTOCOL:
            self.send(0, _SASL_MECHANISMS, [_MECHANISMS], frame_type=_SASL_FRAME)

    def _on_frame(self, frame_type: int, channel: int, frame: bytes) -> None:
        performative, end = decode(frame)
        code, fields = performative if isinstance(performative, Described) else (-1, None)
        if not isinstance(fields, list):
            raise ValueError("a frame without a performative")  # noqa: TRY004  (malformed input, not a wrong call)
        fields = fields + [None] * (_LONGEST_PERFORMATIVE - len(fields))
        if frame_type == _SASL_FRAME:
            if code == _SASL_INIT:
                self.send(0, _SASL_OUTCOME, [Ubyte(0), None], frame_type=_SASL_FRAME)
        elif code == OPEN:
            self._on_open(fields)
        elif code == CLOSE:
            self.send(0, CLOSE, [None])
            self._transport.close()
        else:
            self.handle(code, channel, fields, frame, end)

    def _on_open(self, fields: list[Any]) -> None:
        hostname, max_frame_bytes, idle_timeout_ms = fields[1], fields[2], fields[4]
        self.max_frame_bytes = min(max_frame_bytes or MAX_FRAME_BYTES, MAX_FRAME_BYTES)
        if idle_timeout_ms:
            self._beat(idle_timeout_ms / 2000)
        answer: list[Any] = [_NAME, hostname, Uint(MAX_FRAME_BYTES), Ushort(0xFFFF), Uint(_IDLE_TIMEOUT_MS)]
        self.send(0, OPEN, [*answer, None, None, None, None, {Symbol("product"): _NAME}])

    def _beat(self, interval_seconds: float) -> None:
        """Send an empty frame twice per idle timeout, or the client takes silence for a dead server."""
        self._transport.write(_EMPTY_FRAME)
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(interval_seconds, self._beat, interval_seconds)
