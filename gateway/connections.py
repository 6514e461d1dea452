"""How many connections there may be, and what each may take before it has said anything: bytes, and time.

Without bounds anybody who reaches the port, with or without a key, could fill the memory with one endless header, or
hold any number of connections open by sending nothing, a byte now and then, or never reading what was answered.
Of these uvicorn bounds the number only, and whoever is one too many, health checks included, it refuses in plain text.
"""

from __future__ import annotations

import asyncio
import resource
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MOST_CONNECTIONS = 2_000  # twice as many as lead to models; streams on all of them would hold some 70 MiB
MOST_HEAD_BYTES = 64 * 1024  # method, path and headers; a token of Entra ID with many groups is a quarter of it
_DESCRIPTORS = 2 * MOST_CONNECTIONS + 256  # a call's own and its model's; 256 for Redis, the hub, files
HEAD_SECONDS = 30.0  # for a whole head, and for the rest of a body that was answered before its end
UNREAD_SECONDS = 120.0  # that a client may leave its connection full of what it does not read


def allow_descriptors() -> None:
    """Raise this process's limit of open files, as far as the system lets it, to what the most connections take.

    Shells and services begin with 1,024 where the system allows far more: with those, the 500th stream finds none left.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class TooManyConnections(TollkeeperError):
    """As many calls are being served as there may be connections."""

    code, http_status, kind = "too_many_connections", 503, "server_error"


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds."""

    most_connections, head_seconds, unread_seconds = MOST_CONNECTIONS, HEAD_SECONDS, UNREAD_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Someone connected; the clock runs."""
        super().connection_made(transport)
        self._wait_for_head()
        self._has_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it all that was waited for."""
        self._no_longer_waiting()
        self._read_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of a body, which whoever reads it bounds."""
        is_continued = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._deadline is None:
            self._wait_for_head()
        if is_continued:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._no_longer_waiting()
        if self.url != b"/health" and not self._has_room():  # refused, a health check would have the gateway restarted
            self.app = _no_room
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Answered, which may be before the end of the body: a refusal reads none of it."""
        super().on_response_complete()
        if self.cycle.more_body and self._deadline is None:
            self._wait_for_head()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read on."""
        self._read_again()
        super().resume_writing()

    def _has_room(self) -> bool:
        """Whether there is room for this connection. Others are cut off for it on which nothing goes on."""
        too_many = len(self.connections) - self.most_connections
        for other in self.connections:
            if too_many <= 0:
                break
            if isinstance(other, BoundedProtocol) and other is not self and other._is_idle():
                other.transport.abort()
                too_many -= 1
        return too_many <= 0

    def _is_idle(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete or self.transport.is_closing()
        return is_answered and not self.transport.get_write_buffer_size()

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def _no_longer_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:  # else an answer is under way, which ends by itself
            self.transport.abort()


async def _no_room(scope: Scope, receive: Receive, send: Send) -> None:
    error = TooManyConnections("the gateway serves as many calls as it can; try again shortly", retry_after_seconds=2)
    headers = {**error.headers(), "x-request-id": uuid.uuid4().hex, "connection": "close"}
    await JSONResponse(error.body(), error.http_status, headers)(scope, receive, send)
