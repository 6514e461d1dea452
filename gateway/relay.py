"""Passing a streamed answer through while it is produced, until either side ends it."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
from starlette.types import Receive, Scope, Send

from gateway.answers import Streamed
from gateway.stopping import GatewayStopping
from gateway.stream import stream_error

_GOODBYE_SECONDS = 0.5


class StreamRelay:
    """An ASGI response. The answer's `ended` is called once, when its stream has seen all that there will be.

    Not Starlette's StreamingResponse: when a client leaves, that one drops the body's iterator and lets the garbage
    collector end it, some time later; here the backend is let go and the event made at once.
    """

    def __init__(self, answer: Streamed, request_id: str) -> None:
        headers = answer.headers.items()
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._answer = answer
        self._stream = answer.stream
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the backend is done, fails, or the client is gone."""
        gone = asyncio.create_task(_client_gone(receive))
        relay = asyncio.create_task(self._relay(send, gone))
        is_cut = False
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            is_cut = not relay.done()
            raise
        finally:
            for task in (relay, gone):
                task.cancel()
            try:
                await asyncio.gather(relay, gone, return_exceptions=True)
            finally:  # even when the gateway is stopped right here
                # Before the close below, which may wait on the network: the event must not depend on it.
                self._answer.ended()
            if is_cut:
                await self._say_goodbye(send)
            with contextlib.suppress(httpx.HTTPError):  # already cut: there is nothing left to close
                await self._answer.upstream.aclose()

    async def _relay(self, send: Send, gone: asyncio.Task[None]) -> None:
        answer = self._answer
        await send({"type": "http.response.start", "status": answer.upstream.status_code, "headers": self._headers})
        try:
            if answer.first:
                await send({"type": "http.response.body", "body": answer.first, "more_body": True})
            if not self._stream.failed:
                async for piece in answer.pieces:
                    if visible := self._stream.feed(piece):
                        await send({"type": "http.response.body", "body": visible, "more_body": True})
                    if gone.done():  # sending to nobody takes no time, and what has piled up may be megabytes
                        return
                    if self._stream.failed:
                        break  # whatever else comes belongs to an answer that nobody can use
            rest = self._rest()
        except httpx.ReadTimeout:
            rest = self._error("the model backend fell silent in the middle of its answer")
        except httpx.HTTPError:
            rest = self._error("the model backend ended the stream early")
        await send({"type": "http.response.body", "body": rest, "more_body": False})

    async def _say_goodbye(self, send: Send) -> None:
        """Tell the client that the gateway stops, unless it does not even read what came before."""
        stopping = GatewayStopping()
        error = stream_error(stopping.code, stopping.message, self._request_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await send({"type": "http.response.body", "body": error, "more_body": False})

    def _rest(self) -> bytes:
        """What is left to say at the backend's end, which is no end unless the backend said so."""
        rest = self._stream.rest()
        if self._stream.finished or self._stream.failed or self._stream.usage is not None:
            return rest
        return rest + self._error("the model backend ended the stream early")

    def _error(self, message: str) -> bytes:
        """An error event. The status is long sent, and so it is how the client's SDK learns what happened."""
        self._answer.broken = True
        return stream_error("upstream_failed", message, self._request_id)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
