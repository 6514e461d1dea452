"""Passing a streamed answer through while it is produced, until either side ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import httpx
from starlette.types import Receive, Scope, Send

from gateway.providers.base import AnswerStream
from gateway.stream import stream_error

OnEnd = Callable[[], None]


class StreamRelay:
    """An ASGI response. `on_end` is called once, when `stream` has seen all that there will be.

    Not Starlette's StreamingResponse: when a client leaves, that one drops the body's iterator and lets the garbage
    collector end it, some time later; here the backend is let go and the event made at once.
    """

    def __init__(
        self, upstream: httpx.Response, headers: Mapping[str, str], stream: AnswerStream, request_id: str, on_end: OnEnd
    ) -> None:
        self._upstream = upstream
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._stream = stream
        self._request_id = request_id
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the backend is done, fails, or the client is gone."""
        relay = asyncio.create_task(self._relay(send))
        gone = asyncio.create_task(_client_gone(receive))
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (relay, gone):
                task.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)
            # Before the close below, which may wait on the network: the event must not depend on it.
            self._on_end()
            with contextlib.suppress(httpx.HTTPError):  # already cut: there is nothing left to close
                await self._upstream.aclose()

    async def _relay(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._upstream.status_code, "headers": self._headers})
        try:
            async for piece in self._upstream.aiter_bytes():
                if visible := self._stream.feed(piece):
                    await send({"type": "http.response.body", "body": visible, "more_body": True})
            rest = self._stream.rest()
        except httpx.HTTPError:
            # The status is long sent; an error event is how the client's SDK learns that the answer is incomplete.
            rest = stream_error("upstream_failed", "the model backend ended the stream early", self._request_id)
        await send({"type": "http.response.body", "body": rest, "more_body": False})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
