"""The transport to the backends: what it sends, and which of httpx's errors a broken backend becomes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.transport import AiohttpTransport, open_transport
from local.process import free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
QUIET = {"connect": 5.0, "pool": 5.0, "read": 0.2}


class Backend:
    """A server that reads requests and answers each with the same bytes, then closes or goes on."""

    def __init__(self, answer: bytes, then: str = "go on") -> None:
        self.answer, self.then = answer, then
        self.requests: list[bytes] = []
        self.connections = 0
        self.cut = asyncio.Event()  # the client closed a connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await reader.readexactly(len(b"{}")))
                writer.write(self.answer)
                await writer.drain()
                if self.then == "close":
                    return
                if self.then == "reset":
                    writer.transport.abort()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut.set()
        finally:
            writer.close()


@asynccontextmanager
async def backend_of(answer: bytes, then: str = "go on"):
    backend = Backend(answer, then)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    transport = AiohttpTransport(httpx.Limits(max_connections=10))
    try:
        yield backend, transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await transport.aclose()
        server.close()


def request_to(url: str, **extensions: object) -> httpx.Request:
    return httpx.Request("POST", url, content=b"{}", headers={"api-key": "k"}, extensions=extensions)


async def ask(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> bytes:
    response = await transport.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def test_it_sends_what_the_request_says_and_keeps_the_connection():
    """Two calls share one connection; the path stays as it was escaped, and the first answer's cookie stays away."""
    async with backend_of(WHOLE) as (backend, transport, url):
        for _ in range(2):
            assert await ask(transport, request_to(f"{url}/a%2Fb?api-version=1")) == b"ok"
    assert backend.connections == 1
    assert len(backend.requests) == 2
    for sent in backend.requests:
        assert sent.startswith(b"POST /a%2Fb?api-version=1 HTTP/1.1\r\n")
        assert sent.endswith(b"\r\n\r\n{}")
        names = [line.partition(b":")[0].lower() for line in sent.split(b"\r\n")[1:-2]]
        assert sorted(names) == [b"api-key", b"content-length", b"host"]


async def test_what_was_asked_is_gone_once_the_answer_begins():
    """It may be 32 MiB of images, and the answer's stream may take minutes."""
    async with backend_of(WHOLE) as (_, transport, url):
        request = request_to(url)
        response = await transport.handle_async_request(request)
        assert (request.content, response.request.content) == (b"", b"")
        assert await response.aread() == b"ok"
        await response.aclose()


async def test_a_redirect_is_an_answer():
    """Followed, it would carry the credential to wherever the answer points."""
    answer = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with backend_of(answer) as (backend, transport, url):
        response = await transport.handle_async_request(request_to(url))
        assert response.status_code == 307
        await response.aclose()
    assert len(backend.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{closed_port}", "http://no-such-host.invalid", "ftp://127.0.0.1"])
async def test_what_was_never_sent_says_so(url):
    """Only these errors may cost the caller nothing."""
    transport = AiohttpTransport(httpx.Limits())
    url = url.format(closed_port=free_port())
    with pytest.raises((httpx.ConnectError, httpx.UnsupportedProtocol)):
        await ask(transport, request_to(url, timeout={"connect": 5.0, "pool": 5.0, "read": 5.0}))
    await transport.aclose()


@pytest.mark.parametrize(
    ("answer", "then", "error"),
    [
        (b"", "close", httpx.RemoteProtocolError),
        (b"", "reset", (httpx.ReadError, httpx.RemoteProtocolError)),
        (b"", "go on", httpx.ReadTimeout),
        (b"HTTP/1.1 200 OK\r\ncontent-len", "close", httpx.RemoteProtocolError),
        (b"this is no HTTP\r\n\r\n", "close", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "close", httpx.RemoteProtocolError),
        (CHUNKED + b"4\r\nhalf\r\n", "close", httpx.RemoteProtocolError),
        (CHUNKED + b"nonsense\r\n", "go on", httpx.RemoteProtocolError),
        (CHUNKED + b"4\r\nhalf\r\n", "go on", httpx.ReadTimeout),
    ],
)
async def test_what_may_have_been_served_never_looks_unsent(answer, then, error):
    """Whatever breaks once the request is on its way is none of the errors that free the caller of the bill."""
    async with backend_of(answer, then) as (backend, transport, url):
        with pytest.raises(error):
            await ask(transport, request_to(url, timeout=QUIET))
    assert len(backend.requests) == 1, "and it was sent once"


async def test_silence_is_measured_by_what_the_request_says_once_the_head_is_there():
    """The wait for a first byte may be long; a stream that stalls is told apart by another limit."""
    async with backend_of(CHUNKED + b"4\r\nhalf\r\n") as (_, transport, url):
        timeout = {"connect": 5.0, "pool": 5.0, "read": 60.0}
        response = await transport.handle_async_request(request_to(url, timeout=timeout))
        timeout["read"] = 0.2
        begun = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()
        assert time.monotonic() - begun < 30
        await response.aclose()


async def test_an_answer_left_in_the_middle_is_cut():
    """The backend learns that nobody reads on, and the half-read connection serves no other call."""
    async with backend_of(CHUNKED + b"4\r\nhalf\r\n") as (backend, transport, url):
        response = await transport.handle_async_request(request_to(url))
        async for piece in response.aiter_bytes():
            assert piece == b"half"
            break
        await response.aclose()
        async with asyncio.timeout(10):
            await backend.cut.wait()


async def test_behind_a_proxy_calls_go_through_it(monkeypatch):
    """Where the environment names a proxy, a direct connection may not exist. Exceptions alone are no proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert isinstance(open_transport(httpx.Limits()), AiohttpTransport)
    async with backend_of(WHOLE) as (proxy, _, url):
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", url)
        transport = open_transport(httpx.Limits())
        assert await ask(transport, request_to("http://models.contoso.example/v1")) == b"ok"
        await transport.aclose()
    assert proxy.requests[0].startswith(b"POST http://models.contoso.example/v1 HTTP/1.1\r\n")
