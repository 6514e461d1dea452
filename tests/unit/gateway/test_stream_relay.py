"""Relaying a stream to a client that leaves: what was read of the backend until then counts, and nothing more is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from gateway.relay import StreamRelay

PIECES = 1000  # that wait in memory, in front of a client that did not read


class Stream:
    """A stream that shows all it is fed."""

    failed = False
    finished = False
    usage = None

    def feed(self, piece):
        return piece


class Answer:
    """An answer whose pieces are all there already, so that taking them gives nobody else a turn."""

    def __init__(self):
        self.headers = {"content-type": "text/event-stream"}
        self.stream = Stream()
        self.first = b""
        self.upstream = SimpleNamespace(status_code=200, aclose=self._close)
        self.pieces = self._come()
        self.taken = 0
        self.heard: list[str] = []

    async def _come(self):
        while self.taken < PIECES:
            self.taken += 1
            yield b"data: {}\n\n"

    def ended(self):
        self.heard.append("ended")

    async def _close(self):
        self.heard.append("closed")


async def test_what_piled_up_before_a_client_that_left_is_not_gone_through():
    """As uvicorn has it: a full socket makes `send` wait, a hang-up wakes it, and from then on it returns at once.

    Five hundred clients that hang up together would else hold the gateway up for many seconds, with megabytes of each.
    """
    answer, left = Answer(), asyncio.Event()

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            await left.wait()

    relaying = asyncio.create_task(StreamRelay(answer, "r-1")({"type": "http"}, receive, send))
    await asyncio.sleep(0.01)
    assert answer.taken == 1
    left.set()
    await asyncio.wait_for(relaying, 5)
    assert answer.taken == 1
    assert answer.heard == ["ended", "closed"]
