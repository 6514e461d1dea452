"""The TCP connection behind a request, for faults that HTTP itself cannot express: a reset, and noticing who left."""

from __future__ import annotations

import asyncio
import socket
import struct
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_POLL_SECONDS = 0.02
_LINGER_ZERO = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN, and what is not sent yet is lost
_transports: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()


class Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # uvicorn picks its base when it is imported
    """uvicorn's own, which remembers the transport of each client."""

    def connection_made(self, transport: Any) -> None:
        """Called by the event loop."""
        super().connection_made(transport)
        if isinstance(peer := transport.get_extra_info("peername"), tuple):
            _transports[peer[:2]] = transport


class Connection:
    """The connection of the request that is being answered."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._client = tuple(scope["client"]) if scope.get("client") else None
        self._receive = receive
        self.is_gone = asyncio.Event()  # the client hung up

    def reset(self) -> None:
        """Send RST where the server knows the transport; elsewhere what the caller raises next cuts the connection."""
        transport = _transports.get(self._client) if self._client is not None else None
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            transport.abort()

    async def gone(self) -> None:
        """Return once the client has hung up. The request's body must have been read."""
        while not self.is_gone.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_gone.set()
            await asyncio.sleep(_POLL_SECONDS)


CONNECTION: ContextVar[Connection] = ContextVar("connection")


def with_connection(app: ASGIApp) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The app with CONNECTION set for every request."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            CONNECTION.set(Connection(scope, receive))
        await app(scope, receive, send)

    return wrapped
