"""Sessions and links of AMQP 1.0 over asyncio, as far as Event Hubs clients use them, and the listener."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from local.eventhub.broker import AmqpError, Broker
from local.eventhub.codec import Described, Encoded, Ubyte, Uint, Ulong, Ushort, value_length
from local.eventhub.frames import ATTACH, BEGIN, DETACH, DISPOSITION, END, FLOW, TRANSFER, FrameProtocol
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

_WINDOW = 0x7FFF_FFFF
_SENDER_CREDIT = 300
# Room that a transfer's own fields take in a frame; what they really take is about half of this.
_TRANSFER_OVERHEAD_BYTES = 128
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024


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


class Connection(FrameProtocol):
    """One client connection: its sessions and links."""

    def __init__(self, server: Server) -> None:
        """Created by the server for each accepted socket."""
        super().__init__()
        self._server = server
        self._sessions: dict[int, _Session] = {}
        self._links: dict[tuple[int, int], Link] = {}
        self._inbound: dict[tuple[int, int], _Inbound] = {}
        self._write_paused = False
        self._delivery_tag = 0
        self._handlers: dict[int, Callable[[int, list[Any], bytes, int], None]] = {
            BEGIN: self._on_begin,
            ATTACH: self._on_attach,
            FLOW: self._on_flow,
            TRANSFER: self._on_transfer,
            DISPOSITION: self._on_disposition,
            DETACH: self._on_detach,
            END: self._on_end,
        }

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        super().connection_made(transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its links let go of their hubs."""
        super().connection_lost(exc)
        self._server.connections.discard(self)
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

    # -- what links ask for

    def can_send(self, link: Link) -> bool:
        """False while the client's session window or the socket is full."""
        return not self._write_paused and self._sessions[link.channel].window > 0

    def reply_link(self, link: RequestLink) -> ReplyLink | None:
        """The link on which answers to requests of `link` go back."""
        replies = [other for other in self._links.values() if isinstance(other, ReplyLink)]
        return next((reply for reply in replies if (reply.node, reply.channel) == (link.node, link.channel)), None)

    def send_detach(self, link: Link, error: AmqpError | None) -> None:
        """End the link from our side."""
        self.send(link.channel, DETACH, [Uint(link.handle), True, error_fields(error) if error else None])

    def send_transfer(self, link: Link, message: bytes) -> None:
        """Send one settled message, in as many frames as the client's frame size asks for."""
        session = self._sessions[link.channel]
        self._delivery_tag += 1
        link.delivery_count += 1
        link.credit -= 1
        delivery_id = Uint(session.next_outgoing_id)
        tag = struct.pack(">I", self._delivery_tag & 0xFFFF_FFFF)
        room = self.max_frame_bytes - _TRANSFER_OVERHEAD_BYTES
        for start in range(0, len(message), room):
            more = start + room < len(message)
            fields = [Uint(link.handle), delivery_id, tag, Uint(0), True, more, None, None, False, False, False]
            self.send(link.channel, TRANSFER, fields, message[start : start + room])
            session.next_outgoing_id += 1
            session.window -= 1

    # -- performatives

    def handle(self, code: int, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        """Pass a performative to its handler. Raises ValueError for one that is unknown or on no session."""
        handler = self._handlers.get(code)
        if handler is None or (code != BEGIN and channel not in self._sessions):
            raise ValueError(f"performative {code:#x} is not expected on channel {channel}")
        handler(channel, fields, frame, end)

    def _on_begin(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        self._sessions[channel] = _Session(next_incoming_id=fields[1], window=fields[2])
        answer: list[Any] = [Ushort(channel), Uint(0), Uint(_WINDOW), Uint(_WINDOW), Uint(0xFFFF), None, None, None]
        self.send(channel, BEGIN, answer)

    def _on_end(self, channel: int, fields: list[Any], frame: bytes, end: int) -> None:
        for key in [key for key in self._links if key[0] == channel]:
            self._links.pop(key).close()
        self._sessions.pop(channel, None)
        self.send(channel, END, [None])

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
        self.send(channel, ATTACH, answer)
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
        self.send(link.channel, FLOW, [*answer, None, False, False, None])

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
            self.send(link.channel, DISPOSITION, [True, delivery_id, delivery_id, True, state, False])
        if isinstance(link, RequestLink):
            link.receive(message)


def _raw_fields(frame: bytes, index: int) -> Encoded:
    """Field `index` of the performative in `frame`, still encoded: source and target are echoed as they came."""
    start = 1 + value_length(frame, 1)
    position = start + {0xC0: 3, 0xD0: 9}[frame[start]]
    for _ in range(index):
        position += value_length(frame, position)
    return Encoded(frame[position : position + value_length(frame, position)])
