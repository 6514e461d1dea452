"""A fake model that costs next to nothing, for `bench.gateway`: canned chat completions and streams over HTTP/1.1.

python -m bench.gateway_model PORT

A request is answered as soon as its last byte is there: with a stream when its body says `"stream":true`. What a call
then takes beside asking here directly is the gateway's own time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 48, 150
CHUNKS = 30
MODEL = "gpt-4o"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": ?true')
PAUSED = b"leave this stream open"  # a prompt that says so gets the first event and no end
_USAGE: dict[str, Any] = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
_HEAD: dict[str, Any] = {"id": "chatcmpl-bench", "created": 1_790_000_000, "model": MODEL, "service_tier": "default"}


def _whole() -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": "A ticket about printers. " * 24, "refusal": None}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = json.dumps(_HEAD | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def _stream() -> list[bytes]:
    """The head, then the events, each a chunk of the transfer and a write of its own, as models produce them."""
    head = _HEAD | {"object": "chat.completion.chunk", "usage": None}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": " printer ticket word more"} for _ in range(CHUNKS)]
    choices: list[list[dict[str, Any]]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices += [[{"index": 0, "delta": {}, "finish_reason": "stop"}]]
    events = [json.dumps(head | {"choices": choice}) for choice in choices]
    events += [json.dumps(head | {"choices": [], "usage": _USAGE}), "[DONE]"]
    pieces = [_chunk(f"data: {event}\n\n".encode()) for event in events]
    start = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [start + pieces[0], *pieces[1:-1], pieces[-1] + b"0\r\n\r\n"]


WHOLE, STREAM = _whole(), _stream()


class FakeModel(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _CONTENT_LENGTH.search(self._received, 0, end)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        body, self._received = self._received[end + 4 :], b""
        if not _STREAMED.search(body):
            self._transport.write(WHOLE)
        elif PAUSED in body:
            self._transport.write(STREAM[0])
        else:
            self._write(0)

    def _write(self, at: int) -> None:
        """One event per turn of the loop, so that they leave in packets of their own."""
        self._transport.write(STREAM[at])
        if at + 1 < len(STREAM):
            asyncio.get_running_loop().call_soon(self._write, at + 1)


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(FakeModel, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
