"""What a connection may take that says nothing, does not end, or does not read: nobody needs a key for any of it."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn

from gateway.connections import MOST_CONNECTIONS, MOST_HEAD_BYTES, BoundedProtocol, allow_descriptors

HEAD = b"POST / HTTP/1.1\r\nhost: gateway\r\n"


class Hasty(BoundedProtocol):
    """The same with less patience."""

    head_seconds, unread_seconds = 0.3, 0.5


class Full(BoundedProtocol):
    """The same with room for two."""

    most_connections = 2


class App:
    """Answers with as many bytes as it is told; counts what it was asked and what was cut."""

    def __init__(self, answer_bytes: int = 2) -> None:
        self.answer_bytes = answer_bytes
        self.asked = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.left = asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = b"x" * min(self.answer_bytes, 65_536)
        for _ in range(0, self.answer_bytes, 65_536):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if (await receive())["type"] == "http.disconnect":
            self.left.set()


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """One connection to a server of the app."""
    async with served(app, Hasty) as address:
        reader, writer = await asyncio.open_connection(*address, limit=2**16)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@asynccontextmanager
async def served(app: App, protocol: type[BoundedProtocol]) -> AsyncIterator[tuple[str, int]]:
    """The address of a server of the app."""
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, not an event
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        await task


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What is read until the server ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(-1), 20)
    except ConnectionError:
        return b""


async def test_a_connection_on_which_nothing_is_asked_ends():
    """Thousands of them would take every descriptor that the process has."""
    async with connected(App()) as (reader, _):
        assert await ended(reader) == b""


async def test_a_head_that_comes_byte_by_byte_has_one_deadline():
    """Each byte does not begin the wait anew."""
    app = App()
    async with connected(app) as (reader, writer):
        end = asyncio.create_task(ended(reader))
        for byte in HEAD * 20:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if end.done():
                break
        assert end.done()
    assert app.asked == 0


async def test_a_header_without_end_is_refused_after_so_many_bytes():
    """It would grow in memory until the process dies, and nobody asked yet who sends it."""
    sent = 0
    async with connected(App()) as (reader, writer):
        end = asyncio.create_task(ended(reader))
        writer.write(HEAD + b"x-long: ")
        try:
            while not end.done() and sent < 100 * MOST_HEAD_BYTES:
                writer.write(b"a" * 16_384)
                sent += 16_384
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        answer = await end
    assert sent < 100 * MOST_HEAD_BYTES
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")  # the reset may overtake the answer


async def test_endless_headers_are_refused_too():
    """Many small ones are as large as a large one."""
    async with connected(App()) as (reader, writer):
        end = asyncio.create_task(ended(reader))
        writer.write(HEAD)
        try:
            for _ in range(100):
                writer.write(b"x-many: a\r\n" * 2_000)
                await writer.drain()
                await asyncio.sleep(0)
                if end.done():
                    break
        except ConnectionError:
            pass
        answer = await end
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_goes_on_after_its_answer_ends_with_the_connection():
    """Who was refused may still send for a moment, not for ever."""
    app = App()
    async with connected(app) as (reader, writer):
        writer.write(HEAD + b"content-length: 1000000\r\n\r\n")
        end = asyncio.create_task(ended(reader))
        for _ in range(500):
            writer.write(b"a")
            await asyncio.sleep(0.02)
            if end.done():
                break
        assert (await end).startswith(b"HTTP/1.1 200 ")
    assert app.asked == 1


async def test_who_does_not_read_the_answer_is_cut_off():
    """Else whoever relays it would wait, and keep the model's connection, for as long as the client likes."""
    app = App(answer_bytes=64 * 1024 * 1024)
    async with connected(app) as (_, writer):
        writer.write(HEAD + b"content-length: 0\r\n\r\n")
        await asyncio.wait_for(app.left.wait(), 20)


async def test_connections_are_kept_for_further_calls():
    """The bounds are for heads that do not come: two calls in a row on one connection are served as before."""
    app = App()
    async with connected(app) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"content-length: 2\r\n\r\n{}")
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.4)  # longer than a head may take
    assert app.asked == 2


async def test_a_connection_on_which_nothing_goes_on_makes_room_for_the_next():
    """Whoever holds all that there may be, and asks nothing, keeps nobody out."""
    app = App()
    async with served(app, Full) as (host, port), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        idle = [await asyncio.open_connection(host, port) for _ in range(Full.most_connections)]
        assert (await client.post("/")).status_code == 200
        ends = [asyncio.create_task(ended(reader)) for reader, _ in idle]
        done, others = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(others)) == (1, 1)
        for _, writer in idle:
            writer.transport.abort()
        await asyncio.wait(ends)


async def test_a_call_beyond_all_that_may_be_served_at_once_is_told_so():
    """Those under way go on, and the one too many gets an error that SDKs understand; health is told all the same."""
    app = App()
    app.may_end.clear()
    async with served(app, Full) as (host, port), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        under_way = [asyncio.create_task(client.post("/")) for _ in range(Full.most_connections)]
        while app.asked < Full.most_connections:  # noqa: ASYNC110 - the stand-in has no event to wait for
            await asyncio.sleep(0.01)
        refused = await client.post("/", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("2", "close")
        healthy = asyncio.create_task(client.get("/health"))
        while app.asked == Full.most_connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        app.may_end.set()
        assert [answer.status_code for answer in await asyncio.gather(*under_way, healthy)] == [200] * 3
        assert (await client.post("/")).status_code == 200


def test_a_shells_limit_of_open_files_does_not_bound_the_streams():
    """Begun with room for few, the process takes what all its connections and their models' need, or all there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= 1_024
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1_000, soft), hard))
        allow_descriptors()
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert allowed == hard or allowed > 2 * MOST_CONNECTIONS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
