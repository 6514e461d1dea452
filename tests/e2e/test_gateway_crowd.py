"""Five hundred streams at once whose clients do not read, then all hang up.

Memory stays bounded, because the model is made to wait; every stream is let go of at once and billed once.
"""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from gateway.connections import allow_descriptors
from local.process import LOOPBACK, free_port
from tests.support.gateway_rig import MESSAGES, TEAM, open_rig
from tests.support.laptop import eventually

MODEL = "flood"
FEW, MANY = 50, 500
AT_ONCE = 10  # while they begin
MOST_TOKENS = 100
MOST_BYTES_PER_STREAM = 1024 * 1024  # of the gateway's memory, where 0.6 MiB was measured; the backend has no end
MEBIBYTE = 1024 * 1024
# Of the kernel's buffers, megabytes in each of which would take a minute to fill and show nothing more.
SMALL_BYTES, SMALL_SEGMENT_BYTES = 4096, 1400  # a sender's buffer has room for so many of its segments
CHUNK = {"choices": [{"index": 0, "delta": {"content": "word " * 800}, "finish_reason": None}]}
EVENT = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Flood:
    """A backend that streams without end, as fast as anybody takes it."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
        writer.write(HEAD)
        self.open += 1
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await writer.drain()
                self.sent_bytes += len(EVENT)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self.open -= 1
            writer.close()


class Sleeper:
    """A client that reads a stream's beginning and then nothing."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def begin(self) -> None:
        """Return once the answer has begun."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)  # before it connects, or it says too much
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT_BYTES)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (LOOPBACK, self.port))
        self._reader, self._writer = await asyncio.open_connection(sock=client, limit=SMALL_BYTES)
        body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": MOST_TOKENS}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: local-{TEAM}\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = await self._reader.readline()
        assert status.startswith(b"HTTP/1.1 200"), status + await self._reader.read(2000)
        await self._reader.readuntil(b"data: ")

    def leave(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


@pytest.fixture(scope="module")
def flood_port():
    return free_port()


@pytest.fixture(scope="module")
def rig(tmp_path_factory, flood_port):
    with open_rig(tmp_path_factory.mktemp("crowd"), flood_port) as rig:
        yield rig


async def settled_bytes(gateway, flood) -> int:
    """The gateway's memory once the backend is held: nothing more is sent for a while."""
    sent = -1
    async with asyncio.timeout(60):
        while sent != flood.sent_bytes:
            sent = flood.sent_bytes
            await asyncio.sleep(1)
    return gateway.resident_bytes()


async def test_five_hundred_streams_take_bounded_memory_and_are_billed_when_all_hang_up(rig, flood_port):
    """Clients that stall hold up the backend through the gateway, which keeps little of each stream. When they all
    leave at once, the backend is let go of, each stream is billed once for what went by, and nothing stays held.
    """
    allow_descriptors()  # this process is both ends of every stream
    flood = Flood()
    server = await asyncio.start_server(flood.serve, LOOPBACK, flood_port)
    # What is measured is memory; on a busy machine the flood may keep the loop from Redis's answers for a second.
    gateway = rig.start_gateway(REDIS_TIMEOUT_SECONDS="20")
    clients: list[Sleeper] = []
    memory: dict[int, int] = {}
    for count in (FEW, MANY):
        while len(clients) < count:
            new = [Sleeper(int(gateway.url.rpartition(":")[2])) for _ in range(AT_ONCE)]
            await asyncio.gather(*(client.begin() for client in new))
            clients += new
        assert flood.open == count
        memory[count] = await settled_bytes(gateway, flood)
    per_stream = (memory[MANY] - memory[FEW]) / (MANY - FEW)
    print(f"{memory[FEW] / MEBIBYTE:.0f} MiB at {FEW}, {memory[MANY] / MEBIBYTE:.0f} MiB at {MANY} streams:")
    print(f"{per_stream / 1024:.0f} KiB each, while the backend sent {flood.sent_bytes / MANY / 1024:.0f} KiB each")
    assert per_stream < MOST_BYTES_PER_STREAM
    for client in clients:
        client.leave()
    async with asyncio.timeout(30):
        while flood.open:  # noqa: ASYNC110 - the backend notices one by one
            await asyncio.sleep(0.1)
    server.close()
    calls = await asyncio.to_thread(
        eventually, lambda: found if len(found := rig.laptop.rows_by_request()) >= MANY else None, 60
    )
    rows = [row for rows in calls.values() for row in rows]
    assert len(calls) == len(rows) == MANY
    assert {(row.kind, row.measured, row.streamed, row.status) for row in rows} == {("usage", False, True, 200)}
    assert {row.tokens["output"] for row in rows} == {MOST_TOKENS}  # more went by, which no answer can have
    await asyncio.to_thread(rig.assert_nothing_held)
    await asyncio.to_thread(rig.assert_counters_are_the_ledger)
