"""Connections and sessions of AMQP 1.0 over asyncio, as far as Event Hubs clients use them.

The SDK's AMQP library reads the fields of what we send by position and takes a transfer's payload as its twelfth
field, so every list here carries its full number of fields although AMQP would allow trailing nulls to be left out.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any

from local.eventhub.broker import AmqpError, Broker
from local.eventhub.codec import (
    Array,
    Described,
    Encoded,
    Symbol,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    decode,
    encode_composite,
    value_length,
)
from local.eventhub.links import (
    MAX_MESSAGE_BYTES,
    SERVICE_NODES,
    Link,
    ReaderLink,
    ReplyLink,
    RequestLink,
    SenderLink,
    error_fields,
    node_path,
    position_filter,
)
from local.eventhub.wire import BATCH_MESSAGE_FORMAT

logger = logging.getLogger("tollkeeper.local.eventhub")

_OPEN, _BEGIN, _ATTACH, _FLOW, _TRANSFER, _DISPOSITION, _DETACH, _END, _CLOSE = range(0x10, 0x19)
_SASL_MECHANISMS, _SASL_INIT, _SASL_OUTCOME = 0x40, 0x41, 0x44
_FRAME_HEADER = struct.Struct(">IBBH")
_AMQP_FRAME, _SASL_FRAME = 0, 1
_SASL_PROTOCOL = 3
_LONGEST_PERFORMATIVE = 14

_MAX_FRAME_BYTES = 1024 * 1024
_IDLE_TIMEOUT_MS = 240_000
_WINDOW = 0x7FFF_FFFF
_SENDER_CREDIT = 300
# Room that a transfer's own fields take in a frame; what they really take is about half of this.
_TRANSFER_OVERHEAD_BYTES = 128
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
_MECHANISMS = Array((Symbol("ANONYMOUS"),))
_EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"


class Server:
    """Listens on loopback and serves a broker."""

    def __init__(self, broker: Broker) -> None:
        """Nothing listens until `start`."""
        self.broker = broker
        self.connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1 and return the port (a free one for 0). Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), "127.0.0.1", port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener:
            self._listener.close()
        self.abort_connections()
        if self._listener:
            await self._listener.wait_closed()
            self._listener = None

    def abort_connections(self) -> None:
        """Drop every connection as a network failure would; clients may connect again at once."""
        for connection in list(self.connections):
            connection.abort()


class _Session:
    """Transfer ids and the client's receive window of one channel."""

    def __init__(self, next_incoming_id: int, window: int) -> None:
        self.next_incoming_id = next_incoming_id
        self.next_outgoing_id = 0
        self.window = window


class _Inbound:
    """A message that is arriving in one or more transfer frames."""

    def __init__(self) -> None:
        self.payload = bytearray()
        self.delivery_id = 0
        self.message_format = 0


class Connection(asyncio.Protocol):
    """One client connection: frames in, frames out."""

    def __init__(self, server: Server) -> None:
        """Created by the server for each accepted socket."""
        self._server = server
        self._buffer = bytearray()
        self._sessions: dict[int, _Session] = {}
        self._links: dict[tuple[int, int], Link] = {}
        self._inbound: dict[tuple[int, int], _Inbound] = {}
        self._max_frame_bytes = 512
        self._heartbeat: asyncio.TimerHandle | None = None
        self._write_paused = False
        self._delivery_tag = 0
        self._transport: asyncio.Transport
        self._handlers: dict[int, Callable[[int, list[Any], bytes, int], None]] = {
            _OPEN: self._on_open,
            _BEGIN: self._on_begin,
            _ATTACH: self._on_attach,
            _FLOW: self._on_flow,
            _TRANSFER: self._on_transfer,
            _DISPOSITION: self._on_disposition,
            _DETACH: self._on_detach,
            _END: self._on_end,
            _CLOSE: self._on_close,
        }

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its links let go of their hubs."""
        self._server.connections.discard(self)
        if self._heartbeat:
            self._heartbeat.cancel()
        for link in self._links.values():
            link.close()
        self._links.clear()

    def pause_writing(self) -> None:
        """The client reads slower than we send: readers wait, or the log would be copied into memory."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The client caught up."""
        self._write_paused = False
        for link in list(self._links.values()):
            link.deliver()

    def data_received(self, data: bytes) -> None:
        """Handle the whole frames received so far. Anything malformed ends the connection with an error."""
        self._buffer += data
        try:
            self._handle_frames()
        except ValueError as error:
            logger.warning("closing a connection: %s", error)
            self._send(0, _CLOSE, [error_fields(AmqpError("amqp:decode-error", str(error)))])
            self._transport.close()

    # -- what links ask for

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self._transport.abort()

    def can_send(self, link: Link) -> bool:
        """False while the client's session window or the socket is full."""
        return not self._write_paused and self._sessions[link.channel].window > 0

    def reply_link(self, link: RequestLink) -> ReplyLink | None:
        """The link on which answers to requests of `link` go back."""
        replies = [other for other in self._links.values() if isinstance(other, ReplyLink)]
        return next((reply for reply in replies if (reply.node, reply.channel) == (link.node, link.channel)), None)

    def send_detach(self, link: Link, error: AmqpError | None) -> None:
        """End the link from our side."""
        self._send(link.channel, _DETACH, [Uint(link.handle), True, error_fields(error) if error else None])

    def send_transfer(self, link: Link, message: bytes) -> None:
        """Send one settled message, in as many frames as the client's frame size asks for."""
        session = self._sessions[link.channel]
        self._delivery_tag += 1
        link.delivery_count += 1
        link.credit -= 1
        delivery_id = Uint(session.next_outgoing_id)
        tag = struct.pack(">I", self._delivery_tag & 0xFFFF_FFFF)
        room = self._max_frame_bytes - _TRANSFER_OVERHEAD_BYTES
        for start in range(0, len(message), room):
            more = start + room < len(message)
            fields = [Uint(link.handle), delivery_id, tag, Uint(0), True, more, None, None, False, False, False]
            self._send(link.channel, _TRANSFER, fields, message[start : start + room])
            session.next_outgoing_id += 1
            session.window -= 1

    # -- frames

    def _handle_frames(self) -> None:
        position, buffer = 0, self._buffer
        while len(buffer) - position >= 8:
            if buffer[position : position + 4] == b"AMQP":
                self._on_protocol_header(bytes(buffer[position : position + 8]))
                position += 8
                continue
            size, data_offset, frame_type, channel = _FRAME_HEADER.unpack_from(buffer, position)
            if not 8 <= size <= _MAX_FRAME_BYTES + _TRANSFER_OVERHEAD_BYTES:
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
            self._send(0, _SASL_MECHANISMS, [_MECHANISMS], frame_type=_SASL_FRAME)

    def _on_frame(self, frame_type: int, channel: int, frame: bytes) -> None:
        performative, end = decode(frame)
        code, fields = performative if isinstance(performative, Described) else (-1, None)
        if not isinstance(fields, list):
            raise ValueError("a frame without a performative")  # noqa: TRY004  (malformed input, not a wrong call)
        if frame_type == _SASL_FRAME:
            if code == _SASL_INIT:
                self._send(0, _SASL_OUTCOME, [Ubyte(0), None], frame_type=_SASL_FRAME)
            return
        handler = self._handlers.get(code)
        if handler is None:
            raise ValueError(f"unknown performative {code}")
        handler(channel, fields + [None] * (_LONGEST_PERFORMATIVE - len(fields)), frame, end)

    def _send(
        self, channel: int, code: int, fields: Sequence[Any], payload: bytes = b"", *, frame_type: int = _AMQP_FRAME
    ) -> None:
        content = encode_composite(code, fields) + payload
        self._transport.write(_FRAME_HEADER.pack(len(content) + 8, 2, frame_type, channel) + content)

    # -- connection and session

    def _on_open(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        hostname, max_frame_bytes, idle_timeout_ms = fields[1], fields[2], fields[4]
        self._max_frame_bytes = min(max_frame_bytes or _MAX_FRAME_BYTES, _MAX_FRAME_BYTES)
        if idle_timeout_ms:
            self._beat(idle_timeout_ms / 2000)
        answer: list[Any] = ["tollkeeper-local", hostname, Uint(_MAX_FRAME_BYTES), Ushort(0xFFFF)]
        answer += [Uint(_IDLE_TIMEOUT_MS), None, None, None, None, {Symbol("product"): "tollkeeper-local"}]
        self._send(0, _OPEN, answer)

    def _beat(self, interval_seconds: float) -> None:
        """Send an empty frame twice per idle timeout, or the client takes silence for a dead server."""
        self._transport.write(_EMPTY_FRAME)
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(interval_seconds, self._beat, interval_seconds)

    def _on_begin(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        self._sessions[channel] = _Session(next_incoming_id=fields[1], window=fields[2])
        answer: list[Any] = [Ushort(channel), Uint(0), Uint(_WINDOW), Uint(_WINDOW), Uint(0xFFFF), None, None, None]
        self._send(channel, _BEGIN, answer)

    def _on_end(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        for key in [key for key in self._links if key[0] == channel]:
            self._links.pop(key).close()
        self._sessions.pop(channel, None)
        self._send(channel, _END, [None])

    def _on_close(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        self._send(0, _CLOSE, [None])
        self._transport.close()

    # -- links

    def _on_attach(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        name, handle, client_receives = fields[0], fields[1], bool(fields[2])
        error: AmqpError | None = None
        try:
            link = self._open_link(channel, fields)
        except AmqpError as refused:
            link, error = Link(self, channel, handle, name), refused
        self._links[channel, handle] = link
        self._inbound[channel, handle] = _Inbound()
        raw_source, raw_target = _raw_fields(frame, 5), _raw_fields(frame, 6)
        settle_mode = Ubyte(1) if client_receives else Ubyte(2)
        initial_count = Uint(0) if client_receives else None
        answer: list[Any] = [name, Uint(handle), not client_receives, settle_mode, Ubyte(0), raw_source, raw_target]
        answer += [None, None, initial_count, Ulong(MAX_MESSAGE_BYTES), None, None, None]
        self._send(channel, _ATTACH, answer)
        if error:
            link.detach(error)
        elif not client_receives:
            self._grant(link)

    def _open_link(self, channel: int, fields: list[Any]) -> Link:
        name, handle, client_receives = fields[0], fields[1], bool(fields[2])
        broker = self._server.broker
        terminus = fields[5] if client_receives else fields[6]
        address = node_path(terminus)
        if address in SERVICE_NODES:
            if client_receives:
                return ReplyLink(address, self, channel, handle, name)
            return RequestLink(broker, address, self, channel, handle, name)
        if not client_receives:
            return SenderLink(broker, address, self, channel, handle, name)
        epoch = (fields[13] or {}).get("com.microsoft:epoch")
        capabilities = fields[12] if isinstance(fields[12], list) else [fields[12]]
        wants_last = "com.microsoft:enable-receiver-runtime-metric" in capabilities
        position = position_filter(terminus)
        return ReaderLink(broker, address, position, epoch, wants_last, self, channel, handle, name)

    def _on_detach(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        self._inbound.pop((channel, fields[0]), None)
        link = self._links.pop((channel, fields[0]), None)
        if link and not link.is_detached:  # otherwise this is the answer to our own detach
            link.close()
            self.send_detach(link, None)

    def _on_flow(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        session = self._sessions[channel]
        session.window = (fields[0] or 0) + fields[1] - session.next_outgoing_id
        if fields[4] is None:
            for link in [link for key, link in self._links.items() if key[0] == channel]:
                link.deliver()
            return
        addressed = self._links.get((channel, fields[4]))
        # On links the client sends on, the credit is ours to give; what it says about it is an echo.
        if isinstance(addressed, ReaderLink | ReplyLink) and fields[6] is not None:
            addressed.credit = (fields[5] or 0) + fields[6] - addressed.delivery_count
            addressed.deliver()

    def _grant(self, link: Link) -> None:
        """Allow the client to send another _SENDER_CREDIT messages on this link."""
        session = self._sessions[link.channel]
        link.credit = _SENDER_CREDIT
        answer: list[Any] = [Uint(session.next_incoming_id), Uint(_WINDOW), Uint(session.next_outgoing_id)]
        answer += [Uint(_WINDOW), Uint(link.handle), Uint(link.delivery_count), Uint(_SENDER_CREDIT)]
        self._send(link.channel, _FLOW, [*answer, None, False, False, None])

    def _on_disposition(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        """Clients confirm what we sent settled; there is nothing to keep until they do."""

    def _on_transfer(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        handle, delivery_id, message_format, is_settled, more = fields[0], fields[1], fields[3], fields[4], fields[5]
        self._sessions[channel].next_incoming_id += 1
        link = self._links.get((channel, handle))
        if link is None or link.is_detached:
            return
        inbound = self._inbound[channel, handle]
        if not inbound.payload:
            inbound.delivery_id, inbound.message_format = delivery_id or 0, message_format or 0
        inbound.payload += frame[end:]
        if more:
            return
        message, inbound.payload = bytes(inbound.payload), bytearray()
        link.delivery_count += 1
        link.credit -= 1
        self._on_message(link, message, inbound, is_settled=bool(is_settled))
        if link.credit < _SENDER_CREDIT // 2 and not link.is_detached:
            self._grant(link)

    def _on_message(self, link: Link, message: bytes, inbound: _Inbound, *, is_settled: bool) -> None:
        state: Described | None = Described(0x24, [])
        if isinstance(link, SenderLink):
            state = link.receive(message, is_batch=inbound.message_format == BATCH_MESSAGE_FORMAT)
        if state is not None and not is_settled:
            delivery_id = Uint(inbound.delivery_id)
            self._send(link.channel, _DISPOSITION, [True, delivery_id, delivery_id, True, state, False])
        if isinstance(link, RequestLink):
            link.receive(message)


def _raw_fields(frame: bytes, index: int) -> Encoded:
    """Field `index` of the performative in `frame`, still encoded: source and target are echoed as they came."""
    start = 1 + value_length(frame, 1)
    position = start + {0xC0: 3, 0xD0: 9}[frame[start]]
    for _ in range(index):
        position += value_length(frame, position)
    return Encoded(frame[position : position + value_length(frame, position)])
