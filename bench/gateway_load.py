"""The load of `bench.gateway`: kept-open connections that send one prepared request after the other.

A protocol of its own instead of an HTTP library: a client that takes longer than the gateway would measure itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED_END = b"\r\n0\r\n\r\n"
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Ask:
    """A prepared request, and how its answers are known to be good."""

    host: str
    port: int
    request: bytes
    proof: bytes  # is in every good answer

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], body: bytes, proof: bytes) -> Ask:
        """A POST of `body`."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        lines = [f"POST {parts.path} HTTP/1.1", f"host: {host}:{port}", f"content-length: {len(body)}"]
        lines += ["content-type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
        return cls(host, port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body, proof)


class Answered(asyncio.Protocol):
    """One connection; `ask` sends the request and returns what came back."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._transport: Any = None
        self._whole_at = -1  # bytes of the whole answer; -1: chunked, or not known yet
        self._has_head = False
        self._answer: asyncio.Future[bytes] | None = None
        self.begun = asyncio.Event()  # the head of an answer is there
        self.first_byte = 0.0  # perf_counter of the head of the last answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._has_head:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._has_head, self.first_byte = True, time.perf_counter()
            self.begun.set()
            length = _CONTENT_LENGTH.search(received, 0, end + 2)
            self._whole_at = end + 4 + int(length[1]) if length else -1
        done = len(received) >= self._whole_at if self._whole_at >= 0 else received.endswith(_CHUNKED_END)
        if done and self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(received))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def ask(self, ask: Ask) -> None:
        """One call. Raises SystemExit when the answer is not a good one: no figure may come from errors."""
        self._received.clear()
        self._has_head = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(ask.request)
        answer = await self._answer
        if not answer.startswith(b"HTTP/1.1 200") or ask.proof not in answer:
            raise SystemExit(f"port {ask.port} answered\n{answer[:1500].decode(errors='replace')}")

    def send(self, ask: Ask) -> None:
        """Only send: for streams that are left open."""
        self._transport.write(ask.request)

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()


@dataclass
class Round:
    """What one round of calls took."""

    calls: int
    seconds: float
    latencies_ms: list[float]
    first_bytes_ms: list[float]  # until the head of the answer

    @property
    def per_second(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


async def connect(ask: Ask) -> Answered:
    """A connection to the asked server."""
    _, protocol = await asyncio.get_running_loop().create_connection(Answered, ask.host, ask.port)
    return protocol


async def drive(ask: Ask, calls: int, connections: int) -> Round:
    """`calls` calls over so many connections, each waiting for its answer before it sends the next."""
    protocols = [await connect(ask) for _ in range(connections)]
    latencies: list[float] = []
    first_bytes: list[float] = []

    async def run(protocol: Answered, count: int) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            await protocol.ask(ask)
            latencies.append((time.perf_counter() - begun) * 1e3)
            first_bytes.append((protocol.first_byte - begun) * 1e3)

    each = calls // connections
    begun = time.perf_counter()
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        await asyncio.gather(*(run(protocol, each) for protocol in protocols))
    taken = Round(each * connections, time.perf_counter() - begun, latencies, first_bytes)
    for protocol in protocols:
        protocol.close()
    return taken
